//! HTTP/1.1 on the listener: the page and its files with their headers, the status of every refused request, and the
//! upgrade to a WebSocket, in whatever pieces its bytes come.

use crate::support::client::join_frame;
use crate::support::dyno::{program, refuses_to_boot};
use crate::support::facts::{JOIN_DEADLINE, MAX_HEAD, MAX_HEADERS};
use crate::support::raw::{self, ACCEPT, Answer, End, KEY, TEXT, head, http, upgrade_head};
use crate::support::{Dyno, PATIENCE, Raw, bound_to_us, descriptors, eventually, free_port, token};
use futures_util::future::join_all;
use serde_json::json;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

const FILES: [(&str, &str); 8] = [
    ("/", "text/html"),
    ("/chat.css", "text/css"),
    ("/chat.js", "javascript"),
    ("/common.js", "javascript"),
    ("/connection.js", "javascript"),
    ("/messages.js", "javascript"),
    ("/outgoing.js", "javascript"),
    ("/words.js", "javascript"),
];

/// The headers of an upgrade without its key.
const UPGRADE: [&str; 3] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
];

fn key(value: &str) -> String {
    format!("Sec-WebSocket-Key: {value}")
}

async fn get(dyno: &Dyno, path: &str, headers: &[&str]) -> Answer {
    let request = head(&format!("GET {path}"), &dyno.host(), headers);
    http(dyno.addr(), &request).await
}

/// The answer has one of these statuses, and the dyno goes on serving its page.
async fn answered(dyno: &Dyno, request: impl AsRef<str>, allowed: &[u16]) -> Answer {
    let request = request.as_ref();
    let shown: String = request.chars().take(200).collect();
    let answer = http(dyno.addr(), request).await;
    let status = answer.status;
    assert!(
        allowed.contains(&status),
        "{status} for {shown:?}, not {allowed:?}"
    );
    let page = get(dyno, "/", &[]).await;
    assert_eq!(page.status, 200, "the page after {shown:?}");
    answer
}

// ---- the page and its files

