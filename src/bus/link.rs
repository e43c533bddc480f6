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
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{AT_ONCE, Names, RENEW};
use crate::{
    conn::{Conn, lock},
    frame::code,
    history,
    name::RoomName,
    room::Room,
    rooms::Rooms,
};

/// An answer that takes longer is taken for lost, and so is the connection.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(1);
/// Between attempts to connect, for ever: doubled up to the longest, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Rooms in one SUBSCRIBE.
const ROOMS_AT_ONCE: usize = 256;
/// Over this long the connections of a room whose log broke off are closed.
const SPREAD: Duration = Duration::from_secs(3);
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

    /// Takes what Redis pushes. It runs within the connection's own task and so must not wait: lines
    /// are put into the room's inbox, and someone is asked to deliver them.
    fn receiver(
        self: &Arc<Self>,
        alive: Arc<AtomicBool>,
        broken: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), ()> + use<> {
        let link = self.clone();
        move |push| {
            match (push.kind, <[Value; 2]>::try_from(push.data)) {
                _ if !alive.load(Relaxed) => {} // what a dropped connection still brings
                (PushKind::Disconnection, _) => broken.notify_one(),
                (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(line)])) => {
                    let Some(room) = name_in(&channel).and_then(|name| link.rooms.get(name)) else {
                        return Ok(()); // swept, and not yet unsubscribed from
                    };
                    if line == b"names" {
                        link.rooms.nudge(&room);
                    } else if room.gather(line) {
                        tokio::spawn(link.clone().deliver(room));
                    }
                }
                _ => {} // answers to SUBSCRIBE, and kinds that later versions may bring
            }
            Ok(())
        }
    }

    /// Hands out what has gathered for a room, a batch at a time.
    async fn deliver(self: Arc<Self>, room: Arc<Room>) {
        while room.deliver() {
            tokio::task::yield_now().await;
        }
        if room.lost_lines() {
            self.read(room);
        }
    }

    /// Subscribes to rooms, then reads their logs: what is said in between comes by push.
    async fn read_logs(
        self: &Arc<Self>,
        con: &mut MultiplexedConnection,
        rooms: &[Arc<Room>],
    ) -> RedisResult<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        con.subscribe(rooms.iter().map(|room| key(&room.name)).collect::<Vec<_>>())
            .await?;
        let rooms = rooms.iter().cloned();
        let reads = rooms.map(|room| self.read_log(con.clone(), room));
        stream::iter(reads)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn read_log(
        self: &Arc<Self>,
        mut con: MultiplexedConnection,
        room: Arc<Room>,
    ) -> RedisResult<()> {
        type Reply = (bool, bool, Vec<Vec<u8>>, BTreeMap<String, String>);
        let key = key(&room.name);
        loop {
            let mut script = self.history.prepare_invoke();
            script
                .key(&key)
                .key(format!("{key}:owners"))
                .arg(room.last().to_string());
            script.arg(history::MAX_MESSAGES).arg(history::MAX_BYTES);
            let (whole, more, lines, owners): Reply = match script.invoke_async(&mut con).await {
                Ok(reply) => reply,
                Err(e) => match e.kind() {
                    // Wrong with this room alone, a key of another type for instance: tried again.
                    ErrorKind::Server(kind) if kind != ServerErrorKind::BusyLoading => {
                        log::warn!(
                            "room={:?} unread error={:?}",
                            room.name.as_str(),
                            e.to_string()
                        );
                        return Ok(());
                    }
                    _ => return Err(e),
                },
            };
            if room.empty_since().is_some() {
                room.set_members(shown_names(owners));
            }
            let (up, cut) = room.catch_up(&lines, whole, more);
            if !cut.is_empty() {
                tokio::spawn(close_spread(cut));
            }
            if up {
                self.clone().deliver(room).await;
                return Ok(());
            }
        }
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

/// Tells connections to resume, one by one, for they will all come to the same dynos.
async fn close_spread(conns: Vec<Arc<Conn>>) {
    let pause = SPREAD / conns.len().max(1) as u32;
    for conn in conns {
        conn.close(code::RESTART, "resume");
        sleep(pause).await;
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
