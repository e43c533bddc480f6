//! A page without a browser. It follows the rules of the real page (see [`model`]), records what its user would see,
//! and checks each frame against the promise.

pub mod model;

use super::client::{Id, cid, token};
use super::facts::MAX_LIST;
use super::{PATIENCE, eventually};
use fastrand::Rng;
use model::{Event, Model};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use model::Router;

#[derive(Debug)]
pub struct Shown {
    pub id: Id,
    pub cid: String,
    text: String,
}

/// A message that the user typed.
pub struct Own {
    pub cid: String,
    typed: Instant,
    /// The acknowledgement came, with this id.
    pub id: Option<Id>,
}

/// Everything that a page has seen and done, and what of it was wrong.
#[derive(Default)]
pub struct Life {
    /// The first message that the page was to see.
    pub from: Option<Id>,
    /// The newest id shown; the page resumes from it.
    pub last: Option<Id>,
    /// The newest id before the last move: the second connection may bring what the first one has brought, too.
    overlap: Option<Id>,
    /// Messages in the order of their ids.
    pub shown: Vec<Shown>,
    /// Messages that came after newer ones. The acknowledgement of an own message may, if it is older than the history.
    pub late: Vec<Shown>,
    /// The first id after each gap that was announced.
    pub gaps: Vec<Id>,
    pub own: Vec<Own>,
    pub users: Vec<String>,
    /// The count of members, each time it changed.
    pub counts: Vec<u64>,
    pub status: Vec<(Instant, String)>,
    /// What the last `status` of this connection said.
    pub redis_down: bool,
    /// Each welcome: when, and from which dyno.
    pub welcomes: Vec<(Instant, SocketAddr)>,
    /// When each try to connect was due.
    pub tries: Vec<Instant>,
    /// Each move: when, and to which dyno.
    pub moves: Vec<(Instant, SocketAddr)>,
    /// Each time without a connection that was welcomed.
    pub away: Vec<Duration>,
    pub lost_at: Option<Instant>,
    /// From typing a message to its acknowledgement.
    pub ack_times: Vec<Duration>,
    /// Each end of a connection and its code; 1006 without a Close.
    pub closes: Vec<(Instant, u16)>,
    pub connected: bool,
    /// Violations that were found, as sentences.
    pub wrong: Vec<String>,
    /// Cid and text of each message that the page's task has not seen yet.
    typed: Vec<(String, String)>,
}

pub struct Page {
    pub room: String,
    pub user: String,
    life: Arc<Mutex<Life>>,
    wake: Arc<Notify>,
    /// Dropping this ends the task.
    _task: JoinSet<()>,
}

impl Page {
    /// Opens the page with a new token. It joins as soon as a dyno accepts it.
    pub fn open(router: &Router, room: &str, user: &str) -> Page {
        let model = Model::new(router, room, user, &token(), Rng::new());
        let (life, wake) = (Arc::<Mutex<Life>>::default(), model.wake.clone());
        Page {
            room: room.into(),
            user: user.into(),
            life: life.clone(),
            wake,
            _task: JoinSet::from_iter([run(model, life)]),
        }
    }

