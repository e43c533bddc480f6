//! Measures while the soak runs: a line every five seconds, memory and descriptors of the dynos, and the summary.

use super::simulation::Simulation;
use super::streams::Streams;
use super::support::raw::http;
use super::verify::{self, Count};
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const EVERY: Duration = Duration::from_secs(5);
const FIRST_MINUTE: Duration = Duration::from_secs(60);
/// Allowed growth of a dyno's memory after the first measurement: histories that were not full, and the allocator.
const GROWTH_KB: u64 = 8 * 1024;
/// Allowed growth of the descriptors that are not connections of clients.
const GROWTH_FDS: usize = 8;
/// A dyno has closed every connection whose client is gone within this time.
const CLOSED: Duration = Duration::from_secs(8);

pub struct Meters {
    sim: Rc<Simulation>,
    streams: Streams,
    next: Instant,
    /// Memory of the largest dyno in kB: after half of the time (at most a minute), and at the end.
    first_at: Duration,
    first_rss: Option<u64>,
    last_rss: u64,
    /// Descriptors that are not connections of clients: before the first client comes, and at the end.
    first_fds: usize,
    last_fds: usize,
    sockets: String,
}

impl Meters {
    /// To be called before the first client comes.
    pub fn new(sim: Rc<Simulation>, streams: Streams, duration: Duration) -> Meters {
        let mut meters = Meters {
            sim,
            streams,
            next: Instant::now() + EVERY,
            first_at: FIRST_MINUTE.min(duration / 2),
            first_rss: None,
            last_rss: 0,
            first_fds: 0,
            last_fds: 0,
            sockets: String::new(),
        };
        meters.first_fds = meters.dynos().1.iter().sum();
        meters
    }

    /// Memory of the largest dyno in kB, and the descriptors of each.
    fn dynos(&self) -> (u64, Vec<usize>) {
        let (mut rss, mut fds) = (0, vec![]);
        for dyno in &self.sim.dynos {
            if let Some(dyno) = dyno.borrow().as_ref() {
                rss = rss.max(dyno.rss_kb());
                fds.push(dyno.fds());
            }
        }
        (rss, fds)
    }

    fn online(&self) -> usize {
        let users = self.sim.users.borrow();
        users
            .iter()
            .filter(|user| user.borrow().connected.is_some())
            .count()
    }

    pub fn read(&mut self) {
        let (at, online) = (self.sim.start.elapsed(), self.online());
        let (rss, fds) = self.dynos();
        if self.first_rss.is_none() && at >= self.first_at && fds.len() == self.sim.dynos.len() {
            self.first_rss = Some(rss);
        }
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + EVERY;
        let in_stream: usize = self.streams.entries().values().map(Vec::len).sum();
        let tally = self.sim.tally.borrow();
        let faults: u64 = tally.faults.values().sum();
        println!(
            "at={}s online={online} said={} in_stream={in_stream} delivered={} reconnects={} faults={faults} rss_kb={rss} fds={fds:?}",
            at.as_secs(),
            tally.said,
            tally.delivered,
            tally.reconnects,
        );
    }

    /// Checks that the dynos have one connection for each user, no other descriptors, and no more memory.
    pub async fn open_sockets(&mut self) {
        let start = Instant::now();
        loop {
            let mut per_dyno = vec![];
            for addr in &self.sim.addrs {
                let head = format!("GET /healthz HTTP/1.1\r\nHost: {addr}\r\n\r\n");
                let answer = timeout(EVERY, http(*addr, &head)).await;
                let body = answer.map(|a| a.body).unwrap_or_default();
                let health: Value = serde_json::from_slice(&body).unwrap_or_default();
                per_dyno.push(health["connections"].as_u64());
            }
            let open = per_dyno.iter().flatten().sum::<u64>() as usize;
            let (rss, fds) = self.dynos();
            let users = self.online();
            self.last_rss = rss;
            self.last_fds = fds.iter().sum::<usize>().saturating_sub(users);
            self.sockets = format!("users={users} sockets={open} per_dyno={per_dyno:?}");
            if open == users && self.last_fds <= self.first_fds + GROWTH_FDS {
                break;
            }
            if start.elapsed() > CLOSED {
                self.sim.fail(format!(
                    "sockets left open: {}, other descriptors {}, at the start {}",
                    self.sockets, self.last_fds, self.first_fds
                ));
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        let (first, last) = (self.first_rss, self.last_rss);
        if let Some(first) = first.filter(|first| last > first + GROWTH_KB) {
            self.sim
                .fail(format!("memory grew from {first} kB to {last} kB"));
        }
    }

    pub fn summary(&self, count: &Count) {
        let tally = self.sim.tally.borrow();
        println!(
            "messages said={} confirmed={} given_up={} delivered={} shown={}",
            tally.said, count.confirmed, count.given_up, tally.delivered, count.shown
        );
        let (reconnects, moves) = (tally.reconnects, tally.moves);
        println!(
            "reconnects={reconnects} moves={moves} closes={:?}",
            tally.closes
        );
        println!("errors={:?}", tally.errors);
        println!("faults={:?}", tally.faults);
        let rooms: Vec<String> = self.streams.entries().keys().cloned().collect();
        println!(
            "lost={} doubled={} out_of_order={} false_gaps={} gaps={} rooms_with_wrong_names={}",
            count.lost,
            count.doubled,
            count.disordered,
            count.false_gaps,
            count.gaps,
            verify::names(&self.sim, &rooms).len()
        );
        println!("{}", self.sockets);
        println!(
            "rss_kb after {} s {:?}, at the end {}; other descriptors at the start {}, at the end {}",
            self.first_at.as_secs(),
            self.first_rss,
            self.last_rss,
            self.first_fds,
            self.last_fds
        );
        println!(
            "machine_stalls={} failures={}",
            tally.machine_stalls,
            self.sim.failures.borrow().len()
        );
    }
}
