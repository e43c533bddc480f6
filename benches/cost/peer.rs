//! Other servers, beside ours: for whoever has one running on this machine.
//!
//!     cargo bench -- --peer NAME=ws://ADDRESS:PORT/PATH#PID --join TEMPLATE --say TEMPLATE
//!
//! PID is the process whose CPU is counted. A template is a text frame in which `{room}`, `{user}`, `{id}`
//! (never twice the same) and `{text}` are filled in; without `--join`, connecting is coming in. What is
//! said has to reach everyone, the speaker included.

use std::net::SocketAddr;

use crate::hall::Hall;
use crate::machine::Server;
use crate::support::client::cid;
use crate::table::{Row, Wanted::Told};
use crate::{Plan, progress};

pub struct Peer {
    pub name: String,
    pub addr: SocketAddr,
    pub path: String,
    pub pid: u32,
    pub join: String,
    pub say: String,
}

impl Peer {
    /// Reads `NAME=ws://ADDRESS:PORT/PATH#PID`.
    pub fn parse(text: &str) -> Option<Peer> {
        let (name, url) = text.split_once("=ws://")?;
        let (url, pid) = url.rsplit_once('#')?;
        let (addr, path) = url.split_once('/').unwrap_or((url, ""));
        Some(Peer {
            name: name.to_string(),
            addr: addr.parse().ok()?,
            path: format!("/{path}"),
            pid: pid.parse().ok()?,
            join: String::new(),
            say: String::new(),
        })
    }

    /// Takes the peers and their templates out of the arguments.
    pub fn take(args: &mut Vec<String>) -> Vec<&'static Peer> {
        let (mut peers, mut rest, mut given) = (vec![], vec![], args.drain(..));
        while let Some(arg) = given.next() {
            if !matches!(&*arg, "--peer" | "--join" | "--say") {
                rest.push(arg);
                continue;
            }
            let value = given.next().unwrap_or_default();
            match (&*arg, peers.last_mut()) {
                ("--peer", _) => peers.push(
                    Peer::parse(&value).expect("--peer is NAME=ws://127.0.0.1:PORT/PATH#PID"),
                ),
                ("--join", Some(peer)) => peer.join = value,
                ("--say", Some(peer)) => peer.say = value,
                _ => panic!("{arg} stands behind the --peer that it is for"),
            }
        }
        drop(given);
        *args = rest;
        let no_say = peers.iter().find(|peer| !peer.say.contains("{text}"));
        assert!(no_say.is_none(), "a --peer needs a --say with {{text}}");
        peers
            .into_iter()
            .map(|peer| &*Box::leak(Box::new(peer)))
            .collect()
    }
}

pub fn filled(template: &str, room: usize, user: &str, text: &str) -> String {
    template
        .replace("{room}", &format!("r{room}"))
        .replace("{user}", user)
        .replace("{id}", &cid())
        .replace("{text}", text)
}

/// What goals 1 and 2 measure of ours.
pub fn measure(plan: &Plan, peer: &'static Peer) -> Vec<Row> {
    let people = plan.size(500, 20);
    let mut hall = Hall::new(plan, Server::peer(peer), people, |_| 0);
    let (mut cost, mut p99, mut rate, mut wall) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.repeats() {
        progress(&format!("{} {turn}", peer.name));
        let paced = hall.pace(200, plan.time(5.0, 0.3), people, |n| n % people);
        cost.push(paced.cpu_per_delivery());
        p99.push(paced.delay(990));
        hall.crowd.delays = None;
        let full = hall.rush(plan.size(50, 5), 1, plan.time(5.0, 0.3));
        rate.push(full.deliveries / full.cpu * 1e6);
        wall.push(full.deliveries / full.wall * 1e6);
    }
    let row =
        |goal, what: &str, values| Row::new(goal, format!("{}, {what}", peer.name), values, Told);
    vec![
        row(1, "full: deliveries per second of CPU", rate),
        row(1, "full: deliveries per second that passed", wall),
        row(2, "paced: CPU per delivery, µs", cost),
        row(2, "paced: p99, ms", p99),
    ]
}
