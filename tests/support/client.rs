//! A client that makes a test read like a script: `hanako.say("こんにちは")`, `taro.hears("こんにちは")`.
//!
//! A task of its own reads the socket (and so answers Pings) and keeps a journal; `expect_…` walks along it. Ids that
//! do not rise, and a second welcome, end the test wherever they are seen.

use super::{Dyno, PATIENCE};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
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

/// What a client heard: a frame, or how the connection ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Frame(Value),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    /// A FIN; fine after a Close.
    Eof,
    /// Anything else: a reset, a frame that makes no sense.
    Broken(String),
}

#[derive(Default)]
struct Journal {
    heard: Vec<(Duration, Heard)>,
    /// The newest id of a welcome or a talk.
    last: Id,
    /// What went against the contract, whatever the test is about.
    wrong: Vec<String>,
    /// Cids sent over this connection: their receipts may lie before `last`.
    cids: Vec<String>,
    users: Option<Vec<String>>,
    count: u64,
    status: Option<String>,
}

impl Journal {
    fn write(&mut self, at: Duration, heard: Heard) {
        if let Heard::Frame(frame) = &heard {
            match frame["kind"].as_str() {
                Some("welcome") => {
                    if self.users.is_some() {
                        self.wrong.push(format!("a second welcome: {frame}"));
                    }
                    let ids: Vec<Id> = frame["history"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|t| Id::of(t, "id"))
                        .collect();
                    let last = Id::of(frame, "last");
                    if !ids.is_sorted_by(|a, b| a < b)
                        || ids.last().is_some_and(|newest| *newest != last)
                    {
                        self.wrong.push(format!(
                            "a history out of order or not up to {last}: {ids:?}"
                        ));
                    }
                    self.last = last;
                    self.remember_members(frame);
                }
                Some("talk") => {
                    let id = Id::of(frame, "id");
                    let receipt = frame["cid"]
                        .as_str()
                        .is_some_and(|cid| self.cids.iter().any(|c| c == cid));
                    if id > self.last {
                        self.last = id;
                    } else if !receipt {
                        self.wrong.push(format!("after {} came {frame}", self.last));
                    }
                    if self.users.is_none() {
                        self.wrong.push(format!("before the welcome came {frame}"));
                    }
                }
                Some("members") => {
                    if self.users.is_none() {
                        self.wrong.push(format!("before the welcome came {frame}"));
                    }
                    self.remember_members(frame);
                }
                Some("status") => self.status = frame["redis"].as_str().map(str::to_string),
                Some("error" | "tick") => {}
                _ => self
                    .wrong
                    .push(format!("a frame of an unknown kind: {frame}")),
            }
        }
        self.heard.push((at, heard));
    }

    fn remember_members(&mut self, frame: &Value) {
        let users = frame["users"]
            .as_array()
            .unwrap_or_else(|| panic!("no users in {frame}"));
        self.users = Some(
            users
                .iter()
                .map(|u| u.as_str().unwrap_or("?").to_string())
                .collect(),
        );
        self.count = frame["count"]
            .as_u64()
            .unwrap_or_else(|| panic!("no count in {frame}"));
    }

    fn transcript(&self) -> String {
        let from = self.heard.len().saturating_sub(40);
        let line = |(at, heard): &(Duration, Heard)| {
            let text = match heard {
                Heard::Frame(frame) => frame.to_string(),
                other => format!("{other:?}"),
            };
            format!(
                "  {:>7.3} s  {}\n",
                at.as_secs_f64(),
                text.chars().take(300).collect::<String>()
            )
        };
        self.heard[from..].iter().map(line).collect()
    }
}

pub struct Client {
    /// For messages about it: the name, once joined.
    pub user: String,
    pub room: String,
    pub token: String,
    /// The welcome, once joined.
    pub welcome: Value,
    out: SplitSink<Socket, Message>,
    journal: Arc<(Mutex<Journal>, Notify)>,
    /// How far the test has walked along the journal.
    cursor: usize,
    reader: JoinHandle<()>,
}

