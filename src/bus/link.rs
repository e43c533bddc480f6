//! The one connection to Redis, and its supervisor.
//!
//! Only the supervisor connects, subscribes and unsubscribes, one command at a time: an UNSUBSCRIBE
//! that overtakes a newer SUBSCRIBE would leave a room deaf. The link is *up* only when a PING, every
//! SUBSCRIBE and every room's log have been answered: a Redis that is still loading its data accepts
//! the connection and the subscriptions, and knows nothing yet. `ConnectionManager` of the same crate
//! is not used: it subscribes again by itself and mistakes the answers for those of other commands.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    mem::replace,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisResult, Script,
    ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{AT_ONCE, Names, SETTLE};
use crate::{
    conn::{Conn, lock},
    frame::code,
    history,
    name::RoomName,
    room::{CatchUp, Delivery, Room, Rows},
    rooms::Rooms,
};

/// An answer that takes longer is taken for lost, and so is the connection.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(1);
/// Between attempts to connect: doubled up to the longest, with jitter, for ever.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Rooms in one SUBSCRIBE.
const ROOMS_AT_ONCE: usize = 256;
/// Over this long the connections of a room whose log broke off are closed.
const SPREAD: Duration = Duration::from_secs(3);

pub struct Link {
    client: Client,
    rooms: Arc<Rooms>,
    history: Script,
    /// There while the link is up.
    connection: Mutex<Option<MultiplexedConnection>>,
    up: watch::Sender<bool>,
    /// The link has been up before: names may lapse while it is away.
    risen: AtomicBool,
    /// When lists of members can be believed again.
    settled: Mutex<Instant>,
    work: Arc<Work>,
}

/// What waits for the supervisor.
#[derive(Default)]
struct Work {
    /// Rooms to subscribe to and to read. Each is there once, when it is made or has lost lines.
    unread: Mutex<Vec<Arc<Room>>>,
    sweep: AtomicBool,
    wake: Notify,
}

impl Work {
    fn read(&self, room: Arc<Room>) {
        lock(&self.unread).push(room);
        self.wake.notify_one();
    }

    fn next(&self) -> Vec<Arc<Room>> {
        let mut unread = lock(&self.unread);
        let n = unread.len().min(ROOMS_AT_ONCE);
        unread.drain(..n).collect()
    }

    /// Hands out what has gathered for a room, a batch at a time.
    async fn deliver(self: Arc<Self>, room: Arc<Room>) {
        loop {
            match room.deliver() {
                Delivery::More => tokio::task::yield_now().await,
                Delivery::Lost => return self.read(room),
                Delivery::Done => return,
            }
        }
    }
}

impl Link {
    pub fn new(client: Client, rooms: Arc<Rooms>) -> Link {
        Link {
            client,
            rooms,
            history: Script::new(include_str!("history.lua")),
            connection: Mutex::new(None),
            up: watch::Sender::new(false),
            risen: AtomicBool::new(false),
            settled: Mutex::new(Instant::now()),
            work: Arc::default(),
        }
    }

    /// The connection, while the link is up.
    pub fn connection(&self) -> Option<MultiplexedConnection> {
        lock(&self.connection).clone()
    }

    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Waits until every dyno has had time to renew its names.
    pub async fn settled(&self) {
        let settled = *lock(&self.settled);
        sleep_until(settled).await;
    }

    /// Has a room subscribed to and read. It is not behind when that is done.
    pub fn read(&self, room: Arc<Room>) {
        self.work.read(room);
    }

    /// Has the rooms that nobody is in dropped and unsubscribed from.
    pub fn sweep(&self) {
        self.work.sweep.store(true, Relaxed);
        self.work.wake.notify_one();
    }

