//! The idea in one file: a chat over WebSockets, for several dynos that share one Redis. Read it from top to bottom, in
//! four steps. Each shortcut is named where it is taken, with the file of `src/` that does better.
//!
//!     REDIS_URL=redis://127.0.0.1:6379 cargo run --example single_file
//!
//! It serves the page of the real program, and speaks as much of docs/PROTOCOL.md as that page needs.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, error::Error, fs, io, process};

use futures_util::{SinkExt, StreamExt};
use redis::{AsyncCommands, AsyncConnectionConfig, FromRedisValue, PushInfo, PushKind};
use redis::{Client, ParsingError, RedisResult, aio::MultiplexedConnection};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{Receiver, Sender, error::RecvError};
use tokio::time::{interval, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, handshake::derive_accept_key};

/// Every page gets a Ping and a `tick` this often: the platform's router cuts a connection that is idle for 55 s.
const HEARTBEAT: Duration = Duration::from_secs(25);
const TICK: &str = r#"{"kind":"tick"}"#;
/// One channel for all rooms: each dyno receives each message. src/chat/follow.rs subscribes to the rooms in use.
const CHANNEL: &str = "single_file";
/// The room of a page that has not joined. Nobody can join it, because names are trimmed.
const NO_ROOM: &str = " ";

// ---- 1. Start: keep a connection to Redis, listen, and give every connection a task.

/// The state that all tasks share.
#[derive(Default)]
struct Hub {
    /// There while Redis is connected.
    redis: Mutex<Option<MultiplexedConnection>>,
    /// For each room in use: to every session in it on this dyno.
    rooms: Mutex<HashMap<String, Sender<Utf8Bytes>>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    simple_logger::init_with_level(log::Level::Info)?;
    let setting = |name, default: &str| env::var(name).unwrap_or(default.to_owned());
    let (hub, port) = (Arc::<Hub>::default(), setting("PORT", "3000"));
    // Over RESP3, what Redis pushes and what it answers share a connection. src/store/memory.rs works without a Redis.
    let url = setting("REDIS_URL", "redis://127.0.0.1:6379") + "?protocol=resp3";
    tokio::spawn(keep_redis(hub.clone(), Client::open(url)?));
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).await?;
    log::info!("listening=http://localhost:{port}");
    loop {
        // SIGTERM ends the process at once, and so does an error, such as too many open files. src/web/server.rs limits
        // connections, waits after an error, and lets the pages move to another dyno before it stops.
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(hub.clone(), BufReader::new(stream)));
    }
}

// ---- 2. HTTP by hand: a request asks for a file of the page, or for a WebSocket.

