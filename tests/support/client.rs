//! A client that makes a test read like a script: `hanako.say("こんにちは")`, `taro.hears("こんにちは")`.
//!
//! A task reads the socket (and so answers Pings) and records everything in a journal; `expect_…` walks along it.
//! Ids that do not rise and a second welcome fail the test that sees them.

use super::facts::{ASKED_TO_MOVE_WITHIN, BAD_MESSAGES, BUSY_RETRY_MS};
use super::{Dyno, PATIENCE, World, check};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, WebSocketConfig, frame::coding::CloseCode,
};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, error::ProtocolError};

pub type Socket = WebSocketStream<TcpStream>;

/// A message's id, `ms-seq`, compared as two integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64, pub u64);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Id, String> {
        let parts = text
            .split_once('-')
            .and_then(|(ms, seq)| Some(Id(ms.parse().ok()?, seq.parse().ok()?)));
        parts.ok_or_else(|| format!("{text:?} is not an id"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Id {
    /// The id in this field of a frame.
    pub fn of(frame: &Value, field: &str) -> Id {
        let text = frame[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {frame}"));
        text.parse().unwrap_or_else(|why| panic!("{why}: {frame}"))
    }
}

pub fn token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

pub fn cid() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// What a client received: a frame, or the end of the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Frame(Value),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    /// A FIN. Correct after a Close only.
    Eof,
    /// Anything else: a reset, or an invalid frame.
    Broken(String),
}

impl Heard {
    pub fn is_end(&self) -> bool {
        matches!(self, Heard::Close(..) | Heard::Eof | Heard::Broken(_))
    }
}

#[derive(Default)]
struct Journal {
    heard: Vec<(Duration, Heard)>,
    /// The newest id of a welcome or a talk.
    last: Id,
    /// Violations of the protocol, whatever the test is about.
    wrong: Vec<String>,
    /// Cids sent over this connection: their acknowledgements may have a lower id than `last`.
    cids: Vec<String>,
    users: Option<Vec<String>>,
    count: u64,
    status: Option<String>,
}

impl Journal {
    fn write(&mut self, at: Duration, heard: Heard) {
        if let Heard::Frame(frame) = &heard {
            self.check(frame);
        }
        self.heard.push((at, heard));
    }

    fn check(&mut self, frame: &Value) {
        let kind = frame["kind"].as_str().unwrap_or_default();
        let has_joined = self.users.is_some();
        let is_early = !has_joined && (kind == "talk" || kind == "members");
        let is_second = has_joined && kind == "welcome";
        if is_early || is_second {
            self.violation(format!("joined: {has_joined}, then came {frame}"));
        }
        match kind {
            "welcome" => {
                let history = frame["history"].as_array().into_iter().flatten();
                let ids: Vec<Id> = history.map(|talk| Id::of(talk, "id")).collect();
                self.last = Id::of(frame, "last");
                let reaches_last = ids.last().is_none_or(|newest| *newest == self.last);
                if !ids.is_sorted_by(|a, b| a < b) || !reaches_last {
                    self.violation(format!("not in order up to {}: {ids:?}", self.last));
                }
                self.remember_members(frame);
            }
            "talk" => {
                let id = Id::of(frame, "id");
                if id <= self.last && !self.cids.iter().any(|cid| frame["cid"] == **cid) {
                    self.violation(format!("after {} came {frame}", self.last));
                }
                self.last = self.last.max(id);
            }
            "members" => self.remember_members(frame),
            "status" => self.status = frame["redis"].as_str().map(str::to_string),
            "move" if !has_joined => self.violation("a move before the welcome".into()),
            "error" | "tick" | "move" => {}
            _ => self.violation(format!("an unknown kind of frame: {frame}")),
        }
    }

    fn violation(&mut self, what: String) {
        self.wrong.push(what);
    }

    fn remember_members(&mut self, frame: &Value) {
        let users = frame["users"].as_array();
        let users = users.unwrap_or_else(|| panic!("no users in {frame}"));
        let name = |user: &Value| user.as_str().unwrap_or("?").to_string();
        self.users = Some(users.iter().map(name).collect());
        let count = frame["count"].as_u64();
        self.count = count.unwrap_or_else(|| panic!("no count in {frame}"));
    }

    fn transcript(&self) -> String {
        let from = self.heard.len().saturating_sub(40);
        let line = |(at, heard): &(Duration, Heard)| {
            let text = match heard {
                Heard::Frame(frame) => frame.to_string(),
                other => format!("{other:?}"),
            };
            let start: String = text.chars().take(300).collect();
            format!("  {:>7.3} s  {start}\n", at.as_secs_f64())
        };
        self.heard[from..].iter().map(line).collect()
    }
}

pub struct Client {
    /// The name, for failure messages too.
    pub user: String,
    pub room: String,
    pub token: String,
    /// The welcome, once joined.
    pub welcome: Value,
    out: SplitSink<Socket, Message>,
    journal: Arc<(Mutex<Journal>, Notify)>,
    /// Position of the test in the journal.
    cursor: usize,
    /// The test expected a `move`: more of them may come at any moment.
    asked_to_move: bool,
    reader: JoinHandle<()>,
}

/// The client's side of a WebSocket. Small buffers, because some programs open ten thousand of them.
pub async fn open(addr: SocketAddr) -> Result<Socket, Error> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(2048)
        .write_buffer_size(0);
    let url = format!("ws://{addr}/ws");
    let (socket, _) =
        tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
    Ok(socket)
}

pub fn join_frame(room: &str, user: &str, token: &str, last: Option<&str>) -> Value {
    json!({"kind": "join", "room": room, "user": user, "token": token, "last": last})
}

/// The clients talk in turn, together about a hundred times a second, until `done`. Returns the number of talks.
pub async fn talk_until(done: &Cell<bool>, talkers: &mut [Client]) -> usize {
    let mut said = 0;
    while !done.get() {
        for talker in talkers.iter_mut() {
            talker.talk(&format!("m{said}")).await;
            said += 1;
            sleep(Duration::from_millis(9)).await;
        }
    }
    said
}

impl Dyno {
    /// Upgraded, not joined.
    pub async fn connect(&self) -> Client {
        Client::connect(self.addr()).await
    }

    /// A newcomer with a token of its own.
    pub async fn join(&self, room: &str, user: &str) -> Client {
        self.join_with(room, user, &token(), None).await
    }

    /// A member with a known token, and the last id it saw.
    pub async fn join_with(
        &self,
        room: &str,
        user: &str,
        token: &str,
        last: Option<&str>,
    ) -> Client {
        let mut client = self.connect().await;
        client.join(room, user, token, last).await;
        client
    }

    /// A join that must be refused with this code and Close 4409.
    pub async fn join_refused(&self, room: &str, user: &str, token: &str, code: &str) {
        let mut client = self.connect().await;
        client.user = user.to_string();
        client.send(join_frame(room, user, token, None)).await;
        client.expect_error(code).await;
        let reason = client.expect_close(4409).await;
        assert!(reason.contains(code), "the reason {reason:?} lacks {code}");
    }

    /// Somebody else cannot take this name.
    pub async fn name_is_taken(&self, room: &str, user: &str) {
        self.join_refused(room, user, &token(), "name_taken").await;
    }
}

/// Most tests need one room: the lobby of the dyno.
impl World {
    pub async fn join(&self, user: &str) -> Client {
        self.dyno.join("lobby", user).await
    }

    /// A member with a known token; `last` is the last id it saw.
    pub async fn resume(&self, user: &str, token: &str, last: Option<&str>) -> Client {
        self.dyno.join_with("lobby", user, token, last).await
    }

    /// Somebody else cannot take this name.
    pub async fn name_is_taken(&self, user: &str) {
        self.dyno.name_is_taken("lobby", user).await;
    }

    /// With Redis: the client received every message of the stream, in order, once.
    pub fn saw_everything(&self, client: &Client) {
        if let Some(redis) = &self.redis {
            check::saw_everything(redis, client);
        }
    }

    /// With Redis: these names are leased in the lobby, and no others.
    pub async fn names_are(&self, names: &[&str]) {
        if let Some(redis) = &self.redis {
            check::names_are(redis, "lobby", names).await;
        }
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Client {
        let socket = timeout(PATIENCE, open(addr)).await;
        let socket = socket.expect("the upgrade comes in time");
        let (out, incoming) = socket.expect("the upgrade succeeds").split();
        let journal = Arc::new((Mutex::new(Journal::default()), Notify::new()));
        Client {
            user: "(not joined)".into(),
            room: String::new(),
            token: String::new(),
            welcome: Value::Null,
            out,
            journal: journal.clone(),
            cursor: 0,
            asked_to_move: false,
            reader: tokio::spawn(read(incoming, journal)),
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.0.lock().unwrap()
    }

    // ---- what it sends

    /// Sends the join and waits for the welcome.
    pub async fn join(&mut self, room: &str, user: &str, token: &str, last: Option<&str>) {
        self.user = user.to_string();
        self.send(join_frame(room, user, token, last)).await;
        self.joined().await;
    }

    /// Waits for the welcome after a join was sent.
    pub async fn joined(&mut self) {
        let welcome = self.expect_kind("welcome").await;
        let word = |field: &str| match welcome[field].as_str() {
            Some(word) => word.to_string(),
            None => panic!("no {field} in {welcome}"),
        };
        (self.user, self.room, self.token) = (word("user"), word("room"), word("token"));
        self.welcome = welcome;
    }

    pub async fn send(&mut self, frame: Value) {
        if let Some(cid) = frame["cid"].as_str() {
            self.journal().cids.push(cid.to_string());
        }
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        // If this fails, the journal says so: it records the end of the connection.
        let _ = timeout(PATIENCE, self.out.send(message)).await;
    }

    /// Sends a talk; returns its cid.
    pub async fn talk(&mut self, text: &str) -> String {
        let cid = cid();
        self.talk_as(text, &cid).await;
        cid
    }

    pub async fn talk_as(&mut self, text: &str, cid: &str) {
        let talk = json!({"kind": "talk", "message": text, "cid": cid});
        self.send(talk).await;
    }

    /// Sends a talk and waits for its acknowledgement: it is stored. Returns the frame.
    pub async fn say(&mut self, text: &str) -> Value {
        let cid = self.talk(text).await;
        let mut others = 0;
        loop {
            let frame = self.expect_kind("talk").await;
            if frame["cid"] == *cid {
                return frame;
            }
            others += 1;
            assert!(others < 10_000, "{} never saw its own {cid}", self.user);
        }
    }

    /// Says `m1`, `m2`, … up to this number, 50 at a time. Returns the frames.
    pub async fn say_many(&mut self, count: usize) -> Vec<Value> {
        let texts: Vec<String> = (1..=count).map(|i| format!("m{i}")).collect();
        let mut frames = vec![];
        for chunk in texts.chunks(50) {
            for text in chunk {
                self.talk(text).await;
            }
            for text in chunk {
                frames.push(self.hears(text).await);
            }
        }
        frames
    }

    /// Sends a ping and waits for its answer: the server has handled everything that was sent before.
    pub async fn settle(&mut self) {
        self.send(json!({"kind": "ping"})).await;
        self.expect_kind("tick").await;
    }

    /// Like [`Client::settle`], but any frames may come before the answer.
    pub async fn settle_loosely(&mut self) {
        self.send(json!({"kind": "ping"})).await;
        let tick = |heard: &Heard| matches!(heard, Heard::Frame(frame) if frame["kind"] == "tick");
        let before = self.count_heard(tick);
        super::eventually("a tick", PATIENCE, async || {
            match self.count_heard(tick) > before {
                true => Ok(()),
                false => Err("none"),
            }
        })
        .await;
        let end = self.journal().heard.len();
        self.cursor = end;
    }

    /// Leaves, as the Leave button does.
    pub async fn quit(mut self) {
        self.send(json!({"kind": "quit"})).await;
        self.expect_close(1000).await;
    }

    /// Ends the connection without a Close, as a lost network does; returns the token and the last id.
    pub async fn vanish(self) -> (String, String) {
        (self.token.clone(), self.last())
    }

    /// Ends the connection without a Close and joins again on this dyno with the same token and the last id.
    pub async fn reconnect(self, dyno: &Dyno) -> Client {
        let (room, user) = (self.room.clone(), self.user.clone());
        let (token, last) = self.vanish().await;
        dyno.join_with(&room, &user, &token, Some(&last)).await
    }

    // ---- what it expects next

    /// The next talk carries exactly this text.
    pub async fn hears(&mut self, text: &str) -> Value {
        let frame = self.expect_kind("talk").await;
        assert_eq!(frame["message"], text, "{}", self.context());
        frame
    }

    pub async fn hears_all(&mut self, texts: &[&str]) {
        for text in texts {
            self.hears(text).await;
        }
    }

    /// The dyno is stopping, and asks this client to move. The other pages may be asked first.
    pub async fn expect_move(&mut self) {
        self.expect_within("move", ASKED_TO_MOVE_WITHIN).await;
        self.asked_to_move = true;
    }

    /// Closes the connection with 1000, as the page does after it has moved.
    pub async fn close(mut self) {
        let (code, reason) = (CloseCode::Normal, "".into());
        let close = Message::Close(Some(CloseFrame { code, reason }));
        self.send_message(close).await;
        self.closed_after_all(1000).await;
    }

    /// Moves as the page does: joins on this dyno with the same token and the last id, and only then closes the first
    /// connection.
    pub async fn move_to(self, dyno: &Dyno) -> Client {
        let (room, user, token, last) = (&self.room, &self.user, &self.token, self.last());
        let moved = dyno.join_with(room, user, token, Some(&last)).await;
        self.close().await;
        moved
    }

    /// The next frame of this kind. Only frames that may come at any moment are skipped: `members` and `tick`.
    pub async fn expect_kind(&mut self, kind: &str) -> Value {
        self.expect_within(kind, PATIENCE).await
    }

    pub async fn expect_within(&mut self, kind: &str, within: Duration) -> Value {
        self.expect_any_within(&[kind], within).await
    }

    /// The next frame of one of these kinds.
    pub async fn expect_any_within(&mut self, kinds: &[&str], within: Duration) -> Value {
        let wanted = |heard: &Heard| match heard {
            Heard::Frame(frame) if kinds.iter().any(|kind| frame["kind"] == *kind) => {
                Some(frame.clone())
            }
            _ => None,
        };
        let what = format!("a frame of kind {kinds:?}");
        self.walk(&what, within, wanted).await
    }

    /// The next frame says that Redis is `up` or `down`.
    pub async fn expect_redis(&mut self, status: &str, within: Duration) {
        let frame = self.expect_within("status", within).await;
        assert_eq!(frame["redis"], status, "{}", self.context());
    }

    pub async fn expect_error(&mut self, code: &str) -> Value {
        let frame = self.expect_kind("error").await;
        assert_eq!(frame["code"], code, "{}", self.context());
        let sentence = frame["message"].as_str().unwrap_or_default();
        assert!(!sentence.is_empty(), "no sentence in {frame}");
        frame
    }

    /// Sends a talk that must be refused with this code.
    pub async fn talk_refused(&mut self, text: &str, code: &str) {
        let cid = self.talk(text).await;
        let error = self.expect_error(code).await;
        assert_eq!(error["cid"], *cid, "{text:?} refused with {code}");
    }

    /// A `busy` error, with the time after which to try again.
    pub async fn expect_busy(&mut self) -> Value {
        let busy = self.expect_error("busy").await;
        let retry_ms = busy["retry_ms"].as_u64().unwrap_or(0);
        assert!(BUSY_RETRY_MS.contains(&retry_ms), "{busy}");
        busy
    }

    /// The fields of the welcome that are named here have these values.
    pub fn welcomed_with(&self, expected: Value) {
        for (field, value) in expected.as_object().expect("fields of a welcome") {
            assert_eq!(self.welcome[field], *value, "{field} for {}", self.user);
        }
    }

    /// A Close with this code, then a FIN. Returns the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        let close = |heard: &Heard| match heard {
            Heard::Close(code, reason) => Some((*code, reason.clone())),
            _ => None,
        };
        let what = format!("Close {code}");
        let (seen, reason) = self.walk(&what, PATIENCE, close).await;
        assert_eq!(seen, code, "because of {reason:?}: {}", self.context());
        let eof = |heard: &Heard| (*heard == Heard::Eof).then_some(());
        self.walk("a FIN after the Close", PATIENCE, eof).await;
        reason
    }

    pub async fn expect_pong(&mut self, payload: &[u8]) {
        let pong = |heard: &Heard| (*heard == Heard::Pong(payload.to_vec())).then_some(());
        self.walk("a Pong", PATIENCE, pong).await;
    }

    /// Three times the error `bad_message`, then Close 4400.
    pub async fn expect_three_bad_messages(&mut self, what: &str) {
        for time in 1..=BAD_MESSAGES {
            let error = self.expect_kind("error").await;
            assert_eq!(error["code"], "bad_message", "time {time} for {what}");
        }
        self.expect_close(4400).await;
    }

    /// Reads the journal from the cursor to the first entry that is `wanted`.
    async fn walk<T>(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Heard) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = self.advance(what, &wanted) {
                return found;
            }
            self.changed(deadline, || format!("{what} in {within:?}"))
                .await;
        }
    }

    /// Moves the cursor past the first entry that is `wanted`, or to the end of the journal.
    fn advance<T>(&mut self, what: &str, wanted: impl Fn(&Heard) -> Option<T>) -> Option<T> {
        let journal = self.journal.0.lock().unwrap();
        assert_nothing_wrong(&self.user, &journal);
        while let Some((_, heard)) = journal.heard.get(self.cursor) {
            self.cursor += 1;
            let found = wanted(heard);
            if found.is_some() {
                return found;
            }
            let skipped = match heard {
                Heard::Frame(frame) if frame["kind"] == "move" => self.asked_to_move,
                Heard::Frame(frame) => is_unprompted(frame),
                heard => *heard == Heard::Ping,
            };
            if !skipped {
                let (user, transcript) = (&self.user, journal.transcript());
                panic!("{user} expected {what}, heard {heard:?}\n{transcript}");
            }
        }
        None
    }

    /// Waits for the next entry of the journal.
    async fn changed(&self, deadline: Instant, expected: impl Fn() -> String) {
        tokio::select! {
            _ = self.journal.1.notified() => {}
            _ = sleep_until(deadline) => {
                panic!("waited for {}: {}", expected(), self.context())
            }
        }
    }

    /// Waits for the Close, whatever comes before it. Returns its reason.
    pub async fn closed_after_all(&mut self, code: u16) -> String {
        self.closed_after_all_within(code, PATIENCE).await
    }

    pub async fn closed_after_all_within(&mut self, code: u16, within: Duration) -> String {
        super::eventually("the connection is closed", within, async || {
            match self.count_heard(Heard::is_end) {
                0 => Err("still open"),
                _ => Ok(()),
            }
        })
        .await;
        let is_end = |(_, heard): &(Duration, Heard)| heard.is_end();
        let end = self.journal().heard.iter().position(is_end);
        self.cursor = end.unwrap_or(0);
        self.expect_close(code).await
    }

    /// A Close with this code; an error with a sentence for people may come before it.
    pub async fn expect_close_after_error(&mut self, code: u16) -> String {
        self.closed_after_all(code).await
    }

    /// Waits until these members are shown, in this order.
    pub async fn expect_members(&mut self, users: &[&str]) {
        self.expect_members_within(users, PATIENCE).await;
    }

    pub async fn expect_members_within(&mut self, users: &[&str], within: Duration) {
        let deadline = Instant::now() + within;
        while self.members().0 != users {
            let expected = || format!("{users:?} in {within:?}, sees {:?}", self.members());
            self.changed(deadline, expected).await;
        }
        let count = users.len() as u64;
        assert_eq!(self.members().1, count, "count: {}", self.context());
    }

    // ---- what it has received so far

    /// The names shown last, and the count.
    pub fn members(&self) -> (Vec<String>, u64) {
        let journal = self.journal();
        (journal.users.clone().unwrap_or_default(), journal.count)
    }

    /// The number of `members` frames after the welcome.
    pub fn members_frames(&self) -> usize {
        self.count_heard(|heard| matches!(heard, Heard::Frame(frame) if frame["kind"] == "members"))
    }

    /// No `members` frame came since there were `frames` of them.
    pub fn saw_no_change_since(&self, frames: usize) {
        assert_eq!(self.members_frames(), frames, "{}", self.context());
    }

    pub fn count_heard(&self, wanted: impl Fn(&Heard) -> bool) -> usize {
        self.heard_at(wanted).len()
    }

    /// The times at which such things were received, counted from the upgrade.
    pub fn heard_at(&self, wanted: impl Fn(&Heard) -> bool) -> Vec<Duration> {
        let journal = self.journal();
        let heard = journal.heard.iter().filter(|(_, heard)| wanted(heard));
        heard.map(|(at, _)| *at).collect()
    }

    /// The last Redis status received, if any.
    pub fn status(&self) -> Option<String> {
        self.journal().status.clone()
    }

    /// The id from which this client would resume.
    pub fn last(&self) -> String {
        self.journal().last.to_string()
    }

    /// Every id in the order of arrival: history first. Acknowledgements of earlier talks are left out.
    pub fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = vec![];
        for (_, heard) in &self.journal().heard {
            if let Heard::Frame(frame) = heard {
                let history = frame["history"].as_array().into_iter().flatten();
                let talk = std::iter::once(frame).filter(|f| f["kind"] == "talk");
                for id in history.chain(talk).map(|t| Id::of(t, "id")) {
                    if ids.last().is_none_or(|newest| id > *newest) {
                        ids.push(id);
                    }
                }
            }
        }
        ids
    }

    /// For failure messages: the name, and the last 40 entries of the journal.
    pub fn context(&self) -> String {
        format!("{}\n{}", self.user, self.transcript())
    }

    pub fn transcript(&self) -> String {
        self.journal().transcript()
    }

    /// The texts of the welcome's history.
    pub fn history(&self) -> Vec<String> {
        let history = self.welcome["history"].as_array();
        let history = history.unwrap_or_else(|| panic!("no history in {}", self.welcome));
        let text = |talk: &Value| talk["message"].as_str().unwrap_or("?").to_string();
        history.iter().map(text).collect()
    }

    /// All talks received, and all errors.
    pub fn talks_and_refusals(&self) -> (Vec<Value>, Vec<Value>) {
        let of_kind = |kind: &str| {
            let journal = self.journal();
            let frames = journal.heard.iter().filter_map(|(_, heard)| match heard {
                Heard::Frame(frame) if frame["kind"] == kind => Some(frame.clone()),
                _ => None,
            });
            frames.collect()
        };
        (of_kind("talk"), of_kind("error"))
    }
}