    /// Connects, serves, and connects again, for ever.
    pub async fn run(&self) {
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        loop {
            let alive = Arc::new(AtomicBool::new(true));
            let Err(e) = self.serve(&alive).await;
            alive.store(false, Relaxed);
            *lock(&self.connection) = None;
            let was_up = self.up.send_replace(false);
            if was_up {
                pause = FIRST_PAUSE;
            }
            if was_up || !replace(&mut told, true) {
                log::warn!("redis=down error={:?}", e.to_string());
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One connection, from connecting to its end.
    async fn serve(&self, alive: &Arc<AtomicBool>) -> RedisResult<Infallible> {
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
        let rooms = self.rooms.all();
        rooms.iter().for_each(|room| room.fall_behind());
        *lock(&self.work.unread) = rooms;
        let mut beat = interval(PING);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let batch = self.work.next()
                && !batch.is_empty()
            {
                self.read_all(&mut con, batch).await?;
            }
            if !*self.up.borrow() {
                self.rise(&con);
            }
            tokio::select! {
                _ = self.work.wake.notified() => {}
                _ = beat.tick() => ping(&mut con).await?,
                _ = broken.notified() => return Err((ErrorKind::Io, "connection lost").into()),
            }
            if self.work.sweep.swap(false, Relaxed) {
                for names in self.rooms.sweep(0).chunks(ROOMS_AT_ONCE) {
                    con.unsubscribe(names.iter().map(key).collect::<Vec<_>>())
                        .await?;
                }
                // Those that Redis would not let us read are tried again.
                let behind = self.rooms.all().into_iter().filter(|room| room.is_behind());
                lock(&self.work.unread).extend(behind);
            }
        }
    }

    fn rise(&self, con: &MultiplexedConnection) {
        let settle = if self.risen.swap(true, Relaxed) {
            SETTLE
        } else {
            Duration::ZERO
        };
        *lock(&self.settled) = Instant::now() + settle;
        *lock(&self.connection) = Some(con.clone());
        self.up.send_replace(true);
        log::info!("redis=up rooms={}", self.rooms.count());
    }

    /// Takes what Redis pushes. It runs within the connection's own task and so must not wait: lines
    /// are put into the room's inbox, and someone is asked to deliver them.
    fn receiver(
        &self,
        alive: Arc<AtomicBool>,
        broken: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), ()> + use<> {
        let (rooms, work) = (self.rooms.clone(), self.work.clone());
        move |push| {
            match (push.kind, <[Value; 2]>::try_from(push.data)) {
                _ if !alive.load(Relaxed) => {} // what a dropped connection still brings
                (PushKind::Disconnection, _) => broken.notify_one(),
                (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(line)])) => {
                    if let Some(room) = name_in(&channel).and_then(|name| rooms.get(name)) {
                        if line == b"names" {
                            rooms.nudge(&room);
                        } else if room.gather(line) {
                            tokio::spawn(work.clone().deliver(room));
                        }
                    }
                }
                _ => {} // answers to SUBSCRIBE, and kinds that later versions may bring
            }
            Ok(())
        }
    }

    /// Subscribes to rooms, then reads their logs: what is said in between comes by push.
    async fn read_all(
        &self,
        con: &mut MultiplexedConnection,
        rooms: Vec<Arc<Room>>,
    ) -> RedisResult<()> {
        con.subscribe(rooms.iter().map(|room| key(&room.name)).collect::<Vec<_>>())
            .await?;
        let reads = rooms
            .into_iter()
            .map(|room| self.read_log(con.clone(), room));
        stream::iter(reads)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn read_log(&self, mut con: MultiplexedConnection, room: Arc<Room>) -> RedisResult<()> {
        loop {
            let key = key(&room.name);
            let mut script = self.history.prepare_invoke();
            script.key(&key).key(format!("{key}:owners"));
            script
                .arg(room.last().to_string())
                .arg(history::MAX_MESSAGES)
                .arg(history::MAX_BYTES);
            type Reply = (bool, bool, bool, Vec<Vec<u8>>, BTreeMap<String, String>);
            let (found, more, trimmed, lines, owners): Reply = match script
                .invoke_async(&mut con)
                .await
            {
                // Something is wrong with this room alone, a key of another type for instance.
                Err(e) if matches!(e.kind(), ErrorKind::Server(kind) if kind != ServerErrorKind::BusyLoading) =>
                {
                    log::warn!(
                        "room={:?} unread error={:?}",
                        room.name.as_str(),
                        e.to_string()
                    );
                    return Ok(());
                }
                reply => reply?,
            };
            if room.empty_since().is_some() {
                room.set_members(shown_names(owners));
            }
            match room.catch_up(Rows {
                lines,
                found,
                more,
                trimmed,
            }) {
                CatchUp::More => {}
                CatchUp::Gap(conns) => drop(tokio::spawn(close_spread(conns))),
                CatchUp::Done => {
                    self.work.clone().deliver(room).await;
                    return Ok(());
                }
            }
        }
    }
}

async fn ping(con: &mut MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("PING").query_async(con).await
}

/// Tells connections to resume, a few at a time, for they will all come to the same dynos.
async fn close_spread(conns: Vec<Arc<Conn>>) {
    let pause = SPREAD / conns.len().max(1) as u32;
    let start = Instant::now();
    for (n, conn) in conns.iter().enumerate() {
        sleep_until(start + pause * n as u32).await;
        conn.close(code::RESTART, "resume");
    }
}

/// The key of a room's stream, and its channel. The others begin with it.
pub fn key(room: &RoomName) -> String {
    format!("chat:{{{}}}", room.as_str())
}

fn name_in(channel: &[u8]) -> Option<&str> {
    str::from_utf8(channel)
        .ok()?
        .strip_prefix("chat:{")?
        .strip_suffix('}')
}

/// Folded → shown name, from folded → owner (40 hex digits) and shown name.
pub fn shown_names(owners: BTreeMap<String, String>) -> Names {
    let shown = |owner: String| owner.get(40..).map(str::to_owned);
    owners
        .into_iter()
        .filter_map(|(folded, owner)| Some((folded, shown(owner)?)))
        .collect()
}
