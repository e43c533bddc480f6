//! Tests behind other people's proxies: nginx, Caddy and HAProxy with the configurations of `docs/PROXIES.md`, and the
//! limit of connections for each address. If a proxy is not installed, its test prints that and passes.

use crate::support::facts::{MAX_PER_ADDRESS, SILENCE};
use crate::support::raw::{Answer, head, http, upgrade_head};
use crate::support::{
    Client, Dyno, PATIENCE, Raw, bound_to_us, cid, client, eventually, free_port, token,
};
use serde_json::Value;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// A proxy in front of one dyno.
struct Proxy {
    child: Child,
    addr: SocketAddr,
    /// Holds its configuration.
    dir: TempDir,
}

/// The block of this language in the document.
fn documented(language: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROXIES.md");
    let text = fs::read_to_string(path).expect("the document");
    let begin = format!("\n```{language}\n");
    let blocks = text.split(&begin).skip(1);
    let blocks: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1, "one block of {language}");
    blocks[0].to_string()
}

/// Replaces what stands in the text exactly once.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old} in:\n{text}");
    text.replace(old, new)
}

/// The lines without those that contain one of these words; each is in the text.
fn without(text: &str, words: &[&str]) -> String {
    for word in words {
        assert!(text.contains(word), "{word} in:\n{text}");
    }
    let lines = text.lines();
    let kept = lines.filter(|line| !words.iter().any(|word| line.contains(word)));
    kept.map(|line| format!("{line}\n")).collect()
}

impl Proxy {
    /// nginx with the documented block, perhaps changed.
    async fn nginx(dyno: &Dyno, change: fn(&str) -> String) -> Option<Proxy> {
        Proxy::start("nginx", "nginx", change, |block, dir, port| {
            let block = replaced(block, "listen 80;", &format!("listen 127.0.0.1:{port};"));
            let block = to_dyno(&block, dyno);
            let temp = "client_body proxy fastcgi uwsgi scgi".split(' ');
            let temp: String = temp
                .map(|name| format!("{name}_temp_path {dir};\n"))
                .collect();
            let config = format!(
                "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr;\nevents {{}}\n\
                 http {{\naccess_log off;\n{temp}{block}}}\n"
            );
            let args = ["-e", "stderr", "-c"].map(String::from).to_vec();
            (config, args)
        })
        .await
    }

    async fn caddy(dyno: &Dyno) -> Option<Proxy> {
        Proxy::start("caddy", "caddy", str::to_string, |block, _, port| {
            let site = format!("http://127.0.0.1:{port}");
            let block = replaced(block, "chat.example.com", &site);
            let block = to_dyno(&block, dyno);
            let config = format!("{{\nadmin off\n}}\n{block}");
            let args = ["run", "--adapter", "caddyfile", "--config"];
            (config, args.map(String::from).to_vec())
        })
        .await
    }

    async fn haproxy(dyno: &Dyno) -> Option<Proxy> {
        Proxy::start("haproxy", "haproxy", str::to_string, |block, _, port| {
            let block = replaced(block, "bind :80", &format!("bind 127.0.0.1:{port}"));
            let block = to_dyno(&block, dyno);
            (block, ["-db", "-f"].map(String::from).to_vec())
        })
        .await
    }

    /// `None` if it is not installed. `configure` makes the configuration and the arguments before its path.
    async fn start(
        program: &str,
        language: &str,
        change: fn(&str) -> String,
        configure: impl Fn(&str, &str, u16) -> (String, Vec<String>),
    ) -> Option<Proxy> {
        let block = change(&documented(language));
        for attempt in 1.. {
            let dir = TempDir::with_prefix("dynochat-proxy-").expect("a temporary directory");
            let port = free_port();
            let (config, args) = configure(&block, &dir.path().display().to_string(), port);
            let path = dir.path().join("config");
            fs::write(&path, &config).expect("a file can be written");
            let log = fs::File::create(dir.path().join("log")).expect("a log file");
            let spawned = bound_to_us(&mut Command::new(program))
                .args(args)
                .arg(&path)
                .env("HOME", dir.path()) // Caddy keeps files there
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("one file for both streams"))
                .stderr(log)
                .spawn();
            let child = match spawned {
                Ok(child) => child,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    println!("left out: {program} is not installed");
                    return None;
                }
                Err(e) => panic!("{program} could not be started: {e}"),
            };
            let addr = (Ipv4Addr::LOCALHOST, port).into();
            let mut proxy = Proxy { child, addr, dir };
            match proxy.listens().await {
                Ok(()) => return Some(proxy),
                Err(why) if attempt == 3 => panic!("{program}: {why}\n{}\n{config}", proxy.log()),
                Err(_) => {} // most likely another process took the port in between
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    async fn listens(&mut self) -> Result<(), String> {
        eventually("the proxy listens or ends", 3 * PATIENCE, async || {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return Ok(Err(format!("it ended with {status}")));
            }
            TcpStream::connect(self.addr).await.map(|_| Ok(()))
        })
        .await
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The value of `Host` that a browser sends.
    fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Asks for a WebSocket as a browser does, from the page of this proxy.
    async fn asks_for_websocket(&self) -> Raw {
        let origin = format!("Origin: http://{}", self.addr);
        let request = upgrade_head(&self.host(), &[&origin]);
        Raw::request(self.addr, request).await
    }

    /// The same, for a proxy with a mistake in it: the status.
    async fn refuses_websocket(&self) -> u16 {
        let mut raw = self.asks_for_websocket().await;
        let (answer, _) = raw.rest(SECOND).await; // nginx keeps the connection open
        let answer = String::from_utf8_lossy(&answer);
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {answer:?}"))
    }

    /// The page; the proxy must pass on its headers.
    async fn page(&self) -> Answer {
        let page = http(
            self.addr,
            &head("GET /", &self.host(), &["Connection: close"]),
        )
        .await;
        assert_eq!(page.status, 200, "{}", page.text());
        page
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy\n{}---", self.log());
        }
    }
}

