//! The shared state of the soak test: Redis, the dynos, the users, and counters. It also checks lists of members.
//! For this it records since when each dyno and Redis run without a fault.

use super::Flags;
use super::support::check::Entry;
use super::support::page::{Life, Router};
use super::support::proxy::Proxy;
use super::support::{Dyno, Id, Redis};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A lease of 20 s, less a renewal (5 s) and 2 s for a busy machine: a name is safe for this time after its renewal.
const SAFE: Duration = Duration::from_secs(13);
/// A dyno and a Redis that have worked for this long have renewed every name.
const RENEWED: Duration = Duration::from_secs(8);
/// A list of members may be this old when it arrives.
const STALE: Duration = Duration::from_secs(4);
/// A name without an owner is off every list after this time.
const GHOST: Duration = Duration::from_secs(32);
/// How often leases are noted.
const PERIOD: Duration = Duration::from_millis(250);
/// A timer this late shows that the machine stalled, and the dynos with it.
const STALL: Duration = Duration::from_secs(1);

/// One simulated user.
#[derive(Default)]
pub struct User {
    pub name: String,
    pub room: String,
    pub life: Life,
    /// The lives of its page before each reload.
    earlier: Vec<Life>,
    /// The name's lease cannot have expired since `.0`; it was surely renewed at `.1`.
    lease: Option<(Instant, Instant)>,
    /// The client does not read, or reads old frames, until then.
    pub blind_until: Option<Instant>,
    /// A dyno may take the client's old socket for alive and renew the name until then.
    pub half_open_until: Option<Instant>,
    /// When the user left.
    pub gone: Option<Instant>,
}

pub type UserRef = Rc<RefCell<User>>;

impl User {
    pub fn reload(&mut self) {
        let next = self.life.reload();
        self.earlier.push(std::mem::replace(&mut self.life, next));
    }

    /// The lives of its page, and when each of them ended. The last one has no end if the user is still there.
    pub fn lives(&self) -> impl Iterator<Item = (&Life, Option<Instant>)> {
        let earlier = self.earlier.iter();
        let earlier = earlier.map(|life| (life, life.closes.last().map(|close| close.0)));
        earlier.chain([(&self.life, self.gone)])
    }
}

/// Counters of the whole simulation. Each user has a record of its own.
#[derive(Default)]
pub struct Tally {
    pub said: usize,
    pub faults: BTreeMap<&'static str, usize>,
    pub machine_stalls: usize,
    /// Lists of members received, and how many of them were wrong.
    pub lists: usize,
    pub wrong_lists: usize,
    pub failures: usize,
}

/// How many faults a dyno or Redis has at this moment, and when the last one ended.
#[derive(Default)]
pub struct Health {
    faults: Cell<usize>,
    last_end: Cell<Option<Instant>>,
}

impl Health {
    pub fn fault_begins(&self) {
        self.faults.update(|faults| faults + 1);
    }

    pub fn fault_ends(&self) {
        self.faults.update(|faults| faults - 1);
        self.last_end.set(Some(Instant::now()));
    }

    /// It has worked for longer than this.
    fn is_good_for(&self, time: Duration) -> bool {
        let good = self.last_end.get().is_none_or(|end| end.elapsed() > time);
        good && self.faults.get() == 0
    }
}

pub struct Simulation {
    pub flags: Flags,
    pub start: Instant,
    /// Redis and the dynos; `None` while a fault has taken one.
    pub redis: RefCell<Option<Redis>>,
    pub dynos: Vec<RefCell<Option<Dyno>>>,
    pub addrs: Vec<SocketAddr>,
    pub router: Router,
    /// Between the first dyno and Redis.
    pub proxy: Proxy,
    /// A dyno can be frozen and without Redis at once.
    pub dyno_health: HashMap<SocketAddr, Health>,
    pub redis_health: Health,
    pub users: RefCell<Vec<UserRef>>,
    pub tally: RefCell<Tally>,
    /// Every message of every room's stream so far. Redis trims the streams.
    pub streams: RefCell<HashMap<String, Vec<Entry>>>,
    /// No more faults and no more actions: everything comes to rest.
    pub settling: Cell<bool>,
}

impl Simulation {
    pub async fn start(flags: Flags) -> Rc<Simulation> {
        let redis = Redis::start(&["--appendonly", "yes"]).await;
        let proxy = Proxy::to_redis(&redis).await;
        let (mut dynos, mut addrs) = (vec![], vec![]);
        for n in 1..=flags.dynos {
            let url = match n {
                1 => proxy.redis_url(),
                _ => redis.url(),
            };
            let name = format!("web.{n}");
            let vars = [("DYNO", &*name), ("MAX_PER_ADDRESS", "0")]; // all users have one address
            let dyno = Dyno::start_with_redis_at(&url, &vars).await;
            addrs.push(dyno.addr());
            dynos.push(RefCell::new(Some(dyno)));
        }
        Rc::new(Simulation {
            flags,
            start: Instant::now(),
            redis: RefCell::new(Some(redis)),
            dynos,
            router: Router::to(&addrs),
            proxy,
            dyno_health: addrs
                .iter()
                .map(|addr| (*addr, Health::default()))
                .collect(),
            addrs,
            redis_health: Health::default(),
            users: RefCell::default(),
            tally: RefCell::default(),
            streams: RefCell::default(),
            settling: Cell::new(false),
        })
    }