    pub fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }

    /// Types a message. The page sends it when it can.
    pub fn say(&self, text: &str) {
        let cid = cid();
        let mut life = self.life();
        life.say(&cid);
        life.typed.push((cid, text.to_string()));
        self.wake.notify_one();
    }

    /// Waits for a fact about the page.
    pub async fn until(&self, what: &str, within: Duration, fact: impl Fn(&Life) -> bool) {
        eventually(what, within, async || {
            let holds = fact(&self.life());
            if holds { Ok(()) } else { Err(self.summary()) }
        })
        .await;
    }

    pub async fn welcomed(&self) {
        let connected = |life: &Life| life.connected;
        self.until("welcomed", PATIENCE, connected).await;
    }

    /// Waits until everything typed is acknowledged.
    pub async fn all_sent(&self, within: Duration) {
        let what = "everything typed is acknowledged";
        let acknowledged = |own: &Own| own.id.is_some();
        let fact = |life: &Life| life.own.iter().all(acknowledged);
        self.until(what, within, fact).await;
    }

    pub fn ids(&self) -> Vec<Id> {
        self.life().shown.iter().map(|s| s.id).collect()
    }

    pub fn texts(&self) -> Vec<String> {
        self.life().shown.iter().map(|s| s.text.clone()).collect()
    }

    pub fn summary(&self) -> String {
        let life = self.life();
        let newest = life.shown.iter().rev().take(5);
        let newest: Vec<_> = newest.map(|s| format!("{} {}", s.id, s.text)).collect();
        let pending = life.own.iter().filter(|own| own.id.is_none());
        let pending: Vec<_> = pending.map(|own| &own.cid).collect();
        let (user, room, recent) = (&self.user, &self.room, life.recent());
        let (connected, wrong) = (life.connected, &life.wrong);
        format!(
            "{user} in {room}: connected {connected}, newest {newest:?}, pending {pending:?}, {recent}, wrong {wrong:?}"
        )
    }
}

/// Runs the page until the server refuses it for good.
async fn run(mut model: Model, life: Arc<Mutex<Life>>) {
    loop {
        let event = model.next(None).await;
        let mut life = life.lock().unwrap();
        life.record(&event);
        if let Event::Stopped(..) = event {
            return;
        }
        for (cid, text) in life.typed.drain(..) {
            model.say(cid, text);
        }
    }
}

impl Life {
    pub fn say(&mut self, cid: &str) {
        self.own.push(Own {
            cid: cid.into(),
            typed: Instant::now(),
            id: None,
        });
    }

    pub fn closed(&mut self, code: u16) {
        let now = Instant::now();
        self.closes.push((now, code));
        self.lost_at = self.lost_at.or(self.connected.then_some(now));
        self.connected = false;
    }

    /// The life of the page after a reload: it has forgotten what it showed, and keeps what the user typed.
    pub fn reload(&mut self) -> Life {
        self.closed(1001);
        Life {
            own: std::mem::take(&mut self.own),
            lost_at: self.lost_at.take(),
            ..Life::default()
        }
    }

    /// The dyno that the page is connected to, and since when.
    pub fn dyno(&self) -> Option<(Instant, SocketAddr)> {
        let newest = self.welcomes.last().max(self.moves.last());
        newest.copied().filter(|_| self.connected)
    }

    /// The newest welcomes, moves, closes and statuses, and how long ago they were.
    pub fn recent(&self) -> String {
        fn newest<T: std::fmt::Debug>(list: &[(Instant, T)]) -> Vec<String> {
            let ago = |at: &Instant| at.elapsed().as_secs_f64();
            let newest = list.iter().rev().take(5);
            let newest = newest.map(|(at, what)| format!("{what:?} {:.1} s ago", ago(at)));
            newest.collect()
        }
        let (welcomes, moves) = (newest(&self.welcomes), newest(&self.moves));
        let (closes, status) = (newest(&self.closes), newest(&self.status));
        format!("welcomes {welcomes:?}, moves {moves:?}, closes {closes:?}, status {status:?}")
    }