fn to_dyno(block: &str, dyno: &Dyno) -> String {
    replaced(block, "127.0.0.1:3000", &dyno.host())
}

/// Two people chat through a proxy, and again after a minute of silence. No visitor can choose its address.
async fn a_chat_passes(dyno: &Dyno, proxy: &Proxy) {
    proxy.asks_for_websocket().await.switched().await;
    is_empty(dyno).await;
    let policy = proxy.page().await;
    let policy = policy.expect_header("Content-Security-Policy");
    assert!(policy.contains(&proxy.host()), "{policy}");

    let mut hanako = Client::connect(proxy.addr).await;
    hanako.join("lobby", "花子", &token(), None).await;
    let mut taro = Client::connect(proxy.addr).await;
    taro.join("lobby", "太郎", &token(), None).await;
    hanako.say("before").await;
    taro.hears("before").await;

    // A third connection from this machine is one too many, whatever address it claims.
    let claim = "X-Forwarded-For: 203.0.113.9";
    let request = upgrade_head(&proxy.host(), &[claim]);
    let mut jiro = Raw::request(proxy.addr, request).await;
    jiro.switched().await;
    assert_eq!(jiro.json().await["code"], "busy");

    sleep(SILENCE + 15 * SECOND).await;
    taro.say("after").await;
    hanako.hears("after").await;
    for client in [&hanako, &taro] {
        assert_eq!(client.count_heard(client::Heard::is_end), 0);
    }
    let log = dyno.log();
    assert!(!log.contains("hint="), "{log}");
}

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

/// A dyno that lets each address have two connections.
async fn for_two() -> Dyno {
    Dyno::start(&[("MAX_PER_ADDRESS", "2")]).await
}

#[tokio::test]
async fn a_chat_passes_nginx_as_documented() {
    let dyno = for_two().await;
    if let Some(proxy) = Proxy::nginx(&dyno, str::to_string).await {
        a_chat_passes(&dyno, &proxy).await;
    }
}

#[tokio::test]
async fn a_chat_passes_caddy_as_documented() {
    let dyno = for_two().await;
    if let Some(proxy) = Proxy::caddy(&dyno).await {
        a_chat_passes(&dyno, &proxy).await;
    }
}

#[tokio::test]
async fn a_chat_passes_haproxy_as_documented() {
    let dyno = for_two().await;
    if let Some(proxy) = Proxy::haproxy(&dyno).await {
        a_chat_passes(&dyno, &proxy).await;
    }
}

#[tokio::test]
async fn nginx_without_the_host_header_is_refused_and_the_log_says_why() {
    let dyno = Dyno::start(&[]).await;
    let change = |block: &str| without(block, &["proxy_set_header Host"]);
    let Some(proxy) = Proxy::nginx(&dyno, change).await else {
        return;
    };
    proxy.page().await;
    for _ in 0..3 {
        assert_eq!(proxy.refuses_websocket().await, 403);
    }
    let origin = format!("origin=\"http://{}\"", proxy.addr);
    let host = format!("host=\"{}\"", dyno.host());
    is_logged_once(&dyno, &[&origin, &host, "ALLOWED_ORIGINS"]).await;

    let allowed = format!("http://{}", proxy.addr);
    let dyno = Dyno::start(&[("ALLOWED_ORIGINS", &allowed)]).await;
    let request = upgrade_head(&dyno.host(), &[&format!("Origin: {allowed}")]);
    Raw::request(dyno.addr(), request).await.switched().await;
}

#[tokio::test]
async fn nginx_without_the_upgrade_headers_is_refused_and_the_log_says_why() {
    let dyno = Dyno::start(&[]).await;
    let change = |block: &str| without(block, &["$http_upgrade;", "$connection_upgrade;"]);
    let Some(proxy) = Proxy::nginx(&dyno, change).await else {
        return;
    };
    proxy.page().await;
    for _ in 0..3 {
        assert_eq!(proxy.refuses_websocket().await, 426);
    }
    is_logged_once(&dyno, &["Upgrade", "Connection"]).await;
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
    // The local address of the route to the outside is an address of this machine.
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
