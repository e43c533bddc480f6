//! Tests behind other people's proxies: nginx, Caddy and HAProxy with the configurations of `docs/PROXIES.md`, and the
//! limit of connections for each address. If a proxy is not installed, its test prints that and passes.

use crate::support::prelude::*;
use crate::support::raw::upgrade_head;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Runs a block of nginx's configuration alone, with all its files in `{dir}`.
const NGINX: &str = "
daemon off;
master_process off;
pid {dir}/pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path {dir};
    proxy_temp_path {dir};
    fastcgi_temp_path {dir};
    uwsgi_temp_path {dir};
    scgi_temp_path {dir};
    {block}
}
";

/// The document's block of a program, without the lines that contain one of these words.
fn documented(program: &str, left_out: &[&str]) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROXIES.md");
    let text = fs::read_to_string(path).expect("the document");
    let parts: Vec<_> = text.split(&format!("\n```{program}\n")).collect();
    assert_eq!(parts.len(), 2, "one block of {program}");
    let block = parts[1].split("```").next().unwrap_or_default();
    for word in left_out {
        assert!(block.contains(word), "{word} in:\n{block}");
    }
    let kept = |line: &&str| !left_out.iter().any(|word| line.contains(word));
    block.lines().filter(kept).collect::<Vec<_>>().join("\n") + "\n"
}

/// Replaces what stands in the text exactly once.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old} in:\n{text}");
    text.replace(old, new)
}

/// A documented proxy in front of a dyno, without the lines that contain one of these words.
async fn proxy(program: &str, dyno: &Dyno, left_out: &[&str]) -> Front {
    let block = documented(program, left_out);
    let block = &replaced(&block, "127.0.0.1:3000", &dyno.host());
    let args: &[&str] = match program {
        "nginx" => &["-e", "stderr", "-c"],
        "caddy" => &["run", "--adapter", "caddyfile", "--config"],
        _ => &["-db", "-f"],
    };
    Front::start(program, args, |port, _, dir| {
        let addr = format!("127.0.0.1:{port}");
        match program {
            "nginx" => {
                let block = replaced(block, "listen 80;", &format!("listen {addr};"));
                let config = NGINX.replace("{dir}", &dir.display().to_string());
                config.replace("{block}", &block)
            }
            "caddy" => {
                let block = replaced(block, "chat.example.com", &format!("http://{addr}"));
                format!("{{\nadmin off\n}}\n{block}")
            }
            _ => replaced(block, "bind :80", &format!("bind {addr}")),
        }
    })
    .await
}

/// Asks for a WebSocket as a browser does, from the page of this proxy.
async fn asks_for_websocket(proxy: &Front) -> Raw {
    let origin = format!("Origin: http://{}", proxy.addr());
    Raw::request(proxy.addr(), upgrade_head(&proxy.host(), &[&origin])).await
}

/// Two people chat through a documented proxy, and again after a minute of silence. No visitor can choose its address.
async fn a_chat_passes(program: &str) {
    let dyno = Dyno::start(&[("MAX_PER_ADDRESS", "2")]).await;
    let proxy = proxy(program, &dyno, &[]).await;
    asks_for_websocket(&proxy).await.switched().await;
    dyno.health_becomes("connections", 0).await;
    let request = head("GET /", &proxy.host(), &["Connection: close"]);
    let page = http(proxy.addr(), &request).await;
    assert_eq!(page.status, 200, "{program}: {}", page.text());
    let policy = page.expect_header("Content-Security-Policy");
    assert!(policy.contains(&proxy.host()), "{program}: {policy}");

    let mut hanako = Client::connect(proxy.addr()).await;
    hanako.join(program, "花子", &token(), None).await;
    let mut taro = Client::connect(proxy.addr()).await;
    taro.join(program, "太郎", &token(), None).await;
    hanako.say("before").await;
    taro.hears("before").await;

    // A third connection from this machine is one too many, whatever address it claims.
    let request = upgrade_head(&proxy.host(), &[&forwarded("203.0.113.9")]);
    let mut jiro = Raw::request(proxy.addr(), request).await;
    jiro.switched().await;
    assert_eq!(jiro.json().await["code"], "busy", "{program}");

    sleep(SILENCE + 15 * SECOND).await;
    taro.say("after").await;
    hanako.hears("after").await;
    for client in [&hanako, &taro] {
        assert_eq!(client.count_heard(Heard::is_end), 0, "{program}");
    }
    let log = dyno.log();
    assert!(!log.contains("hint="), "{program}: {log}");
}

#[tokio::test]
async fn a_chat_passes_nginx_caddy_and_haproxy_as_documented() {
    join_all(["nginx", "caddy", "haproxy"].map(a_chat_passes)).await;
}

