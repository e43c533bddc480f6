//! HTTP/1.1 on the listener: the page and its files with their headers, the status of every refused request, and the
//! upgrade to a WebSocket, in whatever pieces its bytes come.

use crate::support::dyno::{program, refuses_to_boot};
use crate::support::prelude::*;
use crate::support::raw::{ACCEPT, Answer, End, KEY, TEXT, upgrade_head};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use tokio::net::TcpStream;

async fn get(dyno: &Dyno, path: &str, headers: &[&str]) -> Answer {
    let request = head(&format!("GET {path}"), &dyno.host(), headers);
    http(dyno.addr(), &request).await
}

/// The answer has this status, and the dyno goes on serving its page.
async fn answered(dyno: &Dyno, request: impl AsRef<str>, status: u16) -> Answer {
    let request = request.as_ref();
    let shown: String = request.chars().take(200).collect();
    let answer = http(dyno.addr(), request).await;
    assert_eq!(answer.status, status, "{shown:?}");
    let page = get(dyno, "/", &[]).await;
    assert_eq!(page.status, 200, "the page after {shown:?}");
    answer
}

/// The status of the answer to a browser's upgrade with this header.
async fn upgraded(dyno: &Dyno, host: &str, header: &str) -> u16 {
    let request = upgrade_head(host, &[header]);
    Raw::request(dyno.addr(), request).await.head().await.status
}

// ---- the page and its files

#[tokio::test]
async fn each_file_has_its_type_and_its_tag_and_head_has_the_headers_of_get() {
    let dyno = Dyno::start(&[]).await;
    let page = get(&dyno, "/", &[]).await;
    let mut tags = BTreeSet::new();
    let scripts = "/chat.js /common.js /connection.js /messages.js /outgoing.js /words.js";
    for path in scripts.split(' ').chain(["/", "/chat.css"]) {
        let file = get(&dyno, path, &[]).await;
        assert_eq!(file.status, 200, "{path}");
        let kind = match path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some(_) => "text/css; charset=utf-8",
            None => "text/html; charset=utf-8",
        };
        assert_eq!(file.expect_header("Content-Type"), kind, "{path}");
        let options = file.expect_header("X-Content-Type-Options");
        assert_eq!(options, "nosniff", "{path}");
        assert!(!file.body.is_empty(), "{path}");
        assert!(page.text().contains(path), "the page loads {path}");
        let etag = file.expect_header("ETag");
        let strong = etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2;
        assert!(strong && tags.insert(etag.to_string()), "{path}: {etag}");
        for known in ["ETAG", "\"other\", ETAG", "W/ETAG", "*"] {
            let known = format!("If-None-Match: {}", known.replace("ETAG", etag));
            let again = get(&dyno, path, &[&known]).await;
            assert_eq!(again.status, 304, "{path}, {known}"); // so it has no body
            assert_eq!(again.expect_header("ETag"), etag, "{path}");
        }
        let changed = get(&dyno, path, &["If-None-Match: \"other\""]).await;
        assert_eq!((changed.status, changed.body), (200, file.body), "{path}");
        let head = head(&format!("HEAD {path}"), &dyno.host(), &[]);
        let head = http(dyno.addr(), &head).await;
        assert_eq!((head.status, head.headers), (200, file.headers), "{path}");
    }
    let with_query = get(&dyno, "/?room=lobby", &[]).await;
    assert_eq!(with_query.body, page.body);

    let health = get(&dyno, "/healthz", &[]).await;
    assert_eq!(health.header("ETag"), None, "it is never cached");
    let head = http(dyno.addr(), &head("HEAD /healthz", &dyno.host(), &[])).await;
    assert_eq!((head.status, head.headers), (200, health.headers));
}

#[tokio::test]
async fn the_page_allows_only_its_own_files_and_its_own_socket() {
    let dyno = Dyno::start(&[]).await;
    // The policy names the host of the request.
    for host in [&*dyno.host(), "chat.example"] {
        let page = http(dyno.addr(), &head("GET /", host, &[])).await;
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'self'; \
             frame-ancestors 'none'"
        );
        assert_eq!(page.expect_header("Content-Security-Policy"), policy);
        assert_eq!(page.expect_header("Referrer-Policy"), "no-referrer");
        let opener = page.expect_header("Cross-Origin-Opener-Policy");
        assert_eq!(opener, "same-origin");
    }
}

// ---- requests and their status