async fn serve(hub: Arc<Hub>, mut stream: BufReader<TcpStream>) -> io::Result<()> {
    // No deadline, any method, any Origin: src/web/server.rs and src/web/request.rs are strict.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8 * 1024 {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split([' ', '?']).nth(1).unwrap_or_default();
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Key"));
    // Each try of the page has a path of its own: see `open` in public/connection.js.
    if let (true, Some((_, key))) = (path.starts_with("/ws"), key) {
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        // A read buffer of 128 KiB, messages of up to 64 MiB: src/socket/reader.rs needs 512 bytes, and allows 8 KiB.
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        session(hub, socket).await;
        return Ok(());
    }
    // Read from disk for each request: src/web/answer.rs compiles the files in, with ETags and security headers.
    let name = path.trim_start_matches('/');
    let name = if name.is_empty() { "index.html" } else { name };
    let kind = match name.rsplit_once('.') {
        Some((_, kind @ ("html" | "css"))) => kind,
        _ => "javascript",
    };
    let file = fs::read(format!("{}/public/{name}", env!("CARGO_MANIFEST_DIR")));
    let (status, body) = match file {
        Ok(body) if !name.contains("..") => ("200 OK", body),
        _ => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/{kind}; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await
}

// ---- 3. A session serves one page: it answers what the page sends, and passes on what is published in its room.

/// Room and name, from the welcome on.
type Member = Option<(String, String)>;

async fn session(hub: Arc<Hub>, mut socket: WebSocketStream<BufReader<TcpStream>>) {
    let (mut member, mut frames) = (None, hub.subscribe(NO_ROOM));
    let mut heartbeat = interval(HEARTBEAT);
    loop {
        let frame = tokio::select! {
            incoming = socket.next() => match incoming {
                // No rate limit (src/chat/token_bucket.rs), no deadline for the join (src/chat/session.rs).
                Some(Ok(Message::Text(text))) => hub.answer(&text, &mut member, &mut frames).await,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                _ => break,
            },
            published = frames.recv() => Some(published.map(Message::Text).unwrap_or_else(|error| {
                frames = hub.subscribe(NO_ROOM); // nothing follows the Close
                match error {
                    RecvError::Closed => close(1012, "resume"), // Redis was lost
                    RecvError::Lagged(_) => close(4008, "too_slow"),
                }
            })),
            // A peer that does not answer the Ping stays: src/socket/conn.rs closes it after 50 s.
            _ = heartbeat.tick() => {
                let _ = socket.feed(Message::Ping(vec![].into())).await; // an error comes again below
                Some(Message::text(TICK)) // a page cannot see a Ping
            }
        };
        // Waits for a slow reader. src/socket/conn.rs never waits, and joins what has piled up into one write.
        if let Some(frame) = frame
            && socket.send(frame).await.is_err()
        {
            break;
        }
    }
    if let Some((room, user)) = member {
        // So others see a reload as "left" and "joined". A second tab loses its name when the first one closes. The
        // members of a killed dyno stay for ever. src/store/redis/lease.lua leases names for 20 s: nobody sees a reload
        // or a kill.
        hub.change_members("SREM", &room, &user).await;
    }
}

/// A page reconnects after all of these codes but 4400. src/protocol/error_code.rs has words for people, too.
fn close(code: u16, reason: &'static str) -> Message {
    let (code, reason) = (code.into(), reason.into());
    Message::Close(Some(CloseFrame { code, reason }))
}

impl Hub {
    /// The answer to a frame of a page, if there is one.
    async fn answer(
        &self,
        text: &str,
        member: &mut Member,
        frames: &mut Receiver<Utf8Bytes>,
    ) -> Option<Message> {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        match (frame["kind"].as_str(), &member) {
            (Some("join"), None) => {
                // Any text is a name, and anybody can take it. src/protocol/name.rs checks names, and lease.lua owners.
                let word = |field: &str| frame[field].as_str().unwrap_or_default().trim();
                let (room, user) = (word("room").to_owned(), word("user").to_owned());
                *frames = self.subscribe(&room);
                let Some(members) = self.change_members("SADD", &room, &user).await else {
                    return Some(close(1012, "resume")); // no Redis
                };
                let (name, token, boot) = (json!(user), &frame["token"], process::id());
                let dyno = json!(env::var("DYNO").unwrap_or("local".to_owned()));
                // No history, so a page that comes back may have missed something: src/chat/history.rs replays it.
                let (last, gap) = (new_id(), !frame["last"].is_null());
                *member = Some((room, user));
                Some(Message::text(format!(
                    r#"{{"kind":"welcome",{members},"user":{name},"token":{token},"dyno":{dyno},"boot":"{boot}","last":"{last}","gap":{gap},"history":[],"tick_ms":25000,"max_message":1000}}"#
                )))
            }
            (Some("talk"), Some((room, user))) => {
                // Nothing is stored: a page that is away has lost it, and if it is sent again, it is shown twice.
                // src/store/redis/talk.lua stores each message once, and publishes it in the same step.
                let (id, room, user) = (new_id(), json!(room), json!(user));
                let (message, cid) = (&frame["message"], &frame["cid"]);
                // The author's page finds the cid in it: that is the acknowledgement.
                let talk = format!(
                    r#"{{"kind":"talk","id":"{id}","room":{room},"user":{user},"message":{message},"cid":{cid}}}"#
                );
                let published = self.publish(talk).await;
                published.is_none().then(|| close(1012, "resume"))
            }
            (Some("ping"), _) => Some(Message::text(TICK)),
            (Some("quit"), _) => Some(close(1000, "quit")),
            _ => Some(close(4400, "bad_message")),
        }
    }
}

/// The clock and the process. Clocks differ, so pages may show two orders: talk.lua lets Redis choose the id.
fn new_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos();
    let within = (nanos % 1_000_000) << 24 | u128::from(process::id());
    format!("{}-{within}", nanos / 1_000_000)
}

