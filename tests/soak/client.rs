//! A simulated client: a page, and random actions of its user.

use super::simulation::{Simulation, UserRef};
use super::support::page::model::{DEAD_CONNECTION, Event, Model};
use super::support::{cid, token};
use fastrand::Rng;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// For this time after a client reads again, the lists it reads may be old.
const CATCH_UP: Duration = Duration::from_secs(5);
/// A dyno renews the name of a silent client for 30 s after its last frame.
const RENEWED_FOR: Duration = Duration::from_secs(31);

pub struct Client {
    sim: Rc<Simulation>,
    user: UserRef,
    model: Model,
    rng: Rng,
}

impl Client {
    pub fn new(sim: &Rc<Simulation>, name: &str, room: &str, mut rng: Rng) -> Client {
        Client {
            sim: sim.clone(),
            user: sim.add_user(name, room),
            model: Model::new(&sim.router, room, name, &token(), rng.fork()),
            rng,
        }
    }

    /// Runs until the user leaves.
    pub async fn run(&mut self, first_action: Instant) {
        let mut next_action = first_action;
        loop {
            let acts = self.user.borrow().life.connected && !self.sim.settling.get();
            match self.model.next(acts.then_some(next_action)).await {
                Event::Time if !self.sim.settling.get() => {
                    let pause = Duration::from_secs_f64(1.0 + self.rng.f64() * 38.0);
                    next_action = Instant::now() + pause;
                    if self.act().await.is_break() {
                        return;
                    }
                }
                event => {
                    self.record(&event);
                    if let Event::Stopped(..) = event {
                        return;
                    }
                }
            }
        }
    }

    fn record(&self, event: &Event) {
        let mut user = self.user.borrow_mut();
        user.life.record(event);
        let (Event::Frame(dyno, frame) | Event::Moved(dyno, frame, _)) = event else {
            return;
        };
        match frame["kind"].as_str() {
            Some("welcome" | "members") => {
                let at = self.sim.start.elapsed().as_secs_f64();
                for what in self.sim.judge_list(&user, *dyno, frame) {
                    user.life.wrong.push(format!("{what}, at {at:.1} s"));
                }
            }
            Some("error") if frame["code"] != "busy" && frame["code"] != "slow_down" => {
                let what = format!("refused: {frame}; {}", user.life.recent());
                user.life.wrong.push(what);
            }
            _ => {}
        }
    }

    /// Chooses and does the next action of the user. Breaks when the user has left.
    async fn act(&mut self) -> ControlFlow<()> {
        match self.rng.u32(..1000) {
            0..850 => self.talk(1),
            850..890 => {
                let count = self.rng.u32(2..8);
                self.talk(count);
            }
            890..895 => self.talk(15), // too many: the server answers slow_down
            895..930 => {
                self.sim.count_fault("reload");
                self.model.reload();
                self.user.borrow_mut().reload();
            }
            930..950 => {
                self.sim.count_fault("connection dropped");
                self.model.disconnect();
                self.user.borrow_mut().life.closed(1006);
            }
            950..970 => {
                self.sim.count_fault("leave");
                // From now on: others may see that the user left before its own socket is closed.
                self.user.borrow_mut().gone = Some(Instant::now());
                self.model.leave().await;
                self.user.borrow_mut().life.connected = false;
                return ControlFlow::Break(());
            }
            970..980 => self.black_hole().await,
            980..990 => {
                self.sim.count_fault("stopped reading");
                let end = Instant::now() + Duration::from_secs(self.rng.u64(2..25));
                self.user.borrow_mut().blind_until = Some(end + CATCH_UP);
                self.sim.pause_until(end).await;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn talk(&mut self, count: u32) {
        for _ in 0..count {
            let cid = cid();
            let text = "wort ".repeat(self.rng.usize(1..20)) + &cid;
            self.user.borrow_mut().life.say(&cid);
            self.model.say(cid, text);
            self.sim.tally.borrow_mut().said += 1;
        }
    }

    /// The network swallows everything. The page notices it at once or when the connection is dead by its rules.
    async fn black_hole(&mut self) {
        self.sim.count_fault("black hole");
        let now = Instant::now();
        {
            let mut user = self.user.borrow_mut();
            user.half_open_until = Some(now + RENEWED_FOR);
            user.life.closed(1006);
        }
        if self.rng.bool() {
            self.sim.pause_until(now + DEAD_CONNECTION).await;
        }
        let socket = self.model.disconnect();
        let sim = self.sim.clone();
        spawn_local(async move {
            // The socket is neither read nor closed until the dyno has surely closed it.
            sim.pause_until(now + 2 * DEAD_CONNECTION).await;
            drop(socket);
        });
    }
}
