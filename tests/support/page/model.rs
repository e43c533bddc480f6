//! The rules of the page (`public/connection.js`, `public/outgoing.js`) in Rust: when it connects, joins, sends and stops.
//! Left out are rules that only tests with a browser need: a longer wait where the dyno is full, and messages that are
//! not sent again because they are too old.
//!
//! [`Model::next`] runs the page until something happens and returns what. The caller records and judges it, and
//! decides what the user does next. One model is one page: its state, and its connection.

use crate::support::client::{Id, Socket, join_frame, open};
use crate::support::facts::HEARTBEAT;
use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// A try to connect includes the welcome and takes this long at most.
pub const TRY: Duration = Duration::from_secs(10);
/// The wait before the first retry is random, up to this, unless the server says how long.
const FIRST_RETRY: Duration = Duration::from_secs(3);
/// The waits before further retries, in seconds: a random time between half of it and all of it.
const RETRY_STEPS: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 15.0];
/// A connection that lasted this long after its welcome resets the retries.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// A connection without any frame for this long is dead: a heartbeat, and 10 s.
pub const DEAD_CONNECTION: Duration = Duration::from_secs(HEARTBEAT.as_secs() + 10);
/// A message without an answer is sent again after this time, with the same cid.
pub const RESEND: Duration = Duration::from_secs(10);
/// Close codes after which the page stops and shows why.
const STOPS: [u16; 5] = [4400, 4409, 4429, 1009, 1003];

/// The platform's router: it gives each connection a random dyno, and another one if that refuses.
#[derive(Clone, Default)]
pub struct Router {
    dynos: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Router {
    pub fn to(dynos: &[SocketAddr]) -> Router {
        let router = Router::default();
        router.set(dynos);
        router
    }

    pub fn set(&self, dynos: &[SocketAddr]) {
        *self.dynos.lock().unwrap() = dynos.to_vec();
    }
}

/// What happened to a page.
pub enum Event {
    /// A try to connect begins. It was due at this time.
    Try(Instant),
    /// This dyno sent a frame, and the model has acted on it. A text that is not JSON comes as a string.
    Frame(SocketAddr, Value),
    /// The page has moved: its second connection was welcomed by this dyno, and the first one is closed. The flag: the
    /// last `status` before the welcome was `down`.
    Moved(SocketAddr, Value, bool),
    /// The connection ended with this code (1006 without a Close). The page tries again.
    Closed(u16),
    /// The server refused the page with this code and reason. It stops: do not call `next` again.
    Stopped(u16, String),
    /// It is the time that the caller gave, or [`Model::wake`] was notified.
    Time,
}

/// A message without its acknowledgement.
struct Pending {
    cid: String,
    text: String,
}

pub struct Model {
    room: String,
    user: String,
    token: String,
    router: Router,
    rng: Rng,
    pub wake: Arc<Notify>,
    /// The newest id shown: a reconnect resumes from it.
    last: Option<Id>,
    pending: Vec<Pending>,
    /// The message that is sent and not answered yet, and when it was sent. There is one at a time.
    in_flight: Option<(String, Instant)>,
    /// No message is sent before this time.
    hold: Instant,
    /// Retries since the last good connection.
    retries: usize,
    retry_at: Instant,
    first_retry: Duration,
    connection: Option<Connection>,
    /// The second connection, while the page moves.
    next: Option<Connection>,
}

struct Connection {
    opening: Option<Opening>,
    socket: Option<Socket>,
    dyno: SocketAddr,
    boot: Value,
    began: Instant,
    /// When to send a join.
    join_at: Option<Instant>,
    /// The welcome must come before this time. `None` after it, and while the dyno is without Redis.
    deadline: Option<Instant>,
    welcomed: Option<Instant>,
    redis_down: bool,
    /// The connection is dead at this time if no frame comes.
    dead_at: Instant,
    close: (u16, String),
}

type Opening = Pin<Box<dyn Future<Output = Option<(SocketAddr, Socket)>> + Send>>;

enum Incoming {
    Opened,
    Text(String),
    Closed,
}

impl Model {
    pub fn new(router: &Router, room: &str, user: &str, token: &str, rng: Rng) -> Model {
        let now = Instant::now();
        Model {
            room: room.into(),
            user: user.into(),
            token: token.into(),
            router: router.clone(),
            rng,
            wake: Arc::default(),
            last: None,
            pending: vec![],
            in_flight: None,
            hold: now,
            retries: 0,
            retry_at: now,
            first_retry: FIRST_RETRY,
            connection: None,
            next: None,
        }
    }