/// Requests that two programs could read in two ways (request smuggling), what is not HTTP, and unusual valid requests.
#[tokio::test]
async fn each_request_gets_its_status() {
    let dyno = Dyno::start(&[]).await;
    // `|` separates texts; each of them takes the place of `{}` in a request.
    let headers = "Host: b|Host: a|NoColon| folded: x|transfer-encoding: xchunked|\
        X: y\u{b}z|X: a\0b|X\0: y|: y|X y|\"X\": y";
    let lengths = "5|x|-1|+0|-0|0x0|0, 0||0\u{a0}|5\r\n\r\nhello|0\r\nContent-Length: 0";
    let codings = ": chunked|:\tchunked|: identity| : chunked|\t: chunked|\
        : chunked\r\n\r\n0|: chunked\r\nContent-Length: 0";
    let chunked = "{}Transfer-Encoding: chunked";
    let before_chunked = " |X: y\r\n\t|X: y\n|X: y\r|X: y\r\r\n";
    let hosts = "<img>|a\"b|a@b|a/b|a?b|a%20|u@h.example||a, b|a b|a\tb|a\u{a0}|\u{3000}a|caf\u{e9}|\
        a.example; script-src *|a.example script-src|a.example,b.example";
    let targets = "/a b| /|/ HTTP/1.1|/\u{1}|/\0||/\r|http://a/";
    let lines = "GET\t/| GET /|\nGET /|GET|G\0T /|CONNECT a:443|OPTIONS *";
    let versions = "1.2|1|1.1 |01.1|2.0|3.0|1.\u{661}";
    let no_heads = "GET / HTTP/1.1|GET / HTTP/1.1\r\nHost : a|GET / HTTP/1.1\r\nHost:|hello|GET /|\
        GET / http/1.1\r\nHost: a|\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a|\
        PRI * HTTP/2.0\r\n\r\nSM|\x16\x03\x01\x02\x00\x01\x00\x01";
    let paths = "/nope|/index.html|/chat.js/|/healthz/x|//|/%2e%2e/etc/passwd|/../etc/passwd|/..|/%2e|\
        /chat%2ejs|/./chat.js|//chat.js|/chat.js/.|/chat.js%00|/Chat.js|/chat.js;a|/\\chat.js|/ws/|/ws%20";
    let methods = "POST /|PUT /chat.js|DELETE /chat.css|PATCH /ws|OPTIONS /healthz|FOO /|get /";
    let upload = "x".repeat(30_000);
    let with_length = head("POST /", "a", &["Content-Length: 30000{}"]) + &upload;
    let in_chunks = head("POST /", "a", &[chunked]) + "7530\r\n" + &upload + "\r\n0\r\n\r\n";
    let expects = "|\r\nExpect: 100-continue";
    let valid_headers = "X-Empty:|X-Latin: caf\u{e9}|Content-Length: 0|\
        Expect: 100-continue\r\nContent-Length: 00|Connection: keep-alive\r\nConnection: x, close|\
        Connection: keep-alive, TE\r\nTE: trailers|\
        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA";
    // Empty lines come before the first of these: RFC 9112 §2.2.
    let valid = "\r\n\r\nGET / HTTP/1.1\r\nHost: a|GET / HTTP/1.0\r\nHost: a|GET / HTTP/1.0|\
        GET /?a=%00&b=/../#c HTTP/1.1\r\nhOST:\ta \t";
    let no_upgrades = "GET /ws HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket|\
        HEAD /ws HTTP/1.1\r\nHost: a";
    for (status, request, texts) in [
        (400, head("GET /", "a", &["{}"]), headers),
        (400, head("GET /", "a", &["Content-Length: {}"]), lengths),
        (400, head("GET /", "a", &["Transfer-Encoding{}"]), codings),
        (400, head("GET /", "a", &[chunked]), before_chunked),
        (400, head("GET /", "{}", &[]), hosts),
        (400, head("GET {}", "a", &[]), targets),
        (400, head("{}", "a", &[]), lines),
        (400, "GET / HTTP/{}\r\nHost: a\r\n\r\n".into(), versions),
        (400, "{}\r\n\r\n".into(), no_heads),
        (404, head("GET {}", "a", &[]), paths),
        (405, head("{}", "a", &[]), methods),
        (405, with_length, expects),
        (400, in_chunks, ""),
        (200, head("GET /", "[::1]:3000", &["{}"]), valid_headers),
        (200, "{}\r\n\r\n".into(), valid),
        (200, head("GET /", "a", &[]).repeat(2), ""), // the second one is not answered
        (426, "{}\r\n\r\n".into(), no_upgrades),
    ] {
        for text in texts.split('|') {
            let answer = answered(&dyno, request.replace("{}", text), status).await;
            let allowed = (status == 405).then_some("GET, HEAD");
            assert_eq!(answer.header("Allow"), allowed, "{text}");
        }
    }
}