    pub fn add_user(&self, name: &str, room: &str) -> UserRef {
        let user = User {
            name: name.into(),
            room: room.into(),
            ..User::default()
        };
        let user = Rc::new(RefCell::new(user));
        self.users.borrow_mut().push(user.clone());
        user
    }

    /// The users who have not left.
    pub fn present(&self) -> Vec<UserRef> {
        let mut users = self.users.borrow().clone();
        users.retain(|user| user.borrow().gone.is_none());
        users
    }

    /// The newest id that is recorded of a room; `0-0` if there is none.
    pub fn newest(&self, room: &str) -> Id {
        let streams = self.streams.borrow();
        let newest = streams.get(room).and_then(|entries| entries.last());
        newest.map(|entry| entry.id).unwrap_or_default()
    }

    pub fn fail(&self, what: String) {
        if !self.flags.single_file {
            println!("FAILED {what}");
        }
        self.tally.borrow_mut().failures += 1;
    }

    pub fn count_fault(&self, kind: &'static str) {
        let at = self.start.elapsed().as_secs_f64();
        println!("fault={kind:?} at={at:.1}s");
        *self.tally.borrow_mut().faults.entry(kind).or_default() += 1;
    }

    /// Sleeps, but not longer than until the simulation settles.
    pub async fn pause_until(&self, end: Instant) {
        while Instant::now() < end && !self.settling.get() {
            sleep(2 * PERIOD).await;
        }
    }

    /// The dyno and Redis have worked for longer than this.
    fn works_for(&self, dyno: SocketAddr, time: Duration) -> bool {
        let parts = [&self.dyno_health[&dyno], &self.redis_health];
        parts.iter().all(|part| part.is_good_for(time))
    }

    /// Notes again and again whose lease has surely been renewed.
    pub async fn watch_leases(self: Rc<Self>) {
        loop {
            let before = Instant::now();
            sleep(PERIOD).await;
            let now = Instant::now();
            let stalled = now - before > PERIOD + STALL;
            if stalled {
                // The whole machine: perhaps no lease was renewed, and the time without faults begins now.
                self.tally.borrow_mut().machine_stalls += 1;
                for health in self.dyno_health.values().chain([&self.redis_health]) {
                    health.last_end.set(Some(now));
                }
            }
            for user in self.users.borrow().iter() {
                let mut user = user.borrow_mut();
                user.lease.take_if(|_| stalled);
                let blind = user.blind_until.is_some_and(|until| now <= until);
                if let Some((since, dyno)) = user.life.dyno()
                    && self.works_for(dyno, RENEWED)
                    && now - since > RENEWED
                    && !blind
                {
                    let earlier = user.lease.filter(|(_, renewed)| now - *renewed < SAFE);
                    user.lease = Some((earlier.map_or(now, |lease| lease.0), now));
                }
            }
        }
    }

    /// Checks the list of members that `dyno` just sent to `viewer`. Returns the violations as sentences.
    pub fn judge_list(&self, viewer: &User, dyno: SocketAddr, frame: &Value) -> Vec<String> {
        let (now, mut wrong) = (Instant::now(), vec![]);
        let mut tally = self.tally.borrow_mut();
        tally.lists += 1;
        let shown: HashSet<&str> = viewer.life.users.iter().map(String::as_str).collect();
        // A client that does not read does not answer Pings either, and may lose its name.
        let blind = viewer.blind_until.is_some_and(|until| now < until);
        if blind || frame["count"] != shown.len() {
            return wrong;
        }
        let current = self.works_for(dyno, STALE);
        let all_work = self.addrs.iter().all(|dyno| self.works_for(*dyno, GHOST));
        for other in self.users.borrow().iter() {
            let Ok(other) = other.try_borrow() else {
                continue; // the viewer itself
            };
            let (name, is_shown) = (&other.name, shown.contains(&*other.name));
            if let Some(gone) = other.gone {
                let last = other.half_open_until.map_or(gone, |until| until.max(gone));
                if is_shown && all_work && now > last + GHOST {
                    let ago = now - gone;
                    let ghost = format!("{name} is a ghost: {dyno} shows it {ago:?} after it left");
                    wrong.push(ghost);
                }
            } else if let Some((from, renewed)) = other.lease {
                let safe = now - from > STALE && now - renewed < SAFE;
                if safe && current && other.room == viewer.room && !is_shown {
                    let (ago, recent) = (now - renewed, other.life.recent());
                    wrong.push(format!(
                        "{name} is missing on the list of {dyno}, though its lease was renewed {ago:?} before; {recent}"
                    ));
                }
            }
        }
        tally.wrong_lists += usize::from(!wrong.is_empty());
        if !shown.contains(&*viewer.name) {
            let recent = viewer.life.recent();
            wrong.push(format!("not in its own list of {dyno}; {recent}"));
        }
        wrong
    }
}
