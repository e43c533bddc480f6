//! Measures another server on this machine in the same way, for a comparison.
//!
//!     cargo bench -- --peer NAME=ws://ADDRESS:PORT/PATH#PID --join TEMPLATE --talk TEMPLATE
//!
//! PID is the process whose CPU is counted. A template is a text frame in which `{room}`, `{user}`, `{id}` (a new
//! one each time) and `{text}` are replaced. Without `--join`, a client has joined when it is connected. Each message
//! must reach everyone, its sender included.

use std::net::SocketAddr;

use crate::load::Load;
use crate::machine::Server;
use crate::support::client::cid;
use crate::table::{Limit::Info, Row};
use crate::{Plan, progress};

pub struct Peer {
    pub name: String,
    pub addr: SocketAddr,
    pub path: String,
    pub pid: u32,
    pub join: String,
    pub talk: String,
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
            talk: String::new(),
        })
    }

    /// Removes the peers and their templates from the arguments.
    pub fn take(args: &mut Vec<String>) -> Vec<&'static Peer> {
        let (mut peers, mut rest, mut given) = (vec![], vec![], args.drain(..));
        while let Some(arg) = given.next() {
            if !matches!(&*arg, "--peer" | "--join" | "--talk") {
                rest.push(arg);
                continue;
            }
            let value = given.next().unwrap_or_default();
            match (&*arg, peers.last_mut()) {
                ("--peer", _) => peers.push(
                    Peer::parse(&value).expect("--peer is NAME=ws://127.0.0.1:PORT/PATH#PID"),
                ),
                ("--join", Some(peer)) => peer.join = value,
                ("--talk", Some(peer)) => peer.talk = value,
                _ => panic!("{arg} comes after the --peer that it belongs to"),
            }
        }
        drop(given);
        *args = rest;
        let no_talk = peers.iter().find(|peer| !peer.talk.contains("{text}"));
        assert!(no_talk.is_none(), "a --peer needs a --talk with {{text}}");
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

/// The same as the parts `full` and `paced`.
pub fn measure(plan: &Plan, peer: &'static Peer) -> Vec<Row> {
    let people = plan.size(500, 20);
    let mut load = Load::new(plan, Server::peer(peer), people, |_| 0);
    let (mut cost, mut p99, mut rate, mut wall) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for turn in plan.repeats() {
        progress(&format!("{} {turn}", peer.name));
        let paced = load.at_rate(200, plan.time(5.0, 0.3), people, |n| n % people);
        cost.push(paced.cpu_per_delivery());
        p99.push(paced.delay(990));
        load.clients.delays = None;
        let full = load.full_speed(plan.size(50, 5), 1, plan.time(5.0, 0.3));
        rate.push(full.deliveries / full.cpu * 1e6);
        wall.push(full.deliveries / full.wall * 1e6);
    }
    let row =
        |part, what: &str, values| Row::new(part, format!("{}, {what}", peer.name), values, Info);
    vec![
        row("full", "deliveries per second of CPU", rate),
        row("full", "deliveries per second of time", wall),
        row("paced", "CPU per delivery, µs", cost),
        row("paced", "delay p99, ms", p99),
    ]
}
