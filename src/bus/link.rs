//! The one connection to Redis, and its supervisor.
//!
//! Only the supervisor connects, subscribes and unsubscribes, one command at a time: an UNSUBSCRIBE
//! that overtakes a newer SUBSCRIBE would leave a room deaf. The link is *up* only when a PING, every
//! SUBSCRIBE and every room's log have been answered: a Redis that is still loading its data accepts
//! the connection and the subscriptions, and knows nothing yet. `ConnectionManager` of the same crate
//! is not used: it subscribes again by itself and mistakes the answers for those of other commands.

mod catch_up;
mod receive;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem::replace;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisResult, Script};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{Names, RENEW};
use crate::{conn::lock, name::RoomName, room::Room, rooms::Rooms};

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

pub struct Link {
    client: Client,
    rooms: Arc<Rooms>,
    history: Script,
    /// To the supervisor: rooms to subscribe to and to read. A room is in it when it was made or has
    /// lost lines, so its length is bounded.
    unread: mpsc::UnboundedSender<Arc<Room>>,
    state: Mutex<State>,
    up: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// There while the link is up.
    connection: Option<MultiplexedConnection>,
    /// When lists of members can be believed again.
    settled: Option<Instant>,
}

impl Link {
    /// A link that is not up yet. Its supervisor runs as long as the program.
    pub fn start(client: Client, rooms: Arc<Rooms>) -> Arc<Link> {
        let (unread, work) = mpsc::unbounded_channel();
        let history = Script::new(include_str!("history.lua"));
        let (state, up) = (Mutex::default(), watch::Sender::new(false));
        let link = Arc::new(Link {
            client,
            rooms,
            history,
            unread,
            state,
            up,
        });
        tokio::spawn(link.clone().supervise(work));
        link
    }

    /// The connection, while the link is up.
    pub fn connection(&self) -> Option<MultiplexedConnection> {
        lock(&self.state).connection.clone()
    }

    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Waits until every dyno has had time to renew its names.
    pub async fn settled(&self) {
        let settled = lock(&self.state).settled;
        sleep_until(settled.unwrap_or_else(Instant::now)).await;
    }

    /// Has a room subscribed to and read; it is no longer behind when that is done.
    pub fn read(&self, room: Arc<Room>) {
        let _ = self.unread.send(room); // fails when the program ends
    }

    async fn supervise(self: Arc<Self>, mut work: mpsc::UnboundedReceiver<Arc<Room>>) {
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        loop {
            let alive = Arc::new(AtomicBool::new(true));
            let Err(e) = self.clone().serve(&mut work, &alive).await;
            alive.store(false, Relaxed);
            let was_up = self.up.send_replace(false);
            lock(&self.state).connection = None;
            if was_up || !replace(&mut told, true) {
                log::warn!("redis=down error={:?}", e.to_string());
                pause = FIRST_PAUSE;
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One connection, from connecting to its end.
    async fn serve(
        self: Arc<Self>,
        work: &mut mpsc::UnboundedReceiver<Arc<Room>>,
        alive: &Arc<AtomicBool>,
    ) -> RedisResult<Infallible> {
        let broken = Arc::new(Notify::new());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_push_sender(self.receiver(alive.clone(), broken.clone()));
        let mut con = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        ping(&mut con).await?;
        while work.try_recv().is_ok() {} // they are among all rooms
        let mut rooms = self.rooms.all();
        rooms.iter().for_each(|room| room.fall_behind());
        for batch in rooms.chunks(ROOMS_AT_ONCE) {
            self.read_logs(&mut con, batch).await?;
        }
        self.rise(&con);
        let (mut beat, mut sweep) = (interval(PING), interval(RENEW));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rooms.clear();
            tokio::select! {
                _ = work.recv_many(&mut rooms, ROOMS_AT_ONCE) => {
                    self.read_logs(&mut con, &rooms).await?;
                }
                _ = beat.tick() => ping(&mut con).await?,
                _ = sweep.tick() => self.sweep(&mut con).await?,
                _ = broken.notified() => return Err((ErrorKind::Io, "connection lost").into()),
            }
        }
    }

    fn rise(&self, con: &MultiplexedConnection) {
        let mut state = lock(&self.state);
        let first = state.settled.is_none();
        state.settled = Some(Instant::now() + if first { Duration::ZERO } else { SETTLE });
        state.connection = Some(con.clone());
        self.up.send_replace(true);
        log::info!("redis=up rooms={}", self.rooms.count());
    }

    /// Drops the rooms that nobody is in, and reads those again that could not be read.
    async fn sweep(&self, con: &mut MultiplexedConnection) -> RedisResult<()> {
        for names in self.rooms.sweep(0).chunks(ROOMS_AT_ONCE) {
            con.unsubscribe(names.iter().map(key).collect::<Vec<_>>())
                .await?;
        }
        let behind = self.rooms.all().into_iter().filter(|room| room.is_behind());
        behind.for_each(|room| self.read(room));
        Ok(())
    }
}

async fn ping(con: &mut MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("PING").query_async(con).await
}

/// The key of a room's stream, and its channel. The others begin with it.
pub fn key(room: &RoomName) -> String {
    format!("chat:{{{}}}", room.as_str())
}

/// Folded → shown name, from folded → owner (40 hex digits) and shown name.
pub fn shown_names(owners: BTreeMap<String, String>) -> Names {
    let shown = |owner: String| owner.get(40..).map(str::to_owned);
    owners
        .into_iter()
        .filter_map(|(folded, owner)| Some((folded, shown(owner)?)))
        .collect()
}
