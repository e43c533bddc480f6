//! The faults and their schedule, which follows from the seed. While a fault lasts, no other fault uses its dyno or
//! its Redis. Faults of different parts may overlap.

use super::simulation::Simulation;
use super::support::proxy::Flow::{self, Swallow, SwallowAnswers};
use super::support::{Dyno, Redis};
use Fault::*;
use fastrand::Rng;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

/// A dyno exits within this time after SIGTERM: its clients move, and some of them never answer.
const EXIT: Duration = Duration::from_secs(30);
/// A dyno has closed its listener this long after SIGTERM.
const LISTENER_CLOSED: Duration = Duration::from_secs(1);
/// A dyno that is connecting when its way to Redis opens again notices it after a timeout and a pause. Every fault is over
/// this long after its duration.
const CONNECTING: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Terminate,
    /// Its successor starts on the same port while it still serves its clients, as on the platform.
    Replace,
    Kill,
    Freeze,
    Link(Flow),
    RestartRedis,
    FreezeRedis,
    CutRedis(&'static str),
}

/// Of a hundred faults so many are of this kind; its name; and for how many seconds its part is away, frozen or cut off:
/// at least, and a random time up to so much longer.
const FAULTS: [(usize, &str, f64, f64, Fault); 11] = [
    (9, "dyno SIGTERM", 0.0, 1.5, Terminate),
    (9, "dyno SIGTERM, replaced", 0.0, 1.5, Replace),
    (16, "dyno SIGKILL", 0.0, 1.5, Kill),
    (10, "dyno SIGSTOP", 1.0, 6.0, Freeze),
    // Longer than a lease.
    (6, "dyno SIGSTOP, over a lease", 22.0, 6.0, Freeze),
    (8, "redis restart", 0.0, 3.0, RestartRedis),
    (8, "redis SIGSTOP", 1.0, 6.0, FreezeRedis),
    (10, "CLIENT KILL normal", 0.0, 0.0, CutRedis("normal")),
    (10, "CLIENT KILL pubsub", 0.0, 0.0, CutRedis("pubsub")),
    (7, "link swallows all", 3.0, 6.0, Link(Swallow)),
    (7, "link swallows answers", 3.0, 6.0, Link(SwallowAnswers)),
];

/// Starts a fault every 2 to 7 seconds, but none that would not be over at `end`. Returns when all are over.
pub async fn schedule(sim: Rc<Simulation>, end: Instant) {
    let mut rng = Rng::with_seed(sim.flags.seed ^ 0xfa);
    let kinds: Vec<_> = FAULTS.iter().flat_map(|kind| vec![kind; kind.0]).collect();
    let mut running = vec![];
    loop {
        sleep(Duration::from_millis(rng.u64(2_000..7_000))).await;
        let (_, name, least, more, fault) = *kinds[rng.usize(..kinds.len())];
        let duration = Duration::from_secs_f64(least + more * rng.f64());
        let dyno = rng.usize(..sim.dynos.len());
        if Instant::now() >= end {
            break;
        }
        if Instant::now() + duration + CONNECTING < end {
            let cause = cause(sim.clone(), name, fault, dyno, duration);
            running.push(spawn_local(cause));
        }
    }
    for fault in running {
        if let Err(e) = fault.await {
            sim.fail(format!("a fault panicked: {e}"));
        }
    }
}

/// Causes a fault, unless another fault has its part.
async fn cause(sim: Rc<Simulation>, name: &'static str, fault: Fault, n: usize, time: Duration) {
    match fault {
        Terminate | Replace | Kill | Freeze => {
            if let Some(mut dyno) = sim.dynos[n].take() {
                sim.count_fault(name);
                dyno_fault(&sim, fault, n, &mut dyno, time).await;
                sim.dynos[n].replace(Some(dyno));
            }
        }
        Link(flow) => {
            sim.count_fault(name);
            let health = &sim.dyno_health[&sim.addrs[0]];
            health.fault_begins();
            sim.proxy.set(flow);
            sleep(time).await;
            sim.proxy.set(Flow::Through);
            sleep(CONNECTING).await;
            health.fault_ends();
        }
        RestartRedis | FreezeRedis | CutRedis(_) => {
            if let Some(mut redis) = sim.redis.take() {
                sim.count_fault(name);
                sim.redis_health.fault_begins();
                redis_fault(fault, &mut redis, time).await;
                sim.redis_health.fault_ends();
                sim.redis.replace(Some(redis));
            }
        }
    }
}

async fn dyno_fault(sim: &Simulation, fault: Fault, n: usize, dyno: &mut Dyno, time: Duration) {
    if let Freeze = fault {
        let health = &sim.dyno_health[&dyno.addr()];
        health.fault_begins();
        dyno.signal(SIGSTOP);
        sleep(time).await;
        dyno.signal(SIGCONT);
        return health.fault_ends();
    }
    if let Kill = fault {
        dyno.kill().await;
        sleep(time).await;
        return dyno.restart().await;
    }
    dyno.signal(SIGTERM);
    let mut successor = None;
    if let Replace = fault {
        sleep(LISTENER_CLOSED + time).await;
        successor = Some(dyno.successor().await);
    }
    let status = dyno.exit(EXIT).await;
    if status.code() != Some(0) {
        sim.fail(format!("dyno {n} ended with {status} after SIGTERM"));
    }
    match successor {
        Some(successor) => *dyno = successor,
        None => {
            sleep(time).await;
            dyno.restart().await;
        }
    }
}

async fn redis_fault(fault: Fault, redis: &mut Redis, time: Duration) {
    match fault {
        RestartRedis => {
            redis.stop().await;
            sleep(time).await;
            redis.restart().await;
        }
        FreezeRedis => {
            redis.signal(SIGSTOP);
            sleep(time).await;
            redis.signal(SIGCONT);
        }
        CutRedis(kind) => _ = redis.cmd::<u64>(&["CLIENT", "KILL", "TYPE", kind]),
        other => unreachable!("{other:?} is no fault of Redis"),
    }
}