    fn fail(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Records and judges an event. The model has acted on it already.
    pub fn record(&mut self, event: &Event) {
        match event {
            Event::Try(due) => {
                self.tries.push(*due);
                self.redis_down = false;
            }
            Event::Frame(dyno, frame) => self.hear(frame, *dyno),
            Event::Moved(dyno, frame, down) => {
                self.moves.push((Instant::now(), *dyno));
                self.redis_down = *down; // the welcome may come between `down` and `up`
                self.overlap = self.last;
                self.welcome(frame);
            }
            Event::Closed(code) => self.closed(*code),
            Event::Stopped(code, reason) => {
                self.closed(*code);
                self.fail(format!("closed for good with {code} {reason}"));
            }
            Event::Time => {}
        }
    }

    fn hear(&mut self, frame: &Value, dyno: SocketAddr) {
        let now = Instant::now();
        match frame["kind"].as_str() {
            Some("welcome") => {
                if self.connected {
                    self.fail(format!("a second welcome on one connection: {frame}"));
                }
                self.away.extend(self.lost_at.take().map(|lost| now - lost));
                self.welcomes.push((now, dyno));
                self.overlap = None;
                self.welcome(frame);
            }
            Some("talk") => {
                if !self.connected {
                    self.fail(format!("a message before the welcome: {frame}"));
                }
                self.show(frame);
            }
            Some("members") => self.list_members(frame),
            Some("status") => {
                let down = frame["redis"] == "down";
                if down == self.redis_down {
                    self.fail(format!("the same status twice: {frame}"));
                }
                self.redis_down = down;
                self.status.push((now, word(frame, "redis")));
            }
            Some("error" | "tick" | "move") => {}
            _ => self.fail(format!("a frame of an unknown kind: {frame}")),
        }
    }

    fn welcome(&mut self, frame: &Value) {
        let talks = frame["history"].as_array().map_or(&[][..], Vec::as_slice);
        let (gap, newest) = (frame["gap"] == true, Id::of(frame, "last"));
        let after_newest = Id(newest.0, newest.1 + 1);
        let first = talks.first().map_or(after_newest, |t| Id::of(t, "id"));
        let ends_at = match talks.last() {
            Some(talk) => Some(Id::of(talk, "id")),
            None => self.last.filter(|_| !gap),
        };
        let brought_more = talks.is_empty() && self.overlap > Some(newest);
        if ends_at.is_some_and(|id| id != newest) && !brought_more {
            self.fail(format!("a history that does not end at {newest}: {frame}"));
        }
        self.from.get_or_insert(first);
        self.gaps.extend(gap.then_some(first));
        for talk in talks {
            self.show(talk);
        }
        self.last = Some(newest).max(self.last.filter(|_| !gap));
        self.connected = true;
        self.list_members(frame);
    }

    fn show(&mut self, talk: &Value) {
        let (id, cid) = (Id::of(talk, "id"), word(talk, "cid"));
        let own = self.own.iter_mut().find(|own| own.cid == cid);
        let is_own = own.is_some();
        if let Some(own) = own {
            let first = *own.id.get_or_insert_with(|| {
                self.ack_times.push(own.typed.elapsed());
                id
            });
            if first != id {
                self.fail(format!("the talk {cid} under two ids, {first} and {id}"));
            }
        }
        let text = word(talk, "message");
        let shown = Shown { id, cid, text };
        if Some(id) > self.last {
            self.last = Some(id);
            return self.shown.push(shown);
        }
        let all = self.shown.iter().chain(&self.late);
        let doubled = all.rev().any(|shown| shown.id == id);
        if doubled && Some(id) <= self.overlap {
            return;
        }
        if doubled || !is_own {
            let what = if doubled { "doubled" } else { "out of order" };
            let (last, recent) = (self.last.unwrap_or_default(), self.recent());
            self.fail(format!("{what}: {talk} after {last}; {recent}"));
        }
        if !doubled {
            self.late.push(shown);
        }
    }

    fn list_members(&mut self, frame: &Value) {
        let users = frame["users"].as_array().map_or(&[][..], Vec::as_slice);
        let users = users.iter().map(|user| user.as_str().unwrap_or("?").into());
        self.users = users.collect();
        let count = frame["count"].as_u64().unwrap_or(0);
        let different = BTreeSet::from_iter(&self.users).len();
        if different as u64 != count.min(MAX_LIST as u64) {
            self.fail(format!("a list that does not match its count: {frame}"));
        }
        if self.counts.last() != Some(&count) {
            self.counts.push(count);
        }
    }
}

fn word(frame: &Value, field: &str) -> String {
    frame[field].as_str().unwrap_or("?").to_string()
}