#[tokio::test]
async fn a_head_above_the_limits_is_refused() {
    let dyno = Dyno::start(&[]).await;
    let with = |header: &str| head("GET /", &dyno.host(), &[header]);
    let long = |bytes: usize| with(&format!("X-Long: {}", "x".repeat(bytes)));
    let many = |count: usize| {
        let headers: String = (1..count).map(|i| format!("X-{i}: y\r\n")).collect();
        with(headers.trim_end())
    };
    let around = long(0).len();
    let long_path = format!("GET /{}", "x".repeat(MAX_HEAD));
    answered(&dyno, long(8_100), 200).await; // the cookies of other programs
    answered(&dyno, long(MAX_HEAD - around), 200).await;
    answered(&dyno, long(MAX_HEAD + 1 - around), 431).await;
    answered(&dyno, long(60_000), 431).await;
    answered(&dyno, head(&long_path, &dyno.host(), &[]), 431).await;
    answered(&dyno, many(MAX_HEADERS), 200).await;
    answered(&dyno, many(MAX_HEADERS + 1), 431).await;
    for request in [long(1 << 20), many(10_000)] {
        // A client that is still sending may be cut off before it reads the refusal.
        let mut raw = Raw::request(dyno.addr(), request).await;
        let (answer, end) = raw.rest(PATIENCE).await;
        let refused = answer.starts_with(b"HTTP/1.1 431 ");
        let answer = String::from_utf8_lossy(&answer);
        assert!(refused || end == End::Reset, "{end:?} after {answer:?}");
        assert_eq!(get(&dyno, "/", &[]).await.status, 200);
    }
    // The longest head in tiny segments, and then a FIN, which does not end the answer.
    let mut raw = Raw::connect(dyno.addr()).await;
    for segment in long(MAX_HEAD - around).as_bytes().chunks(8) {
        raw.send(segment).await;
    }
    raw.finish().await;
    assert_eq!(raw.answer().await.status, 200);
}

#[tokio::test]
async fn a_thousand_incomplete_long_heads_take_little_memory_and_delay_nobody() {
    const HEADS: usize = 1_000;
    let _descriptors = descriptors(HEADS as u32 + 100).await;
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "2000")]).await;
    let before = dyno.rss_kb();
    let incomplete = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(30_000));
    let heads = (0..HEADS).map(|_| Raw::request(dyno.addr(), &incomplete));
    let mut heads = join_all(heads).await;
    for _ in 0..5 {
        assert_eq!(get(&dyno, "/", &[]).await.status, 200);
        sleep(SECOND / 5).await;
    }
    let grown = dyno.rss_kb() - before;
    println!("measured: {HEADS} incomplete heads of 30 kB take {grown} kB");
    assert!(grown < 20_000, "{grown} kB");
    // A long head waits until the incomplete ones are cut.
    let long = format!("Cookie: {}", "x".repeat(8_100));
    assert_eq!(get(&dyno, "/", &[&long]).await.status, 200);
    for raw in &mut heads {
        let cut = raw.answer_to("GET", 2 * JOIN_DEADLINE).await;
        assert_eq!(cut.status, 408);
    }
}

