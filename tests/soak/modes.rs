//! Two questions with figures for answers: how hard a dyno is run at when its sibling is killed under a thousand
//! pages, and how soon every page hears that Redis has gone and come back.

use super::Flags;
use super::acts::Act;
use super::client::Client;
use super::record::Person;
use super::support::need_descriptors;
use super::town::{Someone, Town};
use fastrand::Rng;
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::spawn_local;
use tokio::time::sleep;

const CROWD: usize = 1_000;
const BIN: Duration = Duration::from_millis(100);
const MOST_PER_BIN: usize = 60;
const BACK: Duration = Duration::from_secs(8);
const TOLD: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// People who only listen, ten rooms of them.
fn settle_in(town: &Rc<Town>, count: usize) -> Vec<Someone> {
    let mut rng = Rng::with_seed(town.seed);
    let mut move_in = |n: usize| {
        let (name, room) = (format!("p{n:04}"), format!("room{}", n % 10));
        let me = town.move_in(Person::new(name, room, format!("{:032x}", rng.u128(..))));
        let (rng, town, me_too) = (rng.fork(), town.clone(), me.clone());
        spawn_local(async move {
            let next_act = Instant::now() + PATIENCE;
            sleep(Duration::from_millis(n as u64 * 5)).await;
            let mut client = Client {
                town,
                me: me_too,
                rng,
                next_act,
                acts: |_| (Act::Nothing, PATIENCE),
                tries: 0,
            };
            client.run().await;
        });
        me
    };
    (0..count).map(&mut move_in).collect()
}

/// How long until all of them are so; `None`: not within `within`.
async fn until(
    people: &[Someone],
    within: Duration,
    fact: impl Fn(&Person) -> bool,
) -> Option<Duration> {
    let start = Instant::now();
    while !people.iter().all(|p| fact(&p.borrow())) {
        if start.elapsed() > within {
            return None;
        }
        sleep(Duration::from_millis(20)).await;
    }
    Some(start.elapsed())
}

pub async fn stampede(flags: &Flags) -> usize {
    need_descriptors(3_000);
    let town = Town::start(flags.seed, 2, false).await;
    *town.routed.borrow_mut() = vec![0];
    let people = settle_in(&town, CROWD);
    let full = |p: &Person| p.seat.is_some() && p.count == CROWD / 10;
    if until(&people, PATIENCE, full).await.is_none() {
        town.fail("a thousand pages did not all join and see each other".into());
    }
    sleep(Duration::from_secs(12)).await; // past two renewals
    *town.routed.borrow_mut() = vec![1];
    let watch = town.clone();
    spawn_local(async move {
        loop {
            watch.note_leases();
            sleep(Duration::from_millis(250)).await;
        }
    });
    sleep(Duration::from_secs(1)).await;
    town.tally.borrow_mut().connects.clear();
    let killed = Instant::now();
    let doomed = town.dynos[0].take().expect("it is there");
    doomed.signal(SIGKILL);
    // Watched for longer than a lease: who flaps would do so when the old names lapse.
    let mut least = usize::MAX;
    while killed.elapsed() < PATIENCE {
        for person in people.iter().map(|p| p.borrow()) {
            let back = person.seat.is_some_and(|(dyno, _)| dyno == 1);
            least = least.min(if back { person.count } else { least });
        }
        sleep(Duration::from_millis(20)).await;
    }
    let mut bins = [0; 600];
    for connect in &town.tally.borrow().connects {
        let bin = connect.saturating_duration_since(killed).as_millis() / BIN.as_millis();
        bins[(bin as usize).min(599)] += 1;
    }
    let peak = bins.iter().max().copied().unwrap_or(0);
    let mut back: Vec<Duration> = people
        .iter()
        .filter_map(|p| p.borrow().seat)
        .filter(|(dyno, _)| *dyno == 1)
        .map(|(_, at)| at - killed)
        .collect();
    back.sort();
    let most = back.get(CROWD * 95 / 100 - 1).copied();
    println!(
        "stampede pages={CROWD} peak_per_100ms={peak} connects={} back={} 95%_back_after={most:?} all_back_after={:?} fewest_members_shown={least} of {}",
        town.tally.borrow().connects.len(),
        back.len(),
        back.last(),
        CROWD / 10
    );
    if peak > MOST_PER_BIN {
        town.fail(format!(
            "{peak} reconnects within 100 ms, at most {MOST_PER_BIN} are right"
        ));
    }
    if most.is_none_or(|most| most > BACK) {
        town.fail(format!(
            "95 % were back after {most:?}, not within {BACK:?}"
        ));
    }
    if least < CROWD / 10 {
        town.fail(format!("members flapped: a list of {least} was shown"));
    }
    finish(&town, &people)
}

pub async fn status(flags: &Flags) -> usize {
    let town = Town::start(flags.seed, flags.dynos, false).await;
    let people = settle_in(&town, flags.clients);
    if until(&people, PATIENCE, |p| p.seat.is_some())
        .await
        .is_none()
    {
        town.fail("not everyone joined".into());
    }
    for round in 1..=3 {
        for silent in [false, true] {
            sleep(Duration::from_secs(3)).await;
            let mut redis = town.redis.take().expect("nobody else takes it");
            let began = Instant::now();
            if silent {
                redis.signal(SIGSTOP);
            } else {
                redis.stop().await;
            }
            let down = until(&people, PATIENCE, |p| p.redis_down).await;
            let down = down.map(|_| began.elapsed()); // stopping takes a moment, too
            if silent {
                redis.signal(SIGCONT);
            } else {
                redis.restart().await;
            }
            let up = until(&people, PATIENCE, |p| !p.redis_down).await;
            town.redis.replace(Some(redis));
            let how = if silent { "silent" } else { "stopped" };
            println!(
                "status round={round} redis={how} pages={} all_told_down_after={down:?} all_told_up_after={up:?}",
                people.len()
            );
            for (what, took) in [("down", down), ("up", up)] {
                if took.is_none_or(|took| took > TOLD) {
                    town.fail(format!(
                        "{what} ({how}) reached every page after {took:?}, not {TOLD:?}"
                    ));
                }
            }
        }
    }
    if town.tally.borrow().reconnects > 0 {
        town.fail("pages lost their dyno because Redis went away".into());
    }
    finish(&town, &people)
}

fn finish(town: &Town, people: &[Someone]) -> usize {
    for person in people.iter().map(|p| p.borrow()) {
        for what in &person.wrong {
            town.fail(format!("{} in {}: {what}", person.user, person.room));
        }
    }
    town.failures.borrow().len()
}
