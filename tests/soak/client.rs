//! A page without a browser, with the page's own rules: one socket, first retry after a random 0–3 s, then half to
//! full of 1, 2, 4, 8, 15 s, reset by 5 s of life; one talk under way, resent with its cid until its echo comes.

use super::record::{Fate, Person, Saying};
use super::support::client::{Id, Socket, join_frame, open};
use super::town::{Someone, Town};
use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

const TRY: Duration = Duration::from_secs(10);
const STEPS: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 15.0];
const LIFE: Duration = Duration::from_secs(5);
/// Without any frame for so long the line is dead.
pub const DEAD_LINE: Duration = Duration::from_secs(35);
/// No receipt for so long: the same cid may go again.
const LATE: Duration = Duration::from_secs(10);
/// The server knows a cid for 120 s.
const CID_KEPT: Duration = Duration::from_secs(100);
/// Heard so late after a pause in reading, a list of members proves nothing.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Close codes after which a page stops; a soak gives no cause for any of them.
const STOPS: [u16; 5] = [4400, 4409, 4429, 1009, 1003];
/// How long a dyno may take a silent socket for alive.
pub const LATELY: Duration = Duration::from_secs(31);

/// What a person does next, decided by its own random numbers.
pub enum Act {
    Talk(u32),
    Reload,
    Drop,
    Leave,
    /// The path swallows everything; noticed at once (`true`) or after the dead line.
    BlackHole(bool),
    StopReading(Duration),
    Nothing,
}

pub enum Ended {
    Lost(u16),
    Left,
}

pub struct Client {
    pub town: Rc<Town>,
    pub me: Someone,
    pub rng: Rng,
    /// When it acts next, and what it may do then.
    pub next_act: Instant,
    pub acts: fn(&mut Rng) -> (Act, Duration),
    /// Since the last good connection.
    pub tries: usize,
}

impl Client {
    /// From the first connection until it leaves.
    pub async fn run(&mut self) {
        let mut first = true;
        loop {
            if !std::mem::take(&mut first) {
                self.town.tally.borrow_mut().reconnects += 1;
            }
            let ended = self.connection().await;
            let seat = self.me.borrow_mut().seat.take();
            let Ended::Lost(code) = ended else {
                let mut me = self.me.borrow_mut();
                me.gone = Some(Instant::now());
                me.give_up(|_| true);
                return;
            };
            *self.town.tally.borrow_mut().closes.entry(code).or_default() += 1;
            if STOPS.contains(&code) {
                let mut me = self.me.borrow_mut();
                let dynos = me.dynos.clone();
                me.wrong
                    .push(format!("closed for good with {code}, dynos {dynos:?}"));
            }
            if seat.is_some_and(|(_, since)| since.elapsed() > LIFE) {
                self.tries = 0;
            }
            if code == 1013 {
                self.tries = self.tries.max(4);
            }
            let wait = match self.tries {
                0 => self.rng.f64() * 3.0,
                n => STEPS[n.min(STEPS.len()) - 1] * (0.5 + self.rng.f64() / 2.0),
            };
            self.tries += 1;
            sleep(Duration::from_secs_f64(wait)).await;
        }
    }

    /// A dyno at random, as the router does; another one if that refuses.
    async fn open(&mut self) -> Option<(usize, Socket)> {
        let mut dynos = self.town.routed.borrow().clone();
        self.rng.shuffle(&mut dynos);
        for dyno in dynos {
            self.town.tally.borrow_mut().connects.push(Instant::now());
            if let Ok(socket) = open(self.town.addrs[dyno]).await {
                return Some((dyno, socket));
            }
        }
        None
    }

