//! One connection of a page: its state, and what follows from each frame.

use super::client::{Client, TRY};
use super::record::Person;
use super::support::client::Id;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The server knows a cid for 120 s.
const CID_KEPT: Duration = Duration::from_secs(100);

/// One connection's state, from its opening on.
pub struct Line {
    pub dyno: usize,
    pub resumed: Option<Id>,
    pub live: bool,
    /// The welcome must have come by then; no deadline while Redis is away.
    pub due: Option<Instant>,
    pub rejoin: Option<Instant>,
    /// The dyno's last word on Redis; a welcome may come between "down" and "up".
    pub told_down: bool,
    pub heard: Instant,
    /// A talk is under way since then.
    pub flying: Option<Instant>,
    pub hold: Instant,
    pub close: u16,
    /// While a dyno was down, another program's has taken its port: not a dyno of this town.
    pub strange: bool,
}

impl Line {
    pub fn new() -> Line {
        let now = Instant::now();
        Line {
            dyno: 0,
            resumed: None,
            live: false,
            due: None,
            rejoin: None,
            told_down: false,
            heard: now,
            flying: None,
            hold: now,
            close: 1006,
            strange: false,
        }
    }
}

impl Client {
    pub fn hear(&mut self, line: &mut Line, frame: &Value) {
        let (now, random) = (Instant::now(), Duration::from_secs_f64(self.rng.f64()));
        let mut me = self.me.borrow_mut();
        let retry = || now + Duration::from_millis(frame["retry_ms"].as_u64().unwrap_or(2_000));
        match frame["kind"].as_str() {
            Some("welcome") if frame["dyno"] != format!("web.{}", line.dyno + 1) => {
                line.strange = true;
            }
            Some("welcome") => {
                line.live = true;
                line.hold = now;
                me.seat = Some((line.dyno, now));
                me.dynos.push(line.dyno);
                me.note(format!("welcomed by dyno {}", line.dyno));
                me.redis_down = false;
                let gap = frame["gap"] == true;
                let talks = frame["history"].as_array().into_iter().flatten();
                let history = talks.map(|t| (Id::of(t, "id"), cid(t))).collect();
                me.welcome(line.resumed, gap, history, Id::of(frame, "last"));
                if gap || line.resumed.is_none() {
                    me.give_up(|s| s.sent.is_some_and(|sent| now - sent > CID_KEPT));
                }
                self.members(&mut me, line, frame);
            }
            Some("talk") => {
                let cid = cid(frame);
                if me.pending().is_some_and(|s| s.cid == cid) {
                    line.flying = None;
                }
                if me.talk(Id::of(frame, "id"), &cid) {
                    self.town.tally.borrow_mut().delivered += 1;
                }
            }
            Some("members") => self.members(&mut me, line, frame),
            Some("status") => {
                let down = frame["redis"] == "down";
                if down == line.told_down {
                    me.wrong.push(format!("told twice: {frame}"));
                }
                line.told_down = down;
                me.redis_down = down;
                me.status.push((now, down));
                line.due = (!down).then_some(now + random + TRY);
                if !down {
                    line.rejoin = line.rejoin.map(|_| now + random);
                    line.hold = line.hold.min(now + random);
                }
            }
            Some("error") => {
                let code = frame["code"].as_str().unwrap_or("?").to_string();
                let known = code == "busy" || code == "slow_down";
                *self.town.tally.borrow_mut().errors.entry(code).or_default() += 1;
                if !known {
                    let dynos = me.dynos.clone();
                    me.wrong.push(format!("refused: {frame}, dynos {dynos:?}"));
                } else if !line.live {
                    line.rejoin = Some(retry());
                    line.due = (!me.redis_down).then_some(retry() + TRY);
                } else {
                    line.hold = retry();
                    line.flying = None;
                }
            }
            Some("tick") => {}
            _ => me.wrong.push(format!("an unknown frame: {frame}")),
        }
    }

    fn members(&self, me: &mut Person, line: &Line, frame: &Value) {
        let users = frame["users"].as_array().into_iter().flatten();
        me.users = users
            .map(|u| u.as_str().unwrap_or("?").to_string())
            .collect();
        me.count = frame["count"].as_u64().unwrap_or(0) as usize;
        if me.count == me.users.len() && !me.users.contains(&me.user) {
            let user = me.user.clone();
            me.wrong.push(format!("{user} is not in its own list"));
        }
        let wrong = self.town.judge_list(me, line.dyno, frame);
        let at = self.town.start.elapsed().as_secs_f64();
        let dated = wrong
            .into_iter()
            .map(|what| format!("{what}, at {at:.1} s"));
        me.wrong.extend(dated);
    }
}

fn cid(talk: &Value) -> String {
    talk["cid"].as_str().unwrap_or("?").to_string()
}
