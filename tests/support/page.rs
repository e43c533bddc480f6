//! A page without a browser. It follows the rules of the real page (see [`model`]), records what its user would see,
//! and checks each frame against the promise.

pub mod model;

use super::client::{Id, cid, token};
use fastrand::Rng;
use model::{Event, Model};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub use model::Router;

#[derive(Clone, Debug)]
pub struct Shown {
    pub id: Id,
    pub user: String,
    pub text: String,
    pub cid: String,
}

/// Everything that a page has seen and done.
#[derive(Default)]
pub struct Life {
    /// The newest id shown; the page resumes from it.
    pub last: Option<Id>,
    /// Messages in the order of their ids.
    pub shown: Vec<Shown>,
    /// The first id after each gap that was announced.
    pub gaps: Vec<Id>,
    /// How many messages were typed, the cids of those that are acknowledged, and the cids of the others.
    pub typed: usize,
    pub confirmed: Vec<String>,
    pending: Vec<(String, Instant)>,
    pub users: Vec<String>,
    /// The count of members, each time it changed.
    pub counts: Vec<(Instant, u64)>,
    pub status: Vec<(Instant, String)>,
    pub errors: Vec<String>,
    /// Each welcome: when, and from which dyno.
    pub welcomes: Vec<(Instant, SocketAddr)>,
    /// When each try to connect was due.
    pub tries: Vec<Instant>,
    /// Each `move` frame; and each move: when, and to which dyno.
    pub asked_to_move: Vec<Instant>,
    pub moves: Vec<(Instant, SocketAddr)>,
    /// Each time without a connection that was welcomed.
    pub away: Vec<Duration>,
    lost_at: Option<Instant>,
    /// From typing a message to its acknowledgement.
    pub ack_times: Vec<Duration>,
    /// Each end of a connection and its code; 1006 without a Close.
    pub closes: Vec<(Instant, u16)>,
    /// The close after which the page stopped.
    pub stopped: Option<(u16, String)>,
    pub connected: bool,
    /// Violations that were found, as sentences.
    pub wrong: Vec<String>,
    requests: Vec<Request>,
}

/// What the user does. The page's task carries it out.
enum Request {
    Say(String, String),
    DropConnection,
}