/// A WebSocket from the client's side, with buffers small enough for ten thousand of them.
pub async fn open(addr: SocketAddr) -> Result<Socket, Error> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(2048)
        .write_buffer_size(0);
    let (socket, _) = tokio_tungstenite::client_async_with_config(
        format!("ws://{addr}/ws"),
        stream,
        Some(config),
    )
    .await?;
    Ok(socket)
}

pub fn join_frame(room: &str, user: &str, token: &str, last: Option<&str>) -> Value {
    json!({"kind": "join", "room": room, "user": user, "token": token, "last": last})
}

/// People talk in turn, together about a hundred times a second, until `done`.
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

    /// Somebody who has been here before: a token, and the last id it saw.
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
        assert!(
            reason.contains(code),
            "the reason {reason:?} carries the code word {code}"
        );
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Client {
        let socket = timeout(PATIENCE, open(addr))
            .await
            .expect("the upgrade comes in time")
            .expect("the upgrade succeeds");
        let (out, incoming) = socket.split();
        let journal = Arc::new((Mutex::new(Journal::default()), Notify::new()));
        let reader = tokio::spawn(read(incoming, journal.clone()));
        let (user, room, token) = ("(not joined)".into(), String::new(), String::new());
        Client {
            user,
            room,
            token,
            welcome: Value::Null,
            out,
            journal,
            cursor: 0,
            reader,
        }
    }

    /// Sends the join and waits for the welcome.
    pub async fn join(&mut self, room: &str, user: &str, token: &str, last: Option<&str>) {
        self.user = user.to_string();
        self.send(join_frame(room, user, token, last)).await;
        self.joined().await;
    }

    /// Waits for the welcome of a join that was sent.
    pub async fn joined(&mut self) {
        let welcome = self.expect_kind("welcome").await;
        let word = |field: &str| {
            welcome[field]
                .as_str()
                .unwrap_or_else(|| panic!("no {field} in {welcome}"))
                .to_string()
        };
        (self.user, self.room, self.token) = (word("user"), word("room"), word("token"));
        self.welcome = welcome;
    }

    pub async fn send(&mut self, frame: Value) {
        if let Some(cid) = frame["cid"].as_str() {
            self.journal.0.lock().unwrap().cids.push(cid.to_string());
        }
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        // A refusal shows in the journal, as the end of the connection.
        let _ = timeout(PATIENCE, self.out.send(message)).await;
    }

    /// Sends a talk; gives its cid.
    pub async fn talk(&mut self, text: &str) -> String {
        let cid = cid();
        self.talk_as(text, &cid).await;
        cid
    }

    pub async fn talk_as(&mut self, text: &str, cid: &str) {
        self.send(json!({"kind": "talk", "message": text, "cid": cid}))
            .await;
    }

    /// Sends a talk and waits until it comes back: it is in the log. Gives the frame.
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

    /// The next talk carries exactly this text.
    pub async fn hears(&mut self, text: &str) -> Value {
        let frame = self.expect_kind("talk").await;
        assert_eq!(
            frame["message"],
            text,
            "what {} hears next\n{}",
            self.user,
            self.transcript()
        );
        frame
    }

    /// The next frame of this kind. Only what comes when it likes may come before it: lists of members, ticks.
    pub async fn expect_kind(&mut self, kind: &str) -> Value {
        self.expect_within(kind, PATIENCE).await
    }

    pub async fn expect_within(&mut self, kind: &str, within: Duration) -> Value {
        let wanted = |heard: &Heard| match heard {
            Heard::Frame(frame) if frame["kind"] == kind => Some(frame.clone()),
            _ => None,
        };
        self.walk(&format!("a frame of kind {kind}"), within, wanted)
            .await
    }

    /// The next frame of one of these kinds.
    pub async fn expect_any_within(&mut self, kinds: &[&str], within: Duration) -> Value {
        let wanted = |heard: &Heard| match heard {
            Heard::Frame(frame) if kinds.iter().any(|kind| frame["kind"] == *kind) => {
                Some(frame.clone())
            }
            _ => None,
        };
        self.walk(
            &format!("a frame of one of the kinds {kinds:?}"),
            within,
            wanted,
        )
        .await
    }

    pub async fn expect_error(&mut self, code: &str) -> Value {
        let frame = self.expect_kind("error").await;
        assert_eq!(
            frame["code"],
            code,
            "{}: {frame}\n{}",
            self.user,
            self.transcript()
        );
        assert!(
            frame["message"].as_str().is_some_and(|m| !m.is_empty()),
            "an error says it in a sentence: {frame}"
        );
        frame
    }

    /// A Close with this code, then a clean end. Gives the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        self.expect_close_within(code, PATIENCE).await
    }

    pub async fn expect_close_within(&mut self, code: u16, within: Duration) -> String {
        let close = |heard: &Heard| match heard {
            Heard::Close(code, reason) => Some((*code, reason.clone())),
            _ => None,
        };
        let (seen, reason) = self.walk(&format!("Close {code}"), within, close).await;
        assert_eq!(
            seen,
            code,
            "{} is closed with reason {reason:?}\n{}",
            self.user,
            self.transcript()
        );
        self.walk("a FIN after the Close", PATIENCE, |heard| {
            (*heard == Heard::Eof).then_some(())
        })
        .await;
        reason
    }

    pub async fn expect_pong(&mut self, payload: &[u8]) {
        self.walk("a Pong", PATIENCE, |heard| {
            (*heard == Heard::Pong(payload.to_vec())).then_some(())
        })
        .await;
    }

    pub async fn expect_ping(&mut self, within: Duration) {
        self.walk("a Ping", within, |heard| {
            (*heard == Heard::Ping).then_some(())
        })
        .await;
    }

    /// What follows the cursor, up to the first thing that is `wanted`.
    async fn walk<T>(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Heard) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            let mut found = None;
            {
                let journal = self.journal.0.lock().unwrap();
                assert!(
                    journal.wrong.is_empty(),
                    "{}: {:?}\n{}",
                    self.user,
                    journal.wrong,
                    journal.transcript()
                );
                while found.is_none() && self.cursor < journal.heard.len() {
                    let (_, heard) = &journal.heard[self.cursor];
                    self.cursor += 1;
                    found = wanted(heard);
                    if found.is_none() && !comes_when_it_likes(heard) {
                        panic!(
                            "{} expected {what}, heard {heard:?}\n{}",
                            self.user,
                            journal.transcript()
                        );
                    }
                }
            }
            if let Some(found) = found {
                return found;
            }
            tokio::select! {
                _ = self.journal.1.notified() => {}
                _ = sleep_until(deadline) => panic!("{} waited {within:?} for {what}\n{}", self.user, self.transcript()),
            }
        }
    }

    /// Waits until these are the members shown, in this order.
    pub async fn expect_members(&mut self, users: &[&str]) {
        self.expect_members_within(users, PATIENCE).await;
    }

    pub async fn expect_members_within(&mut self, users: &[&str], within: Duration) {
        let deadline = Instant::now() + within;
        while self.members().0 != users {
            tokio::select! {
                _ = self.journal.1.notified() => {}
                _ = sleep_until(deadline) => {
                    panic!("{} sees {:?}, not {users:?}, after {within:?}\n{}", self.user, self.members(), self.transcript())
                }
            }
        }
        assert_eq!(
            self.members().1,
            users.len() as u64,
            "the count\n{}",
            self.transcript()
        );
    }

    /// The names shown last, and the count.
    pub fn members(&self) -> (Vec<String>, u64) {
        let journal = self.journal.0.lock().unwrap();
        (journal.users.clone().unwrap_or_default(), journal.count)
    }

    /// How many lists of members came after the welcome.
    pub fn members_frames(&self) -> usize {
        self.count_heard(|heard| matches!(heard, Heard::Frame(frame) if frame["kind"] == "members"))
    }

    pub fn count_heard(&self, wanted: impl Fn(&Heard) -> bool) -> usize {
        self.journal
            .0
            .lock()
            .unwrap()
            .heard
            .iter()
            .filter(|(_, heard)| wanted(heard))
            .count()
    }

    /// When things of this kind were heard, counted from the upgrade.
    pub fn heard_at(&self, wanted: impl Fn(&Heard) -> bool) -> Vec<Duration> {
        let journal = self.journal.0.lock().unwrap();
        journal
            .heard
            .iter()
            .filter(|(_, heard)| wanted(heard))
            .map(|(at, _)| *at)
            .collect()
    }

    /// The Redis status told last, if any was.
    pub fn status(&self) -> Option<String> {
        self.journal.0.lock().unwrap().status.clone()
    }

    /// The id this client would resume from.
    pub fn last(&self) -> String {
        self.journal.0.lock().unwrap().last.to_string()
    }

    /// Every id seen in order: the welcome's history, then what was said. Receipts of earlier talks are left out.
    pub fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = vec![];
        for (_, heard) in &self.journal.0.lock().unwrap().heard {
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

    pub fn transcript(&self) -> String {
        self.journal.0.lock().unwrap().transcript()
    }

    /// The texts of the welcome's history.
    pub fn history(&self) -> Vec<String> {
        let history = self.welcome["history"]
            .as_array()
            .unwrap_or_else(|| panic!("no history in {}", self.welcome));
        history
            .iter()
            .map(|talk| talk["message"].as_str().unwrap_or("?").to_string())
            .collect()
    }

    /// A talk whose answer proves that everything sent before has been dealt with.
    pub async fn settle(&mut self) {
        self.send(json!({"kind": "ping"})).await;
        self.expect_kind("tick").await;
    }

    /// Like [`Client::settle`], for whoever does not mind what comes before the answer.
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
        self.cursor = self.journal.0.lock().unwrap().heard.len();
    }

    /// All talks heard, and all errors.
    pub fn talks_and_refusals(&self) -> (Vec<Value>, Vec<Value>) {
        let of_kind = |kind: &str| {
            let journal = self.journal.0.lock().unwrap();
            let frames = journal.heard.iter().filter_map(|(_, heard)| match heard {
                Heard::Frame(frame) if frame["kind"] == kind => Some(frame.clone()),
                _ => None,
            });
            frames.collect()
        };
        (of_kind("talk"), of_kind("error"))
    }

    /// Whatever comes before it: a Close with this code, then a clean end. Gives the reason.
    pub async fn closed_after_all(&mut self, code: u16) -> String {
        self.closed_after_all_within(code, PATIENCE).await
    }

    pub async fn closed_after_all_within(&mut self, code: u16, within: Duration) -> String {
        let close =
            |heard: &Heard| matches!(heard, Heard::Close(..) | Heard::Eof | Heard::Broken(_));
        super::eventually("the connection is closed", within, async || {
            match self.count_heard(close) > 0 {
                true => Ok(()),
                false => Err("still open"),
            }
        })
        .await;
        self.cursor = self
            .journal
            .0
            .lock()
            .unwrap()
            .heard
            .iter()
            .position(|(_, h)| close(h))
            .unwrap_or(0);
        self.expect_close(code).await
    }

    /// A Close with this code; an error with a sentence for people may come before it.
    pub async fn expect_close_after_error(&mut self, code: u16) -> String {
        self.closed_after_all(code).await
    }

    /// Says goodbye with the Leave button.
    pub async fn quit(mut self) {
        self.send(json!({"kind": "quit"})).await;
        self.expect_close(1000).await;
    }

    /// Ends the connection without a word, as a lost network does; what it must remember to come back.
    pub async fn vanish(self) -> (String, String) {
        (self.token.clone(), self.last())
    }
}

/// Frames that a test about something else may see at any moment.
fn comes_when_it_likes(heard: &Heard) -> bool {
    match heard {
        Heard::Frame(frame) => frame["kind"] == "members" || frame["kind"] == "tick",
        Heard::Ping => true,
        _ => false,
    }
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
        let journal = self
            .journal
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if !std::thread::panicking() {
            assert!(
                journal.wrong.is_empty(),
                "{}: {:?}\n{}",
                self.user,
                journal.wrong,
                journal.transcript()
            );
        }
    }
}
