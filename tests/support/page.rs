//! A page without a browser: it reconnects for ever by the page's own rules, keeps what was not confirmed, resumes
//! from the last id, and remembers everything it was shown.
//!
//! [`Router`] stands for the platform's: a dyno at random for each connection, another one if that refuses.

use super::client::{Id, Socket, cid, join_frame, open, token};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Close codes after which a page stops and shows why.
const FINAL: [u16; 5] = [4400, 4409, 4429, 1009, 1003];
/// A page that hears nothing for this long takes the connection for dead.
const DEAD_LINE: Duration = Duration::from_secs(35);
const TRY: Duration = Duration::from_secs(10);
const BACKOFF: [u64; 5] = [1, 2, 4, 8, 15];
const SETTLED: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
pub struct Router(Arc<Mutex<Vec<SocketAddr>>>);

impl Router {
    pub fn to(dynos: &[SocketAddr]) -> Router {
        let router = Router::default();
        router.set(dynos);
        router
    }

    pub fn set(&self, dynos: &[SocketAddr]) {
        *self.0.lock().unwrap() = dynos.to_vec();
    }

    async fn open(&self) -> Option<(SocketAddr, Socket)> {
        let mut dynos = self.0.lock().unwrap().clone();
        fastrand::shuffle(&mut dynos);
        for dyno in dynos {
            if let Ok(socket) = open(dyno).await {
                return Some((dyno, socket));
            }
        }
        None
    }
}

/// What a person waits to see as sent.
#[derive(Clone, Debug)]
struct Pending {
    cid: String,
    text: String,
    /// Not before this moment; `None` while it is under way.
    due: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct Shown {
    pub id: Id,
    pub user: String,
    pub text: String,
    pub cid: String,
}

/// Everything a page has lived through.
#[derive(Default)]
pub struct Life {
    pub token: String,
    /// What the page would resume from.
    pub last: Option<Id>,
    /// Messages in the order of their ids.
    pub shown: Vec<Shown>,
    /// The first id after each gap that was announced.
    pub gaps: Vec<Id>,
    /// How many messages were typed, and the cids of those that are in the log.
    pub typed: usize,
    pub confirmed: Vec<String>,
    pending: Vec<Pending>,
    pub users: Vec<String>,
    /// Every list of members that differed from the one before it, by count.
    pub counts: Vec<(Instant, u64)>,
    pub status: Vec<(Instant, String)>,
    pub errors: Vec<String>,
    /// Each welcome: when, and from which dyno.
    pub welcomes: Vec<(Instant, SocketAddr)>,
    /// Each try to connect: when it was due.
    pub tries: Vec<Instant>,
    /// Each end of a connection and its code; 1006 without a Close.
    pub closes: Vec<(Instant, u16)>,
    /// The close after which it stopped.
    pub stopped: Option<(u16, String)>,
    pub connected: bool,
    /// What went against the contract.
    pub wrong: Vec<String>,
    cut: bool,
    leave: bool,
}

pub struct Page {
    pub room: String,
    pub user: String,
    life: Arc<Mutex<Life>>,
    poke: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Page {
    /// Opens the page; it joins as soon as a dyno lets it.
    pub fn open(router: &Router, room: &str, user: &str) -> Page {
        Page::open_as(router, room, user, &token())
    }

    /// A second tab, or the same one reloaded: the token is kept, what was shown is not.
    pub fn open_as(router: &Router, room: &str, user: &str, token: &str) -> Page {
        let life = Arc::new(Mutex::new(Life {
            token: token.to_string(),
            ..Life::default()
        }));
        let poke = Arc::new(Notify::new());
        let run = Run {
            router: router.clone(),
            room: room.into(),
            user: user.into(),
            life: life.clone(),
            poke: poke.clone(),
        };
        Page {
            room: room.into(),
            user: user.into(),
            life,
            poke,
            task: tokio::spawn(run.for_ever()),
        }
    }

    pub fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }

    /// Types a message; the page sends it when it can.
    pub fn say(&self, text: &str) -> String {
        let cid = cid();
        let due = Some(Instant::now());
        {
            let mut life = self.life();
            life.typed += 1;
            life.pending.push(Pending {
                cid: cid.clone(),
                text: text.to_string(),
                due,
            });
        }
        self.poke.notify_one();
        cid
    }

    /// Presses Leave.
    pub fn leave(&self) {
        self.life().leave = true;
        self.poke.notify_one();
    }

    /// Ends the connection without a word; the page comes back by its rules.
    pub fn drop_connection(&self) {
        self.life().cut = true;
        self.poke.notify_one();
    }

