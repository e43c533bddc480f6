//! The soak test: it runs simulated clients and random faults against real dynos and a private Redis.
//!
//!     cargo run --release --example soak -- --seconds 600 --dynos 3 --clients 200 --seed 1
//!     cargo run --release --example soak -- --program single_file --seconds 600
//!
//! Clients talk, join, leave and reload; every few seconds a fault happens. All of it follows from the seed. At the end
//! the faults stop, and what the clients saw is compared with the streams. The exit code is 1 if an invariant was violated.
//! `--program single_file` tests `examples/single_file.rs`: there nothing fails, and the last lines tell what the users
//! missed.
//!
//! The program is built in the profile of the soak: without `--release`, the debug build is tested.

mod client;
mod compare;
mod faults;
mod meters;
mod simulation;
#[path = "../support/mod.rs"]
mod support;
mod verify;

use client::Client;
use fastrand::Rng;
use meters::Meters;
use simulation::Simulation;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

/// The rooms, and the share of the users of each, in per cent.
const ROOMS: [(&str, usize); 6] = [
    ("plaza", 45),
    ("market", 25),
    ("library", 15),
    ("garden", 9),
    ("bench", 4),
    ("attic", 2),
];
/// The longest time until all is at rest: a dead connection (35 s) and a pause between tries (15 s).
const SETTLE: Duration = Duration::from_secs(50);

#[derive(Clone, Copy)]
pub struct Flags {
    pub seconds: u64,
    pub dynos: usize,
    pub clients: usize,
    pub seed: u64,
    /// Not the program, but `examples/single_file.rs`, which keeps no promise.
    pub single_file: bool,
}

// One thread: the children end with the thread that started them, and the dynos need the other processors.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut flags = Flags {
        seconds: 600,
        dynos: 3,
        clients: 200,
        seed: 1,
        single_file: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|w| w.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("{word} needs a number"))
        };
        match &*word {
            "--seconds" => flags.seconds = number(),
            "--dynos" => flags.dynos = number().max(1) as usize,
            "--clients" => flags.clients = number() as usize,
            "--seed" => flags.seed = number(),
            "--program" => flags.single_file = words.next().as_deref() == Some("single_file"),
            _ => panic!("{word} is no flag of the soak"),
        }
    }
    // The program is built in the profile of this example.
    if std::env::var_os("DYNOCHAT_BIN").is_none() {
        let program = match flags.single_file {
            true => support::dyno::single_file(),
            false => support::dyno::build(&["--bin", "dynochat"]).join("dynochat"),
        };
        // SAFETY: there is only one thread yet.
        unsafe { std::env::set_var("DYNOCHAT_BIN", program) };
    }
    fastrand::seed(flags.seed);
    let _descriptors = support::descriptors(4_096).await;
    let failures = LocalSet::new().run_until(soak(flags)).await;
    match failures {
        n if flags.single_file => println!("seed={} result=counted failures={n}", flags.seed),
        0 => println!("seed={} result=passed", flags.seed),
        n => println!("seed={} result=FAILED failures={n}", flags.seed),
    }
    ExitCode::from(u8::from(failures > 0 && !flags.single_file))
}

async fn soak(flags: Flags) -> usize {
    let (seed, seconds, dynos, clients) = (flags.seed, flags.seconds, flags.dynos, flags.clients);
    println!("seed={seed} seconds={seconds} dynos={dynos} clients={clients}");
    let sim = Simulation::start(flags).await;
    spawn_local(verify::record_streams(sim.clone()));
    let mut meters = Meters::new(sim.clone());
    for slot in 0..clients {
        spawn_local(client_slot(sim.clone(), slot));
    }
    spawn_local(sim.clone().watch_leases());
    let end = Instant::now() + Duration::from_secs(seconds);
    let schedule = spawn_local(faults::schedule(sim.clone(), end));
    while Instant::now() < end || !schedule.is_finished() {
        sleep(Duration::from_secs(1)).await;
        meters.read();
    }
    if let Err(e) = schedule.await {
        sim.fail(format!("the schedule of faults panicked: {e}"));
    }
    sim.settling.set(true);
    println!("settling");
    let settling = Instant::now();
    let unsettled = loop {
        let unsettled = match flags.single_file {
            true => vec!["a program that may never come to rest".to_string()],
            false => not_at_rest(&sim),
        };
        if unsettled.is_empty() || settling.elapsed() > SETTLE {
            break unsettled;
        }
        sleep(Duration::from_millis(500)).await;
        meters.read();
    };
    for what in unsettled.iter().take(20) {
        sim.fail(format!(
            "not at rest {SETTLE:?} after the last fault: {what}"
        ));
    }
    println!("settled after {:.1?}", settling.elapsed());
    compare::print(&sim);
    if !flags.single_file {
        meters.summary().await;
    }
    sim.tally.borrow().failures
}

/// The reasons why the simulation is not at rest yet: users without a connection, messages without
/// an acknowledgement, lists of members.
fn not_at_rest(sim: &Simulation) -> Vec<String> {
    let mut unsettled = vec![];
    for user in sim.present() {
        let user = user.borrow();
        let (name, life) = (&user.name, &user.life);
        if !life.connected {
            unsettled.push(format!("{name} is not connected"));
        } else if life.redis_down {
            unsettled.push(format!("{name} sees that Redis is down"));
        }
        for own in life.own.iter().filter(|own| own.id.is_none()) {
            unsettled.push(format!("{name} has no acknowledgement for {}", own.cid));
        }
        let (last, newest) = (life.last, sim.newest(&user.room));
        if last.is_some_and(|last| last != newest) {
            unsettled.push(format!(
                "{name} has seen up to {last:?}, recorded up to {newest}"
            ));
        }
    }
    unsettled.extend(verify::names(sim));
    unsettled
}

/// A client slot: one simulated user after the other. A user who leaves is followed by a new one.
async fn client_slot(sim: Rc<Simulation>, slot: usize) {
    let seed = sim
        .flags
        .seed
        .wrapping_mul(1_000_003)
        .wrapping_add(slot as u64);
    let mut rng = Rng::with_seed(seed);
    sleep(Duration::from_secs_f64(rng.f64() * 2.0)).await;
    let shares = ROOMS.iter().flat_map(|(room, share)| vec![*room; *share]);
    let shares: Vec<&str> = shares.collect();
    for n in 0.. {
        let room = shares[rng.usize(..shares.len())];
        let first_action = Duration::from_secs_f64(rng.f64() * 20.0);
        let name = format!("p{slot:03}-{n}");
        let mut client = Client::new(&sim, &name, room, rng.fork());
        client.run(Instant::now() + first_action).await;
        sleep(Duration::from_secs_f64(rng.f64() * 20.0)).await;
        if sim.settling.get() {
            return;
        }
    }
}
