//! The faults and their schedule, which follows from the seed. While a fault lasts, no other fault uses its dyno or
//! its Redis. Faults of different parts may overlap.

use super::simulation::Simulation;
use super::support::proxy::Flow;
use super::support::{Dyno, Redis};
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
/// A dyno that is connecting when its way to Redis opens again notices it after a timeout and a pause.
const CONNECTING: Duration = Duration::from_secs(6);
/// A fault is over this long after its duration: the dyno exits, or notices that Redis is back.
const AFTERWARDS: Duration = CONNECTING;

#[derive(Clone, Copy)]
enum Fault {
    Terminate(usize),
    /// Its successor starts on the same port while it still serves its clients, as on the platform.
    Replace(usize),
    Kill(usize),
    Stall(usize),
    /// Longer than a lease.
    LongStall(usize),
    RestartRedis,
    StopRedis,
    CutNormal,
    CutPubsub,
    Swallow,
    SwallowAnswers,
    Flush,
}

impl Fault {
    fn random(rng: &mut Rng, dynos: usize, flush: bool) -> Fault {
        let dyno = rng.usize(..dynos);
        match rng.u32(..if flush { 106 } else { 100 }) {
            0..9 => Fault::Terminate(dyno),
            9..18 => Fault::Replace(dyno),
            18..34 => Fault::Kill(dyno),
            34..44 => Fault::Stall(dyno),
            44..50 => Fault::LongStall(dyno),
            50..58 => Fault::RestartRedis,
            58..66 => Fault::StopRedis,
            66..76 => Fault::CutNormal,
            76..86 => Fault::CutPubsub,
            86..93 => Fault::Swallow,
            93..100 => Fault::SwallowAnswers,
            _ => Fault::Flush,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Fault::Terminate(_) => "dyno SIGTERM",
            Fault::Replace(_) => "dyno SIGTERM, replaced",
            Fault::Kill(_) => "dyno SIGKILL",
            Fault::Stall(_) => "dyno SIGSTOP",
            Fault::LongStall(_) => "dyno SIGSTOP, over a lease",
            Fault::RestartRedis => "redis restart",
            Fault::StopRedis => "redis SIGSTOP",
            Fault::CutNormal => "CLIENT KILL normal",
            Fault::CutPubsub => "CLIENT KILL pubsub",
            Fault::Swallow => "link swallows all",
            Fault::SwallowAnswers => "link swallows answers",
            Fault::Flush => "redis FLUSHALL",
        }
    }

    /// How long its part is away, or frozen, or cut off. `random` is up to 6 s.
    fn duration(self, random: Duration) -> Duration {
        match self {
            Fault::Terminate(_) | Fault::Replace(_) | Fault::Kill(_) => random / 4,
            Fault::Stall(_) | Fault::StopRedis => Duration::from_secs(1) + random,
            Fault::LongStall(_) => Duration::from_secs(22) + random,
            Fault::RestartRedis => random / 2,
            Fault::Swallow | Fault::SwallowAnswers => Duration::from_secs(3) + random,
            Fault::CutNormal | Fault::CutPubsub | Fault::Flush => Duration::ZERO,
        }
    }
}

/// Starts a fault every 2 to 7 seconds, but none that would not be over at `end`. Returns when all are over.
pub async fn schedule(sim: Rc<Simulation>, seed: u64, end: Instant, flush: bool) {
    let mut rng = Rng::with_seed(seed ^ 0xfau64);
    let mut running = vec![];
    loop {
        sleep(Duration::from_millis(rng.u64(2_000..7_000))).await;
        let fault = Fault::random(&mut rng, sim.dynos.len(), flush);
        let duration = fault.duration(Duration::from_millis(rng.u64(..6_000)));
        if Instant::now() >= end {
            break;
        }
        if Instant::now() + duration + AFTERWARDS < end {
            running.push(spawn_local(cause(sim.clone(), fault, duration)));
        }
    }
    for fault in running {
        if let Err(e) = fault.await {
            sim.fail(format!("a fault panicked: {e}"));
        }
    }
}

async fn cause(sim: Rc<Simulation>, fault: Fault, duration: Duration) {
    match fault {
        Fault::Terminate(n)
        | Fault::Replace(n)
        | Fault::Kill(n)
        | Fault::Stall(n)
        | Fault::LongStall(n) => {
            let Some(mut dyno) = sim.dynos[n].take() else {
                return; // another fault has it
            };
            sim.count_fault(fault.name());
            dyno_fault(&sim, fault, n, &mut dyno, duration).await;
            sim.dynos[n].replace(Some(dyno));
        }
        Fault::Swallow | Fault::SwallowAnswers => {
            sim.count_fault(fault.name());
            sim.dyno_fault_begins(0);
            sim.proxy.set(match fault {
                Fault::Swallow => Flow::Swallow,
                _ => Flow::SwallowAnswers,
            });
            sleep(duration).await;
            sim.proxy.set(Flow::Through);
            sleep(CONNECTING).await;
            sim.dyno_fault_ends(0);
        }
        _ => {
            let Some(mut redis) = sim.redis.take() else {
                return;
            };
            sim.count_fault(fault.name());
            sim.set_redis_works(false);
            redis_fault(fault, &mut redis, duration).await;
            sim.set_redis_works(true);
            sim.redis.replace(Some(redis));
        }
    }
}

async fn dyno_fault(sim: &Simulation, fault: Fault, n: usize, dyno: &mut Dyno, time: Duration) {
    match fault {
        Fault::Kill(_) => {
            dyno.kill().await;
            sleep(time).await;
            dyno.restart().await;
        }
        Fault::Terminate(_) => {
            dyno.signal(SIGTERM);
            exits_with_0(sim, n, dyno).await;
            sleep(time).await;
            dyno.restart().await;
        }
        Fault::Replace(_) => {
            dyno.signal(SIGTERM);
            sleep(LISTENER_CLOSED + time).await;
            let successor = dyno.successor().await;
            exits_with_0(sim, n, dyno).await;
            *dyno = successor;
        }
        _ => {
            sim.dyno_fault_begins(n);
            dyno.signal(SIGSTOP);
            sleep(time).await;
            dyno.signal(SIGCONT);
            sim.dyno_fault_ends(n);
        }
    }
}

async fn exits_with_0(sim: &Simulation, n: usize, dyno: &mut Dyno) {
    let status = dyno.exit(EXIT).await;
    if status.code() != Some(0) {
        sim.fail(format!("dyno {n} ended with {status} after SIGTERM"));
    }
}

async fn redis_fault(fault: Fault, redis: &mut Redis, time: Duration) {
    match fault {
        Fault::RestartRedis => {
            redis.stop().await;
            sleep(time).await;
            redis.restart().await;
        }
        Fault::StopRedis => {
            redis.signal(SIGSTOP);
            sleep(time).await;
            redis.signal(SIGCONT);
        }
        Fault::Flush => redis.cmd::<()>(&["FLUSHALL"]),
        _ => {
            let kind = match fault {
                Fault::CutNormal => "normal",
                _ => "pubsub",
            };
            redis.cmd::<u64>(&["CLIENT", "KILL", "TYPE", kind]);
        }
    }
}
