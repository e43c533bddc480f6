//! What one person saw and said, from the first welcome under a name until it leaves; and the check of each frame
//! against what came before. The comparison with the stream is made at the end, in `verify.rs`.

use super::support::Id;
use std::time::Instant;

/// A run of messages without an announced gap: exactly these ids of the stream, in this order.
pub struct Stretch {
    /// What it begins behind: everything after this id was to be seen.
    pub after: Id,
    pub ids: Vec<Id>,
    /// The gap that began it: the id that was resumed from, and the newest of the welcome.
    pub gap: Option<(Id, Id)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Pending,
    /// Its echo came, with this id.
    Confirmed(Id),
    /// The person left, or the page cannot know whether it was said.
    GivenUp,
}

pub struct Saying {
    pub cid: String,
    pub text: String,
    /// When it was first handed to a dyno.
    pub sent: Option<Instant>,
    pub fate: Fate,
}

pub struct Person {
    pub user: String,
    pub room: String,
    pub token: String,
    pub stretches: Vec<Stretch>,
    pub sayings: Vec<Saying>,
    /// The list of members as shown last, and its exact count.
    pub users: Vec<String>,
    pub count: usize,
    /// The dyno it is on, and since when it is welcomed there.
    pub seat: Option<(usize, Instant)>,
    /// Every dyno that welcomed it, for evidence; and what else befell it.
    pub dynos: Vec<usize>,
    pub diary: Vec<(Instant, String)>,
    pub redis_down: bool,
    /// Redis went away and came back, as told to this page: when, and which.
    pub status: Vec<(Instant, bool)>,
    /// From `.0` on the name's lease cannot have lapsed; last known to be renewed at `.1`.
    pub assured: Option<(Instant, Instant)>,
    /// Does not read, or has just begun to again: what it is shown is old.
    pub blind_until: Option<Instant>,
    /// Until then a socket that looks alive to a dyno may renew the name.
    pub half_open_until: Option<Instant>,
    /// What was shown is forgotten: the next welcome begins anew.
    pub reloaded: bool,
    pub gone: Option<Instant>,
    /// What went against the contract.
    pub wrong: Vec<String>,
}

impl Person {
    pub fn new(user: String, room: String, token: String) -> Person {
        Person {
            user,
            room,
            token,
            stretches: vec![],
            sayings: vec![],
            users: vec![],
            count: 0,
            seat: None,
            dynos: vec![],
            diary: vec![],
            redis_down: false,
            status: vec![],
            assured: None,
            blind_until: None,
            half_open_until: None,
            reloaded: false,
            gone: None,
            wrong: vec![],
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.diary.push((Instant::now(), what.into()));
    }

    /// The end of its diary: how long ago, and what.
    pub fn lately(&self) -> String {
        let from = self.diary.len().saturating_sub(5);
        let lines = self.diary[from..].iter();
        lines
            .map(|(at, what)| format!("{:.1} s ago {what}", at.elapsed().as_secs_f64()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The id that a reconnect resumes from; `None` after a reload.
    pub fn last(&self) -> Option<Id> {
        let stretch = self.stretches.last().filter(|_| !self.reloaded)?;
        Some(stretch.ids.last().copied().unwrap_or(stretch.after))
    }

    /// A welcome: `history` and `newest` as the frame has them; `resumed` is the `last` that was asked for.
    pub fn welcome(
        &mut self,
        resumed: Option<Id>,
        gap: bool,
        history: Vec<(Id, String)>,
        newest: Id,
    ) {
        self.reloaded = false;
        let first = history.first().map(|(id, _)| *id);
        if history.last().is_some_and(|(id, _)| *id != newest) {
            self.wrong
                .push(format!("a history that does not end at {newest}"));
        }
        match resumed {
            Some(last) if !gap => {
                if newest < last {
                    self.wrong.push(format!(
                        "the log ends at {newest}, before {last}, and no gap"
                    ));
                }
                if history.is_empty() && newest != last {
                    self.wrong
                        .push(format!("resumed from {last}, nothing up to {newest}"));
                }
            }
            _ => {
                // `Id` has no predecessor: one below the first is enough, for sequence numbers rise.
                let before = |id: Id| match id {
                    Id(ms, 0) => Id(ms - 1, u64::MAX),
                    Id(ms, seq) => Id(ms, seq - 1),
                };
                let after = first.map_or(newest, before);
                let gap = resumed.filter(|_| gap).map(|last| (last, newest));
                self.stretches.push(Stretch {
                    after,
                    ids: vec![],
                    gap,
                });
            }
        }
        for (id, cid) in history {
            self.talk(id, &cid);
        }
    }

    /// A message, live or from a history. True if it was new to this page.
    pub fn talk(&mut self, id: Id, cid: &str) -> bool {
        let mine = self.sayings.iter_mut().find(|s| s.cid == cid);
        let receipt = mine.is_some();
        if let Some(saying) = mine {
            match saying.fate {
                Fate::Confirmed(before) if before != id => self
                    .wrong
                    .push(format!("the talk {cid} under two ids, {before} and {id}")),
                _ => saying.fate = Fate::Confirmed(id),
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
        // A receipt of what was said before the history began may come alone; anything else is a double or disorder.
        if !receipt || stretch.ids.contains(&id) {
            let what = if stretch.ids.contains(&id) {
                "doubled"
            } else {
                "out of order"
            };
            let last = last.unwrap_or_default();
            self.wrong
                .push(format!("{what}: {id} after {last}, dynos {:?}", self.dynos));
        }
        false
    }

    pub fn pending(&mut self) -> Option<&mut Saying> {
        self.sayings.iter_mut().find(|s| s.fate == Fate::Pending)
    }

    pub fn give_up(&mut self, which: impl Fn(&Saying) -> bool) {
        for saying in &mut self.sayings {
            if saying.fate == Fate::Pending && which(saying) {
                saying.fate = Fate::GivenUp;
            }
        }
    }
}