    async fn connection(&mut self) -> Ended {
        let until = Instant::now() + TRY;
        let Ok(Some((dyno, mut socket))) = timeout(TRY, self.open()).await else {
            return Ended::Lost(1006);
        };
        let mut line = Line {
            dyno,
            resumed: self.me.borrow().last(),
            due: Some(until),
            ..Line::new()
        };
        self.me.borrow_mut().redis_down = false;
        self.join(&mut socket, &mut line).await;
        loop {
            let now = Instant::now();
            if let Some(talk) = self.pump(&mut line, now) {
                let _ = socket.send(Message::text(talk)).await; // a failure shows when reading
            }
            if line.rejoin.is_some_and(|at| at <= now) {
                self.join(&mut socket, &mut line).await;
            }
            let wake = [
                line.due.filter(|_| !line.live),
                line.rejoin,
                Some(line.heard + DEAD_LINE),
                self.pending_at(&line),
                Some(self.next_act).filter(|_| line.live && !self.town.settling.get()),
            ];
            let wake = wake
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(now + DEAD_LINE)
                .max(now + Duration::from_millis(1));
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        line.heard = Instant::now();
                        let frame = serde_json::from_str(&text).unwrap_or(Value::Null);
                        self.hear(&mut line, &frame);
                    }
                    Some(Ok(Message::Close(close))) => line.close = close.map_or(1005, |c| c.code.into()),
                    Some(Ok(_)) => {} // a browser does not show a Ping
                    Some(Err(_)) | None => return Ended::Lost(line.close),
                },
                _ = sleep_until(wake.into()) => {
                    let now = Instant::now();
                    let too_long = !line.live && line.due.is_some_and(|due| due <= now);
                    if too_long || now - line.heard >= DEAD_LINE {
                        return Ended::Lost(1006);
                    }
                    if line.live && now >= self.next_act && !self.town.settling.get() {
                        let (act, pause) = (self.acts)(&mut self.rng);
                        self.next_act = now + pause;
                        match self.act(act, &mut line, socket).await {
                            Ok(open) => socket = open,
                            Err(ended) => return ended,
                        }
                    }
                }
            }
        }
    }

    async fn join(&self, socket: &mut Socket, line: &mut Line) {
        line.rejoin = None;
        let join = {
            let me = self.me.borrow();
            let last = line.resumed.map(|id| id.to_string());
            join_frame(&me.room, &me.user, &me.token, last.as_deref())
        };
        let _ = socket.send(Message::text(join.to_string())).await; // a failure shows when reading
    }

    /// The next talk to send, if it is time: one under way, in order.
    fn pump(&self, line: &mut Line, now: Instant) -> Option<String> {
        if line.flying.is_some_and(|at| now - at > LATE) {
            line.flying = None;
        }
        if !line.live || line.flying.is_some() || now < line.hold {
            return None;
        }
        let mut me = self.me.borrow_mut();
        let saying = me.pending()?;
        saying.sent.get_or_insert(now);
        line.flying = Some(now);
        Some(json!({"kind": "talk", "message": saying.text, "cid": saying.cid}).to_string())
    }

    /// When [`pump`](Self::pump) may have something to send.
    fn pending_at(&self, line: &Line) -> Option<Instant> {
        if !line.live || self.me.borrow_mut().pending().is_none() {
            return None;
        }
        Some(
            line.flying
                .map_or(line.hold, |at| at + LATE + Duration::from_millis(1)),
        )
    }

    fn hear(&mut self, line: &mut Line, frame: &Value) {
        let (now, random) = (Instant::now(), Duration::from_secs_f64(self.rng.f64()));
        let mut me = self.me.borrow_mut();
        let retry = || now + Duration::from_millis(frame["retry_ms"].as_u64().unwrap_or(2_000));
        match frame["kind"].as_str() {
            Some("welcome") => {
                line.live = true;
                line.hold = now;
                me.seat = Some((line.dyno, now));
                me.dynos.push(line.dyno);
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
        me.wrong.extend(wrong);
    }

    async fn act(
        &mut self,
        act: Act,
        line: &mut Line,
        mut socket: Socket,
    ) -> Result<Socket, Ended> {
        match act {
            Act::Nothing => {}
            Act::Talk(count) => {
                for _ in 0..count {
                    let cid = format!("{:016x}", self.rng.u64(..));
                    let text = "wort ".repeat(self.rng.usize(1..20)) + &cid;
                    self.me.borrow_mut().sayings.push(Saying {
                        cid,
                        text,
                        sent: None,
                        fate: Fate::Pending,
                    });
                    self.town.tally.borrow_mut().said += 1;
                }
            }
            Act::Reload => {
                self.town.count_fault("reload");
                // What is pending outlives a reload, what was shown does not.
                drop(socket);
                self.me.borrow_mut().reloaded = true;
                self.tries = 0;
                return Err(Ended::Lost(1001));
            }
            Act::Drop => {
                self.town.count_fault("connection dropped");
                return Err(Ended::Lost(1006));
            }
            Act::Leave => {
                self.town.count_fault("leave");
                let quit = json!({"kind": "quit"}).to_string();
                let _ = socket.send(Message::text(quit)).await; // lost or not, the person is gone
                let rest = async { while let Some(Ok(_)) = socket.next().await {} };
                let _ = timeout(TRY, rest).await;
                return Err(Ended::Left);
            }
            Act::BlackHole(at_once) => {
                self.town.count_fault("black hole");
                let now = Instant::now();
                self.me.borrow_mut().half_open_until = Some(now + LATELY);
                self.me.borrow_mut().seat = None;
                let town = self.town.clone();
                tokio::task::spawn_local(async move {
                    // Neither read nor closed, until long after the server must have given it up.
                    while now.elapsed() < 2 * DEAD_LINE && !town.settling.get() {
                        sleep(Duration::from_millis(500)).await;
                    }
                    drop(socket);
                });
                if !at_once {
                    let noticed = now + DEAD_LINE;
                    while Instant::now() < noticed && !self.town.settling.get() {
                        sleep(Duration::from_millis(500)).await;
                    }
                }
                return Err(Ended::Lost(1006));
            }
            Act::StopReading(pause) => {
                self.town.count_fault("stopped reading");
                self.me.borrow_mut().blind_until = Some(Instant::now() + pause + CATCH_UP);
                sleep(pause).await;
                line.heard = Instant::now();
            }
        }
        Ok(socket)
    }
}

/// One connection's state, from its opening on.
struct Line {
    dyno: usize,
    resumed: Option<Id>,
    live: bool,
    /// The welcome must have come by then; no deadline while Redis is away.
    due: Option<Instant>,
    rejoin: Option<Instant>,
    /// The dyno's last word on Redis; a welcome may come between "down" and "up".
    told_down: bool,
    heard: Instant,
    /// A talk is under way since then.
    flying: Option<Instant>,
    hold: Instant,
    close: u16,
}

impl Line {
    fn new() -> Line {
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
        }
    }
}

fn cid(talk: &Value) -> String {
    talk["cid"].as_str().unwrap_or("?").to_string()
}