pub struct Page {
    pub room: String,
    pub user: String,
    life: Arc<Mutex<Life>>,
    wake: Arc<Notify>,
    task: JoinHandle<()>,
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
            task: tokio::spawn(run(model, life)),
        }
    }

    pub fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }

    fn request(&self, request: Request) {
        self.life().requests.push(request);
        self.wake.notify_one();
    }

    /// Types a message. The page sends it when it can.
    pub fn say(&self, text: &str) -> String {
        let cid = cid();
        {
            let mut life = self.life();
            life.typed += 1;
            life.pending.push((cid.clone(), Instant::now()));
        }
        self.request(Request::Say(cid.clone(), text.to_string()));
        cid
    }

    /// Ends the connection without a Close. The page reconnects by its rules.
    pub fn drop_connection(&self) {
        self.request(Request::DropConnection);
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

    /// Waits until everything typed is acknowledged.
    pub async fn all_sent(&self, within: Duration) {
        self.until("everything typed is acknowledged", within, |life| {
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
        let newest = life.shown.iter().rev().take(5);
        let newest: Vec<_> = newest.map(|s| format!("{} {}", s.id, s.text)).collect();
        format!(
            "{} in {}: connected {}, {} shown (newest first: {newest:?}), pending {:?}, users {:?}, closes {:?}, \
             errors {:?}, status {:?}, stopped {:?}, wrong {:?}",
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

/// Runs the page until the server refuses it for good.
async fn run(mut model: Model, life: Arc<Mutex<Life>>) {
    const FAR: Duration = Duration::from_secs(3_600);
    loop {
        let event = model.next(Instant::now() + FAR).await;
        if let Event::Woken = event {
            let requests = std::mem::take(&mut life.lock().unwrap().requests);
            for request in requests {
                match request {
                    Request::Say(cid, text) => model.say(cid, text),
                    Request::DropConnection if model.disconnect().is_some() => {
                        life.lock().unwrap().closed(1006);
                    }
                    Request::DropConnection => {}
                }
            }
            continue;
        }
        let mut life = life.lock().unwrap();
        match event {
            Event::Try(due) => life.tries.push(due),
            Event::Frame(dyno, frame) => life.hear(&frame, dyno),
            Event::Moved(dyno, frame) => {
                life.moves.push((Instant::now(), dyno));
                life.welcome(&frame);
            }
            Event::Closed(code) => life.closed(code),
            Event::Stopped(code, reason) => {
                life.stopped = Some((code, reason));
                life.connected = false;
                return;
            }
            Event::Woken | Event::Time => {}
        }
    }
}

impl Life {
    fn closed(&mut self, code: u16) {
        let now = Instant::now();
        self.closes.push((now, code));
        self.lost_at = self.lost_at.or(self.connected.then_some(now));
        self.connected = false;
    }

    fn hear(&mut self, frame: &Value, dyno: SocketAddr) {
        let now = Instant::now();
        match frame["kind"].as_str() {
            Some("welcome") => {
                if self.connected {
                    self.wrong
                        .push(format!("a second welcome on one connection: {frame}"));
                }
                self.away.extend(self.lost_at.take().map(|lost| now - lost));
                self.welcomes.push((now, dyno));
                self.welcome(frame);
            }
            Some("move") => self.asked_to_move.push(now),
            Some("talk") => {
                let (id, last) = (Id::of(frame, "id"), self.last);
                let own = self.pending.iter().any(|(cid, _)| frame["cid"] == **cid);
                if last.is_some_and(|last| id <= last) && !own {
                    self.wrong.push(format!("after {last:?} came {frame}"));
                }
                self.last = last.max(Some(id));
                self.show(frame);
            }
            Some("members") => self.list_members(frame),
            Some("status") => self.status.push((now, word(frame, "redis"))),
            Some("error") => self.errors.push(word(frame, "code")),
            Some("tick") => {}
            _ => self
                .wrong
                .push(format!("a frame of an unknown kind: {frame}")),
        }
    }

    fn welcome(&mut self, frame: &Value) {
        let before = self.last;
        let talks = frame["history"].as_array().map_or(&[][..], Vec::as_slice);
        let newest = Id::of(frame, "last");
        let gap = frame["gap"] == true;
        if gap {
            let first = talks.first().map_or(newest, |talk| Id::of(talk, "id"));
            self.gaps.push(first);
        }
        for talk in talks {
            if before.is_some_and(|last| Id::of(talk, "id") <= last) {
                self.wrong
                    .push(format!("resumed from {before:?}, was given {talk}"));
            }
            self.show(talk);
        }
        self.last = Some(newest).max(before.filter(|_| !gap));
        self.connected = true;
        self.list_members(frame);
    }

    fn show(&mut self, talk: &Value) {
        let shown = Shown {
            id: Id::of(talk, "id"),
            user: word(talk, "user"),
            text: word(talk, "message"),
            cid: word(talk, "cid"),
        };
        if let Some(own) = self.pending.iter().position(|(cid, _)| *cid == shown.cid) {
            let (cid, typed) = self.pending.remove(own);
            self.ack_times.push(typed.elapsed());
            self.confirmed.push(cid);
        }
        let place = self.shown.partition_point(|s| s.id < shown.id);
        if self.shown.get(place).is_some_and(|s| s.id == shown.id) {
            self.wrong.push(format!("shown twice: {talk}"));
        } else {
            self.shown.insert(place, shown);
        }
    }

    fn list_members(&mut self, frame: &Value) {
        self.users = model::users(frame);
        let count = frame["count"].as_u64().unwrap_or(0);
        if self.counts.last().is_none_or(|last| last.1 != count) {
            self.counts.push((Instant::now(), count));
        }
    }
}

fn word(frame: &Value, field: &str) -> String {
    frame[field].as_str().unwrap_or("?").to_string()
}
