//! What goes wrong, and when: one schedule from the seed. Each fault takes its part of the town away for its time, so
//! that no two of them want the same; faults of different parts overlap.

use super::support::proxy::Flow;
use super::support::{Dyno, Redis};
use super::town::Town;
use fastrand::Rng;
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

/// The platform gives 30 s, the design promises 10.
const EXIT: Duration = Duration::from_secs(10);

/// A dyno may be in the middle of a vain attempt to connect when its way to Redis is free again: until then, and a pause
/// longer, it knows only what it knew.
const CONNECTING: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Terminate(usize),
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

/// Faults until `end`; returns when all of them are over.
pub async fn schedule(town: Rc<Town>, seed: u64, end: Instant, flush: bool) {
    let mut rng = Rng::with_seed(seed ^ 0xfau64);
    let mut under_way = vec![];
    loop {
        sleep(millis(&mut rng, 2_000..7_000)).await;
        let fault = pick(&mut rng, town.dynos.len(), flush);
        let long = millis(&mut rng, 0..6_000);
        if Instant::now() >= end {
            break;
        }
        under_way.push(spawn_local(happen(town.clone(), fault, long)));
    }
    for fault in under_way {
        if let Err(e) = fault.await {
            town.fail(format!("a fault did not end as it should: {e}"));
        }
    }
}

fn pick(rng: &mut Rng, dynos: usize, flush: bool) -> Fault {
    let dyno = rng.usize(..dynos);
    match rng.u32(..if flush { 106 } else { 100 }) {
        0..18 => Fault::Terminate(dyno),
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

async fn happen(town: Rc<Town>, fault: Fault, long: Duration) {
    match fault {
        Fault::Terminate(n) | Fault::Kill(n) | Fault::Stall(n) | Fault::LongStall(n) => {
            let Some(mut dyno) = town.dynos[n].take() else {
                return; // another fault has it
            };
            befall_dyno(&town, fault, n, &mut dyno, long).await;
            town.dynos[n].replace(Some(dyno));
        }
        Fault::Swallow | Fault::SwallowAnswers => {
            let Some(proxy) = &town.proxy else { return };
            town.set_dyno_well(0, false);
            let (flow, kind) = match fault {
                Fault::Swallow => (Flow::Swallow, "link swallows all"),
                _ => (Flow::SwallowAnswers, "link swallows answers"),
            };
            town.count_fault(kind);
            proxy.set(flow);
            sleep(Duration::from_secs(3) + long).await;
            proxy.set(Flow::Through);
            sleep(CONNECTING).await;
            town.set_dyno_well(0, true);
        }
        _ => {
            let Some(mut redis) = town.redis.take() else {
                return;
            };
            town.set_redis_well(false);
            befall_redis(&town, fault, &mut redis, long).await;
            town.set_redis_well(true);
            town.redis.replace(Some(redis));
        }
    }
}

async fn befall_dyno(town: &Town, fault: Fault, n: usize, dyno: &mut Dyno, long: Duration) {
    match fault {
        Fault::Terminate(_) => {
            town.count_fault("dyno SIGTERM");
            dyno.signal(SIGTERM);
            let status = dyno.exit(EXIT).await;
            if status.code() != Some(0) {
                town.fail(format!("dyno {n} ended with {status} after SIGTERM"));
            }
            sleep(long / 4).await;
            dyno.restart().await;
        }
        Fault::Kill(_) => {
            town.count_fault("dyno SIGKILL");
            dyno.signal(SIGKILL);
            dyno.exit(EXIT).await;
            sleep(long / 4).await;
            dyno.restart().await;
        }
        _ => {
            let stall = match fault {
                Fault::LongStall(_) => Duration::from_secs(22) + long,
                _ => Duration::from_secs(1) + long,
            };
            town.count_fault(match fault {
                Fault::LongStall(_) => "dyno SIGSTOP, over a lease",
                _ => "dyno SIGSTOP",
            });
            town.set_dyno_well(n, false);
            dyno.signal(SIGSTOP);
            sleep(stall).await;
            dyno.signal(SIGCONT);
            town.set_dyno_well(n, true);
        }
    }
}

async fn befall_redis(town: &Town, fault: Fault, redis: &mut Redis, long: Duration) {
    match fault {
        Fault::RestartRedis => {
            town.count_fault("redis restart");
            redis.stop().await;
            sleep(long / 2).await;
            redis.restart().await;
        }
        Fault::StopRedis => {
            town.count_fault("redis SIGSTOP");
            redis.signal(SIGSTOP);
            sleep(Duration::from_secs(1) + long).await;
            redis.signal(SIGCONT);
        }
        Fault::Flush => {
            town.count_fault("redis FLUSHALL");
            redis.cmd::<()>(&["FLUSHALL"]);
        }
        _ => {
            let (kind, counted) = match fault {
                Fault::CutNormal => ("normal", "CLIENT KILL normal"),
                _ => ("pubsub", "CLIENT KILL pubsub"),
            };
            town.count_fault(counted);
            redis.cmd::<u64>(&["CLIENT", "KILL", "TYPE", kind]);
        }
    }
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}