    /// Types a message. The page sends it when it can.
    pub fn say(&mut self, cid: String, text: String) {
        self.pending.push(Pending { cid, text });
    }

    /// Runs the page until something happens, or until a time. May be cancelled and called again.
    pub async fn next(&mut self, until: Option<Instant>) -> Event {
        loop {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Event::Time;
            }
            if self.connection.is_none() && now >= self.retry_at {
                let opening = self.open();
                self.connection = Some(Connection::new(opening));
                return Event::Try(self.retry_at);
            }
            self.send_what_is_due(now).await;
            let timer = self.next_timer();
            let timer = until.map_or(timer, |until| until.min(timer));
            tokio::select! {
                biased; // a frame that waits to be read proves that the connection is alive
                incoming = read(&mut self.next) => match incoming {
                    Incoming::Opened => {}
                    Incoming::Text(text) => {
                        if let Some(moved) = self.hear_next(&text) {
                            return moved;
                        }
                    }
                    Incoming::Closed => self.next = None,
                },
                incoming = read(&mut self.connection) => match incoming {
                    Incoming::Opened => {}
                    Incoming::Text(text) => {
                        let frame = serde_json::from_str(&text).unwrap_or(Value::String(text));
                        return self.hear(frame);
                    }
                    Incoming::Closed => return self.lost(None),
                },
                () = self.wake.notified() => return Event::Time,
                () = sleep_until(timer) => {
                    if self.connection.as_ref().is_some_and(|c| c.expires() <= Instant::now()) {
                        return self.lost(Some(1006));
                    }
                }
            }
        }
    }

    /// Ends the connection without a Close. The caller gets the socket and may keep it open.
    pub fn disconnect(&mut self) -> Option<Socket> {
        self.next = None;
        let connection = self.connection.take()?;
        self.plan_retry(&connection);
        connection.socket
    }

    /// Loads the page again: it forgets what it showed, keeps what is not acknowledged, and connects at once.
    pub fn reload(&mut self) {
        self.disconnect();
        self.last = None;
        self.retries = 0;
        self.retry_at = Instant::now();
    }

