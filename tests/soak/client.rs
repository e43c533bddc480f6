//! A page without a browser, with the page's own rules: one socket, first retry after a random 0–3 s, then half to
//! full of 1, 2, 4, 8, 15 s, reset by 5 s of life; one talk under way, resent with its cid until its echo comes.

use super::acts::Act;
use super::line::Line;
use super::support::client::{Socket, join_frame, open};
use super::town::{Someone, Town};
use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

pub const TRY: Duration = Duration::from_secs(10);
const STEPS: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 15.0];
const LIFE: Duration = Duration::from_secs(5);
/// Without any frame for so long the line is dead.
pub const DEAD_LINE: Duration = Duration::from_secs(35);
/// No receipt for so long: the same cid may go again.
const LATE: Duration = Duration::from_secs(10);
/// Close codes after which a page stops; a soak gives no cause for any of them.
const STOPS: [u16; 5] = [4400, 4409, 4429, 1009, 1003];

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
                me.gone.get_or_insert_with(Instant::now);
                me.give_up(|_| true);
                return;
            };
            *self.town.tally.borrow_mut().closes.entry(code).or_default() += 1;
            self.me.borrow_mut().note(format!("closed with {code}"));
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
                        if line.strange {
                            return Ended::Lost(1006);
                        }
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
}