/// Elsewhere plain http is served: a proxy may be in a network without https.
#[tokio::test]
async fn plain_http_is_redirected_to_https_where_the_platform_sets_dyno() {
    const HSTS: &str = "Strict-Transport-Security";
    const HTTP: &str = "X-Forwarded-Proto: http";
    let platform = Dyno::start(&[("DYNO", "web.1")]).await;
    let elsewhere = Dyno::start(&[]).await;
    for path in ["/", "/?room=a%20b", "/chat.js", "/nope"] {
        for host in ["chat.example", "chat.example:80"] {
            let request = head(&format!("GET {path}"), host, &[HTTP]);
            let answer = answered(&platform, &request, 308).await;
            let location = format!("https://chat.example{path}");
            assert_eq!(answer.expect_header("Location"), location);
            let status = if path == "/nope" { 404 } else { 200 };
            let answer = answered(&elsewhere, &request, status).await;
            assert_eq!(answer.header(HSTS), None, "{path}");
        }
    }
    for (dyno, status) in [(&platform, 403), (&elsewhere, 101)] {
        let health = get(dyno, "/healthz", &[HTTP]).await;
        assert_eq!(health.status, 200, "a check of health follows no redirect");
        // WebSocket clients do not follow redirects.
        assert_eq!(upgraded(dyno, &dyno.host(), HTTP).await, status);
        let https = "X-Forwarded-Proto: https";
        assert_eq!(upgraded(dyno, &dyno.host(), https).await, 101);
    }
    // The last scheme decides. `|` separates several headers.
    for (schemes, status, is_https) in [
        ("https", 200, true),
        ("http|https", 200, true),
        ("https|http", 308, false),
        ("http, https", 200, true),
        ("https,http", 308, false),
        ("https, https|http", 308, false),
        ("http|http, HTTPS", 200, true),
        ("http|", 308, false),
        ("https, ", 200, true),
        ("ftp", 200, false),
    ] {
        let schemes = schemes.replace('|', "\r\nX-Forwarded-Proto: ");
        let schemes = format!("X-Forwarded-Proto: {schemes}");
        let request = head("GET /", "chat.example", &[&schemes]);
        for (dyno, status) in [(&platform, status), (&elsewhere, 200)] {
            let page = answered(dyno, &request, status).await;
            let hsts = is_https.then_some("max-age=31536000");
            assert_eq!(page.header(HSTS), hsts, "{schemes}");
        }
    }
    assert_eq!(get(&elsewhere, "/", &[]).await.header(HSTS), None);
}

// ---- origins

#[tokio::test]
async fn a_socket_opens_only_from_the_own_page_or_an_allowed_origin_and_others_are_logged_once() {
    let allowed = "https://friend.example,https://other.example:8443, HTTPS://Shop.Example:443,http://[2001:DB8::1]:80";
    let dyno = Dyno::start(&[("ALLOWED_ORIGINS", allowed)]).await;
    // A status, a host, and origins.
    let rows = "101 OWN http://OWN https://friend.example https://shop.example http://[2001:db8::1]
        101 OWN https://other.example:8443
        101 chat.example https://chat.example https://chat.example:443
        101 Chat.Example https://chat.example
        101 CHAT.example:80 http://chat.Example
        101 chat.example:443 https://chat.example
        101 chat.example:8080 http://chat.example:8080
        101 [2001:db8::2]:443 https://[2001:db8::2]
        403 OWN http://shop.example https://shop.example:444 https://evil.example null
        403 OWN https://sub.friend.example https://other.example
        403 chat.example ftp://chat.example chat.example https://chat.example:444
        403 chat.example https://chat.example.evil.example https://evil.example/chat.example
        403 chat.example https://xchat.example
        403 chat.example:80 https://chat.example
        403 chat.example:443 http://chat.example https://chat.example:444
        403 chat.example:4430 https://chat.example";
    let own = dyno.host();
    let long = format!("Origin: https://{}.example", "x".repeat(9_000));
    assert_eq!(upgraded(&dyno, &own, &long).await, 403);
    for row in rows.replace("OWN", &own).lines() {
        let words: Vec<&str> = row.split_whitespace().collect();
        for origin in &words[2..] {
            let status = upgraded(&dyno, words[1], &format!("Origin: {origin}")).await;
            assert_eq!(status.to_string(), words[0], "{origin} in {row}");
        }
    }
    assert_eq!(upgraded(&dyno, &own, "Origin:").await, 403);
    let (origin, host) = ("origin=\"https://xxx", format!("host=\"{own}\""));
    let words = [origin, &host, "ALLOWED_ORIGINS"];
    let warning = dyno.warns_once(&words).await;
    assert!(warning.len() < 600, "a long value is cut: {warning}");
}

