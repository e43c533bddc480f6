//! What it costs: `cargo bench`.
//!
//! Starts the release binary and a private Redis, drives them from the other core, and measures in the
//! same run what a bare loop of `write(2)` takes for the same bytes. Prints a line for each thing that
//! is being done, and at the end one table.
//!
//!     cargo bench                          everything, about ten minutes
//!     cargo bench -- paced join            only these
//!     cargo bench -- --short               seconds: shows that the machinery works, measures nothing
//!     cargo bench -- --peer …              another server as well: `peer.rs` says how
//!     DYNOCHAT_BIN=/path cargo bench       another build of the program

mod crowd;
mod dynos;
mod fanout;
mod floor;
mod frames;
mod hall;
mod machine;
mod member;
mod peer;
mod people;
mod rooms;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;

use std::env;
use std::ops::Range;
use std::time::Duration;

use peer::Peer;
use table::{Row, Wanted};

/// The argument that makes this program the floor.
pub const FLOOR: &str = "--serve-floor";

/// How much is done.
pub struct Plan {
    pub short: bool,
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

    /// Short stretches of ours and of the floor in turn: what else the machine does strikes both.
    pub fn pairs(&self) -> Range<usize> {
        0..self.size(9, 1)
    }
}

/// A part's name, and what measures it.
type Part = (&'static str, fn(&Plan) -> Vec<Row>);

const PARTS: [Part; 10] = [
    ("start", start::start),
    ("full", fanout::full),
    ("paced", fanout::paced),
    ("idle", people::idle),
    ("join", people::join),
    ("small", rooms::small),
    ("dynos", dynos::between),
    ("readers", fanout::readers),
    ("rooms", rooms::growth),
    ("stuck", people::stuck),
];

fn main() {
    let mut args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.iter().any(|arg| arg == FLOOR) {
        return floor::serve();
    }
    let peers = Peer::take(&mut args);
    let plan = Plan {
        short: args.iter().any(|arg| arg == "--short"),
    };
    let wanted: Vec<_> = args.iter().filter(|arg| *arg != "--short").collect();
    let known = |arg: &&String| PARTS.iter().any(|(name, _)| name == arg);
    assert!(
        wanted.iter().all(known),
        "parts are {:?}",
        PARTS.map(|(name, _)| name)
    );
    support::need_descriptors(11_000);
    machine::pin_driver();
    let parts = PARTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name));
    let mut rows: Vec<Row> = parts.flat_map(|(_, measure)| measure(&plan)).collect();
    rows.extend(
        peers
            .into_iter()
            .flat_map(|peer| peer::measure(&plan, peer)),
    );
    rows.sort_by_key(|row| row.goal);
    println!(
        "\n{}; {} repeats",
        machine::describe(),
        plan.repeats().len()
    );
    if plan.short {
        println!("It works. The figures of so short a run mean nothing.");
        rows.iter_mut().for_each(|row| row.wanted = Wanted::Told);
    }
    println!();
    table::print(&rows);
}

/// What is being done now.
pub fn progress(what: &str) {
    println!("{what}");
}
