//! Measures while the soak runs: a line every five seconds, memory and descriptors of the dynos, and the summary.

use super::simulation::Simulation;
use super::verify;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

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
    next: Instant,
    /// Memory of the largest dyno in kB after half of the time (at most a minute).
    first_at: Duration,
    first_rss: Option<u64>,
    /// Descriptors that are not connections of clients, before the first client comes.
    first_fds: usize,
}

/// Memory of the largest dyno in kB, and the descriptors of each.
fn dynos(sim: &Simulation) -> (u64, Vec<usize>) {
    let (mut rss, mut fds) = (0, vec![]);
    for dyno in &sim.dynos {
        if let Some(dyno) = dyno.borrow().as_ref() {
            rss = rss.max(dyno.rss_kb());
            fds.push(dyno.fds());
        }
    }
    (rss, fds)
}

impl Meters {
    /// To be called before the first client comes.
    pub fn new(sim: Rc<Simulation>) -> Meters {
        Meters {
            next: Instant::now() + EVERY,
            first_at: FIRST_MINUTE.min(Duration::from_secs(sim.flags.seconds) / 2),
            first_rss: None,
            first_fds: dynos(&sim).1.iter().sum(),
            sim,
        }
    }

    fn online(&self) -> usize {
        let users = self.sim.users.borrow();
        let online = users.iter().filter(|user| user.borrow().life.connected);
        online.count()
    }

    pub fn read(&mut self) {
        let (at, (rss, fds)) = (self.sim.start.elapsed(), dynos(&self.sim));
        if self.first_rss.is_none() && at >= self.first_at && fds.len() == self.sim.dynos.len() {
            self.first_rss = Some(rss);
        }
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + EVERY;
        let in_stream: usize = self.sim.streams.borrow().values().map(Vec::len).sum();
        let tally = self.sim.tally.borrow();
        let faults: usize = tally.faults.values().sum();
        let (at, online, said) = (at.as_secs(), self.online(), tally.said);
        println!(
            "at={at}s online={online} said={said} in_stream={in_stream} faults={faults} rss_kb={rss} fds={fds:?}"
        );
    }

    /// Checks that the dynos have one connection for each user, no other descriptors, and no more memory. Then compares
    /// the records of the users with the streams.
    pub async fn summary(&self) {
        let (sim, start) = (&self.sim, Instant::now());
        let (first_rss, first_fds) = (self.first_rss, self.first_fds);
        let (sockets, last_rss, last_fds) = loop {
            let mut per_dyno = vec![];
            for slot in &sim.dynos {
                let dyno = slot.take().expect("no fault is left");
                per_dyno.push(dyno.health().await["connections"].as_u64());
                slot.replace(Some(dyno));
            }
            let open = per_dyno.iter().flatten().sum::<u64>() as usize;
            let (rss, fds) = dynos(sim);
            let users = self.online();
            let fds = fds.iter().sum::<usize>().saturating_sub(users);
            let closed = open == users && fds <= first_fds + GROWTH_FDS;
            let sockets = format!("users={users} sockets={open} per_dyno={per_dyno:?}");
            if !closed && start.elapsed() > CLOSED {
                sim.fail(format!(
                    "sockets left open: {sockets}, other descriptors {fds}, at the start {first_fds}"
                ));
            }
            if closed || start.elapsed() > CLOSED {
                break (sockets, rss, fds);
            }
            sleep(Duration::from_millis(500)).await;
        };
        if let Some(first) = first_rss.filter(|first| last_rss > first + GROWTH_KB) {
            sim.fail(format!("memory grew from {first} kB to {last_rss} kB"));
        }
        verify::messages(sim);
        let tally = sim.tally.borrow();
        println!("faults={:?}", tally.faults);
        println!("{sockets}");
        println!(
            "rss_kb after {} s {first_rss:?}, at the end {last_rss}; other descriptors at the start {first_fds}, at the end {last_fds}",
            self.first_at.as_secs(),
        );
        let (stalls, failures) = (tally.machine_stalls, tally.failures);
        println!("machine_stalls={stalls} failures={failures}");
    }
}