    /// Waits for a fact about the page.
    pub async fn until(&self, what: &str, within: Duration, fact: impl Fn(&Life) -> bool) {
        let start = Instant::now();
        while !fact(&self.life()) {
            assert!(
                start.elapsed() < within,
                "{}: not within {within:?}: {what}\n{}",
                self.user,
                self.summary()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn welcomed(&self) {
        self.until("connected and welcomed", super::PATIENCE, |life| {
            life.connected
        })
        .await;
    }

    /// Waits until everything typed is in the log.
    pub async fn all_sent(&self, within: Duration) {
        self.until("everything typed is confirmed", within, |life| {
            life.pending.is_empty()
        })
        .await;
    }

    pub fn ids(&self) -> Vec<Id> {
        self.life().shown.iter().map(|s| s.id).collect()
    }

    pub fn texts(&self) -> Vec<String> {
        self.life().shown.iter().map(|s| s.text.clone()).collect()
    }

    pub fn summary(&self) -> String {
        let life = self.life();
        let tail: Vec<_> = life
            .shown
            .iter()
            .rev()
            .take(5)
            .map(|s| format!("{} {}", s.id, s.text))
            .collect();
        format!(
            "{} in {}: connected {}, {} shown (newest first: {tail:?}), pending {:?}, users {:?}, closes {:?}, errors {:?}, \
             status {:?}, stopped {:?}, wrong {:?}",
            self.user,
            self.room,
            life.connected,
            life.shown.len(),
            life.pending,
            life.users,
            life.closes.iter().map(|c| c.1).collect::<Vec<_>>(),
            life.errors,
            life.status.iter().map(|s| &s.1).collect::<Vec<_>>(),
            life.stopped,
            life.wrong
        )
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Run {
    router: Router,
    room: String,
    user: String,
    life: Arc<Mutex<Life>>,
    poke: Arc<Notify>,
}

enum Ended {
    /// Left, or refused for good.
    ForGood,
    Lost(u16),
}

impl Run {
    async fn for_ever(self) {
        let mut tries = 0;
        let mut due = Instant::now();
        loop {
            sleep_until(due).await;
            self.life.lock().unwrap().tries.push(due);
            let start = Instant::now();
            let ended = self.connection().await;
            let mut wait = half_to_full(BACKOFF[tries.min(BACKOFF.len() - 1)]);
            {
                let mut life = self.life.lock().unwrap();
                let code = match ended {
                    Ended::ForGood => return,
                    Ended::Lost(code) => code,
                };
                life.closes.push((Instant::now(), code));
                if std::mem::take(&mut life.connected) && start.elapsed() > SETTLED {
                    tries = 0;
                }
                if tries == 0 {
                    wait = Duration::from_millis(fastrand::u64(0..3_000));
                }
                if code == 1013 {
                    wait = wait.max(half_to_full(16));
                }
                for talk in &mut life.pending {
                    talk.due = Some(Instant::now());
                }
            }
            tries += 1;
            due = Instant::now() + wait;
        }
    }

    async fn connection(&self) -> Ended {
        let deadline = Instant::now() + TRY;
        let Ok(Some((dyno, mut socket))) = timeout(TRY, self.router.open()).await else {
            return Ended::Lost(1006);
        };
        self.join(&mut socket).await;
        let mut close = None;
        // Joining again after `busy`; no deadline runs meanwhile.
        let mut join_again: Option<Instant> = None;
        let mut waits_for_redis = false;
        let mut dead = deadline;
        loop {
            let now = Instant::now();
            let due = {
                let life = self.life.lock().unwrap();
                let talk = life
                    .pending
                    .iter()
                    .filter_map(|t| t.due)
                    .min()
                    .filter(|_| life.connected);
                talk.into_iter()
                    .chain(join_again)
                    .min()
                    .unwrap_or(now + DEAD_LINE)
            };
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        let Ok(frame) = serde_json::from_str::<Value>(&text) else {
                            self.wrong(format!("not JSON: {text}"));
                            continue;
                        };
                        let busy = frame["kind"] == "error" && frame["code"] == "busy" && frame["cid"].is_null();
                        if busy && !self.life.lock().unwrap().connected {
                            join_again = Some(now + Duration::from_millis(frame["retry_ms"].as_u64().unwrap_or(1_000)));
                            waits_for_redis = true;
                        }
                        if frame["kind"] == "status" && frame["redis"] == "up" && waits_for_redis {
                            join_again = Some(now + Duration::from_millis(fastrand::u64(0..1_000)));
                        }
                        self.show(&frame, dyno);
                        if frame["kind"] == "welcome" {
                            join_again = None;
                        }
                        if waits_for_redis || self.life.lock().unwrap().connected {
                            dead = Instant::now() + DEAD_LINE;
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        close = frame.map(|f| (u16::from(f.code), f.reason.to_string())).or(Some((1005, String::new())));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        let (code, reason) = close.unwrap_or((1006, String::new()));
                        if FINAL.contains(&code) {
                            let mut life = self.life.lock().unwrap();
                            life.stopped = Some((code, reason));
                            life.connected = false;
                            return Ended::ForGood;
                        }
                        return Ended::Lost(code);
                    }
                },
                _ = self.poke.notified() => {
                    let (cut, leave) = {
                        let mut life = self.life.lock().unwrap();
                        (std::mem::take(&mut life.cut), life.leave)
                    };
                    if leave {
                        let _ = socket.send(Message::text(json!({"kind": "quit"}).to_string())).await;
                        let _ = timeout(TRY, async { while let Some(Ok(_)) = socket.next().await {} }).await;
                        self.life.lock().unwrap().connected = false;
                        return Ended::ForGood;
                    }
                    if cut {
                        return Ended::Lost(1006);
                    }
                }
                _ = sleep_until(due) => {}
                _ = sleep_until(dead) => return Ended::Lost(1006),
            }
            if join_again.is_some_and(|at| at <= Instant::now()) {
                join_again = None;
                self.join(&mut socket).await;
            }
            self.send_what_is_due(&mut socket).await;
        }
    }

    // A send that fails is no end yet: what the dyno said before, its Close above all, is still to be read.

    async fn join(&self, socket: &mut Socket) {
        let (token, last) = {
            let life = self.life.lock().unwrap();
            (life.token.clone(), life.last.map(|id| id.to_string()))
        };
        let join = join_frame(&self.room, &self.user, &token, last.as_deref());
        let _ = socket.send(Message::text(join.to_string())).await;
    }

    async fn send_what_is_due(&self, socket: &mut Socket) {
        let talks: Vec<_> = {
            let mut life = self.life.lock().unwrap();
            if !life.connected {
                return;
            }
            let now = Instant::now();
            let due = life
                .pending
                .iter_mut()
                .filter(|t| t.due.is_some_and(|due| due <= now));
            due.map(|t| {
                t.due = None;
                json!({"kind": "talk", "message": t.text, "cid": t.cid})
            })
            .collect()
        };
        for talk in talks {
            let _ = socket.send(Message::text(talk.to_string())).await;
        }
    }

    fn wrong(&self, what: String) {
        self.life.lock().unwrap().wrong.push(what);
    }

    fn show(&self, frame: &Value, dyno: SocketAddr) {
        let mut life = self.life.lock().unwrap();
        match frame["kind"].as_str() {
            Some("welcome") => {
                if life.connected {
                    life.wrong
                        .push(format!("a second welcome on one connection: {frame}"));
                }
                let before = life.last;
                let talks = frame["history"].as_array().cloned().unwrap_or_default();
                if frame["gap"] == true {
                    let first = talks
                        .first()
                        .map_or(Id::of(frame, "last"), |t| Id::of(t, "id"));
                    life.gaps.push(first);
                }
                for talk in &talks {
                    if before.is_some_and(|last| Id::of(talk, "id") <= last) {
                        life.wrong
                            .push(format!("resumed from {before:?}, was given {talk}"));
                    }
                    life.add(talk);
                }
                life.last = Some(Id::of(frame, "last"));
                life.connected = true;
                life.welcomes.push((Instant::now(), dyno));
                life.members(frame);
            }
            Some("talk") => {
                let id = Id::of(frame, "id");
                if life.last.is_some_and(|last| id <= last) {
                    let mine = life.pending.iter().any(|t| frame["cid"] == t.cid);
                    if !mine {
                        let last = life.last;
                        life.wrong.push(format!("after {last:?} came {frame}"));
                    }
                } else {
                    life.last = Some(id);
                }
                life.add(frame);
            }
            Some("members") => life.members(frame),
            Some("status") => {
                let redis = frame["redis"].as_str().unwrap_or("?").to_string();
                life.status.push((Instant::now(), redis));
            }
            Some("error") => {
                life.errors
                    .push(frame["code"].as_str().unwrap_or("?").to_string());
                let again = Instant::now()
                    + Duration::from_millis(frame["retry_ms"].as_u64().unwrap_or(1_000));
                if let Some(talk) = life.pending.iter_mut().find(|t| frame["cid"] == t.cid) {
                    talk.due = Some(again);
                }
            }
            Some("tick") => {}
            _ => life
                .wrong
                .push(format!("a frame of an unknown kind: {frame}")),
        }
    }
}

impl Life {
    fn add(&mut self, talk: &Value) {
        let word = |field: &str| talk[field].as_str().unwrap_or("?").to_string();
        let shown = Shown {
            id: Id::of(talk, "id"),
            user: word("user"),
            text: word("message"),
            cid: word("cid"),
        };
        if let Some(sent) = self.pending.iter().position(|t| t.cid == shown.cid) {
            self.pending.remove(sent);
            self.confirmed.push(shown.cid.clone());
        }
        let place = self.shown.partition_point(|s| s.id < shown.id);
        if self.shown.get(place).is_some_and(|s| s.id == shown.id) {
            self.wrong.push(format!("shown twice: {talk}"));
        } else {
            self.shown.insert(place, shown);
        }
    }

    fn members(&mut self, frame: &Value) {
        let users = frame["users"].as_array().cloned().unwrap_or_default();
        self.users = users
            .iter()
            .map(|u| u.as_str().unwrap_or("?").to_string())
            .collect();
        let count = frame["count"].as_u64().unwrap_or(0);
        if self
            .counts
            .last()
            .is_none_or(|(_, before)| *before != count)
        {
            self.counts.push((Instant::now(), count));
        }
    }
}

fn half_to_full(seconds: u64) -> Duration {
    Duration::from_millis(fastrand::u64(seconds * 500..=seconds * 1_000))
}
