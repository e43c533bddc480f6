//! Two measurements. `--stampede`: how many pages connect within 100 ms after the dyno of a thousand pages is killed.
//! `--status`: how soon every page knows that Redis is down, and up again. They panic if a limit is broken.

use super::support::facts::{HEARTBEAT, REDIS_KNOWN_WITHIN};
use super::support::page::Life;
use super::support::{Crowd, Dyno, Page, Redis, Router, check};
use futures_util::future::join_all;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PAGES: usize = 1_000;
const ROOMS: usize = 10;
const MOST_PER_BIN: usize = 60;
/// 95 % of the pages are back within this time.
const BACK: Duration = Duration::from_secs(8);
/// Longer than a lease: members would flap when the leases of a killed dyno expire.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// Pages that only listen, in ten rooms.
async fn crowds(router: &Router, pages: usize) -> Vec<Crowd> {
    let mut crowds = vec![];
    for n in 0..ROOMS {
        crowds.push(Crowd::gather(router, &format!("room{n}"), pages / ROOMS).await);
    }
    crowds
}

pub async fn stampede() {
    let redis = Redis::start(&["--appendonly", "yes"]).await;
    let mut dyno = Dyno::start_on(&redis, &[]).await;
    let next = Dyno::start_on(&redis, &[]).await;
    let router = Router::to(&[dyno.addr()]);
    let crowds = crowds(&router, PAGES).await;
    // The first pages joined when the dyno had few connections. A tick tells them over how long a thousand spread.
    sleep(HEARTBEAT + Duration::from_secs(4)).await;
    router.set(&[next.addr()]);
    let killed = Instant::now();
    dyno.kill().await;
    sleep(AFTERWARDS).await;
    let (mut bins, mut back, mut fewest) = ([0; 600], vec![], u64::MAX);
    for page in crowds.iter().flat_map(|crowd| &crowd.pages) {
        let life = page.life();
        for at in life.tries.iter().filter(|at| **at > killed) {
            bins[(at.duration_since(killed).as_millis() as usize / 100).min(599)] += 1;
        }
        back.extend(life.dyno().map(|(since, _)| since.duration_since(killed)));
        fewest = life.counts.iter().copied().fold(fewest, u64::min);
    }
    back.sort();
    let (all, connects) = (PAGES / ROOMS, bins.iter().sum::<usize>());
    let peak = bins.into_iter().max().unwrap_or_default();
    let most = back.get(PAGES * 95 / 100 - 1).copied();
    println!(
        "stampede pages={PAGES} peak_per_100ms={peak} connects={connects} back={} 95%_back_after={most:?} all_back_after={:?} fewest_members_shown={fewest} of {all}",
        back.len(),
        back.last(),
    );
    assert!(peak <= MOST_PER_BIN, "{peak} reconnects within 100 ms");
    assert!(
        most.is_some_and(|most| most <= BACK),
        "95 % were back after {most:?}"
    );
    for crowd in &crowds {
        crowd.saw_nobody_come_or_go();
        crowd.pages.iter().for_each(check::nothing_wrong);
    }
}

pub async fn status(dynos: usize, pages: usize) {
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let dynos = join_all((0..dynos).map(|_| Dyno::start_on(&redis, &[]))).await;
    let router = Router::to(&dynos.iter().map(Dyno::addr).collect::<Vec<_>>());
    let crowds = crowds(&router, pages).await;
    let pages: Vec<&Page> = crowds.iter().flat_map(|crowd| &crowd.pages).collect();
    let all_know = async |began: Instant, down: bool| {
        for page in &pages {
            let left = REDIS_KNOWN_WITHIN.saturating_sub(began.elapsed());
            let knows = |life: &Life| life.redis_down == down;
            page.until("knows the status of Redis", left, knows).await;
        }
        began.elapsed()
    };
    for round in 1..=3 {
        for how in ["stopped", "silent"] {
            sleep(Duration::from_secs(3)).await;
            let began = Instant::now(); // stopping takes a moment, too
            match how {
                "silent" => redis.signal(SIGSTOP),
                _ => redis.stop().await,
            }
            let down = all_know(began, true).await;
            match how {
                "silent" => redis.signal(SIGCONT),
                _ => redis.restart().await,
            }
            let up = all_know(Instant::now(), false).await;
            println!(
                "status round={round} redis={how} pages={} all_know_down_after={down:?} all_know_up_after={up:?}",
                pages.len()
            );
        }
    }
    for page in pages {
        let tries = page.life().tries.len();
        assert_eq!(
            tries, 1,
            "{} lost its dyno because Redis went away",
            page.user
        );
        check::nothing_wrong(page);
    }
}