// ---- 4. Redis: whatever happens in a room is published to all dynos, and comes back to each of them.

impl Hub {
    /// `None` if Redis has not answered. It may have published the frame all the same.
    async fn publish(&self, frame: String) -> Option<()> {
        let mut redis = lock(&self.redis).clone()?;
        redis.publish(CHANNEL, frame).await.ok()
    }

    /// Receives what will be published in a room.
    fn subscribe(&self, room: &str) -> Receiver<Utf8Bytes> {
        let mut rooms = lock(&self.rooms);
        let sessions = rooms.entry(room.to_owned()).or_insert(Sender::new(256));
        sessions.subscribe()
    }

    /// Adds (`SADD`) or removes (`SREM`) a member. Publishes the whole list, and returns it.
    async fn change_members(&self, command: &str, room: &str, user: &str) -> Option<String> {
        let mut redis = lock(&self.redis).clone()?;
        let (key, mut change) = (format!("single_file:{room}"), redis::pipe());
        change.cmd(command).arg(&key).arg(user).ignore();
        change.smembers(&key);
        let reply: RedisResult<[Vec<String>; 1]> = change.query_async(&mut redis).await;
        let [users] = reply.ok()?;
        let (count, users, room) = (users.len(), json!(users), json!(room));
        let members = format!(r#""room":{room},"users":{users},"count":{count}"#);
        let frame = format!(r#"{{"kind":"members",{members}}}"#);
        self.publish(frame).await.map(|()| members)
    }

    /// Passes on what Redis pushes. It runs in the task that reads from Redis, so it must not wait.
    fn pass_on(&self, push: PushInfo) -> Result<(), ParsingError> {
        if let (PushKind::Message, [_, frame]) = (push.kind, &push.data[..]) {
            let frame = String::from_redis_value_ref(frame)?;
            let fields: Value = serde_json::from_str(&frame).unwrap_or_default();
            if let Some(sessions) = lock(&self.rooms).get(fields["room"].as_str().unwrap_or("")) {
                let _ = sessions.send(frame.into()); // an error: the last session has just ended
            }
        }
        Ok(())
    }
}

/// Connects again for ever. src/store/redis/link.rs also notices a Redis that answers and is of no use.
async fn keep_redis(hub: Arc<Hub>, client: Client) {
    loop {
        let to = hub.clone();
        let config = AsyncConnectionConfig::new().set_push_sender(move |push| to.pass_on(push));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        if let Ok(mut redis) = connecting.await
            && redis.subscribe(CHANNEL).await.is_ok()
        {
            log::info!("redis=up");
            *lock(&hub.redis) = Some(redis.clone());
            while redis.ping::<()>().await.is_ok() {
                lock(&hub.rooms).retain(|_, sessions| sessions.receiver_count() > 0);
                sleep(Duration::from_secs(1)).await;
            }
            log::warn!("redis=down");
            *lock(&hub.redis) = None;
            // Messages may be missing, so every session ends, and its page is told of a gap. src/chat/follow.rs keeps
            // the sessions, and reads what is missing when Redis is back.
            lock(&hub.rooms).clear();
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Locks a mutex, also after a panic in another task.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
