//! The promise under random faults, for as long as one likes:
//!
//!     cargo run --release --example soak -- --seconds 600 --dynos 3 --clients 200 --seed 1
//!     cargo run --release --example soak -- --stampede
//!     cargo run --release --example soak -- --status
//!
//! A private Redis, dynos and pages without browsers; talk, joins, leaves, reloads and a fault every few seconds, all
//! from the seed. At the end everything comes to rest and is compared with the streams. `--flush` adds FLUSHALL, which
//! breaks the promise on purpose. Exits with 1 if an invariant fails, and says which, where and for whom.

mod acts;
mod client;
mod faults;
mod line;
mod meters;
mod modes;
mod record;
#[path = "../support/mod.rs"]
mod support;
mod town;
mod truth;
mod verify;

use client::Client;
use fastrand::Rng;
use meters::Meters;
use record::Person;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use town::Town;
use truth::Truth;

/// Rooms, and how many of a hundred people go there.
const ROOMS: [(&str, u32); 6] = [
    ("plaza", 45),
    ("market", 25),
    ("library", 15),
    ("garden", 9),
    ("bench", 4),
    ("attic", 2),
];
/// For everything to come to rest: a dead line, a try and a pause between tries.
const SETTLE: Duration = Duration::from_secs(50);

pub struct Flags {
    pub seconds: u64,
    pub dynos: usize,
    pub clients: usize,
    pub seed: u64,
    pub flush: bool,
}

fn main() -> ExitCode {
    let mut flags = Flags {
        seconds: 600,
        dynos: 3,
        clients: 200,
        seed: 1,
        flush: false,
    };
    let mut mode = String::new();
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
            "--flush" => flags.flush = true,
            "--stampede" | "--status" => mode = word,
            _ => panic!("{word} is no flag of the soak"),
        }
    }
    build_program();
    support::need_descriptors(4_096);
    // One thread: children are bound to the thread that starts them, and the dynos need the other processors.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let failures = LocalSet::new().block_on(&runtime, async {
        match &*mode {
            "--stampede" => modes::stampede(&flags).await,
            "--status" => modes::status(&flags).await,
            _ => soak(&flags).await,
        }
    });
    match failures {
        0 => println!("seed={} result=passed", flags.seed),
        n => println!("seed={} result=FAILED failures={n}", flags.seed),
    }
    ExitCode::from(u8::from(failures > 0))
}

/// Builds what is to be soaked, as it is deployed, and tells the support where it is.
fn build_program() {
    if std::env::var_os("DYNOCHAT_BIN").is_some() {
        return;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--bin", "dynochat"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "failed to build the program"
    );
    // This runs as TARGET/PROFILE/examples/soak.
    let own = std::env::current_exe().expect("a program knows its own path");
    let target = own.ancestors().nth(3).expect("a target directory");
    let program: PathBuf = target.join("release/dynochat");
    // SAFETY: there is only one thread yet.
    unsafe { std::env::set_var("DYNOCHAT_BIN", program) };
}

async fn soak(flags: &Flags) -> usize {
    println!(
        "seed={} seconds={} dynos={} clients={}",
        flags.seed, flags.seconds, flags.dynos, flags.clients
    );
    let town = Town::start(flags.seed, flags.dynos, true).await;
    let rooms: Vec<String> = ROOMS.iter().map(|(room, _)| room.to_string()).collect();
    let url = town.redis.borrow().as_ref().map(|redis| redis.url());
    let truth = Truth::watch(&url.expect("Redis has just started"), &rooms);
    for n in 0..flags.clients {
        spawn_local(inhabit(town.clone(), n));
    }
    let watcher = town.clone();
    spawn_local(async move {
        loop {
            watcher.note_leases();
            sleep(Duration::from_millis(250)).await;
        }
    });
    let mut meters = Meters::new(town.clone(), truth.clone());
    let end = Instant::now() + Duration::from_secs(flags.seconds);
    let faults = spawn_local(faults::schedule(
        town.clone(),
        flags.seed,
        end.into(),
        flags.flush,
    ));
    while Instant::now() < end || !faults.is_finished() {
        sleep(Duration::from_secs(1)).await;
        meters.read();
    }
    if let Err(e) = faults.await {
        town.fail(format!("the schedule of faults broke: {e}"));
    }
    town.settling.set(true);
    println!("settling");
    let mut restless = vec![];
    let settled = timeout(SETTLE, async {
        while let what = at_rest(&town, &truth, &rooms)
            && !what.is_empty()
        {
            restless = what;
            sleep(Duration::from_secs(1)).await;
            meters.read();
        }
    });
    if settled.await.is_err() {
        restless.into_iter().take(20).for_each(|what| {
            town.fail(format!(
                "not at rest {SETTLE:?} after the last fault: {what}"
            ));
        });
    }
    meters.open_sockets().await;
    truth.end();
    let count = verify::messages(&town, &truth, flags.flush);
    meters.summary(&count);
    town.failures.borrow().len()
}

/// What keeps the town from being at rest: people without a connection, talks without a receipt, names.
fn at_rest(town: &Town, truth: &Truth, rooms: &[String]) -> Vec<String> {
    let mut restless = vec![];
    for person in verify::present(town) {
        let mut person = person.borrow_mut();
        let (who, room) = (person.user.clone(), person.room.clone());
        if person.seat.is_none() {
            restless.push(format!("{who} is not connected"));
        } else if person.redis_down {
            restless.push(format!("{who} is told that Redis is away"));
        }
        if let Some(saying) = person.pending() {
            restless.push(format!("{who} has no receipt for {}", saying.cid));
        }
        if person.last() < Some(truth.last(&room)) && person.last().is_some() {
            restless.push(format!("{who} has not seen {}", truth.last(&room)));
        }
    }
    restless.extend(verify::names(town, rooms));
    restless
}

/// One place in town: somebody lives there, leaves some day, and somebody else moves in.
async fn inhabit(town: Rc<Town>, n: usize) {
    let mut rng = Rng::with_seed(town.seed.wrapping_mul(1_000_003).wrapping_add(n as u64));
    sleep(Duration::from_secs_f64(rng.f64() * 5.0)).await;
    for life in 0.. {
        let mut dice = rng.u32(..100);
        let room = ROOMS.iter().find(|(_, share)| {
            let here = dice < *share;
            dice = dice.saturating_sub(*share);
            here
        });
        let room = room.map_or(ROOMS[0].0, |(room, _)| room);
        let token = format!("{:032x}", rng.u128(..));
        let me = town.move_in(Person::new(format!("p{n:03}-{life}"), room.into(), token));
        let mut client = Client {
            town: town.clone(),
            me,
            rng: rng.fork(),
            next_act: Instant::now() + Duration::from_secs_f64(rng.f64() * 20.0),
            acts: acts::live,
            tries: 0,
        };
        client.run().await;
        sleep(Duration::from_secs_f64(rng.f64() * 20.0)).await;
        if town.settling.get() {
            return;
        }
    }
}
