//! Tests of what a proxy tells about a visitor: the limit of connections for each address.

use crate::support::facts::MAX_PER_ADDRESS;
use crate::support::raw::{head, http, upgrade_head};
use crate::support::{Dyno, PATIENCE, Raw, cid, client, eventually, token};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Waits until the dyno has counted off every connection.
async fn is_empty(dyno: &Dyno) {
    eventually("no connection is left", PATIENCE, async || {
        let health = http(dyno.addr(), &head("GET /healthz", "a", &[])).await;
        match health.text().contains("\"connections\":0") {
            true => Ok(()),
            false => Err(health.text().to_string()),
        }
    })
    .await;
}

/// The log has one warning, and it contains these words.
async fn is_logged_once(dyno: &Dyno, words: &[&str]) {
    let log = eventually("a warning", PATIENCE, async || {
        let log = dyno.log();
        if log.contains("WARN") {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await;
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for word in words {
        assert!(warnings[0].contains(word), "{word} in:\n{log}");
    }
}

// ---- connections of one address

/// Upgrades with these headers and asks to join: the socket and the answer.
async fn asks_to_join(addr: SocketAddr, name: &str, headers: &[&str]) -> (Raw, Value) {
    let mut raw = Raw::request(addr, upgrade_head("chat.example", headers)).await;
    raw.switched().await;
    raw.send_json(client::join_frame("lobby", name, &token(), None))
        .await;
    let answer = raw.json().await;
    (raw, answer)
}

fn forwarded(address: &str) -> String {
    format!("X-Forwarded-For: {address}")
}

/// Whether these two requests count as from one address, for a dyno that lets each have one connection.
async fn count_as_one(dyno: &Dyno, addr: SocketAddr, headers: [&[&str]; 2]) -> bool {
    let (first, welcome) = asks_to_join(addr, &cid(), headers[0]).await;
    assert_eq!(welcome["kind"], "welcome", "{headers:?}: {welcome}");
    let (mut second, answer) = asks_to_join(addr, &cid(), headers[1]).await;
    let refused = answer["kind"] == "error";
    if refused {
        assert_eq!(answer["code"], "busy");
        assert!(answer["retry_ms"].as_u64() > Some(0), "{answer}");
        let (code, reason) = second.closed(PATIENCE).await;
        assert_eq!((code, &*reason), (1013, "busy"));
    }
    drop((first, second));
    is_empty(dyno).await;
    refused
}

#[tokio::test]
async fn where_the_platform_sets_dyno_an_address_has_a_hundred_connections_and_elsewhere_no_limit()
{
    let dyno = Dyno::start(&[("DYNO", "web.1")]).await;
    let school = forwarded("198.51.100.9, 203.0.113.7");
    let mut class = vec![];
    for n in 0..MAX_PER_ADDRESS {
        let (pupil, welcome) = asks_to_join(dyno.addr(), &format!("n{n}"), &[&school]).await;
        assert_eq!(welcome["kind"], "welcome", "{n}: {welcome}");
        class.push(pupil);
    }
    for claim in ["", "192.0.2.1, ", "203.0.113.8,"] {
        let school = forwarded(&format!("{claim}203.0.113.7"));
        let (mut late, answer) = asks_to_join(dyno.addr(), "late", &[&school]).await;
        assert_eq!(answer["code"], "busy", "{answer}");
        assert_eq!(late.closed(PATIENCE).await.0, 1013);
    }
    is_logged_once(&dyno, &["203.0.113.7", "MAX_PER_ADDRESS=100"]).await;
    let elsewhere = forwarded("203.0.113.7, 198.51.100.9");
    let (_other, welcome) = asks_to_join(dyno.addr(), "other", &[&elsewhere]).await;
    assert_eq!(welcome["kind"], "welcome", "another address: {welcome}");
    class.pop();
    eventually("a place is free again", PATIENCE, async || {
        let (_, answer) = asks_to_join(dyno.addr(), "next", &[&school]).await;
        match answer["kind"] == "welcome" {
            true => Ok(()),
            false => Err(answer),
        }
    })
    .await;

    for vars in [&[][..], &[("DYNO", "web.1"), ("MAX_PER_ADDRESS", "0")]] {
        let dyno = Dyno::start(vars).await;
        let mut all = vec![];
        for n in 0..=MAX_PER_ADDRESS {
            let (raw, welcome) = asks_to_join(dyno.addr(), &format!("n{n}"), &[&school]).await;
            assert_eq!(welcome["kind"], "welcome", "{n}: {welcome}");
            all.push(raw);
        }
    }
}

#[tokio::test]
async fn the_address_behind_a_router_is_the_last_one_forwarded() {
    let dyno = Dyno::start(&[("DYNO", "web.1"), ("MAX_PER_ADDRESS", "1")]).await;
    let one = "203.0.113.7";
    for (first, second, same) in [
        (one, "203.0.113.7", true),
        (one, "203.0.113.8", false),
        (one, "192.0.2.1,203.0.113.7", true),
        (one, "203.0.113.7, 192.0.2.1", false),
        (one, "192.0.2.1\r\nX-Forwarded-For: 203.0.113.7", true),
        (one, "203.0.113.7\r\nX-Forwarded-For: 192.0.2.1", false),
        (one, "203.0.113.7:4711", true),
        (one, "::ffff:203.0.113.7", true),
        // A visitor has a whole network /64.
        ("2001:db8:1:2::3", "2001:db8:1:2:ffff::4", true),
        ("2001:db8:1:2::3", "[2001:db8:1:2::5]:4711", true),
        ("2001:db8:1:2::3", "2001:db8:1:3::3", false),
        // No address at all: that of the router.
        ("", "unknown", true),
        ("", one, false),
    ] {
        let headers = [forwarded(first), forwarded(second)];
        let headers = [&[&*headers[0]][..], &[&*headers[1]]];
        let seen = count_as_one(&dyno, dyno.addr(), headers).await;
        assert_eq!(seen, same, "{first:?} and {second:?}");
    }
}

#[tokio::test]
async fn without_dyno_only_a_proxy_on_this_machine_may_forward_addresses() {
    let dyno = Dyno::start(&[("MAX_PER_ADDRESS", "1")]).await;
    let (one, other) = (forwarded("203.0.113.7"), forwarded("203.0.113.8"));
    for (headers, same) in [
        ([&[&*one][..], &[&other]], false),
        ([&[&one], &[&one]], true),
        ([&[], &[]], true),
    ] {
        let seen = count_as_one(&dyno, dyno.addr(), headers).await;
        assert_eq!(seen, same, "{headers:?} over loopback");
    }
    // Where a connection to this address would leave the machine, it begins at an address of the machine's own.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let own = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    match own.map(|own| own.ip()) {
        Ok(IpAddr::V4(own)) if !own.is_loopback() => {
            let addr = (own, dyno.port).into();
            assert!(count_as_one(&dyno, addr, [&[&one], &[&other]]).await);
        }
        other => println!("left out: this machine has only loopback ({other:?})"),
    }
}