#[tokio::test]
async fn an_allowed_origin_that_no_browser_sends_stops_the_boot_and_an_example_is_shown() {
    let bad = "https://*.example.com|*|null|chat.example.com|//chat.example.com|https:chat.example.com|\
        https:///chat.example.com|https://|https://:443|https://チャット.example|https://chat%2eexample.com|\
        https://chat.example.com/|https://chat.example.com/chat|https://chat.example.com?a|\
        https://chat.example.com#a|https://hanako:hunter2@chat.example.com|\
        https://hanako@chat.example.com|https://chat.example.com:|https://chat.example.com:0443|\
        https://chat.example.com:65536|https://chat.example.com:port|https://chat example.com|\
        http://127.1|http://0x7f000001|http://[0:0:0:0:0:0:0:1]|http://[::1%25eth0]|http://::1|\
        wss://chat.example.com|ftp://chat.example.com|file://|\"https://chat.example.com\"|\
        https://chat.example.com;https://b.example|https://chat.example.com https://b.example|\
        https://chat.example.com,|https://chat.example.com,,https://b.example";
    join_all(bad.split('|').map(async |value| {
        let (status, said) = refuses_to_boot(&[("ALLOWED_ORIGINS", value)]).await;
        assert_eq!(status.code(), Some(1), "{value}: {said}");
        assert!(!said.contains("hunter2"), "a password: {said}");
        let shown = value.rsplit_once('@').map_or(value, |(_, host)| host);
        let shown = shown.split(',').nth(1).unwrap_or(shown); // the second one of a list
        let shown = format!("{shown:?}").split_off(1);
        for word in ["ALLOWED_ORIGINS", &shown, "like https://chat.example.com"] {
            assert!(said.contains(word), "{value}: {word:?} in: {said}");
        }
        assert_eq!(said.lines().count(), 1, "one line: {said}");
    }))
    .await;
    let good = "http://localhost:8080|HTTPS://Chat.Example.com|http://192.0.2.1|\
        https://my_host-1.example|https://xn--gckc5l.example:443 , http://[::1]:3000";
    for good in good.split('|') {
        Dyno::start(&[("ALLOWED_ORIGINS", good)]).await;
    }
}

// ---- the port

#[tokio::test]
async fn a_port_that_is_taken_on_one_address_stops_the_boot() {
    for addr in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
        let addr: IpAddr = addr.parse().expect("an address");
        let port = free_port();
        let Ok(taken) = std::net::TcpListener::bind((addr, port)) else {
            assert!(addr.is_ipv6(), "{addr} can be bound");
            println!("left out: there is no IPv6 here");
            continue;
        };
        let port = port.to_string();
        let (status, said) = refuses_to_boot(&[("PORT", &port)]).await;
        assert_eq!(status.code(), Some(1), "{addr}: {said}");
        let names_it = said.contains(&port) && said.contains("in use");
        assert!(names_it, "{addr}: {said}");
        drop(taken);
    }
}

#[tokio::test]
async fn ipv4_and_ipv6_are_served_also_where_the_system_separates_them() {
    let dyno = Dyno::start(&[]).await;
    assert_eq!(get(&dyno, "/", &[]).await.status, 200);
    if let Err(e) = TcpStream::connect((Ipv6Addr::LOCALHOST, dyno.port)).await {
        return println!("left out: there is no IPv6 here ({e})");
    }
    // A network of its own, with the setting of the system that separates them. It needs root or user namespaces.
    let script = "ip link set lo up && echo 1 >/proc/sys/net/ipv6/bindv6only || exit 9
        \"$PROGRAM\" & program=$!
        trap 'kill $program' EXIT
        for host in 127.0.0.1 '[::1]'; do
            curl --silent --fail --output /dev/null --retry 9 --retry-connrefused http://$host:3000/ || exit 1
        done";
    let mut command = Command::new("unshare");
    command.args(["--net", "--map-root-user", "sh", "-c", script]);
    let output = bound_to_us(&mut command).env("PROGRAM", program()).output();
    let output = output.expect("unshare is there");
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(1) if !said.contains("unshare") => panic!("one of them is not served: {said}"),
        code => println!("left out: no network of its own here ({code:?} {said})"),
    }
}

// ---- the upgrade

