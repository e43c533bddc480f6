//! Two measurements. `--stampede`: how many pages connect within 100 ms after the dyno of a thousand pages is killed.
//! `--status`: how soon every page knows that Redis is down, and up again.

use super::Flags;
use super::client::{Action, Client};
use super::simulation::{Simulation, UserRef};
use super::user::User;
use fastrand::Rng;
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

const PAGES: usize = 1_000;
const ROOMS: usize = 10;
const BIN: Duration = Duration::from_millis(100);
const MOST_PER_BIN: usize = 60;
/// 95 % of the pages are back within this time.
const BACK: Duration = Duration::from_secs(8);
/// Every page knows the status of Redis within this time.
const KNOWN: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts clients who only listen, in ten rooms.
fn start_clients(sim: &Rc<Simulation>, count: usize) -> Vec<UserRef> {
    let mut rng = Rng::with_seed(sim.seed);
    let mut users = vec![];
    for n in 0..count {
        let (name, room) = (format!("p{n:04}"), format!("room{}", n % ROOMS));
        let idle = |_: &mut Rng| (Action::Nothing, PATIENCE);
        let mut client = Client::new(sim, &name, &room, rng.fork(), idle);
        users.push(client.user.clone());
        spawn_local(async move {
            sleep(Duration::from_millis(n as u64 * 5)).await;
            client.run(Instant::now() + PATIENCE).await;
        });
    }
    users
}

/// How long until the fact is true of all users; `None` if it takes longer than `PATIENCE`.
async fn until(users: &[UserRef], fact: impl Fn(&User) -> bool) -> Option<Duration> {
    let start = Instant::now();
    while !users.iter().all(|user| fact(&user.borrow())) {
        if start.elapsed() > PATIENCE {
            return None;
        }
        sleep(Duration::from_millis(20)).await;
    }
    Some(start.elapsed())
}

pub async fn stampede(flags: &Flags) -> usize {
    let sim = Simulation::start_with(flags, 2).await;
    sim.router.set(&sim.addrs[..1]);
    let users = start_clients(&sim, PAGES);
    let all = PAGES / ROOMS;
    let joined = until(&users, |user| user.connected.is_some() && user.count == all);
    if joined.await.is_none() {
        sim.fail("a thousand pages did not all join and see each other".into());
    }
    // Past two renewals and a tick: the first pages joined when the dyno had few connections.
    sleep(Duration::from_secs(28)).await;
    sim.router.set(&sim.addrs[1..]);
    spawn_local(sim.clone().watch_leases());
    sleep(Duration::from_secs(1)).await;
    sim.tally.borrow_mut().tries.clear();
    let killed = Instant::now();
    let dyno = sim.dynos[0].take().expect("no fault has taken it");
    dyno.signal(SIGKILL);
    // Longer than a lease: members would flap when the leases of the killed dyno expire.
    let mut fewest = usize::MAX;
    while killed.elapsed() < PATIENCE {
        for user in users.iter().map(|user| user.borrow()) {
            if user.connected.is_some_and(|(dyno, _)| dyno == 1) {
                fewest = fewest.min(user.count);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    let tries = sim.tally.borrow().tries.clone();
    let mut bins = [0; 600];
    for at in &tries {
        let bin = at.saturating_duration_since(killed).as_millis() / BIN.as_millis();
        bins[(bin as usize).min(599)] += 1;
    }
    let peak = bins.into_iter().max().unwrap_or(0);
    let connected = users.iter().filter_map(|user| user.borrow().connected);
    let mut back: Vec<Duration> = connected
        .filter(|(dyno, _)| *dyno == 1)
        .map(|(_, at)| at - killed)
        .collect();
    back.sort();
    let most = back.get(PAGES * 95 / 100 - 1).copied();
    println!(
        "stampede pages={PAGES} peak_per_100ms={peak} connects={} back={} 95%_back_after={most:?} all_back_after={:?} fewest_members_shown={fewest} of {all}",
        tries.len(),
        back.len(),
        back.last(),
    );
    if peak > MOST_PER_BIN {
        sim.fail(format!(
            "{peak} reconnects within 100 ms, more than {MOST_PER_BIN}"
        ));
    }
    if most.is_none_or(|most| most > BACK) {
        sim.fail(format!(
            "95 % were back after {most:?}, not within {BACK:?}"
        ));
    }
    if fewest < all {
        sim.fail(format!("members flapped: a list of {fewest} was shown"));
    }
    finish(&sim, &users)
}

pub async fn status(flags: &Flags) -> usize {
    let sim = Simulation::start(flags).await;
    let users = start_clients(&sim, flags.clients);
    let joined = until(&users, |user| user.connected.is_some());
    if joined.await.is_none() {
        sim.fail("not everyone joined".into());
    }
    for round in 1..=3 {
        for how in ["stopped", "silent"] {
            sleep(Duration::from_secs(3)).await;
            let mut redis = sim.redis.take().expect("no fault has taken it");
            let began = Instant::now(); // stopping takes a moment, too
            match how {
                "silent" => redis.signal(SIGSTOP),
                _ => redis.stop().await,
            }
            let down = until(&users, |user| user.redis_down).await;
            let down = down.map(|_| began.elapsed());
            match how {
                "silent" => redis.signal(SIGCONT),
                _ => redis.restart().await,
            }
            let up = until(&users, |user| !user.redis_down).await;
            sim.redis.replace(Some(redis));
            println!(
                "status round={round} redis={how} pages={} all_know_down_after={down:?} all_know_up_after={up:?}",
                users.len()
            );
            for (what, took) in [("down", down), ("up", up)] {
                if took.is_none_or(|took| took > KNOWN) {
                    sim.fail(format!(
                        "{what} ({how}) reached every page after {took:?}, not {KNOWN:?}"
                    ));
                }
            }
        }
    }
    if sim.tally.borrow().reconnects > 0 {
        sim.fail("pages lost their dyno because Redis went away".into());
    }
    finish(&sim, &users)
}

fn finish(sim: &Simulation, users: &[UserRef]) -> usize {
    for user in users.iter().map(|user| user.borrow()) {
        for what in &user.wrong {
            sim.fail(format!("{} in {}: {what}", user.name, user.room));
        }
    }
    sim.failures.borrow().len()
}
