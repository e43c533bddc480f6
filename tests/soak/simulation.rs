//! The shared state of the soak test: Redis, the dynos, the users, and counters. It also checks lists of members.
//! For this it records since when each dyno and Redis run without a fault.

use super::Flags;
use super::compare::Seen;
use super::support::page::Router;
use super::support::proxy::Proxy;
use super::support::{Dyno, Id, Redis};
use super::user::User;
use futures_util::future::join_all;
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
pub const GHOST: Duration = Duration::from_secs(32);
/// How often leases are noted.
const PERIOD: Duration = Duration::from_millis(250);
/// A timer this late shows that the machine stalled, and the dynos with it.
const STALL: Duration = Duration::from_secs(1);

pub type UserRef = Rc<RefCell<User>>;

#[derive(Default)]
pub struct Tally {
    pub said: u64,
    pub delivered: u64,
    pub reconnects: u64,
    /// Changes of the connection without a moment without one.
    pub moves: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub closes: BTreeMap<u16, u64>,
    pub errors: BTreeMap<String, u64>,
    /// When each try to connect was due.
    pub tries: Vec<Instant>,
    pub machine_stalls: u64,
    /// Lists of members received, and how many of them were wrong.
    pub lists: u64,
    pub wrong_lists: u64,
}

pub struct Simulation {
    pub seed: u64,
    pub start: Instant,
    /// Redis and the dynos; `None` while a fault has taken one.
    pub redis: RefCell<Option<Redis>>,
    pub dynos: Vec<RefCell<Option<Dyno>>>,
    pub addrs: Vec<SocketAddr>,
    pub router: Router,
    /// Between the first dyno and Redis.
    pub proxy: Proxy,
    /// Since when each dyno and Redis work; `None` during a fault.
    dynos_work: Vec<Cell<Option<Instant>>>,
    redis_works: Cell<Option<Instant>>,
    /// The faults of each dyno at this moment: it can be frozen and without Redis at once.
    dyno_faults: Vec<Cell<usize>>,
    pub users: RefCell<Vec<UserRef>>,
    by_name: RefCell<HashMap<String, UserRef>>,
    pub tally: RefCell<Tally>,
    pub seen: RefCell<Seen>,
    /// No more faults and no more actions: everything comes to rest.
    pub settling: Cell<bool>,
    /// Violations are only counted, not printed (for `--program single_file`).
    counting: bool,
    pub failures: RefCell<Vec<String>>,
}

impl Simulation {
    pub async fn start(flags: &Flags) -> Rc<Simulation> {
        Simulation::start_with(flags, flags.dynos).await
    }

    pub async fn start_with(flags: &Flags, count: usize) -> Rc<Simulation> {
        let redis = Redis::start(&["--appendonly", "yes"]).await;
        let proxy = Proxy::to_redis(&redis).await;
        let names: Vec<String> = (1..=count).map(|n| format!("web.{n}")).collect();
        let dynos = join_all(names.iter().enumerate().map(async |(n, name)| {
            let url = if n == 0 {
                proxy.redis_url()
            } else {
                redis.url()
            };
            let vars = [("DYNO", &**name), ("MAX_PER_ADDRESS", "0")]; // all users have one address
            Dyno::start_with_redis_at(&url, &vars).await
        }))
        .await;
        let addrs: Vec<SocketAddr> = dynos.iter().map(Dyno::addr).collect();
        let named: Vec<_> = addrs.iter().copied().zip(names).collect();
        let now = Instant::now();
        Rc::new(Simulation {
            seed: flags.seed,
            start: now,
            redis: RefCell::new(Some(redis)),
            dynos: dynos.into_iter().map(|d| RefCell::new(Some(d))).collect(),
            addrs,
            router: Router::to_named(&named),
            proxy,
            dynos_work: vec![Cell::new(Some(now)); count],
            redis_works: Cell::new(Some(now)),
            dyno_faults: vec![Cell::new(0); count],
            users: RefCell::default(),
            by_name: RefCell::default(),
            tally: RefCell::default(),
            seen: RefCell::default(),
            settling: Cell::new(false),
            counting: flags.single_file,
            failures: RefCell::default(),
        })
    }

    pub fn add_user(&self, user: User) -> UserRef {
        let name = user.name.clone();
        let user = Rc::new(RefCell::new(user));
        self.users.borrow_mut().push(user.clone());
        self.by_name.borrow_mut().insert(name, user.clone());
        user
    }

    pub fn index_of(&self, dyno: SocketAddr) -> usize {
        let found = self.addrs.iter().position(|addr| *addr == dyno);
        found.expect("the router knows only these dynos")
    }

    pub fn fail(&self, what: String) {
        if !self.counting {
            println!("FAILED {what}");
        }
        self.failures.borrow_mut().push(what);
    }

    pub fn count_fault(&self, kind: &'static str) {
        let at = self.start.elapsed().as_secs_f64();
        println!("fault={kind:?} at={at:.1}s");
        *self.tally.borrow_mut().faults.entry(kind).or_default() += 1;
    }

