//! One simulated user: the messages that it sent and saw, and the check of each message against the earlier ones.
//! `verify.rs` compares it with the stream at the end.

use super::support::Id;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A run of messages without an announced gap: exactly these ids of the stream, in this order.
pub struct Stretch {
    /// The user was to see everything after this id.
    pub after: Id,
    pub ids: Vec<Id>,
    /// The gap before it: the id that the page resumed from, and the newest id of the welcome.
    pub gap: Option<(Id, Id)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Pending,
    /// The acknowledgement came, with this id.
    Confirmed(Id),
    /// The user left, or the page cannot know whether the message is stored.
    GivenUp,
}

pub struct OwnMessage {
    pub cid: String,
    pub outcome: Outcome,
}

#[derive(Default)]
pub struct User {
    pub name: String,
    pub room: String,
    pub stretches: Vec<Stretch>,
    pub messages: Vec<OwnMessage>,
    /// The newest list of members, and its exact count.
    pub users: Vec<String>,
    pub count: usize,
    /// The dyno that welcomed the user, and when.
    pub connected: Option<(usize, Instant)>,
    /// Every dyno that welcomed it, for failure messages.
    pub dynos: Vec<usize>,
    events: Vec<(Instant, String)>,
    pub redis_down: bool,
    /// The name's lease cannot have expired since `.0`; it was surely renewed at `.1`.
    pub lease: Option<(Instant, Instant)>,
    /// The client does not read, or reads old frames, until then.
    pub blind_until: Option<Instant>,
    /// A dyno may take the client's old socket for alive and renew the name until then.
    pub half_open_until: Option<Instant>,
    /// The page has forgotten what it showed; the next welcome begins a new stretch.
    pub reloaded: bool,
    /// When the user left.
    pub gone: Option<Instant>,
    /// Its pages: a reload makes a new one.
    pages: Vec<PageLife>,
    /// Every message that any of its pages has shown.
    pub seen: BTreeSet<Id>,
    /// Since when the page has no connection, after it had one; and for how long it had none before.
    offline_since: Option<Instant>,
    offline: Duration,
    /// Violations that were found, as sentences.
    pub wrong: Vec<String>,
}

impl User {
    pub fn new(name: &str, room: &str) -> User {
        User {
            name: name.into(),
            room: room.into(),
            ..User::default()
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.events.push((Instant::now(), what.into()));
    }

    /// A welcome came from this dyno.
    pub fn connect(&mut self, dyno: usize) {
        let now = Instant::now();
        self.offline = self.offline();
        self.offline_since = None;
        if self.pages.last().is_none_or(|page| page.end.is_some()) {
            let (from_ms, end) = (wall_ms(), None);
            self.pages.push(PageLife { from_ms, end });
        }
        self.connected = Some((dyno, now));
        self.dynos.push(dyno);
    }

    pub fn leave(&mut self) {
        self.gone = Some(Instant::now());
        self.end_page();
    }

    pub fn reload(&mut self) {
        self.reloaded = true;
        self.end_page();
    }

    fn end_page(&mut self) {
        let newest = self.seen.last().copied().unwrap_or_default();
        if let Some(page) = self.pages.last_mut() {
            page.end.get_or_insert((wall_ms(), newest));
        }
    }

    /// Its pages. The last one has no end if the user is still there.
    pub fn pages(&self) -> &[PageLife] {
        &self.pages
    }

    pub fn disconnect(&mut self) {
        if self.connected.take().is_some() && self.gone.is_none() {
            self.offline_since = Some(Instant::now());
        }
    }

    /// For how long the page had no connection since its first welcome.
    pub fn offline(&self) -> Duration {
        let end = self.gone.unwrap_or_else(Instant::now);
        let since = self.offline_since.map(|since| end.duration_since(since));
        self.offline + since.unwrap_or_default()
    }

    /// The last five events: how long ago, and what.
    pub fn recent_events(&self) -> String {
        let from = self.events.len().saturating_sub(5);
        let event = |(at, what): &(Instant, String)| {
            format!("{:.1} s ago {what}", at.elapsed().as_secs_f64())
        };
        let events: Vec<String> = self.events[from..].iter().map(event).collect();
        events.join(", ")
    }

    /// The id that a reconnect resumes from; `None` after a reload.
    pub fn last(&self) -> Option<Id> {
        let stretch = self.stretches.last().filter(|_| !self.reloaded)?;
        Some(stretch.ids.last().copied().unwrap_or(stretch.after))
    }

    pub fn say(&mut self, cid: &str) {
        self.messages.push(OwnMessage {
            cid: cid.into(),
            outcome: Outcome::Pending,
        });
    }

    /// Records a welcome: its history, and its newest id.
    pub fn welcome(&mut self, gap: bool, history: Vec<(Id, String)>, newest: Id) {
        let resumed = self.last();
        self.reloaded = false;
        if history.last().is_some_and(|(id, _)| *id != newest) {
            self.wrong
                .push(format!("a history that does not end at {newest}"));
        }
        match resumed {
            Some(last) if !gap => {
                if newest < last {
                    self.wrong.push(format!(
                        "the stream ends at {newest}, before {last}, and no gap"
                    ));
                }
                if history.is_empty() && newest != last {
                    self.wrong
                        .push(format!("resumed from {last}, nothing up to {newest}"));
                }
            }
            _ => self.stretches.push(Stretch {
                after: history.first().map_or(newest, |(first, _)| before(*first)),
                ids: vec![],
                gap: resumed.map(|last| (last, newest)),
            }),
        }
        for (id, cid) in history {
            self.show(id, &cid);
        }
    }

    /// Records a message, live or from a history. Returns true if it was new to this page.
    pub fn show(&mut self, id: Id, cid: &str) -> bool {
        self.seen.insert(id);
        let own = self.messages.iter_mut().find(|m| m.cid == cid);
        let is_own = own.is_some();
        if let Some(message) = own {
            match message.outcome {
                Outcome::Confirmed(first) if first != id => self
                    .wrong
                    .push(format!("the talk {cid} under two ids, {first} and {id}")),
                _ => message.outcome = Outcome::Confirmed(id),
            }
        }
        let last = self.last();
        let Some(stretch) = self.stretches.last_mut() else {
            self.wrong.push(format!("{id} before the welcome"));
            return false;
        };
        if Some(id) > last {
            stretch.ids.push(id);
            return true;
        }
        // The acknowledgement of an own message that is older than the history may come alone.
        let doubled = stretch.ids.contains(&id);
        if doubled || !is_own {
            let what = if doubled { "doubled" } else { "out of order" };
            let last = last.unwrap_or_default();
            self.wrong
                .push(format!("{what}: {id} after {last}, dynos {:?}", self.dynos));
        }
        false
    }

    pub fn pending(&self) -> Option<&OwnMessage> {
        self.messages.iter().find(|m| m.outcome == Outcome::Pending)
    }

    pub fn give_up(&mut self, which: impl Fn(&OwnMessage) -> bool) {
        for message in &mut self.messages {
            if message.outcome == Outcome::Pending && which(message) {
                message.outcome = Outcome::GivenUp;
            }
        }
    }
}

/// The life of a page, by the wall clock in ms: from its first welcome until a reload, or until the user left.
pub struct PageLife {
    pub from_ms: u64,
    /// With the newest message that it showed. Later ones may have been on their way.
    pub end: Option<(u64, Id)>,
}

pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// An id below this one and not below any earlier one: sequence numbers rise.
fn before(id: Id) -> Id {
    match id {
        Id(ms, 0) => Id(ms - 1, u64::MAX),
        Id(ms, seq) => Id(ms, seq - 1),
    }
}
