//! A simulated client: the page's rules, random actions of its user, and a record of all that the user sees.

use super::simulation::{Simulation, Tally, UserRef};
use super::support::Id;
use super::support::page::model::{DEAD_CONNECTION, Event, Model, users};
use super::user::User;
use fastrand::Rng;
use serde_json::Value;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// For this time after a client reads again, the lists it reads may be old.
const CATCH_UP: Duration = Duration::from_secs(5);
/// A dyno renews the name of a silent client for 30 s after its last frame.
const RENEWED_FOR: Duration = Duration::from_secs(31);
const FAR: Duration = Duration::from_secs(3_600);

pub enum Action {
    /// Type so many messages.
    Talk(u32),
    Reload,
    DropConnection,
    Leave,
    /// The network swallows everything. The page notices it at once (`true`) or when the connection is dead by its rules.
    BlackHole(bool),
    StopReading(Duration),
    Nothing,
}

/// Chooses what a user does, and the pause until the next action.
pub type Choose = fn(&mut Rng) -> (Action, Duration);

pub fn random_action(rng: &mut Rng) -> (Action, Duration) {
    let pause = Duration::from_secs_f64(1.0 + rng.f64() * 38.0);
    let action = match rng.u32(..1000) {
        0..850 => Action::Talk(1),
        850..890 => Action::Talk(rng.u32(2..8)),
        890..895 => Action::Talk(15), // too many: the server answers slow_down
        895..930 => Action::Reload,
        930..950 => Action::DropConnection,
        950..970 => Action::Leave,
        970..980 => Action::BlackHole(rng.bool()),
        980..990 => Action::StopReading(Duration::from_secs(rng.u64(2..25))),
        _ => Action::Nothing,
    };
    (action, pause)
}

pub struct Client {
    sim: Rc<Simulation>,
    pub user: UserRef,
    model: Model,
    rng: Rng,
    choose: Choose,
    has_tried: bool,
    /// The last `status` of this connection was `down`. A welcome may come between `down` and `up`.
    notified_down: bool,
}

impl Client {
    pub fn new(
        sim: &Rc<Simulation>,
        name: &str,
        room: &str,
        mut rng: Rng,
        choose: Choose,
    ) -> Client {
        let token = format!("{:032x}", rng.u128(..));
        Client {
            sim: sim.clone(),
            user: sim.add_user(User::new(name, room)),
            model: Model::new(&sim.router, room, name, &token, rng.fork()),
            rng,
            choose,
            has_tried: false,
            notified_down: false,
        }
    }

    /// Runs until the user leaves.
    pub async fn run(&mut self, first_action: Instant) {
        let mut next_action = first_action;
        loop {
            for cid in self.model.given_up.drain(..) {
                self.user.borrow_mut().give_up(|message| message.cid == cid);
            }
            let acts = self.model.is_live() && !self.sim.settling.get();
            let until = if acts {
                next_action
            } else {
                Instant::now() + FAR
            };
            match self.model.next(until).await {
                Event::Try(due) => self.try_begins(due),
                Event::Frame(dyno, frame) => self.hear(dyno, &frame),
                Event::Moved(dyno, welcome) => self.moved(dyno, &welcome),
                Event::Closed(code) => self.closed(code),
                Event::Stopped(code, reason) => {
                    self.closed(code);
                    let dynos = self.user.borrow().dynos.clone();
                    let what = format!("closed for good with {code} {reason}, dynos {dynos:?}");
                    return self.user.borrow_mut().wrong.push(what);
                }
                Event::Time if !self.sim.settling.get() => {
                    let (action, pause) = (self.choose)(&mut self.rng);
                    next_action = Instant::now() + pause;
                    if let Action::Leave = action {
                        return self.leave().await;
                    }
                    self.act(action).await;
                }
                Event::Time | Event::Woken => {}
            }
        }
    }

    fn try_begins(&mut self, due: Instant) {
        let mut tally = self.sim.tally.borrow_mut();
        tally.reconnects += u64::from(self.has_tried);
        tally.tries.push(due);
        self.has_tried = true;
        self.notified_down = false;
        self.user.borrow_mut().redis_down = false;
    }

    fn closed(&self, code: u16) {
        *self.sim.tally.borrow_mut().closes.entry(code).or_default() += 1;
        let mut user = self.user.borrow_mut();
        user.disconnect();
        user.note(format!("closed with {code}"));
    }

    /// The connection is another one from now on. The first one may have brought newer messages than the welcome.
    fn moved(&mut self, dyno: SocketAddr, welcome: &Value) {
        self.sim.tally.borrow_mut().moves += 1;
        self.notified_down = self.model.notified_down();
        self.welcomed(dyno, welcome, true);
    }

