//! A client that makes a test read like a script: `hanako.say("こんにちは")`, `taro.hears("こんにちは")`.
//!
//! A task reads the socket (and so answers Pings) and records everything in a journal; `expect_…` walks along it.
//! Ids that do not rise and a second welcome fail the test that sees them.

use super::facts::{ASKED_TO_MOVE_WITHIN, BUSY_RETRY_MS};
use super::{Dyno, PATIENCE, World, check};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, WebSocketConfig, frame::coding::CloseCode,
};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

pub type Socket = WebSocketStream<TcpStream>;

/// A message's id, `ms-seq`, compared as two integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64, pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Id {
    pub fn parse(text: &str) -> Id {
        let parts = text.split_once('-');
        let id = parts.and_then(|(ms, seq)| Some(Id(ms.parse().ok()?, seq.parse().ok()?)));
        id.unwrap_or_else(|| panic!("{text:?} is not an id"))
    }

    /// The id in this field of a frame.
    pub fn of(frame: &Value, field: &str) -> Id {
        Id::parse(text(frame, field))
    }
}

/// The text in this field of a frame.
fn text<'a>(frame: &'a Value, field: &str) -> &'a str {
    let text = frame[field].as_str();
    text.unwrap_or_else(|| panic!("no {field} in {frame}"))
}