#[tokio::test]
async fn the_page_and_its_files_are_served_with_their_types() {
    let dyno = Dyno::start(&[]).await;
    for (path, kind) in FILES {
        let answer = get(&dyno, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}");
        let content_type = answer.expect_header("Content-Type").to_lowercase();
        for part in [kind, "utf-8"] {
            assert!(content_type.contains(part), "{path}: {content_type}");
        }
        let nosniff = answer.header_is("X-Content-Type-Options", "nosniff");
        assert!(nosniff, "{path}");
        assert!(!answer.body.is_empty(), "{path} has a body");
    }
    let page = get(&dyno, "/", &[]).await;
    let with_query = get(&dyno, "/?room=lobby", &[]).await;
    assert_eq!(with_query.body, page.body);
    for (path, _) in &FILES[1..] {
        assert!(page.text().contains(path), "the page loads {path}");
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let dyno = Dyno::start(&[]).await;
    let without_date = |mut answer: Answer| {
        let is_date = |name: &str| name.eq_ignore_ascii_case("date");
        answer.headers.retain(|(name, _)| !is_date(name));
        answer.headers
    };
    for path in ["/", "/chat.js", "/chat.css", "/healthz"] {
        let get = get(&dyno, path, &[]).await;
        let request = head(&format!("HEAD {path}"), &dyno.host(), &[]);
        let head = http(dyno.addr(), &request).await;
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(without_date(head), without_date(get), "{path}");
    }
}

#[tokio::test]
async fn the_page_allows_only_its_own_files_and_its_own_socket() {
    let dyno = Dyno::start(&[]).await;
    let page = get(&dyno, "/", &[]).await;
    let policy = page.expect_header("Content-Security-Policy");
    let directive = |name: &str| {
        let mut all = policy
            .split(';')
            .map(|d| d.split_whitespace().collect::<Vec<_>>());
        let found = all.find(|d| d.first() == Some(&name));
        found.unwrap_or_else(|| panic!("no {name} in {policy}"))[1..].to_vec()
    };
    for (name, sources) in [
        ("default-src", "'none'"),
        ("script-src", "'self'"),
        ("style-src", "'self'"),
    ] {
        assert_eq!(directive(name), [sources], "{name}");
    }
    let host = dyno.host();
    let connect = directive("connect-src");
    for source in ["'self'", &format!("ws://{host}"), &format!("wss://{host}")] {
        assert!(connect.contains(&source), "{source} in {connect:?}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    ] {
        assert_eq!(page.expect_header(name), value, "{name}");
    }
    // The policy names the host of the request.
    let page = http(dyno.addr(), &head("GET /", "chat.example", &[])).await;
    let policy = page.expect_header("Content-Security-Policy");
    assert!(policy.contains("wss://chat.example"), "{policy}");
}

#[tokio::test]
async fn hsts_is_sent_only_over_https() {
    let dyno = Dyno::start(&[]).await;
    const HSTS: &str = "Strict-Transport-Security";
    assert_eq!(get(&dyno, "/", &[]).await.header(HSTS), None);
    let over_https = get(&dyno, "/", &["X-Forwarded-Proto: https"]).await;
    assert_eq!(over_https.status, 200);
    assert!(over_https.expect_header(HSTS).contains("max-age="));
}

#[tokio::test]
async fn a_file_that_has_not_changed_is_answered_with_304() {
    let dyno = Dyno::start(&[]).await;
    let mut tags = vec![];
    for (path, _) in FILES {
        let answer = get(&dyno, path, &[]).await;
        let etag = answer.expect_header("ETag").to_string();
        let strong = etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2;
        assert!(strong, "{path}: {etag}");
        for (known, status, has_body) in [
            (etag.clone(), 304, false),
            (format!("\"other\", {etag}"), 304, false),
            (format!("W/{etag}"), 304, false),
            ("*".to_string(), 304, false),
            ("\"other\"".to_string(), 200, true),
        ] {
            let again = get(&dyno, path, &[&format!("If-None-Match: {known}")]).await;
            let seen = (again.status, !again.body.is_empty());
            assert_eq!(seen, (status, has_body), "{path}, known: {known}");
            assert_eq!(again.expect_header("ETag"), etag, "{path}");
        }
        tags.push(etag);
    }
    tags.dedup();
    assert_eq!(tags.len(), FILES.len(), "each file has its own tag");
}

#[tokio::test]
async fn healthz_answers_and_is_never_cached() {
    let dyno = Dyno::start(&[]).await;
    let health = get(&dyno, "/healthz", &[]).await;
    assert_eq!((health.status, health.header("ETag")), (200, None));
}

// ---- refused requests

#[tokio::test]
async fn unknown_paths_are_answered_with_404() {
    let dyno = Dyno::start(&[]).await;
    let paths = "/nope /index.html /chat.js/ /ws/ /healthz/x // /%2e%2e/etc/passwd /../etc/passwd \
        /.. /%2e /chat%2ejs /./chat.js //chat.js /chat.js/. /chat.js%00 /Chat.js /chat.js;a \
        /\\chat.js /ws%20";
    for path in paths.split_whitespace() {
        let request = head(&format!("GET {path}"), &dyno.host(), &[]);
        answered(&dyno, request, &[404]).await;
    }
}

#[tokio::test]
async fn other_methods_are_answered_with_405_and_the_allowed_ones() {
    let dyno = Dyno::start(&[]).await;
    let lines = "POST /|PUT /chat.js|DELETE /chat.css|PATCH /ws|OPTIONS /healthz|FOO /";
    for line in lines.split('|') {
        let answer = answered(&dyno, head(line, &dyno.host(), &[]), &[405]).await;
        let allow = answer.expect_header("Allow");
        assert!(allow.split(", ").any(|m| m == "GET"), "{line}: {allow}");
    }
}

/// Requests that two programs could read in two ways (request smuggling), and what is not HTTP.
#[tokio::test]
async fn malformed_and_ambiguous_requests_are_answered_with_400() {
    let dyno = Dyno::start(&[]).await;
    let mut headers: Vec<String> = [
        "Host: b",
        "Host: a",
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 0\r\nContent-Length: 0",
        "Transfer-Encoding: chunked\r\n\r\n0",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "transfer-encoding: xchunked",
        " folded: line",
        "NoColon",
    ]
    .map(String::from)
    .into();
    let lengths = ["5", "x", "-1", "+0", "-0", "0x0", "0, 0", "", "0\u{a0}"];
    headers.extend(lengths.map(|length| format!("Content-Length: {length}")));
    let codings = ["chunked", "\tchunked", "identity"];
    headers.extend(codings.map(|coding| format!("Transfer-Encoding: {coding}")));
    let before = [" ", "X: y\r\n\t", "X: y\n", "X: y\r", "X: y\r\r\n"];
    headers.extend(before.map(|before| format!("{before}Transfer-Encoding: chunked")));
    let others = ["X: y\u{b}z", "X: a\0b", "X\0: y", ": y", "X y", "\"X\": y"];
    headers.extend(others.map(String::from));
    for header in &headers {
        answered(&dyno, head("GET /", "a", &[header]), &[400]).await;
    }

    let special = ["<img>", "a\"b", "a@b", "a/b", "a?b", "a%20", "u@h.example"];
    let blanks = [
        "",
        "a, b",
        "a b",
        "a\tb",
        "a\u{a0}",
        "\u{3000}a",
        "caf\u{e9}",
    ];
    let policy = ["a.example; script-src *", "a.example script-src"];
    let hosts = [&special[..], &blanks, &policy, &["a.example,b.example"]];
    for host in hosts.concat() {
        answered(&dyno, head("GET /", host, &[]), &[400]).await;
    }

    let targets = [
        "/a b",
        " /",
        "/ HTTP/1.1",
        "/\u{1}",
        "/\0",
        "",
        "/\r",
        "http://a/",
    ];
    let mut lines = targets.map(|target| format!("GET {target}")).to_vec();
    let methods = ["GET\t/", " GET /", "\nGET /", "GET", "G\0T /"];
    lines.extend(methods.map(String::from));
    lines.extend(["CONNECT a:443", "OPTIONS *"].map(String::from));
    for line in &lines {
        answered(&dyno, head(line, "a", &[]), &[400]).await;
    }

    for version in ["1.2", "1", "1.1 ", "01.1", "2.0", "3.0", "1.\u{661}"] {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
        answered(&dyno, request, &[400]).await;
    }
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "hello\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        answered(&dyno, request, &[400]).await;
    }
    let body = head("POST /", "a", &["Content-Length: 5"]) + "hello";
    answered(&dyno, body, &[400, 405]).await;
}

#[tokio::test]
async fn unusual_valid_requests_are_answered_as_any_other() {
    let dyno = Dyno::start(&[]).await;
    for (line, headers, status) in [
        ("GET / HTTP/1.0", "", 200),
        ("GET / HTTP/1.0", "Host: a", 200),
        ("\r\n\r\nGET / HTTP/1.1", "Host: a", 200), // RFC 9112 §2.2
        ("GET /?a=%00&b=/../#c HTTP/1.1", "hOST:\ta \t", 200),
        ("GET / HTTP/1.1", "Host: [::1]:3000\r\nX-Empty:", 200),
        ("GET / HTTP/1.1", "Host: a\r\nX-Latin: caf\u{e9}", 200),
        ("GET / HTTP/1.1", "Host: a\r\nContent-Length: 0", 200),
        (
            "GET / HTTP/1.1",
            "Host: a\r\nExpect: 100-continue\r\nContent-Length: 00",
            200,
        ),
        (
            "GET / HTTP/1.1",
            "Host: a\r\nConnection: keep-alive\r\nConnection: x, close",
            200,
        ),
        (
            "GET /ws HTTP/1.0",
            "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket",
            426,
        ),
        ("HEAD /ws HTTP/1.1", "Host: a", 426),
        ("get / HTTP/1.1", "Host: a", 405),
    ] {
        let end = if headers.is_empty() {
            "\r\n"
        } else {
            "\r\n\r\n"
        };
        let request = format!("{line}\r\n{headers}{end}");
        answered(&dyno, request, &[status]).await;
    }
}

#[tokio::test]
async fn requests_of_browsers_and_routers_are_understood() {
    let dyno = Dyno::start(&[]).await;
    let key = key(KEY);
    let websocket = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", &key];
    let chrome = [
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        "Origin: https://chat.example",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: ja,en;q=0.9",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ];
    let firefox = [
        "Accept: */*",
        "Origin: https://chat.example",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Connection: keep-alive, Upgrade",
        "Sec-Fetch-Dest: empty",
        "Sec-Fetch-Mode: websocket",
        "Sec-Fetch-Site: same-origin",
    ];
    let nginx = [
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "Connection: upgrade",
    ];
    let haproxy = [
        "connection: Upgrade",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-proto: https",
        "x-forwarded-for: 192.0.2.2",
    ];
    let heroku = [
        "Connection: Upgrade",
        "X-Request-Id: 4d8f7f2e-7a1e-6d3b-0c64-4a3b1d7c9f10",
        "X-Forwarded-For: 198.51.100.7, 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "Via: 1.1 heroku-router",
        "X-Request-Start: 1732412345678",
    ];
    let several = [
        "Connection: keep-alive",
        "Connection: Upgrade",
        "Upgrade: h2c",
    ];
    for others in [&chrome[..], &firefox, &nginx, &haproxy, &heroku, &several] {
        let headers = [others, &websocket].concat();
        let request = head("GET /ws", "chat.example", &headers);
        let accepted = Raw::request(dyno.addr(), request).await.switched().await;
        let accept = accepted.expect_header("Sec-WebSocket-Accept");
        assert_eq!(accept, ACCEPT, "{others:?}");
        let request = head("GET /?room=lobby", "chat.example", others);
        let page = http(dyno.addr(), &request).await;
        assert_eq!(page.status, 200, "{others:?}");
    }
}

#[tokio::test]
async fn curl_gets_its_answers() {
    const ALWAYS: &str =
        "--silent --show-error --max-time 10 --output /dev/null --write-out %{http_code}";
    let dyno = Dyno::start(&[]).await;
    let url = format!("http://{}", dyno.host());
    let upload = format!("@{}", file!());
    // `|` separates the arguments, `UPLOAD` is a file.
    for (args, path, status) in [
        ("--compressed", "/", "200"),
        ("--head", "/chat.css", "200"),
        ("--http1.0", "/chat.js", "200"),
        ("--http2", "/", "200"),
        (
            "--header|Connection: keep-alive, TE|--header|TE: trailers",
            "/",
            "200",
        ),
        ("--path-as-is", "/../chat.js", "404"),
        ("--location|--post301|--data-binary|UPLOAD", "/", "405"),
        (
            "--header|Transfer-Encoding: chunked|--data-binary|UPLOAD",
            "/",
            "400",
        ),
        (
            "--header|Expect: 100-continue|--data-binary|UPLOAD",
            "/ws",
            "405",
        ),
        ("--request|GET|--data|body", "/", "400"),
        ("--request-target|http://elsewhere.example/", "/", "400"),
        ("--request|OPTIONS", "/", "405"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(ALWAYS.split(' '));
        curl.args(args.replace("UPLOAD", &upload).split('|'));
        let out = curl.arg(url.clone() + path).output();
        let out = out.expect("curl is needed: install the Debian package curl");
        let said =
            [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(said, [status, ""], "curl {args} {path}");
    }
}

#[tokio::test]
async fn a_head_above_the_limits_is_answered_with_431() {
    let dyno = Dyno::start(&[]).await;
    let long = |bytes: usize| {
        let header = format!("X-Long: {}", "x".repeat(bytes));
        head("GET /", &dyno.host(), &[&header])
    };
    let many = |count: usize| {
        let more: Vec<String> = (1..count).map(|i| format!("X-{i}: y")).collect();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        head("GET /", &dyno.host(), &more)
    };
    let around = long(0).len();
    let long_path = format!("GET /{}", "x".repeat(MAX_HEAD));
    for (what, request, status) in [
        ("cookies of other programs", long(8_100), 200),
        ("the longest head", long(MAX_HEAD - around), 200),
        ("one byte more", long(MAX_HEAD + 1 - around), 431),
        ("60,000 bytes", long(60_000), 431),
        ("a long path", head(&long_path, &dyno.host(), &[]), 431),
        ("the most headers", many(MAX_HEADERS), 200),
        ("one header more", many(MAX_HEADERS + 1), 431),
    ] {
        let answer = answered(&dyno, request, &[200, 431]).await;
        assert_eq!(answer.status, status, "{what}");
    }
}

#[tokio::test]
async fn a_megabyte_of_head_and_ten_thousand_headers_are_refused_or_cut() {
    let dyno = Dyno::start(&[]).await;
    let long = format!("X-Long: {}", "x".repeat(1 << 20));
    let many: String = (0..10_000).map(|i| format!("X-{i}: y\r\n")).collect();
    for header in [&long, many.trim_end()] {
        let request = head("GET /", &dyno.host(), &[header]);
        // A client that is still sending may be cut off before it reads the refusal.
        let (answer, end) = Raw::request(dyno.addr(), request)
            .await
            .rest(PATIENCE)
            .await;
        let refused = answer.starts_with(b"HTTP/1.1 431 ");
        let answer = String::from_utf8_lossy(&answer);
        assert!(refused || end == End::Reset, "{end:?} after {answer:?}");
        assert_eq!(get(&dyno, "/", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_thousand_incomplete_long_heads_take_little_memory_and_delay_nobody() {
    const HEADS: usize = 1_000;
    let _descriptors = descriptors(HEADS as u32 + 100).await;
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "2000")]).await;
    let before = dyno.rss_kb();
    let start = Instant::now();
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
    let served = get(&dyno, "/", &[&long]).await;
    assert_eq!(served.status, 200, "after {:?}", start.elapsed());
    let cut = heads
        .iter_mut()
        .map(|raw| raw.answer_to("GET", 2 * JOIN_DEADLINE));
    let statuses: Vec<u16> = join_all(cut).await.iter().map(|a| a.status).collect();
    assert_eq!(statuses, [408; HEADS]);
}

#[tokio::test]
async fn an_incomplete_head_is_cut_at_the_deadline_and_delays_nobody() {
    let dyno = Dyno::start(&[]).await;
    // Sends a part of a head at once, and the bytes of `drip` one by one.
    let incomplete = async |start_of_head: &str, drip: &[u8]| {
        let start = Instant::now();
        let mut raw = Raw::request(dyno.addr(), start_of_head).await;
        for byte in drip {
            raw.send([*byte]).await;
            sleep(JOIN_DEADLINE * 8 / 100).await; // 12 bytes in 9.6 s
        }
        let within = JOIN_DEADLINE + 5 * SECOND;
        if start_of_head.is_empty() && drip.is_empty() {
            let (answer, end) = raw.rest(within).await;
            let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 ");
            assert!(refused, "{:?}", String::from_utf8_lossy(&answer));
            assert_eq!(end, End::Eof);
        } else {
            let answer = raw.answer_to("GET", within).await;
            assert_eq!(answer.status, 408, "for {start_of_head:?}");
        }
        let took = start.elapsed();
        let expected = JOIN_DEADLINE - SECOND..JOIN_DEADLINE + 3 * SECOND;
        assert!(expected.contains(&took), "cut after {took:?}");
    };
    let others = async {
        for _ in 0..JOIN_DEADLINE.as_secs() {
            assert_eq!(get(&dyno, "/", &[]).await.status, 200);
            sleep(SECOND).await;
        }
    };
    tokio::join!(
        incomplete("", b""),
        incomplete("GET / HTTP/1.1\r\nHost: a\r\n", b""),
        incomplete("", b"GET / HTTP/1"),
        others,
    );
}

#[tokio::test]
async fn a_long_head_in_tiny_segments_is_served() {
    let dyno = Dyno::start(&[]).await;
    let cookies = format!("Cookie: {}", "x".repeat(MAX_HEAD - 60));
    let request = head("GET /", "a", &[&cookies]);
    let mut raw = Raw::connect(dyno.addr()).await;
    for segment in request.as_bytes().chunks(8) {
        raw.send(segment).await;
    }
    assert_eq!(raw.answer().await.status, 200);
}

#[tokio::test]
async fn plain_http_is_redirected_to_https_and_a_socket_is_refused_where_the_platform_sets_dyno() {
    let dyno = Dyno::start(&[("DYNO", "web.1")]).await;
    for path in ["/", "/?room=a%20b", "/chat.js", "/nope"] {
        for host in ["chat.example", "chat.example:80"] {
            let line = format!("GET {path}");
            let request = head(&line, host, &["X-Forwarded-Proto: http"]);
            let answer = answered(&dyno, request, &[308]).await;
            let expected = format!("https://chat.example{path}");
            assert_eq!(answer.expect_header("Location"), expected);
        }
    }
    let health = get(&dyno, "/healthz", &["X-Forwarded-Proto: http"]).await;
    assert_eq!(health.status, 200, "a check of health follows no redirect");
    let by = |scheme: &str| upgrade_head(&dyno.host(), &[&format!("X-Forwarded-Proto: {scheme}")]);
    answered(&dyno, by("http"), &[403]).await; // WebSocket clients do not follow redirects
    Raw::request(dyno.addr(), by("https"))
        .await
        .switched()
        .await;
}

/// A proxy in a network without https.
#[tokio::test]
async fn plain_http_is_served_without_dyno() {
    let dyno = Dyno::start(&[]).await;
    let http = "X-Forwarded-Proto: http";
    for path in ["/", "/?room=a%20b", "/chat.js", "/healthz"] {
        let answer = get(&dyno, path, &[http]).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("Strict-Transport-Security"), None, "{path}");
    }
    let request = upgrade_head(&dyno.host(), &[http]);
    Raw::request(dyno.addr(), request).await.switched().await;
}

#[tokio::test]
async fn the_last_forwarded_scheme_decides() {
    let dyno = Dyno::start(&[("DYNO", "web.1")]).await;
    for (schemes, status) in [
        (&["http", "https"][..], 200),
        (&["https", "http"], 308),
        (&["http, https"], 200),
        (&["https,http"], 308),
        (&["https, https", "http"], 308),
        (&["http", "http, HTTPS"], 200),
        (&["http", ""], 308),
        (&["https, "], 200),
        (&["ftp"], 200),
    ] {
        let lines: Vec<_> = schemes
            .iter()
            .map(|s| format!("X-Forwarded-Proto: {s}"))
            .collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let page = answered(&dyno, head("GET /", "chat.example", &lines), &[200, 308]).await;
        assert_eq!(page.status, status, "{schemes:?}");
        let hsts = page.header("Strict-Transport-Security").is_some();
        assert_eq!(hsts, status == 200 && schemes != ["ftp"], "{schemes:?}");
    }
}

#[tokio::test]
async fn a_second_request_in_the_same_packet_is_not_answered() {
    let dyno = Dyno::start(&[]).await;
    let two = head("GET /chat.css", &dyno.host(), &[]).repeat(2);
    let answer = http(dyno.addr(), &two).await; // checks the length: nothing follows
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_client_that_has_sent_a_fin_gets_its_answer() {
    let dyno = Dyno::start(&[]).await;
    let request = head("GET /", &dyno.host(), &[]);
    let mut raw = Raw::request(dyno.addr(), request).await;
    raw.finish().await;
    assert_eq!(raw.answer().await.status, 200);
}

// ---- origins

#[tokio::test]
async fn a_browser_may_open_a_socket_only_from_the_own_page_or_an_allowed_origin() {
    let allowed = "https://friend.example,https://other.example:8443, HTTPS://Shop.Example:443,http://[2001:DB8::1]:80";
    let dyno = Dyno::start(&[("ALLOWED_ORIGINS", allowed)]).await;
    let own = dyno.host();
    let own_origin = format!("http://{own}");
    for (host, origin, status) in [
        (&*own, &*own_origin, 101),
        ("chat.example", "https://chat.example", 101),
        ("Chat.Example", "https://chat.example", 101),
        ("chat.example:8080", "http://chat.example:8080", 101),
        ("chat.example:443", "https://chat.example", 101),
        ("chat.example", "https://chat.example:443", 101),
        ("CHAT.example:80", "http://chat.Example", 101),
        ("[2001:db8::2]:443", "https://[2001:db8::2]", 101),
        (&own, "https://shop.example", 101),
        (&own, "http://[2001:db8::1]", 101),
        (&own, "https://friend.example", 101),
        (&own, "https://other.example:8443", 101),
        ("chat.example:80", "https://chat.example", 403),
        ("chat.example:443", "http://chat.example", 403),
        ("chat.example:443", "https://chat.example:444", 403),
        ("chat.example:4430", "https://chat.example", 403),
        ("chat.example", "ftp://chat.example", 403),
        ("chat.example", "chat.example", 403),
        (&own, "http://shop.example", 403),
        (&own, "https://shop.example:444", 403),
        (&own, "https://evil.example", 403),
        (&own, "null", 403),
        (&own, "", 403),
        ("chat.example", "https://chat.example.evil.example", 403),
        ("chat.example", "https://evil.example/chat.example", 403),
        ("chat.example", "https://xchat.example", 403),
        ("chat.example", "https://chat.example:444", 403),
        (&own, "https://sub.friend.example", 403),
        (&own, "https://other.example", 403),
    ] {
        let request = upgrade_head(host, &[&format!("Origin: {origin}")]);
        let mut raw = Raw::request(dyno.addr(), request).await;
        let seen = match status {
            101 => raw.switched().await.status,
            _ => raw.answer().await.status,
        };
        assert_eq!(seen, status, "Host {host}, Origin {origin}");
    }
}

#[tokio::test]
async fn a_refused_origin_is_logged_once_with_host_and_setting() {
    let dyno = Dyno::start(&[]).await;
    let long = format!("https://{}.example", "x".repeat(9_000));
    let origins = ["https://a\u{1b}\"b\".example", &long, "null"];
    for (n, origin) in origins.iter().enumerate() {
        let request = upgrade_head("127.0.0.1:3000", &[&format!("Origin: {origin}")]);
        let status = answered(&dyno, request, &[403, 400]).await.status;
        assert_eq!(status == 403, n > 0, "control characters are no header");
    }
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
    let words = [
        "origin=\"https://xxx",
        "host=\"127.0.0.1:3000\"",
        "ALLOWED_ORIGINS",
    ];
    for word in words {
        assert!(warnings[0].contains(word), "{word} in:\n{log}");
    }
    assert!(warnings[0].len() < 600, "a long value is cut:\n{log}");
}

#[tokio::test]
async fn an_allowed_origin_that_no_browser_sends_stops_the_boot_and_an_example_is_shown() {
    let bad = [
        "https://*.example.com",
        "*",
        "null",
        "https://chat.example.com/",
        "https://chat.example.com/chat",
        "https://chat.example.com?a",
        "https://chat.example.com#a",
        "https://hanako:hunter2@chat.example.com",
        "https://hanako@chat.example.com",
        "chat.example.com",
        "//chat.example.com",
        "https:chat.example.com",
        "https:///chat.example.com",
        "https://",
        "https://:443",
        "https://chat.example.com:",
        "https://chat.example.com:0443",
        "https://chat.example.com:65536",
        "https://chat.example.com:port",
        "https://チャット.example",
        "https://chat example.com",
        "https://chat%2eexample.com",
        "http://127.1",
        "http://0x7f000001",
        "http://[0:0:0:0:0:0:0:1]",
        "http://[::1%25eth0]",
        "http://::1",
        "wss://chat.example.com",
        "ftp://chat.example.com",
        "file://",
        "https://chat.example.com;https://b.example",
        "https://chat.example.com https://b.example",
        "https://chat.example.com,",
        "https://chat.example.com,,https://b.example",
        "\"https://chat.example.com\"",
    ];
    join_all(bad.iter().map(async |value| {
        let (status, said) = refuses_to_boot(&[("ALLOWED_ORIGINS", value)]).await;
        assert_eq!(status.code(), Some(1), "{value}: {said}");
        assert!(!said.contains("hunter2"), "a password: {said}");
        let shown = value.rsplit_once('@').map_or(*value, |(_, host)| host);
        let shown = shown.split(',').nth(1).unwrap_or(shown); // the second one of a list
        let shown = format!("{shown:?}").split_off(1);
        for word in ["ALLOWED_ORIGINS", &shown, "like https://chat.example.com"] {
            assert!(said.contains(word), "{value}: {word:?} in: {said}");
        }
        assert_eq!(said.lines().count(), 1, "one line: {said}");
    }))
    .await;
    for good in [
        "http://localhost:8080",
        "HTTPS://Chat.Example.com",
        "https://xn--gckc5l.example:443 , http://[::1]:3000",
        "http://192.0.2.1",
        "https://my_host-1.example",
    ] {
        Dyno::start(&[("ALLOWED_ORIGINS", good)]).await;
    }
}

// ---- the port

#[tokio::test]
async fn a_port_that_is_taken_on_one_address_stops_the_boot() {
    for addr in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
        let addr: IpAddr = addr.parse().expect("an address");
        let port = free_port();
        let taken = match std::net::TcpListener::bind((addr, port)) {
            Ok(listener) => listener,
            Err(e) if addr.is_ipv6() => {
                println!("left out: there is no IPv6 here ({e})");
                continue;
            }
            Err(e) => panic!("{addr}: {e}"),
        };
        let port = port.to_string();
        let (status, said) = refuses_to_boot(&[("PORT", &port)]).await;
        assert_eq!(status.code(), Some(1), "{addr}: {said}");
        assert!(
            said.contains(&port) && said.contains("in use"),
            "{addr}: {said}"
        );
        drop(taken);
    }
}

#[tokio::test]
async fn ipv4_and_ipv6_are_served_also_where_the_system_separates_them() {
    let dyno = Dyno::start(&[]).await;
    assert_eq!(get(&dyno, "/", &[]).await.status, 200);
    match TcpStream::connect((Ipv6Addr::LOCALHOST, dyno.port)).await {
        Ok(_) => {}
        Err(e) => return println!("left out: there is no IPv6 here ({e})"),
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
    let offers = [
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Protocol: chat",
    ];
    let request = upgrade_head(&dyno.host(), &offers);
    let answer = Raw::request(dyno.addr(), request).await.switched().await;
    assert_eq!(answer.expect_header("Sec-WebSocket-Accept"), ACCEPT);
    assert!(answer.header_is("Upgrade", "websocket"));
    assert!(answer.header_is("Connection", "upgrade"));
    for absent in [
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Protocol",
        "Content-Length",
    ] {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn headers_of_an_upgrade_may_be_written_in_any_case() {
    let dyno = Dyno::start(&[]).await;
    let key = format!("sec-websocket-key: {KEY}");
    let lists = "Upgrade|upgrade|keep-alive, Upgrade|UPGRADE,keep-alive";
    for connection in lists.split('|') {
        for upgrade in ["websocket", "WebSocket"] {
            let connection = format!("connection: {connection}");
            let upgrade = format!("UPGRADE: {upgrade}");
            let headers = [&*connection, &*upgrade, "sec-websocket-VERSION: 13", &key];
            let request = head("GET /ws?x=1", &dyno.host(), &headers);
            let answer = Raw::request(dyno.addr(), request).await.switched().await;
            let accept = answer.expect_header("Sec-WebSocket-Accept");
            assert_eq!(accept, ACCEPT, "{connection} {upgrade}");
        }
    }
}

#[tokio::test]
async fn the_path_of_the_socket_may_go_on_with_one_word() {
    let dyno = Dyno::start(&[]).await;
    let [connection, upgrade, version] = UPGRADE;
    let key = key(KEY);
    let headers = [connection, upgrade, version, &key];
    for path in "/ws /ws?c /ws/0a1b2c3d /ws/0a1b2c3d?c".split(' ') {
        let request = head(&format!("GET {path}"), &dyno.host(), &headers);
        let answer = Raw::request(dyno.addr(), request).await.switched().await;
        assert_eq!(answer.expect_header("Sec-WebSocket-Accept"), ACCEPT);
        let without_upgrade = get(&dyno, path, &[]).await;
        assert_eq!(without_upgrade.status, 426, "{path}");
    }
    for path in
        "/wss /ws/ /ws// /ws/a/b /ws/a/ /ws/%61 /ws/.. /WS/0a1b2c3d /ws%2fa /x/ws".split(' ')
    {
        assert_eq!(get(&dyno, path, &headers).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_request_for_the_socket_without_an_upgrade_is_answered_with_426() {
    let dyno = Dyno::start(&[]).await;
    let key = key(KEY);
    let [connection, upgrade, version] = UPGRADE;
    for headers in [
        vec![],
        vec![connection, upgrade, "Sec-WebSocket-Version: 8", &key],
        vec![connection, upgrade, &key],
        vec![upgrade, version, &key],
        vec![connection, version, &key],
        vec!["Connection: close", upgrade, version, &key],
        vec![connection, "Upgrade: h2c", version, &key],
    ] {
        let answer = get(&dyno, "/ws", &headers).await;
        assert_eq!(answer.status, 426, "{headers:?}");
        for (name, value) in [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")] {
            assert!(answer.header_is(name, value), "{name} for {headers:?}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_with_a_bad_key_a_body_or_http_1_0_is_refused() {
    let dyno = Dyno::start(&[]).await;
    for keys in [
        vec![],
        vec![key("")],
        vec![key("c2hvcnQ=")],
        vec![key(&KEY.repeat(2))],
        vec![key("!!!!IHNhbXBsZSBub25jZQ==")], // not base64
        vec![key("dGhlIHNhbXBsZSBub25j")],     // 15 bytes, not 16
        vec![key(KEY), key(KEY)],
    ] {
        let mut headers = UPGRADE.to_vec();
        headers.extend(keys.iter().map(String::as_str));
        let request = head("GET /ws", &dyno.host(), &headers);
        answered(&dyno, request, &[400]).await;
    }
    let with_body = upgrade_head(&dyno.host(), &["Content-Length: 3"]) + "abc";
    answered(&dyno, with_body, &[400]).await;
    let http_1_0 = upgrade_head(&dyno.host(), &[]).replace("HTTP/1.1", "HTTP/1.0");
    answered(&dyno, http_1_0, &[400, 426, 505]).await;
}

#[tokio::test]
async fn a_head_may_be_split_at_every_byte() {
    let dyno = Dyno::start(&[]).await;
    let whole = upgrade_head(&dyno.host(), &[]);
    join_all((1..whole.len()).map(async |at| {
        let mut raw = Raw::request_split(dyno.addr(), whole.as_bytes(), at).await;
        raw.switched().await;
    }))
    .await;
    let mut raw = Raw::connect(dyno.addr()).await;
    for byte in whole.bytes() {
        raw.send([byte]).await;
        sleep(Duration::from_millis(1)).await;
    }
    raw.switched().await;
}

#[tokio::test]
async fn frames_right_after_the_head_are_read() {
    let dyno = Dyno::start(&[]).await;
    let head = upgrade_head(&dyno.host(), &[]);
    let join = |room: &str| join_frame(room, "花子", &token(), None).to_string();
    let talk = json!({"kind": "talk", "message": "すぐ", "cid": "c1"}).to_string();
    // The name of the split, and its place by the length of the head and of all bytes.
    type Place = fn(usize, usize) -> usize;
    let splits: [(&str, Place); 6] = [
        ("nowhere", |_, all| all),
        ("before the end of the head", |head, _| head - 1),
        ("after the head", |head, _| head),
        ("inside a frame's header", |head, _| head + 1),
        ("inside a frame", |head, _| head + 60),
        ("before the last byte", |_, all| all - 1),
    ];
    for (n, (split, place)) in splits.into_iter().enumerate() {
        let join = raw::frame(TEXT, join(&format!("room {n}")));
        let bytes = [head.as_bytes(), &join, &raw::frame(TEXT, &talk)].concat();
        let at = place(head.len(), bytes.len());
        let mut raw = Raw::request_split(dyno.addr(), &bytes, at).await;
        raw.switched().await;
        assert_eq!(raw.json().await["kind"], "welcome", "split {split}");
        assert_eq!(raw.json().await["message"], "すぐ", "split {split}");
    }
}

#[tokio::test]
async fn connections_above_the_maximum_get_busy_and_1013() {
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "2")]).await;
    let hanako = dyno.join("lobby", "花子").await;
    let _taro = dyno.join("lobby", "太郎").await;
    let mut third = dyno.connect().await;
    third.expect_error("busy").await;
    third.expect_close(1013).await;
    hanako.quit().await;
    eventually("a place is free again", PATIENCE, async || {
        let (_, answer) = Raw::asked_to_join(&dyno, "lobby", "次郎").await;
        match answer["kind"] == "welcome" {
            true => Ok(()),
            false => Err(answer),
        }
    })
    .await;
}