#[tokio::test]
async fn the_upgrade_is_answered_as_rfc_6455_says() {
    let dyno = Dyno::start(&[]).await;
    // `|` separates headers.
    let firefox = "Connection: keep-alive, Upgrade|Origin: https://chat.example|\
        Sec-WebSocket-Extensions: permessage-deflate|Sec-WebSocket-Protocol: chat|\
        Sec-Fetch-Dest: empty|Sec-Fetch-Mode: websocket|Sec-Fetch-Site: same-origin";
    let heroku = "Connection: Upgrade|X-Request-Id: 4d8f7f2e-7a1e-6d3b-0c64-4a3b1d7c9f10|\
        X-Forwarded-For: 198.51.100.7, 192.0.2.1|X-Forwarded-Proto: https|X-Forwarded-Port: 443|\
        Via: 1.1 heroku-router|X-Request-Start: 1732412345678";
    let several = "Connection: keep-alive|Connection: Upgrade|Upgrade: h2c";
    let lower = "connection: upgrade";
    let upper = "CONNECTION: UPGRADE,keep-alive";
    let mut rows = [firefox, heroku, several, lower, upper]
        .map(|others| ("/ws", others))
        .to_vec();
    for path in ["/ws", "/ws?c", "/ws/0a1b2c3d", "/ws/0a1b2c3d?c"] {
        rows.push((path, "Connection: Upgrade"));
        assert_eq!(get(&dyno, path, &[]).await.status, 426, "{path}");
    }
    let key = format!("sec-websocket-key: {KEY}");
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    for (path, others) in rows {
        for upgrade in ["Upgrade: websocket", "UPGRADE: WebSocket"] {
            let others = others.replace('|', "\r\n");
            let headers = [&others, upgrade, "sec-websocket-VERSION: 13", &key];
            let request = head(&format!("GET {path}"), "chat.example", &headers);
            let answer = Raw::request(dyno.addr(), &request).await.head().await;
            assert_eq!(answer.status, 101, "{request}");
            let line = |(name, value): &(String, String)| format!("{name}: {value}");
            let lines: Vec<_> = answer.headers.iter().map(line).collect();
            let wanted = ["Upgrade: websocket", "Connection: Upgrade", &accept];
            assert_eq!(lines, wanted, "{request}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_with_something_wrong_is_refused() {
    let dyno = Dyno::start(&[]).await;
    let upgrade = upgrade_head("a", &[]);
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for (status, right, wrong) in [
        (426, "Connection: Upgrade\r\n", ""),
        (426, "Connection: Upgrade", "Connection: close"),
        (426, "Upgrade: websocket\r\n", ""),
        (426, "Upgrade: websocket", "Upgrade: h2c"),
        (426, "Sec-WebSocket-Version: 13\r\n", ""),
        (426, "Version: 13", "Version: 8"),
        (426, "HTTP/1.1", "HTTP/1.0"),
        (400, &key, ""),
        (400, &key, &key.repeat(2)),
        (400, KEY, ""),
        (400, KEY, "c2hvcnQ="),
        (400, KEY, &KEY.repeat(2)),
        (400, KEY, "!!!!IHNhbXBsZSBub25jZQ=="), // not base64
        (400, KEY, "dGhlIHNhbXBsZSBub25j"),     // 15 bytes, not 16
        (400, "\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc"),
    ] {
        let answer = answered(&dyno, upgrade.replace(right, wrong), status).await;
        for (name, value) in [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")] {
            let wanted = (status == 426).then_some(value);
            assert_eq!(answer.header(name), wanted, "{wrong:?} for {right:?}");
        }
    }
    let paths = "/wss /ws/ /ws// /ws/a/b /ws/a/ /ws/%61 /ws/.. /WS/0a1b2c3d /ws%2fa /x/ws";
    for path in paths.split(' ') {
        answered(&dyno, upgrade.replace("/ws", path), 404).await;
    }
}

#[tokio::test]
async fn a_head_and_frames_right_after_it_may_be_split_at_every_byte() {
    let dyno = Dyno::start(&[]).await;
    let upgrade = upgrade_head(&dyno.host(), &[]);
    let talk = json!({"kind": "talk", "message": "すぐ", "cid": "c1"}).to_string();
    let bytes = |room: &str| {
        let join = raw::frame(TEXT, join_frame(room, "花子", &token(), None).to_string());
        [upgrade.as_bytes(), &join, &raw::frame(TEXT, &talk)].concat()
    };
    join_all((1..=bytes("room 000").len()).map(async |at| {
        let what = format!("room {at:03}");
        let bytes = bytes(&what);
        let mut raw = Raw::request(dyno.addr(), &bytes[..at]).await;
        sleep(Duration::from_millis(30)).await;
        raw.send(&bytes[at..]).await;
        raw.switched().await;
        assert_eq!(raw.json().await["kind"], "welcome", "{what}");
        assert_eq!(raw.json().await["message"], "すぐ", "{what}");
    }))
    .await;
}