    /// Presses Leave, and waits until the server has closed both connections, too.
    pub async fn leave(&mut self) {
        let next = self.next.take().and_then(|next| next.socket);
        for mut socket in self.disconnect().into_iter().chain(next) {
            let _ = socket.send(Message::text(r#"{"kind": "quit"}"#)).await;
            close(socket).await;
        }
    }

    fn open(&mut self) -> Opening {
        let mut dynos = self.router.dynos.lock().unwrap().clone();
        self.rng.shuffle(&mut dynos);
        Box::pin(async move {
            for dyno in dynos {
                if let Ok(socket) = open(dyno).await {
                    return Some((dyno, socket));
                }
            }
            None
        })
    }

    /// When the page must act again if no frame comes.
    fn next_timer(&self) -> Instant {
        let Some(connection) = &self.connection else {
            return self.retry_at;
        };
        let expires = connection.expires();
        let mut timer = connection.join_at.unwrap_or(expires).min(expires);
        if connection.welcomed.is_some() && !self.pending.is_empty() {
            let resend_at = self.in_flight.as_ref().map(|(_, sent)| *sent + RESEND);
            timer = timer.min(resend_at.unwrap_or(self.hold));
        }
        timer
    }

    /// Sends a join or a message. The result of sending is ignored: reading finds out how a connection ended.
    async fn send_what_is_due(&mut self, now: Instant) {
        let last = self.last.map(|id| id.to_string());
        let join = join_frame(&self.room, &self.user, &self.token, last.as_deref());
        if let Some(next) = &mut self.next
            && let Some(socket) = &mut next.socket
            && next.join_at.take().is_some()
        {
            let _ = socket.send(Message::text(join.to_string())).await;
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut frame = None;
        if connection.join_at.take_if(|at| *at <= now).is_some() {
            frame = Some(join);
        } else if connection.welcomed.is_some() {
            self.in_flight.take_if(|(_, sent)| *sent + RESEND <= now);
            if self.in_flight.is_none()
                && self.hold <= now
                && let Some(talk) = self.pending.first()
            {
                self.in_flight = Some((talk.cid.clone(), now));
                frame = Some(json!({"kind": "talk", "message": talk.text, "cid": talk.cid}));
            }
        }
        if let (Some(frame), Some(socket)) = (frame, &mut connection.socket) {
            let _ = socket.send(Message::text(frame.to_string())).await;
        }
    }

    /// Acts on a frame as the page does.
    fn hear(&mut self, frame: Value) -> Event {
        let now = Instant::now();
        let connection = self.connection.as_mut().expect("a frame comes from it");
        let dyno = connection.dyno;
        connection.dead_at = now + DEAD_CONNECTION;
        match frame["kind"].as_str() {
            Some("welcome") => self.welcome(&frame),
            Some("move") => self.begin_move(now),
            Some("talk") => self.show(&frame),
            Some("tick") => self.hear_spread(&frame),
            Some("status") => {
                let soon = now + Duration::from_secs_f64(self.rng.f64()); // not all pages at once
                connection.redis_down = frame["redis"] == "down";
                if connection.welcomed.is_none() {
                    connection.deadline = (!connection.redis_down).then_some(soon + TRY);
                }
                if !connection.redis_down {
                    connection.join_at = connection.join_at.map(|_| soon);
                    self.hold = self.hold.min(soon);
                }
            }
            Some("error") => {
                let retry_ms = frame["retry_ms"].as_u64().unwrap_or(2_000);
                let later = now + Duration::from_millis(retry_ms);
                let waits = frame["code"] == "busy" || frame["code"] == "slow_down";
                if waits && connection.welcomed.is_none() {
                    connection.join_at = Some(later);
                    connection.deadline = (!connection.redis_down).then_some(later + TRY);
                } else if waits {
                    self.hold = later;
                    self.in_flight.take_if(|(cid, _)| frame["cid"] == **cid);
                }
            }
            _ => {}
        }
        Event::Frame(dyno, frame)
    }

    /// Opens a second connection, unless a young one is there already. A move has no timer of its own, because the dyno
    /// repeats `move` every few seconds.
    fn begin_move(&mut self, now: Instant) {
        if self.next.as_ref().is_none_or(|next| next.began + TRY < now) {
            self.next = Some(Connection::new(self.open()));
        }
    }

    fn welcome(&mut self, frame: &Value) {
        let now = Instant::now();
        let connection = self.connection.as_mut().expect("a welcome comes from it");
        connection.welcomed = Some(now);
        connection.boot = frame["boot"].clone();
        connection.deadline = None;
        connection.join_at = None;
        connection.redis_down = false;
        self.hold = now;
        self.hear_spread(frame);
        for talk in frame["history"].as_array().into_iter().flatten() {
            self.show(talk);
        }
        self.last = Some(Id::of(frame, "last"));
    }

    /// Over how long the first retry is spread. The single file does not say it.
    fn hear_spread(&mut self, frame: &Value) {
        let spread_ms = frame["spread_ms"].as_u64().map(Duration::from_millis);
        self.first_retry = spread_ms.unwrap_or(self.first_retry);
    }

    /// A frame of the second connection. With its welcome it becomes the connection. An error, and a welcome from the
    /// dyno that stops, are a failed try: the next `move` is the retry.
    fn hear_next(&mut self, text: &str) -> Option<Event> {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let welcome = frame["kind"] == "welcome";
        if let Some(next) = self.next.as_mut().filter(|_| frame["kind"] == "status") {
            next.redis_down = frame["redis"] == "down";
        }
        let next = self.next.take_if(|_| welcome || frame["kind"] == "error")?;
        let (dyno, down, old) = (next.dyno, next.redis_down, self.connection.as_mut()?);
        if !welcome || old.boot == frame["boot"] {
            return None;
        }
        if let Some(socket) = std::mem::replace(old, next).socket {
            tokio::spawn(close(socket));
        }
        let brought = self.last.filter(|_| frame["gap"] != true);
        self.in_flight = None;
        self.retries = 0;
        self.welcome(&frame);
        self.last = self.last.max(brought); // the first connection may have been faster
        Some(Event::Moved(dyno, frame, down))
    }

    /// Shows a message. That of an own one is its acknowledgement.
    fn show(&mut self, talk: &Value) {
        self.last = self.last.max(Some(Id::of(talk, "id")));
        self.pending.retain(|own| talk["cid"] != *own.cid);
        self.in_flight.take_if(|(cid, _)| talk["cid"] == **cid);
    }

    /// The connection is over: with the code of its Close, or with `code` because the page gave it up.
    fn lost(&mut self, code: Option<u16>) -> Event {
        self.next = None;
        let mut connection = self.connection.take().expect("only this can be lost");
        let (closed, reason) = std::mem::take(&mut connection.close);
        let code = code.unwrap_or(closed);
        self.plan_retry(&connection);
        match STOPS.contains(&code) {
            true => Event::Stopped(code, reason),
            false => Event::Closed(code),
        }
    }

    fn plan_retry(&mut self, connection: &Connection) {
        self.in_flight = None;
        let lasted = connection.welcomed.map(|at| at.elapsed());
        if lasted > Some(GOOD_CONNECTION) {
            self.retries = 0;
        }
        let wait = match self.retries {
            0 => self.first_retry.mul_f64(self.rng.f64()),
            n => {
                let step = RETRY_STEPS[n.min(RETRY_STEPS.len()) - 1];
                Duration::from_secs_f64(step * (0.5 + self.rng.f64() / 2.0))
            }
        };
        self.retries += 1;
        self.retry_at = Instant::now() + wait;
    }
}

impl Connection {
    fn new(opening: Opening) -> Connection {
        let now = Instant::now();
        Connection {
            opening: Some(opening),
            socket: None,
            dyno: SocketAddr::from(([0; 4], 0)),
            boot: Value::Null,
            began: now,
            join_at: None,
            deadline: Some(now + TRY),
            welcomed: None,
            redis_down: false,
            dead_at: now + DEAD_CONNECTION,
            close: (1006, String::new()),
        }
    }

    fn expires(&self) -> Instant {
        self.deadline.unwrap_or(self.dead_at).min(self.dead_at)
    }
}

/// Closes a connection with 1000, and waits until the server has closed it, too.
async fn close(mut socket: Socket) {
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = socket.close(Some(normal)).await;
    let closed = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = timeout(TRY, closed).await;
}

/// Waits for the next thing that a connection brings; for ever if there is none.
async fn read(connection: &mut Option<Connection>) -> Incoming {
    let Some(connection) = connection else {
        return std::future::pending().await;
    };
    if let Some(opening) = &mut connection.opening {
        let opened = opening.await;
        connection.opening = None;
        if let Some((dyno, socket)) = opened {
            connection.dyno = dyno;
            connection.socket = Some(socket);
            connection.join_at = Some(Instant::now());
            return Incoming::Opened;
        }
    }
    while let Some(socket) = &mut connection.socket {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Incoming::Text(text.to_string()),
            Some(Ok(Message::Close(None))) => connection.close.0 = 1005,
            Some(Ok(Message::Close(Some(frame)))) => {
                connection.close = (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {} // a browser shows no Ping to the page
            Some(Err(_)) | None => connection.socket = None,
        }
    }
    Incoming::Closed
}