    /// Notes a message that somebody was shown.
    pub fn note_message(&self, room: &str, talk: &Value) {
        let mut seen = self.seen.borrow_mut();
        let room = seen.entry(room.to_string()).or_default();
        let cid = talk["cid"].as_str().unwrap_or("?");
        room.insert(Id::of(talk, "id"), cid.to_string());
    }

    /// Sleeps, but not longer than until the simulation settles.
    pub async fn pause_until(&self, end: Instant) {
        while Instant::now() < end && !self.settling.get() {
            sleep(2 * PERIOD).await;
        }
    }

    pub fn dyno_fault_begins(&self, dyno: usize) {
        self.dyno_faults[dyno].update(|faults| faults + 1);
        self.dynos_work[dyno].set(None);
    }

    pub fn dyno_fault_ends(&self, dyno: usize) {
        self.dyno_faults[dyno].update(|faults| faults - 1);
        let works = self.dyno_faults[dyno].get() == 0;
        self.dynos_work[dyno].set(works.then(Instant::now));
    }

    pub fn set_redis_works(&self, works: bool) {
        self.redis_works.set(works.then(Instant::now));
    }

    fn works_for(&self, dyno: usize) -> Option<Duration> {
        let since = self.dynos_work[dyno].get()?.max(self.redis_works.get()?);
        Some(since.elapsed())
    }

    /// Notes again and again whose lease has surely been renewed.
    pub async fn watch_leases(self: Rc<Self>) {
        loop {
            let before = Instant::now();
            sleep(PERIOD).await;
            if before.elapsed() > PERIOD + STALL {
                self.machine_stalled();
            }
            self.note_leases();
        }
    }

    /// A stall of the whole machine: perhaps no lease was renewed, and the time without faults begins now.
    fn machine_stalled(&self) {
        self.tally.borrow_mut().machine_stalls += 1;
        for works in self.dynos_work.iter().chain([&self.redis_works]) {
            works.update(|since| since.map(|_| Instant::now()));
        }
        for user in self.users.borrow().iter() {
            user.borrow_mut().lease = None;
        }
    }

    fn note_leases(&self) {
        let now = Instant::now();
        for user in self.users.borrow().iter() {
            let mut user = user.borrow_mut();
            let Some((dyno, since)) = user.connected else {
                continue;
            };
            let works = self.works_for(dyno).is_some_and(|time| time > RENEWED);
            let blind = user.blind_until.is_some_and(|until| now <= until);
            if works && now - since > RENEWED && !blind {
                let earlier = user.lease.filter(|(_, renewed)| now - *renewed < SAFE);
                user.lease = Some((earlier.map_or(now, |lease| lease.0), now));
            }
        }
    }

    /// Checks the list of members that `dyno` just sent to `viewer`. Returns the violations as sentences.
    pub fn judge_list(&self, viewer: &User, dyno: usize, frame: &Value) -> Vec<String> {
        let now = Instant::now();
        let blind = viewer.blind_until.is_some_and(|until| now < until);
        if blind || viewer.count > viewer.users.len() {
            return vec![];
        }
        let mut wrong = vec![];
        let shown: HashSet<&str> = viewer.users.iter().map(String::as_str).collect();
        if shown.len() != viewer.count {
            wrong.push(format!("a list that does not match its count: {frame}"));
        }
        let current = self.works_for(dyno).is_some_and(|time| time > STALE);
        for other in self.users.borrow().iter().filter(|_| current) {
            let Ok(other) = other.try_borrow() else {
                continue; // the viewer itself
            };
            let elsewhere = other.room != viewer.room || other.gone.is_some();
            if elsewhere || shown.contains(&*other.name) {
                continue;
            }
            if let Some((from, renewed)) = other.lease
                && now - from > STALE
                && now - renewed < SAFE
            {
                wrong.push(format!(
                    "{} is missing on the list of dyno {dyno}, though its lease was renewed {:?} before; {}",
                    other.name,
                    now - renewed,
                    other.recent_events()
                ));
            }
        }
        let all_work = self.dynos_work.iter().chain([&self.redis_works]);
        let all_work: Option<Vec<Instant>> = all_work.map(Cell::get).collect();
        let all_work = all_work.and_then(|since| since.into_iter().max());
        let by_name = self.by_name.borrow();
        for name in shown {
            let other = by_name.get(name).and_then(|other| other.try_borrow().ok());
            if let Some(other) = other
                && let (Some(gone), Some(all_work)) = (other.gone, all_work)
                && now
                    > gone
                        .max(all_work)
                        .max(other.half_open_until.unwrap_or(gone))
                        + GHOST
            {
                wrong.push(format!(
                    "{name} is shown by dyno {dyno} {:?} after it left: a ghost",
                    now - gone
                ));
            }
        }
        wrong
    }
}
