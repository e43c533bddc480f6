//! The one connection to Redis, and its supervisor. What comes by it is the business of `feed.rs`.
//!
//! Only the supervisor connects, subscribes and unsubscribes, one command at a time: an UNSUBSCRIBE
//! that overtakes a newer SUBSCRIBE would leave a room deaf. The link is *up* only when a PING, every
//! SUBSCRIBE and every room's log have been answered: a Redis that is still loading its data accepts
//! the connection and the subscriptions, and knows nothing yet. `ConnectionManager` of the same crate
//! is not used: it subscribes again by itself and mistakes the answers for those of other commands.

mod feed;

use std::sync::{Arc, Mutex};
use std::{collections::BTreeMap, convert::Infallible, mem::replace, time::Duration};

use redis::aio::MultiplexedConnection as Connection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisResult};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Names, RENEW, script::Script};
use crate::name::{Name, RoomName};
use crate::{bucket::Minute, lock, room::Room, rooms::Rooms};

/// An answer that takes longer is taken for lost, and so is the connection.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(1);
/// Between attempts to connect, for ever: doubled up to the longest, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Rooms in one SUBSCRIBE.
const ROOMS_AT_ONCE: usize = 256;
/// After Redis was away, how long every dyno has to renew its names before a list is believed.
const SETTLE: Duration = Duration::from_secs(3);

/// What helps against a certificate that nobody vouches for, such as that of Heroku's Redis.
const TRUST: &str = " hint=\"REDIS_TLS_VERIFY=false takes any certificate\"";

pub struct Link {
    client: Client,
    rooms: Arc<Rooms>,
    history: Script,
    /// To the supervisor: rooms to subscribe to and to read. A room is in it when it was made or has
    /// lost lines, so its length is bounded.
    unread: UnboundedSender<Arc<Room>>,
    /// There while the link is up, and from when on lists of members can be believed.
    connection: Mutex<Option<(Connection, Instant)>>,
    pub up: watch::Sender<bool>,
    /// One line is enough for all rooms that cannot be read in a minute.
    refused: Minute,
}

impl Link {
    /// A link that is not up yet. Its supervisor runs as long as the program.
    pub fn start(client: Client, rooms: Arc<Rooms>) -> Arc<Link> {
        let (unread, work) = unbounded_channel();
        let link = Arc::new(Link {
            client,
            rooms,
            history: Script::new(include_str!("history.lua")),
            unread,
            connection: Mutex::default(),
            up: watch::Sender::new(false),
            refused: Minute::default(),
        });
        tokio::spawn(link.clone().supervise(work));
        link
    }

    /// The connection, while the link is up, and when every dyno has had time to renew its names.
    pub fn connection(&self) -> Option<(Connection, Instant)> {
        lock(&self.connection).clone()
    }

    /// Has a room subscribed to and read; it is no longer behind when that is done.
    pub fn read(&self, room: Arc<Room>) {
        let _ = self.unread.send(room); // fails when the program ends
    }

    async fn supervise(self: Arc<Self>, mut unread: UnboundedReceiver<Arc<Room>>) {
        let (mut pause, mut settle, mut told) = (FIRST_PAUSE, Duration::ZERO, false);
        loop {
            let Err(e) = self.serve(&mut unread, settle).await;
            let was_up = self.up.send_replace(false);
            *lock(&self.connection) = None;
            if was_up {
                settle = SETTLE;
            }
            if !replace(&mut told, true) || was_up {
                let error = e.to_string();
                let doubted = error.contains("certificate"); // as rustls words it
                let hint = if doubted { TRUST } else { "" };
                log::warn!("redis=down error={error:?}{hint}");
                pause = FIRST_PAUSE;
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One connection, from connecting to its end.
    async fn serve(
        self: &Arc<Self>,
        unread: &mut UnboundedReceiver<Arc<Room>>,
        settle: Duration,
    ) -> RedisResult<Infallible> {
        let broken = Arc::new(Notify::new());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_push_sender(self.receiver(&broken));
        let client = &self.client;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut con = connecting.await?;
        ping(&mut con).await?;
        while unread.try_recv().is_ok() {} // every room is read below
        let mut rooms = self.rooms.all();
        rooms.iter().for_each(|room| room.fall_behind());
        for batch in rooms.chunks(ROOMS_AT_ONCE) {
            self.read_logs(&mut con, batch).await?;
        }
        *lock(&self.connection) = Some((con.clone(), Instant::now() + settle));
        self.up.send_replace(true);
        log::info!("redis=up rooms={}", self.rooms.count());
        let (mut beat, mut sweep) = (interval(PING), interval(RENEW));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rooms.clear();
            tokio::select! {
                _ = unread.recv_many(&mut rooms, ROOMS_AT_ONCE) => {
                    self.read_logs(&mut con, &rooms).await?;
                }
                _ = beat.tick() => ping(&mut con).await?,
                _ = sweep.tick() => self.sweep(&mut con).await?,
                _ = broken.notified() => return Err((ErrorKind::Io, "connection lost").into()),
            }
        }
    }

    /// Drops the rooms that nobody is in, and reads those again that could not be read.
    async fn sweep(&self, con: &mut Connection) -> RedisResult<()> {
        for names in self.rooms.sweep(0).chunks(ROOMS_AT_ONCE) {
            let keys: Vec<_> = names.iter().map(key).collect();
            con.unsubscribe(keys).await?;
        }
        let behind = self.rooms.all().into_iter().filter(|room| room.is_behind());
        behind.for_each(|room| self.read(room));
        Ok(())
    }
}

async fn ping(con: &mut Connection) -> RedisResult<()> {
    redis::cmd("PING").query_async(con).await
}

/// The key of a room's stream, and its channel. The others begin with it.
pub fn key(room: &RoomName) -> String {
    format!("chat:{{{}}}", room.as_str())
}

/// Folded → shown name, from folded → owner (40 hex digits) and shown name. Only what is a name:
/// whoever reaches the Redis can write there.
pub fn shown_names(owners: BTreeMap<Vec<u8>, Vec<u8>>) -> Names {
    let name = |(folded, owner): (Vec<u8>, Vec<u8>)| {
        let name = Name::new(str::from_utf8(owner.get(40..)?).ok()?)?;
        (name.folded.as_bytes() == folded).then_some((name.folded, name.shown))
    };
    owners.into_iter().filter_map(name).collect()
}
