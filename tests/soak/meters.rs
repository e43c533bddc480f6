//! What is read off while the soak runs: a line every five seconds, memory and descriptors of the dynos after a minute
//! and at the end, and the summary.

use super::support::raw::http;
use super::town::Town;
use super::truth::Truth;
use super::verify::{self, Count};
use serde_json::Value;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const EVERY: Duration = Duration::from_secs(5);
const FIRST_MINUTE: Duration = Duration::from_secs(60);
/// Beyond the level after the first minute: a few logs that were not full then, and what an allocator keeps.
const GROWTH_KB: u64 = 8 * 1024;
/// Descriptors that are no sockets of pages: a dyno under a fault may have held some less.
const GROWTH_FDS: usize = 8;

pub struct Meters {
    town: Rc<Town>,
    truth: Truth,
    next: Instant,
    /// The largest dyno after the first minute: kB, and descriptors that belong to no page.
    first: Option<(u64, usize)>,
    last: Option<(u64, usize)>,
    sockets: String,
}

impl Meters {
    pub fn new(town: Rc<Town>, truth: Truth) -> Meters {
        let next = Instant::now() + EVERY;
        Meters {
            town,
            truth,
            next,
            first: None,
            last: None,
            sockets: String::new(),
        }
    }

    /// The largest resident memory in kB, and descriptors of each dyno.
    fn dynos(&self) -> (u64, Vec<usize>) {
        let (mut rss, mut fds) = (0, vec![]);
        for dyno in &self.town.dynos {
            if let Some(dyno) = dyno.borrow().as_ref() {
                rss = rss.max(dyno.rss_kb());
                fds.push(dyno.fds());
            }
        }
        (rss, fds)
    }

    fn online(&self, dyno: Option<usize>) -> usize {
        let people = self.town.people.borrow();
        let seats = people.iter().filter_map(|p| p.borrow().seat);
        seats.filter(|s| dyno.is_none_or(|n| s.0 == n)).count()
    }

    pub fn read(&mut self) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        let at = self.town.start.elapsed();
        let (rss, fds) = self.dynos();
        if self.first.is_none() && at >= FIRST_MINUTE && fds.len() == self.town.dynos.len() {
            let own = fds.iter().sum::<usize>().saturating_sub(self.online(None));
            self.first = Some((rss, own));
        }
        let stream: usize = self.truth.logs().values().map(Vec::len).sum();
        let tally = self.town.tally.borrow();
        let faults: u64 = tally.faults.values().sum();
        println!(
            "at={}s online={} said={} in_stream={stream} delivered={} reconnects={} faults={faults} rss_kb={rss} fds={fds:?}",
            at.as_secs(),
            self.online(None),
            tally.said,
            tally.delivered,
            tally.reconnects,
        );
    }

    /// I3 and I4: the dynos have as many sockets as there are people, and descriptors to match; nothing has grown.
    pub async fn open_sockets(&mut self) {
        let start = Instant::now();
        loop {
            let (mut open, mut hosts) = (0, vec![]);
            for addr in &self.town.addrs {
                let head = format!("GET /healthz HTTP/1.1\r\nHost: {addr}\r\n\r\n");
                let answer = timeout(EVERY, http(*addr, &head)).await;
                let body = answer.map(|a| a.body).unwrap_or_default();
                let health: Value = serde_json::from_slice(&body).unwrap_or_default();
                open += health["connections"].as_u64().unwrap_or(0) as usize;
                hosts.push(health["connections"].as_u64());
            }
            let (rss, fds) = self.dynos();
            let people = self.online(None);
            let own = fds.iter().sum::<usize>().saturating_sub(people);
            self.last = Some((rss, own));
            let fds_back = self
                .first
                .is_none_or(|(_, first)| own <= first + GROWTH_FDS);
            self.sockets = format!("people={people} sockets={open} per_dyno={hosts:?}");
            if open == people && fds_back {
                break;
            }
            if start.elapsed() > Duration::from_secs(8) {
                self.town.fail(format!(
                    "sockets left behind: {}, descriptors beside them {own}, after a minute {:?}",
                    self.sockets, self.first
                ));
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if let (Some((first, _)), Some((last, _))) = (self.first, self.last)
            && last > first + GROWTH_KB
        {
            self.town
                .fail(format!("memory grew from {first} kB to {last} kB"));
        }
    }

    pub fn summary(&self, count: &Count) {
        let tally = self.town.tally.borrow();
        let failed = self.town.failures.borrow().len();
        println!(
            "messages said={} confirmed={} given_up={} delivered={} shown={}",
            tally.said, count.confirmed, count.given_up, tally.delivered, count.shown
        );
        println!("reconnects={} closes={:?}", tally.reconnects, tally.closes);
        println!("errors={:?}", tally.errors);
        println!("faults={:?}", tally.faults);
        let ghosts = verify::names(&self.town, &self.rooms()).len();
        println!(
            "lost={} doubled={} out_of_order={} false_gaps={} gaps={} rooms_with_wrong_names={ghosts}",
            count.lost, count.doubled, count.disordered, count.false_gaps, count.gaps
        );
        println!("{}", self.sockets);
        println!(
            "rss_kb and other descriptors: after 60 s {:?}, at the end {:?}",
            self.first, self.last
        );
        println!("failures={failed}");
    }

    fn rooms(&self) -> Vec<String> {
        self.truth.logs().keys().cloned().collect()
    }
}
