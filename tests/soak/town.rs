//! Everything that lives in a soak: Redis, the dynos, the people; what was counted; and since when each part is well,
//! which decides what a list of members may and may not show.

use super::record::Person;
use super::support::proxy::Proxy;
use super::support::{Dyno, Redis};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A lease, less a renewal and what a busy machine may add to it: so long after it was surely renewed, a name is safe.
const SAFE: Duration = Duration::from_secs(13);
/// A dyno and a Redis that have been well for so long have renewed every name.
const RENEWED: Duration = Duration::from_secs(8);
/// A list of members may be so old when it arrives.
const STALE: Duration = Duration::from_secs(4);
/// Within this a name that nobody has any more is shown no longer.
pub const GHOST: Duration = Duration::from_secs(32);

pub type Someone = Rc<RefCell<Person>>;

#[derive(Default)]
pub struct Tally {
    pub said: u64,
    pub delivered: u64,
    pub reconnects: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub closes: BTreeMap<u16, u64>,
    pub errors: BTreeMap<String, u64>,
    /// Each new TCP connection: when.
    pub connects: Vec<Instant>,
}

pub struct Town {
    pub seed: u64,
    pub start: Instant,
    /// Where Redis and the dynos are when no fault has taken them away.
    pub redis: RefCell<Option<Redis>>,
    pub dynos: Vec<RefCell<Option<Dyno>>>,
    pub addrs: Vec<SocketAddr>,
    /// Which of them the router knows.
    pub routed: RefCell<Vec<usize>>,
    /// Between the first dyno and Redis.
    pub proxy: Option<Proxy>,
    dyno_well: Vec<Cell<Option<Instant>>>,
    dyno_troubles: Vec<Cell<usize>>,
    redis_well: Cell<Option<Instant>>,
    pub people: RefCell<Vec<Someone>>,
    by_name: RefCell<HashMap<String, Someone>>,
    pub tally: RefCell<Tally>,
    /// No more faults and no more talk: everything comes to rest.
    pub settling: Cell<bool>,
    pub failures: RefCell<Vec<String>>,
}

impl Town {
    pub async fn start(seed: u64, dynos: usize, proxied: bool) -> Rc<Town> {
        let redis = Redis::start(&["--appendonly", "yes"]).await;
        let proxy = match proxied {
            true => Some(Proxy::to_redis(&redis).await),
            false => None,
        };
        let (mut slots, mut addrs) = (vec![], vec![]);
        for n in 0..dynos {
            let through = proxy.as_ref().filter(|_| n == 0);
            let url = through.map_or(redis.url(), |p| p.redis_url());
            let name = format!("web.{}", n + 1);
            let dyno = Dyno::start_with_redis_at(&url, &[("DYNO", &name)]).await;
            addrs.push(dyno.addr());
            slots.push(RefCell::new(Some(dyno)));
        }
        let now = Instant::now();
        Rc::new(Town {
            seed,
            start: now,
            redis: RefCell::new(Some(redis)),
            dynos: slots,
            addrs,
            routed: RefCell::new((0..dynos).collect()),
            proxy,
            dyno_well: (0..dynos).map(|_| Cell::new(Some(now))).collect(),
            dyno_troubles: vec![Cell::new(0); dynos],
            redis_well: Cell::new(Some(now)),
            people: RefCell::default(),
            by_name: RefCell::default(),
            tally: RefCell::default(),
            settling: Cell::new(false),
            failures: RefCell::default(),
        })
    }

    pub fn move_in(&self, person: Person) -> Someone {
        let name = person.user.clone();
        let someone = Rc::new(RefCell::new(person));
        self.people.borrow_mut().push(someone.clone());
        self.by_name.borrow_mut().insert(name, someone.clone());
        someone
    }

    pub fn fail(&self, what: String) {
        println!("FAILED {what}");
        self.failures.borrow_mut().push(what);
    }

    pub fn count_fault(&self, kind: &'static str) {
        println!(
            "fault={kind:?} at={:.1}s",
            self.start.elapsed().as_secs_f64()
        );
        *self.tally.borrow_mut().faults.entry(kind).or_default() += 1;
    }

    /// Begins or ends a trouble. A dyno can be in two at once, frozen and without Redis; it is well when both are over.
    pub fn set_dyno_well(&self, dyno: usize, well: bool) {
        let troubles = &self.dyno_troubles[dyno];
        troubles.set(if well {
            troubles.get() - 1
        } else {
            troubles.get() + 1
        });
        self.dyno_well[dyno].set((troubles.get() == 0).then(Instant::now));
    }

    pub fn set_redis_well(&self, well: bool) {
        self.redis_well.set(well.then(Instant::now));
    }

    fn well_for(&self, dyno: usize) -> Option<Duration> {
        let since = self.dyno_well[dyno].get()?.max(self.redis_well.get()?);
        Some(since.elapsed())
    }

    /// Every quarter of a second: whose lease has surely been renewed just now?
    pub fn note_leases(&self) {
        let now = Instant::now();
        for person in self.people.borrow().iter() {
            let mut person = person.borrow_mut();
            let Some((dyno, since)) = person.seat else {
                continue;
            };
            let well = self.well_for(dyno).is_some_and(|well| well > RENEWED);
            if well && now - since > RENEWED && person.blind_until.is_none_or(|until| until < now) {
                let from = person
                    .assured
                    .filter(|(_, at)| now - *at < SAFE)
                    .map_or(now, |a| a.0);
                person.assured = Some((from, now));
            }
        }
    }

    /// A list of members, as `viewer` is shown it by `dyno`: what is wrong with it.
    pub fn judge_list(&self, viewer: &Person, dyno: usize, frame: &Value) -> Vec<String> {
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
        for other in self.people.borrow().iter() {
            let Ok(other) = other.try_borrow() else {
                continue; // the viewer itself
            };
            let elsewhere = other.room != viewer.room || other.gone.is_some();
            if elsewhere || shown.contains(&*other.user) {
                continue;
            }
            let fresh = self.well_for(dyno).is_some_and(|well| well > STALE);
            if let Some((from, renewed)) = other.assured
                && fresh
                && now - from > STALE
                && now - renewed < SAFE
            {
                wrong.push(format!(
                    "{} is shown as gone by dyno {dyno}, though its lease was renewed {:?} before; {}",
                    other.user,
                    now - renewed,
                    other.lately()
                ));
            }
        }
        let by_name = self.by_name.borrow();
        for name in shown {
            let Some(other) = by_name.get(name).and_then(|o| o.try_borrow().ok()) else {
                continue;
            };
            if let Some(gone) = other.gone {
                let wells = self.dyno_well.iter().chain([&self.redis_well]);
                let wells: Option<Vec<Instant>> = wells.map(Cell::get).collect();
                let half_open = other.half_open_until.unwrap_or(gone);
                let from = wells.map(|wells| wells.into_iter().chain([gone, half_open]).max());
                if let Some(Some(from)) = from
                    && now > from + GHOST
                {
                    wrong.push(format!(
                        "{name} is shown by dyno {dyno} {:?} after it left: a ghost",
                        now - gone
                    ));
                }
            }
        }
        wrong
    }
}