fn assert_nothing_wrong(user: &str, journal: &Journal) {
    if let Some(wrong) = journal.wrong.first() {
        panic!("{user}: {wrong}\n{}", journal.transcript());
    }
}

/// True for frames that the server may send at any moment.
pub fn is_unprompted(frame: &Value) -> bool {
    frame["kind"] == "members" || frame["kind"] == "tick"
}

async fn read(mut incoming: SplitStream<Socket>, journal: Arc<(Mutex<Journal>, Notify)>) {
    let start = Instant::now();
    let mut closed = false;
    loop {
        let heard = match incoming.next().await {
            Some(Ok(Message::Text(text))) => frame_of(&text),
            Some(Ok(Message::Ping(_))) => Heard::Ping,
            Some(Ok(Message::Pong(payload))) => Heard::Pong(payload.to_vec()),
            Some(Ok(Message::Close(close))) => {
                closed = true;
                close.map_or(Heard::Close(1005, String::new()), |c| {
                    Heard::Close(c.code.into(), c.reason.to_string())
                })
            }
            Some(Ok(other)) => Heard::Broken(format!("an unexpected frame {other:?}")),
            None | Some(Err(Error::ConnectionClosed)) => Heard::Eof,
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) if !closed => {
                Heard::Eof
            }
            Some(Err(e)) => Heard::Broken(e.to_string()),
        };
        let ended = matches!(heard, Heard::Eof | Heard::Broken(_));
        journal.0.lock().unwrap().write(start.elapsed(), heard);
        journal.1.notify_one();
        if ended {
            return;
        }
    }
}

fn frame_of(text: &Utf8Bytes) -> Heard {
    match serde_json::from_str(text) {
        Ok(frame @ Value::Object(_)) => Heard::Frame(frame),
        _ => Heard::Broken(format!("not a JSON object: {text}")),
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
        let journal = self.journal.0.lock();
        let journal = journal.unwrap_or_else(|poisoned| poisoned.into_inner());
        if !std::thread::panicking() {
            assert_nothing_wrong(&self.user, &journal);
        }
    }
}
