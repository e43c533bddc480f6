//! The benchmark: CPU, memory and time that the program needs. `cargo bench`.
//!
//! It starts the release build and a private Redis, drives them from the other core, and in the same run measures
//! the floor: a bare loop of `write(2)` with the same bytes. It prints what it does, and at the end one table.
//!
//!     cargo bench                                  everything, about ten minutes
//!     cargo bench -- paced join                    only these parts
//!     cargo bench -- --short                       some seconds: shows that it works, the figures mean nothing
//!     cargo bench -- --program single_file         examples/single_file.rs instead of the program
//!     cargo bench -- --peer …                      another server, too: see `peer.rs`
//!     DYNOCHAT_BIN=/path cargo bench               another build of the program

mod client;
mod clients;
mod connections;
mod dynos;
mod fanout;
mod floor;
mod frames;
mod load;
mod machine;
mod peer;
mod redis;
mod rooms;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;

use std::env;
use std::ops::Range;
use std::time::Duration;

use peer::Peer;
use support::dyno::single_file;
use table::{Limit, Row};

/// With this argument, this program is the floor.
pub const FLOOR: &str = "--serve-floor";

/// The options of this run.
pub struct Plan {
    pub short: bool,
    /// Not the program, but `examples/single_file.rs`.
    pub single_file: bool,
}

impl Plan {
    pub fn size(&self, full: usize, short: usize) -> usize {
        if self.short { short } else { full }
    }

    pub fn time(&self, full: f64, short: f64) -> Duration {
        Duration::from_secs_f64(if self.short { short } else { full })
    }

    pub fn repeats(&self) -> Range<usize> {
        0..self.size(3, 1)
    }

    /// Short measurements of the program and of the floor in turn: other load on the machine affects both.
    pub fn pairs(&self) -> Range<usize> {
        0..self.size(9, 1)
    }
}

/// The name of a part, and the function that measures it.
type Part = (&'static str, fn(&Plan) -> Vec<Row>);

/// The parts that `examples/single_file.rs` gets through. In a large room it loses messages of readers that lag, and each
/// join sends the whole list to everybody. The part `naive` has its CPU per delivery.
const OF_SINGLE_FILE: [&str; 3] = ["start", "idle", "join"];

const PARTS: [Part; 12] = [
    ("start", start::start),
    ("full", fanout::full_speed),
    ("paced", fanout::paced),
    ("idle", connections::idle),
    ("join", connections::join),
    ("small", rooms::small),
    ("naive", rooms::naive), // in the column of the floor: the single file
    ("redis", redis::most),
    ("dynos", dynos::between),
    ("readers", fanout::readers),
    ("rooms", rooms::growth),
    ("stuck", connections::stuck),
];

fn main() {
    let mut args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.iter().any(|arg| arg == FLOOR) {
        return floor::serve();
    }
    let peers = Peer::take(&mut args);
    let mut take = |flag: &str| {
        let before = args.len();
        args.retain(|arg| arg != flag);
        args.len() < before
    };
    let plan = Plan {
        short: take("--short"),
        single_file: take("--program") && take("single_file"),
    };
    let mut wanted: Vec<&str> = args.iter().map(String::as_str).collect();
    if plan.single_file {
        // SAFETY: there is only one thread yet.
        unsafe { env::set_var("DYNOCHAT_BIN", single_file()) };
        wanted.retain(|name| OF_SINGLE_FILE.contains(name));
        if wanted.is_empty() {
            wanted.extend(OF_SINGLE_FILE);
        }
    }
    let known = |arg: &&str| PARTS.iter().any(|(name, _)| name == arg);
    assert!(
        wanted.iter().all(known),
        "parts are {:?}",
        PARTS.map(|(name, _)| name)
    );
    let _descriptors = machine::wait_for(support::descriptors(11_000));
    machine::pin_driver();
    let parts = PARTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
    let mut rows: Vec<Row> = parts.flat_map(|(_, measure)| measure(&plan)).collect();
    rows.extend(
        peers
            .into_iter()
            .flat_map(|peer| peer::measure(&plan, peer)),
    );
    println!(
        "\n{}; {} repeats",
        machine::describe(),
        plan.repeats().len()
    );
    if plan.single_file {
        println!("examples/single_file.rs, which has no limits to keep");
        rows.iter_mut().for_each(|row| row.limit = Limit::Info);
    }
    if plan.short {
        println!("It works. The figures of such a short run mean nothing.");
        rows.iter_mut().for_each(|row| row.limit = Limit::Info);
    }
    println!();
    table::print(&rows);
}

/// Prints what is measured now.
pub fn progress(what: &str) {
    println!("{what}");
}