    fn welcomed(&self, dyno: SocketAddr, frame: &Value, moved: bool) {
        let dyno = self.sim.index_of(dyno);
        let mut user = self.user.borrow_mut();
        user.connect(dyno);
        user.note(format!("welcomed by dyno {dyno}, moved: {moved}"));
        user.redis_down = false;
        let talks = frame["history"].as_array().into_iter().flatten();
        let note = |talk: &&Value| self.sim.note_message(&user.room, talk);
        let talks = talks.inspect(note);
        let history = talks.map(|talk| (Id::of(talk, "id"), cid(talk))).collect();
        let (gap, mut newest) = (frame["gap"] == true, Id::of(frame, "last"));
        if moved && !gap {
            newest = newest.max(user.last().unwrap_or_default());
        }
        user.welcome(gap, history, newest);
        let mut tally = self.sim.tally.borrow_mut();
        list_members(&self.sim, &mut user, &mut tally, dyno, frame);
    }

    /// Records and judges a frame. The model has acted on it already.
    fn hear(&mut self, dyno: SocketAddr, frame: &Value) {
        if frame["kind"] == "welcome" {
            return self.welcomed(dyno, frame, false);
        }
        let dyno = self.sim.index_of(dyno);
        let mut user = self.user.borrow_mut();
        let mut tally = self.sim.tally.borrow_mut();
        match frame["kind"].as_str() {
            Some("talk") => {
                self.sim.note_message(&user.room, frame);
                let is_new = user.show(Id::of(frame, "id"), &cid(frame));
                tally.delivered += u64::from(is_new);
            }
            Some("members") => list_members(&self.sim, &mut user, &mut tally, dyno, frame),
            Some("status") => {
                let down = frame["redis"] == "down";
                if down == self.notified_down {
                    user.wrong.push(format!("the same status twice: {frame}"));
                }
                self.notified_down = down;
                user.redis_down = down;
            }
            Some("error") => {
                let code = frame["code"].as_str().unwrap_or("?").to_string();
                if code != "busy" && code != "slow_down" {
                    let dynos = user.dynos.clone();
                    user.wrong
                        .push(format!("refused: {frame}, dynos {dynos:?}"));
                }
                *tally.errors.entry(code).or_default() += 1;
            }
            Some("tick" | "move") => {}
            _ => user.wrong.push(format!("an unknown frame: {frame}")),
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Talk(count) => {
                for _ in 0..count {
                    let cid = format!("{:016x}", self.rng.u64(..));
                    let text = "wort ".repeat(self.rng.usize(1..20)) + &cid;
                    self.user.borrow_mut().say(&cid);
                    self.model.say(cid, text);
                    self.sim.tally.borrow_mut().said += 1;
                }
            }
            Action::Reload => {
                self.count_action("reload");
                self.model.reload();
                self.user.borrow_mut().reload();
                self.closed(1001);
            }
            Action::DropConnection => {
                self.count_action("connection dropped");
                self.model.disconnect();
                self.closed(1006);
            }
            Action::BlackHole(at_once) => {
                self.count_action("black hole");
                let now = Instant::now();
                {
                    let mut user = self.user.borrow_mut();
                    user.half_open_until = Some(now + RENEWED_FOR);
                    user.disconnect();
                }
                if !at_once {
                    self.sim.pause_until(now + DEAD_CONNECTION).await;
                }
                let socket = self.model.disconnect();
                self.closed(1006);
                let sim = self.sim.clone();
                spawn_local(async move {
                    // The socket is neither read nor closed until the dyno has surely closed it.
                    sim.pause_until(now + 2 * DEAD_CONNECTION).await;
                    drop(socket);
                });
            }
            Action::StopReading(pause) => {
                self.count_action("stopped reading");
                let end = Instant::now() + pause;
                self.user.borrow_mut().blind_until = Some(end + CATCH_UP);
                self.sim.pause_until(end).await;
                self.user.borrow_mut().note("reads again");
            }
            Action::Leave | Action::Nothing => {}
        }
    }

    async fn leave(&mut self) {
        self.count_action("leave");
        // From now on: others may see that the user left before its own socket is closed.
        self.user.borrow_mut().leave();
        self.model.leave().await;
        let mut user = self.user.borrow_mut();
        user.disconnect();
        user.give_up(|_| true);
    }

    fn count_action(&self, kind: &'static str) {
        self.sim.count_fault(kind);
        self.user.borrow_mut().note(kind);
    }
}

fn list_members(sim: &Simulation, user: &mut User, tally: &mut Tally, dyno: usize, frame: &Value) {
    user.users = users(frame);
    user.count = frame["count"].as_u64().unwrap_or(0) as usize;
    // A client that does not read does not answer Pings either, and may lose its name.
    let blind = user.blind_until.is_some_and(|until| Instant::now() < until);
    if !blind && user.count == user.users.len() && !user.users.contains(&user.name) {
        let name = &user.name;
        let events = user.recent_events();
        let what = format!("{name} is not in its own list of dyno {dyno}; {events}");
        user.wrong.push(what);
    }
    let at = sim.start.elapsed().as_secs_f64();
    let judged = sim.judge_list(user, dyno, frame);
    tally.lists += 1;
    tally.wrong_lists += u64::from(!judged.is_empty());
    for what in judged {
        user.wrong.push(format!("{what}, at {at:.1} s"));
    }
}

fn cid(talk: &Value) -> String {
    talk["cid"].as_str().unwrap_or("?").to_string()
}