/// The talks in a welcome.
fn history(frame: &Value) -> &[Value] {
    let talks = frame["history"].as_array();
    talks.unwrap_or_else(|| panic!("no history in {frame}"))
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

    /// The frame, if it is of one of these kinds.
    pub fn frame(&self, kinds: &[&str]) -> Option<&Value> {
        match self {
            Heard::Frame(frame) if kinds.iter().any(|kind| frame["kind"] == *kind) => Some(frame),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Journal {
    heard: Vec<(Duration, Heard)>,
    /// Every id in the order of arrival: history first. Acknowledgements of earlier talks are left out.
    ids: Vec<Id>,
    /// The newest id of a welcome or a talk.
    last: Id,
    /// Violations of the protocol, whatever the test is about.
    wrong: Vec<String>,
    /// Cids sent over this connection: their acknowledgements may have a lower id than `last`.
    cids: Vec<String>,
    /// The names shown last, and the count.
    members: Option<(Vec<String>, u64)>,
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
        let has_joined = self.members.is_some();
        let expected = match kind {
            "welcome" => !has_joined,
            "talk" | "members" | "move" => has_joined,
            _ => ["status", "error", "tick"].contains(&kind),
        };
        if !expected {
            let what = format!("joined: {has_joined}, then came {frame}");
            self.wrong.push(what);
        }
        if kind == "welcome" {
            let ids = history(frame).iter().map(|talk| Id::of(talk, "id"));
            self.ids = ids.collect();
            self.last = Id::of(frame, "last");
            let reaches_last = self.ids.last().is_none_or(|newest| *newest == self.last);
            if !self.ids.is_sorted_by(|a, b| a < b) || !reaches_last {
                self.wrong.push(format!("not in order: {frame}"));
            }
        }
        if kind == "talk" {
            let id = Id::of(frame, "id");
            if id > self.last {
                self.last = id;
                self.ids.push(id);
            } else if !self.cids.iter().any(|cid| frame["cid"] == **cid) {
                self.wrong.push(format!("after {} came {frame}", self.last));
            }
        }
        if kind == "welcome" || kind == "members" {
            let members = serde_json::from_value(json!([frame["users"], frame["count"]]));
            self.members = members.unwrap_or_else(|e| panic!("{e}: the members in {frame}"));
        }
    }

    fn frames(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let heard = self.heard.iter();
        heard.filter_map(move |(_, heard)| heard.frame(&[kind]))
    }

    fn assert_nothing_wrong(&self, user: &str) {
        if let Some(wrong) = self.wrong.first() {
            panic!("{user}: {wrong}\n{}", self.transcript());
        }
    }

    /// The last 40 entries.
    fn transcript(&self) -> String {
        let mut lines = String::new();
        for (at, heard) in &self.heard[self.heard.len().saturating_sub(40)..] {
            let text = match heard {
                Heard::Frame(frame) => frame.to_string(),
                other => format!("{other:?}"),
            };
            lines += &format!("  {:>7.3} s  {text:.300}\n", at.as_secs_f64());
        }
        lines
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
    journal: watch::Sender<Journal>,
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
    let config = WebSocketConfig::default().read_buffer_size(2048);
    let config = config.write_buffer_size(0);
    let url = format!("ws://{addr}/ws");
    let opened = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await;
    Ok(opened?.0)
}

pub fn join_frame(room: &str, user: &str, token: &str, last: Option<&str>) -> Value {
    json!({"kind": "join", "room": room, "user": user, "token": token, "last": last})
}

/// The clients talk in turn, together about a hundred times a second, until `done`. Returns the number of talks.
pub async fn talk_until(done: &Cell<bool>, talkers: &mut [Client]) -> usize {
    let mut said = 0;
    while !done.get() {
        let talker = said % talkers.len();
        talkers[talker].talk(&format!("m{said}")).await;
        said += 1;
        sleep(Duration::from_millis(9)).await;
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
        let journal = watch::Sender::<Journal>::default();
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
        let own = ["user", "room", "token"].map(|field| text(&welcome, field).to_string());
        (self.user, self.room, self.token) = own.into();
        self.welcome = welcome;
    }

    pub async fn send(&mut self, frame: Value) {
        if let Some(cid) = frame["cid"].as_str() {
            let sent = |journal: &mut Journal| journal.cids.push(cid.to_string());
            self.journal.send_modify(sent);
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
        for _ in 0..10_000 {
            let frame = self.expect_kind("talk").await;
            if frame["cid"] == *cid {
                return frame;
            }
        }
        panic!("{} never saw its own {cid}", self.user);
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

    /// Leaves, as the Leave button does.
    pub async fn quit(mut self) {
        self.send(json!({"kind": "quit"})).await;
        self.expect_close(1000).await;
    }

    /// Ends the connection without a Close, as a lost network does; returns the token and the last id.
    pub async fn vanish(self) -> (String, String) {
        (self.token.clone(), self.last())
    }

    /// Joins on this dyno with the same token and the last id, over a second connection.
    pub async fn join_again(&self, dyno: &Dyno) -> Client {
        let (room, user, token, last) = (&self.room, &self.user, &self.token, self.last());
        dyno.join_with(room, user, token, Some(&last)).await
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
        let within = ASKED_TO_MOVE_WITHIN;
        self.expect_any_within(&["move"], within).await;
        self.asked_to_move = true;
    }

    /// Moves as the page does: joins on this dyno with the same token and the last id, and only then closes the first
    /// connection, with 1000.
    pub async fn move_to(mut self, dyno: &Dyno) -> Client {
        let moved = self.join_again(dyno).await;
        let (code, reason) = (CloseCode::Normal, "".into());
        let close = Message::Close(Some(CloseFrame { code, reason }));
        self.send_message(close).await;
        self.closed_after_all(1000).await;
        moved
    }

    /// The next frame of this kind. Only frames that may come at any moment are skipped: `members` and `tick`.
    pub async fn expect_kind(&mut self, kind: &str) -> Value {
        self.expect_any_within(&[kind], PATIENCE).await
    }

    /// The next frame of one of these kinds.
    pub async fn expect_any_within(&mut self, kinds: &[&str], within: Duration) -> Value {
        let what = format!("a frame of kind {kinds:?}");
        let wanted = |heard: &Heard| heard.frame(kinds).cloned();
        self.walk(&what, within, wanted).await
    }

    /// The next frame says that Redis is `up` or `down`.
    pub async fn expect_redis(&mut self, status: &str, within: Duration) {
        let frame = self.expect_any_within(&["status"], within).await;
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

    /// Reads the journal from the cursor to the first entry that is `wanted`, and moves the cursor past it.
    async fn walk<T>(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Heard) -> Option<T>,
    ) -> T {
        let (mut cursor, user) = (self.cursor, &self.user);
        let found = self.until(what, within, |journal| {
            journal.assert_nothing_wrong(user);
            while let Some((_, heard)) = journal.heard.get(cursor) {
                cursor += 1;
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
                    let transcript = journal.transcript();
                    panic!("{user} expected {what}, heard {heard:?}\n{transcript}");
                }
            }
            None
        });
        let found = found.await;
        self.cursor = cursor;
        found
    }

    /// Waits until the journal has what `probe` looks for.
    async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut probe: impl FnMut(&Journal) -> Option<T>,
    ) -> T {
        let (mut journal, mut found) = (self.journal.subscribe(), None);
        let has_it = journal.wait_for(|journal| {
            found = probe(journal);
            found.is_some()
        });
        let _ = timeout(within, has_it).await; // if this fails, nothing was found
        found.unwrap_or_else(|| panic!("waited {within:?} for {what}: {}", self.context()))
    }

    /// Waits for the Close, whatever comes before it. Returns its reason.
    pub async fn closed_after_all(&mut self, code: u16) -> String {
        self.closed_after_all_within(code, PATIENCE).await
    }

    pub async fn closed_after_all_within(&mut self, code: u16, within: Duration) -> String {
        let is_end = |(_, heard): &(Duration, Heard)| heard.is_end();
        let end = |journal: &Journal| journal.heard.iter().position(is_end);
        self.cursor = self.until("the end of the connection", within, end).await;
        self.expect_close(code).await
    }

    /// Waits until these members are shown, in this order.
    pub async fn expect_members(&mut self, users: &[&str]) {
        self.expect_members_within(users, PATIENCE).await;
    }

    pub async fn expect_members_within(&mut self, users: &[&str], within: Duration) {
        let what = format!("the members {users:?}");
        let shown = |journal: &Journal| match &journal.members {
            Some((names, count)) if names == users => Some(*count),
            _ => None,
        };
        let count = self.until(&what, within, shown).await;
        assert_eq!(count, users.len() as u64, "count: {}", self.context());
    }

    // ---- what it has received so far

    /// The names shown last, and the count.
    pub fn members(&self) -> (Vec<String>, u64) {
        self.journal.borrow().members.clone().unwrap_or_default()
    }

    /// All frames of this kind.
    pub fn frames(&self, kind: &str) -> Vec<Value> {
        self.journal.borrow().frames(kind).cloned().collect()
    }

    /// The number of `members` frames after the welcome.
    pub fn members_frames(&self) -> usize {
        self.frames("members").len()
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
        let journal = self.journal.borrow();
        let heard = journal.heard.iter().filter(|(_, heard)| wanted(heard));
        heard.map(|(at, _)| *at).collect()
    }

    /// The id from which this client would resume.
    pub fn last(&self) -> String {
        self.journal.borrow().last.to_string()
    }

    /// Every id in the order of arrival.
    pub fn ids(&self) -> Vec<Id> {
        self.journal.borrow().ids.clone()
    }

    /// For failure messages: the name, and the last 40 entries of the journal.
    pub fn context(&self) -> String {
        format!("{}\n{}", self.user, self.journal.borrow().transcript())
    }

    /// The texts of the welcome's history.
    pub fn history(&self) -> Vec<String> {
        let texts = history(&self.welcome).iter();
        let texts = texts.map(|talk| text(talk, "message").to_string());
        texts.collect()
    }
}

/// True for frames that the server may send at any moment.
pub fn is_unprompted(frame: &Value) -> bool {
    frame["kind"] == "members" || frame["kind"] == "tick"
}

async fn read(mut incoming: SplitStream<Socket>, journal: watch::Sender<Journal>) {
    let start = Instant::now();
    loop {
        let heard = match incoming.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(frame @ Value::Object(_)) => Heard::Frame(frame),
                _ => Heard::Broken(format!("not a JSON object: {text}")),
            },
            Some(Ok(Message::Ping(_))) => Heard::Ping,
            Some(Ok(Message::Pong(payload))) => Heard::Pong(payload.to_vec()),
            Some(Ok(Message::Close(close))) => {
                let close = close.map(|c| (c.code.into(), c.reason.to_string()));
                let (code, reason) = close.unwrap_or((1005, String::new()));
                Heard::Close(code, reason)
            }
            Some(Ok(other)) => Heard::Broken(format!("an unexpected frame {other:?}")),
            None | Some(Err(Error::ConnectionClosed)) => Heard::Eof, // after a Close
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Heard::Eof,
            Some(Err(e)) => Heard::Broken(e.to_string()),
        };
        let ended = matches!(heard, Heard::Eof | Heard::Broken(_));
        let at = start.elapsed();
        journal.send_modify(|journal| journal.write(at, heard));
        if ended {
            return;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
        if !std::thread::panicking() {
            self.journal.borrow().assert_nothing_wrong(&self.user);
        }
    }
}