#[tokio::test]
async fn nginx_without_a_documented_header_is_refused_and_the_log_says_why() {
    let upgrade = &["$http_upgrade;", "$connection_upgrade;"][..];
    for (left_out, status) in [(&["proxy_set_header Host"][..], 403), (upgrade, 426)] {
        let dyno = Dyno::start(&[]).await;
        let proxy = proxy("nginx", &dyno, left_out).await;
        let request = head("GET /", &proxy.host(), &["Connection: close"]);
        let page = http(proxy.addr(), &request).await;
        assert_eq!(page.status, 200, "{left_out:?}: {}", page.text());
        for _ in 0..3 {
            let mut refused = asks_for_websocket(&proxy).await;
            let (answer, _) = refused.rest(SECOND).await; // nginx keeps the connection open
            let answer = String::from_utf8_lossy(&answer);
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{left_out:?}: {answer}");
        }
        let origin = format!("origin=\"http://{}\"", proxy.addr());
        let host = format!("host=\"{}\"", dyno.host());
        let words = match status {
            403 => [&*origin, &host, "ALLOWED_ORIGINS"],
            _ => ["Upgrade", "Connection", ""],
        };
        dyno.warns_once(&words).await;
    }
}

// ---- connections of one address

fn forwarded(addresses: &str) -> String {
    format!("X-Forwarded-For: {addresses}")
}

/// Upgrades with this header and asks to join: the socket and the answer.
async fn asks_to_join(addr: SocketAddr, header: &str) -> (Raw, Value) {
    let mut raw = Raw::request(addr, upgrade_head("chat.example", &[header])).await;
    raw.switched().await;
    let join = client::join_frame("lobby", &cid(), &token(), None);
    raw.send_json(join).await;
    let answer = raw.json().await;
    (raw, answer)
}

async fn joins(addr: SocketAddr, header: &str) -> Raw {
    let (raw, answer) = asks_to_join(addr, header).await;
    assert_eq!(answer["kind"], "welcome", "{header:?}: {answer}");
    raw
}

/// Whether these two requests count as from one address, for a dyno that lets each have one connection.
async fn count_as_one(dyno: &Dyno, addr: SocketAddr, [first, second]: [&str; 2]) -> bool {
    let first = joins(addr, first).await;
    let (mut second, answer) = asks_to_join(addr, second).await;
    let refused = answer["kind"] == "error";
    if refused {
        assert_eq!(answer["code"], "busy");
        assert!(answer["retry_ms"].as_u64() > Some(0), "{answer}");
        let (code, reason) = second.closed(PATIENCE).await;
        assert_eq!((code, &*reason), (1013, "busy"));
    }
    drop((first, second));
    dyno.health_becomes("connections", 0).await;
    refused
}

#[tokio::test]
async fn where_the_platform_sets_dyno_an_address_has_a_hundred_connections_and_elsewhere_no_limit()
{
    let dyno = Dyno::start(&[("DYNO", "web.1")]).await;
    let school = forwarded("198.51.100.9, 203.0.113.7");
    let mut class = vec![];
    for _ in 0..MAX_PER_ADDRESS {
        class.push(joins(dyno.addr(), &school).await);
    }
    for claim in ["", "192.0.2.1, ", "203.0.113.8,"] {
        let school = forwarded(&format!("{claim}203.0.113.7"));
        let (mut late, answer) = asks_to_join(dyno.addr(), &school).await;
        assert_eq!(answer["code"], "busy", "{answer}");
        assert_eq!(late.closed(PATIENCE).await.0, 1013);
    }
    let words = ["203.0.113.7", "MAX_PER_ADDRESS=100"];
    dyno.warns_once(&words).await;
    let _other = joins(dyno.addr(), &forwarded("203.0.113.7, 198.51.100.9")).await;
    class.pop();
    let answer = async || asks_to_join(dyno.addr(), &school).await.1["kind"].clone();
    check::becomes("a place is free", PATIENCE, json!("welcome"), answer).await;

    for vars in [&[][..], &[("DYNO", "web.1"), ("MAX_PER_ADDRESS", "0")]] {
        let dyno = Dyno::start(vars).await;
        let mut all = vec![];
        for _ in 0..=MAX_PER_ADDRESS {
            all.push(joins(dyno.addr(), &school).await);
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
        let headers = [&*forwarded(first), &forwarded(second)];
        let seen = count_as_one(&dyno, dyno.addr(), headers).await;
        assert_eq!(seen, same, "{first:?} and {second:?}");
    }
}

#[tokio::test]
async fn without_dyno_only_a_proxy_on_this_machine_may_forward_addresses() {
    let dyno = Dyno::start(&[("MAX_PER_ADDRESS", "1")]).await;
    let (one, other) = (forwarded("203.0.113.7"), forwarded("203.0.113.8"));
    let no_address = "Accept: */*";
    for (headers, same) in [
        ([&*one, &other], false),
        ([&one, &one], true),
        ([no_address; 2], true),
    ] {
        let seen = count_as_one(&dyno, dyno.addr(), headers).await;
        assert_eq!(seen, same, "{headers:?} over loopback");
    }
    // The local address of the route to the outside is an address of this machine.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let own = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    match own.map(|own| own.ip()) {
        Ok(IpAddr::V4(own)) if !own.is_loopback() => {
            let addr = (own, dyno.port).into();
            assert!(count_as_one(&dyno, addr, [&one, &other]).await);
        }
        other => println!("left out: this machine has only loopback ({other:?})"),
    }
}
