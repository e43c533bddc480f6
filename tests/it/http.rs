//! Proves that the hand-rolled listener speaks enough HTTP/1.1, and no more: the page and its files with the headers
//! of DESIGN §6, every refusal with its status and a clean end, and the upgrade, however its bytes arrive.

use crate::support::client::join_frame;
use crate::support::raw::{self, ACCEPT, Answer, End, KEY, TEXT, head, http, upgrade_head};
use crate::support::{Dyno, PATIENCE, Raw, token};
use serde_json::json;
use std::time::Duration;

const FILES: [(&str, &str); 3] = [
    ("/", "text/html"),
    ("/chat.js", "javascript"),
    ("/chat.css", "text/css"),
];

async fn get(dyno: &Dyno, path: &str, headers: &[&str]) -> Answer {
    http(
        dyno.addr(),
        &head(&format!("GET {path}"), &dyno.host(), headers),
    )
    .await
}

/// The status of whatever is sent, when it is one of these; then the dyno must still serve its page.
async fn refused_with(dyno: &Dyno, bytes: impl AsRef<[u8]>, allowed: &[u16]) {
    let shown =
        String::from_utf8_lossy(&bytes.as_ref()[..bytes.as_ref().len().min(200)]).into_owned();
    let mut raw = Raw::connect(dyno.addr()).await;
    raw.send(bytes).await;
    let answer = raw.answer().await;
    assert!(
        allowed.contains(&answer.status),
        "{} for {shown:?}, allowed {allowed:?}",
        answer.status
    );
    assert_eq!(
        get(dyno, "/", &[]).await.status,
        200,
        "the page is served after {shown:?}"
    );
}

// ---- the page and its files

#[tokio::test]
async fn the_page_and_its_files_are_served_with_their_types() {
    let dyno = Dyno::start(&[]).await;
    for (path, kind) in FILES {
        let answer = get(&dyno, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}");
        let content_type = answer.expect_header("Content-Type");
        assert!(content_type.contains(kind), "{path} is {content_type}");
        assert!(
            content_type.to_ascii_lowercase().contains("utf-8"),
            "{path} is {content_type}"
        );
        assert_eq!(
            answer.expect_header("X-Content-Type-Options"),
            "nosniff",
            "{path}"
        );
        assert!(!answer.body.is_empty(), "{path} has a body");
    }
    let page = get(&dyno, "/", &[]).await;
    assert_eq!(
        get(&dyno, "/?room=lobby", &[]).await.body,
        page.body,
        "a query does not matter"
    );
    for file in ["chat.js", "chat.css"] {
        assert!(page.text().contains(file), "the page asks for {file}");
    }
}

#[tokio::test]
async fn head_gives_the_headers_of_get_and_no_body() {
    let dyno = Dyno::start(&[]).await;
    for path in ["/", "/chat.js", "/chat.css", "/healthz"] {
        let get = get(&dyno, path, &[]).await;
        let head = http(
            dyno.addr(),
            &head(&format!("HEAD {path}"), &dyno.host(), &[]),
        )
        .await;
        assert_eq!(head.status, 200, "{path}");
        let plain = |a: &Answer| {
            a.headers
                .iter()
                .filter(|(n, _)| !n.eq_ignore_ascii_case("date"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            plain(&head),
            plain(&get),
            "{path}: the same headers, the length included"
        );
    }
}

#[tokio::test]
async fn the_page_allows_only_its_own_files_and_its_own_socket() {
    let dyno = Dyno::start(&[]).await;
    let page = get(&dyno, "/", &[]).await;
    let host = dyno.host();
    let policy = page.expect_header("Content-Security-Policy");
    let directives: Vec<Vec<&str>> = policy
        .split(';')
        .map(|d| d.split_whitespace().collect())
        .collect();
    let directive = |name: &str| {
        let found = directives.iter().find(|d| d.first() == Some(&name));
        found.unwrap_or_else(|| panic!("no {name} in {policy}"))[1..].to_vec()
    };
    assert_eq!(directive("default-src"), ["'none'"]);
    assert_eq!(directive("script-src"), ["'self'"]);
    assert_eq!(directive("style-src"), ["'self'"]);
    let connect = directive("connect-src");
    for source in ["'self'", &format!("ws://{host}"), &format!("wss://{host}")] {
        assert!(connect.contains(&source), "{source} in {connect:?}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.expect_header("Referrer-Policy"), "no-referrer");
    assert_eq!(
        page.expect_header("Cross-Origin-Opener-Policy"),
        "same-origin"
    );
}

#[tokio::test]
async fn the_policy_names_the_host_the_page_was_asked_at_and_nothing_smuggled_in_with_it() {
    let dyno = Dyno::start(&[]).await;
    let page = http(dyno.addr(), &head("GET /", "chat.example", &[])).await;
    let policy = page.expect_header("Content-Security-Policy");
    assert!(policy.contains("wss://chat.example"), "{policy}");
    for host in [
        "a.example; script-src *",
        "a.example script-src",
        "a.example,b.example",
        "<img>",
        "a\"b",
        "u@h.example",
        "a/b",
    ] {
        refused_with(&dyno, head("GET /", host, &[]), &[400]).await;
    }
}

#[tokio::test]
async fn strict_transport_is_asked_for_only_behind_https() {
    let dyno = Dyno::start(&[]).await;
    assert_eq!(
        get(&dyno, "/", &[])
            .await
            .header("Strict-Transport-Security"),
        None
    );
    let behind = get(&dyno, "/", &["X-Forwarded-Proto: https"]).await;
    assert_eq!(behind.status, 200);
    assert!(
        behind
            .expect_header("Strict-Transport-Security")
            .contains("max-age=")
    );
}

#[tokio::test]
async fn a_page_that_has_not_changed_is_not_sent_again() {
    let dyno = Dyno::start(&[]).await;
    let mut tags = vec![];
    for (path, _) in FILES {
        let etag = get(&dyno, path, &[])
            .await
            .expect_header("ETag")
            .to_string();
        assert!(
            etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2,
            "{path}: a strong tag, not {etag}"
        );
        for known in [
            etag.clone(),
            format!("\"other\", {etag}"),
            format!("W/{etag}"),
            "*".to_string(),
        ] {
            let again = get(&dyno, path, &[&format!("If-None-Match: {known}")]).await;
            assert_eq!(again.status, 304, "{path} with If-None-Match: {known}");
            assert_eq!(again.expect_header("ETag"), etag, "{path}");
        }
        let changed = get(&dyno, path, &["If-None-Match: \"other\""]).await;
        assert_eq!(
            (changed.status, changed.body.is_empty()),
            (200, false),
            "{path}"
        );
        tags.push(etag);
    }
    tags.dedup();
    assert_eq!(tags.len(), FILES.len(), "each file has its own tag");
}

#[tokio::test]
async fn healthz_answers() {
    let dyno = Dyno::start(&[]).await;
    let health = get(&dyno, "/healthz", &[]).await;
    assert_eq!(health.status, 200);
    assert_eq!(
        health.header("ETag"),
        None,
        "health is never taken from a cache"
    );
}

// ---- refusals

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let dyno = Dyno::start(&[]).await;
    for path in [
        "/nope",
        "/index.html",
        "/chat.js/",
        "/ws/",
        "/healthz/x",
        "//",
        "/%2e%2e/etc/passwd",
        "/../etc/passwd",
    ] {
        refused_with(
            &dyno,
            head(&format!("GET {path}"), &dyno.host(), &[]),
            &[404],
        )
        .await;
    }
}

#[tokio::test]
async fn other_methods_are_not_allowed_and_the_answer_says_which_are() {
    let dyno = Dyno::start(&[]).await;
    for line in [
        "POST /",
        "PUT /chat.js",
        "DELETE /chat.css",
        "OPTIONS /healthz",
        "PATCH /ws",
        "FOO /",
    ] {
        let answer = http(dyno.addr(), &head(line, &dyno.host(), &[])).await;
        assert_eq!(answer.status, 405, "{line}");
        let allow = answer.expect_header("Allow");
        assert!(
            allow.split(", ").any(|m| m == "GET"),
            "{line}: Allow: {allow}"
        );
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_refused() {
    let dyno = Dyno::start(&[]).await;
    let host = dyno.host();
    let with = |headers: &[&str], body: &str| head("GET /", &host, headers) + body;
    refused_with(&dyno, with(&["Content-Length: 5"], "hello"), &[400]).await;
    refused_with(
        &dyno,
        with(&["Transfer-Encoding: chunked"], "0\r\n\r\n"),
        &[400],
    )
    .await;
    refused_with(
        &dyno,
        with(&["Content-Length: 0", "Content-Length: 0"], ""),
        &[400],
    )
    .await;
    refused_with(&dyno, with(&["Content-Length: x"], ""), &[400]).await;
    refused_with(&dyno, with(&["Content-Length: -1"], ""), &[400]).await;
    refused_with(
        &dyno,
        head("POST /", &host, &["Content-Length: 5"]) + "hello",
        &[400, 405],
    )
    .await;
    let empty = http(dyno.addr(), &with(&["Content-Length: 0"], "")).await;
    assert_eq!(empty.status, 200, "a body of no bytes is none");
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let dyno = Dyno::start(&[]).await;
    refused_with(&dyno, "GET / HTTP/1.1\r\n\r\n", &[400]).await;
    refused_with(
        &dyno,
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        &[400],
    )
    .await;
    refused_with(&dyno, "GET / HTTP/1.1\r\nHost:\r\n\r\n", &[400]).await;
}

#[tokio::test]
async fn a_head_that_is_no_http_is_refused() {
    let dyno = Dyno::start(&[]).await;
    for bad in [
        "hello\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: line\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nNoColon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        refused_with(&dyno, bad, &[400]).await;
    }
}

#[tokio::test]
async fn odd_but_lawful_heads_have_their_answers() {
    let dyno = Dyno::start(&[]).await;
    for (bytes, status) in [
        ("GET / HTTP/1.0\r\n\r\n", 200),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", 200),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200), // RFC 9112 §2.2
        ("GET /?a=%00&b=/../#c HTTP/1.1\r\nhOST:\ta \t\r\n\r\n", 200),
        (
            "GET / HTTP/1.1\r\nHost: [::1]:3000\r\nX-Empty:\r\n\r\n",
            200,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Latin: caf\u{e9}\r\n\r\n",
            200,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 00\r\n\r\n",
            200,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: x, close\r\n\r\n",
            200,
        ),
        (
            "GET /ws HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            426,
        ),
        ("HEAD /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ] {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(bytes).await;
        let answer = raw.answer_to(
            bytes.trim_start().split(' ').next().unwrap_or_default(),
            PATIENCE,
        );
        assert_eq!(answer.await.status, status, "{bytes:?}");
    }
}

#[tokio::test]
async fn what_two_programs_could_read_differently_is_refused() {
    let dyno = Dyno::start(&[]).await;
    let lines = [
        "Host: b",
        "Content-Length: 5",
        "Content-Length: +0",
        "Content-Length: -0",
        "Content-Length: 0x0",
        "Content-Length: 0, 0",
        "Content-Length:",
        "Content-Length: 0\u{a0}",
        "Content-Length: 0\r\nContent-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: identity",
        "transfer-encoding: xchunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "X: y\u{b}z",
        "X\0: y",
        ": y",
        "X y",
        "\"X\": y",
    ];
    for line in lines {
        refused_with(&dyno, head("GET /", "a", &[line]), &[400]).await;
    }
    for host in [
        "a, b",
        "a b",
        "a\tb",
        "a\u{a0}",
        "\u{3000}a",
        "a@b",
        "a/b",
        "a?b",
        "a%20",
        "caf\u{e9}",
    ] {
        refused_with(&dyno, head("GET /", host, &[]), &[400]).await;
    }
    for line in [
        "GET /a b",
        "GET\t/",
        "GET / HTTP/1.1",
        "GET /\u{1}",
        "GET ",
        " GET /",
        "\nGET /",
        "GET",
        "G\0T /",
        "GET /\r",
    ] {
        refused_with(&dyno, head(line, "a", &[]), &[400]).await;
    }
    for version in [
        "HTTP/1.2",
        "HTTP/1",
        "HTTP/1.1 ",
        "HTTP/01.1",
        "http/1.1",
        "HTTP/3.0",
        "HTTP/1.\u{661}",
    ] {
        refused_with(&dyno, format!("GET / {version}\r\nHost: a\r\n\r\n"), &[400]).await;
    }
    for path in [
        "/..",
        "/%2e",
        "/chat%2ejs",
        "/./chat.js",
        "//chat.js",
        "/chat.js/.",
        "/chat.js%00",
        "/Chat.js",
        "/chat.js;a",
        "/\\chat.js",
        "/ws%20",
    ] {
        refused_with(&dyno, head(&format!("GET {path}"), "a", &[]), &[404]).await;
    }
}

#[tokio::test]
async fn what_browsers_and_routers_send_is_understood() {
    let dyno = Dyno::start(&[]).await;
    let key = format!("Sec-WebSocket-Key: {KEY}");
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
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(head(
            "GET /ws",
            "chat.example",
            &[others, &websocket].concat(),
        ))
        .await;
        assert_eq!(
            raw.switched().await.expect_header("Sec-WebSocket-Accept"),
            ACCEPT,
            "{others:?}"
        );
        let page = http(
            dyno.addr(),
            &head("GET /?room=lobby", "chat.example", others),
        )
        .await;
        assert_eq!(page.status, 200, "{others:?}");
    }
}

#[tokio::test]
async fn curl_gets_what_it_asks_for_and_no_more() {
    let dyno = Dyno::start(&[]).await;
    let url = format!("http://{}", dyno.host());
    let upload = format!("@{}", file!());
    for (args, path, status) in [
        (&["--compressed"][..], "/", "200"),
        (&["--head"], "/chat.css", "200"),
        (&["--http1.0"], "/chat.js", "200"),
        (&["--http2"], "/", "200"),
        (
            &[
                "--header",
                "Connection: keep-alive, TE",
                "--header",
                "TE: trailers",
            ],
            "/",
            "200",
        ),
        (&["--path-as-is"], "/../chat.js", "404"),
        (
            &["--location", "--post301", "--data-binary", &upload],
            "/",
            "405",
        ),
        (
            &[
                "--header",
                "Transfer-Encoding: chunked",
                "--data-binary",
                &upload,
            ],
            "/",
            "400",
        ),
        (
            &["--header", "Expect: 100-continue", "--data-binary", &upload],
            "/ws",
            "405",
        ),
        (&["--request", "GET", "--data", "body"], "/", "400"),
        (
            &["--request-target", "http://elsewhere.example/"],
            "/",
            "400",
        ),
        (&["--request", "OPTIONS"], "/", "405"),
    ] {
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        let out = curl.args(args).arg(url.clone() + path).output();
        let out = out.expect("curl is needed: install the Debian package curl");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(
            (String::from_utf8_lossy(&out.stdout).as_ref(), said.as_ref()),
            (status, ""),
            "curl {args:?} {path}"
        );
    }
}

#[tokio::test]
async fn a_head_that_is_too_big_is_refused_and_the_refusal_arrives() {
    let dyno = Dyno::start(&[]).await;
    let long = |bytes: usize| {
        head(
            "GET /",
            &dyno.host(),
            &[&format!("X-Long: {}", "x".repeat(bytes))],
        )
    };
    let frame = long(0).len();
    assert_eq!(
        http(dyno.addr(), &long(8192 - frame)).await.status,
        200,
        "8 KiB are read"
    );
    refused_with(&dyno, long(8193 - frame), &[431]).await;
    refused_with(&dyno, long(60_000), &[431]).await;
    refused_with(
        &dyno,
        head(&format!("GET /{}", "x".repeat(9_000)), &dyno.host(), &[]),
        &[431],
    )
    .await;
}

#[tokio::test]
async fn a_megabyte_of_head_and_ten_thousand_headers_hurt_nobody() {
    let dyno = Dyno::start(&[]).await;
    let lines: String = (0..10_000).map(|i| format!("X-{i}: y\r\n")).collect();
    let huge = [
        head(
            "GET /",
            &dyno.host(),
            &[&format!("X-Long: {}", "x".repeat(1 << 20))],
        ),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"),
    ];
    for bytes in huge {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(&bytes).await;
        // Whoever goes on sending for long may be cut off before reading the refusal.
        let (answer, end) = raw.rest(PATIENCE).await;
        let refused = answer.starts_with(b"HTTP/1.1 431 ");
        assert!(
            refused || end == End::Reset,
            "{end:?} after {:?}",
            String::from_utf8_lossy(&answer)
        );
        assert_eq!(get(&dyno, "/", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn sixty_four_headers_are_read_and_one_more_is_too_many() {
    let dyno = Dyno::start(&[]).await;
    let many = |count: usize| {
        let more: Vec<String> = (1..count).map(|i| format!("X-{i}: y")).collect();
        head(
            "GET /",
            &dyno.host(),
            &more.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    assert_eq!(http(dyno.addr(), &many(64)).await.status, 200);
    refused_with(&dyno, many(65), &[431]).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_waited_for_ten_seconds() {
    let dyno = Dyno::start(&[]).await;
    let cut_between = |start: std::time::Instant| {
        let took = start.elapsed();
        assert!(
            (Duration::from_secs(9)..Duration::from_secs(13)).contains(&took),
            "cut after {took:?}"
        );
    };
    let silent = async {
        let start = std::time::Instant::now();
        let mut raw = Raw::connect(dyno.addr()).await;
        let (answer, end) = raw.rest(Duration::from_secs(15)).await;
        let said = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408 "),
            "{said}"
        );
        assert_eq!(end, End::Eof, "a connection that says nothing is closed");
        cut_between(start);
    };
    let half = async {
        let start = std::time::Instant::now();
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        assert_eq!(
            raw.answer_to("GET", Duration::from_secs(15)).await.status,
            408
        );
        cut_between(start);
    };
    let drip = async {
        let start = std::time::Instant::now();
        let mut raw = Raw::connect(dyno.addr()).await;
        for byte in "GET / HTTP/1.1\r\n".bytes().take(12) {
            raw.send([byte]).await; // a byte a second does not move the deadline
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        assert_eq!(
            raw.answer_to("GET", Duration::from_secs(15)).await.status,
            408
        );
        cut_between(start);
    };
    let others = async {
        for _ in 0..10 {
            assert_eq!(
                get(&dyno, "/", &[]).await.status,
                200,
                "others are served meanwhile"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(silent, half, drip, others);
}

#[tokio::test]
async fn plain_http_is_sent_to_https_but_a_socket_is_refused() {
    let dyno = Dyno::start(&[]).await;
    for path in ["/", "/?room=a%20b", "/chat.js", "/nope"] {
        let head = head(
            &format!("GET {path}"),
            "chat.example",
            &["X-Forwarded-Proto: http"],
        );
        let answer = http(dyno.addr(), &head).await;
        assert_eq!(answer.status, 308, "{path}");
        assert_eq!(
            answer.expect_header("Location"),
            format!("https://chat.example{path}")
        );
    }
    let mut raw = Raw::connect(dyno.addr()).await;
    raw.send(upgrade_head(&dyno.host(), &["X-Forwarded-Proto: http"]))
        .await;
    assert_eq!(raw.answer().await.status, 403, "sockets follow no redirect");
    let mut raw = Raw::connect(dyno.addr()).await;
    raw.send(upgrade_head(&dyno.host(), &["X-Forwarded-Proto: https"]))
        .await;
    raw.switched().await;
}

#[tokio::test]
async fn a_second_head_in_the_same_packet_is_not_answered() {
    let dyno = Dyno::start(&[]).await;
    let mut raw = Raw::connect(dyno.addr()).await;
    let one = head("GET /chat.css", &dyno.host(), &[]);
    raw.send(one.repeat(2)).await;
    let answer = raw.answer().await; // checks that the length is exact: nothing follows
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_plain_answer_arrives_even_if_the_client_has_finished_sending() {
    let dyno = Dyno::start(&[]).await;
    let mut raw = Raw::connect(dyno.addr()).await;
    raw.send(head("GET /", &dyno.host(), &[])).await;
    raw.finish().await;
    assert_eq!(raw.answer().await.status, 200);
}

// ---- origins

#[tokio::test]
async fn only_the_own_page_may_open_a_socket_from_a_browser() {
    let dyno = Dyno::start(&[(
        "ALLOWED_ORIGINS",
        "https://friend.example,https://other.example:8443",
    )])
    .await;
    let status = async |host: &str, origin: &str| {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(upgrade_head(host, &[&format!("Origin: {origin}")]))
            .await;
        let deadline = Duration::from_secs(1);
        let (bytes, _) = raw.rest(deadline).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.get(9..12)
            .and_then(|s| s.parse::<u16>().ok())
            .unwrap_or_else(|| panic!("no status in {text:?}"))
    };
    let own = dyno.host();
    let good = [
        (own.as_str(), format!("http://{own}")),
        ("chat.example", "https://chat.example".into()),
        ("Chat.Example", "https://chat.example".into()),
        ("chat.example:8080", "http://chat.example:8080".into()),
        (&own, "https://friend.example".into()),
        (&own, "https://other.example:8443".into()),
    ];
    for (host, origin) in &good {
        assert_eq!(
            status(host, origin).await,
            101,
            "Host {host}, Origin {origin}"
        );
    }
    let bad = [
        (own.as_str(), "https://evil.example"),
        (&own, "null"),
        (&own, ""),
        ("chat.example", "https://chat.example.evil.example"),
        ("chat.example", "https://evil.example/chat.example"),
        ("chat.example", "https://xchat.example"),
        ("chat.example", "https://chat.example:444"),
        (&own, "https://sub.friend.example"),
        (&own, "https://other.example"),
    ];
    for (host, origin) in bad {
        assert_eq!(
            status(host, origin).await,
            403,
            "Host {host}, Origin {origin}"
        );
    }
}

// ---- the upgrade

#[tokio::test]
async fn the_upgrade_is_answered_as_rfc_6455_says() {
    let dyno = Dyno::start(&[]).await;
    let mut raw = Raw::connect(dyno.addr()).await;
    raw.send(upgrade_head(
        &dyno.host(),
        &[
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Sec-WebSocket-Protocol: chat",
        ],
    ))
    .await;
    let answer = raw.switched().await;
    assert_eq!(answer.expect_header("Sec-WebSocket-Accept"), ACCEPT);
    assert!(
        answer
            .expect_header("Upgrade")
            .eq_ignore_ascii_case("websocket")
    );
    assert!(
        answer
            .expect_header("Connection")
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(
        answer.header("Sec-WebSocket-Extensions"),
        None,
        "no extensions"
    );
    assert_eq!(
        answer.header("Sec-WebSocket-Protocol"),
        None,
        "no subprotocol"
    );
    assert_eq!(
        answer.header("Content-Length"),
        None,
        "nothing that looks like a body"
    );
}

#[tokio::test]
async fn header_names_and_tokens_of_an_upgrade_may_be_written_in_any_case() {
    let dyno = Dyno::start(&[]).await;
    let key = format!("sec-websocket-key: {KEY}");
    for connection in [
        "Upgrade",
        "upgrade",
        "keep-alive, Upgrade",
        "UPGRADE,keep-alive",
    ] {
        for upgrade in ["websocket", "WebSocket"] {
            let (c, u) = (
                format!("connection: {connection}"),
                format!("UPGRADE: {upgrade}"),
            );
            let mut raw = Raw::connect(dyno.addr()).await;
            raw.send(head(
                "GET /ws?x=1",
                &dyno.host(),
                &[&c, &u, "sec-websocket-VERSION: 13", &key],
            ))
            .await;
            assert_eq!(
                raw.switched().await.expect_header("Sec-WebSocket-Accept"),
                ACCEPT,
                "{connection} {upgrade}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_for_the_socket_that_is_no_upgrade_is_told_what_to_do() {
    let dyno = Dyno::start(&[]).await;
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let (connection, upgrade, version) = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
    );
    let old = "Sec-WebSocket-Version: 8";
    for headers in [
        vec![],
        vec![connection, upgrade, old, &key],
        vec![connection, upgrade, &key],
        vec![upgrade, version, &key],
        vec![connection, version, &key],
        vec!["Connection: close", upgrade, version, &key],
        vec![connection, "Upgrade: h2c", version, &key],
    ] {
        let answer = get(&dyno, "/ws", &headers).await;
        assert_eq!(answer.status, 426, "{headers:?}");
        assert_eq!(
            answer.expect_header("Sec-WebSocket-Version"),
            "13",
            "{headers:?}"
        );
        assert!(
            answer
                .expect_header("Upgrade")
                .eq_ignore_ascii_case("websocket"),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn a_bad_key_is_refused() {
    let dyno = Dyno::start(&[]).await;
    let usual = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
    ];
    let key = |value: &str| format!("Sec-WebSocket-Key: {value}");
    // None, none said, too short, too long, not base64, 15 bytes, two of them.
    let bad = [
        vec![],
        vec![key("")],
        vec![key("c2hvcnQ=")],
        vec![key(&format!("{KEY}{KEY}"))],
        vec![key("!!!!IHNhbXBsZSBub25jZQ==")],
        vec![key("dGhlIHNhbXBsZSBub25j")],
        vec![key(KEY), key(KEY)],
    ];
    for keys in bad {
        let headers: Vec<&str> = usual
            .into_iter()
            .chain(keys.iter().map(String::as_str))
            .collect();
        refused_with(&dyno, head("GET /ws", &dyno.host(), &headers), &[400]).await;
    }
    refused_with(
        &dyno,
        upgrade_head(&dyno.host(), &["Content-Length: 3"]) + "abc",
        &[400],
    )
    .await;
    let http_1_0 = upgrade_head(&dyno.host(), &[]).replace("HTTP/1.1", "HTTP/1.0");
    refused_with(&dyno, http_1_0, &[400, 426, 505]).await;
}

#[tokio::test]
async fn a_head_may_be_split_at_every_byte() {
    let dyno = Dyno::start(&[]).await;
    let whole = upgrade_head(&dyno.host(), &[]);
    let split = async |at: usize| {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(&whole[..at]).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        raw.send(&whole[at..]).await;
        raw.switched().await;
    };
    futures_util::future::join_all((1..whole.len()).map(split)).await;
    let mut raw = Raw::connect(dyno.addr()).await;
    for byte in whole.bytes() {
        raw.send([byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    raw.switched().await;
}

#[tokio::test]
async fn frames_right_behind_the_head_are_read() {
    let dyno = Dyno::start(&[]).await;
    let head = upgrade_head(&dyno.host(), &[]);
    let talk = json!({"kind": "talk", "message": "すぐ", "cid": "c1"}).to_string();
    for cut in [
        "nowhere",
        "before the end",
        "after the end",
        "inside a header",
        "inside a frame",
        "before the last byte",
    ] {
        let join = join_frame(cut, "花子", &token(), None).to_string();
        let bytes = [
            head.as_bytes(),
            &raw::frame(TEXT, &join),
            &raw::frame(TEXT, &talk),
        ]
        .concat();
        let at = match cut {
            "before the end" => head.len() - 1,
            "after the end" => head.len(),
            "inside a header" => head.len() + 1,
            "inside a frame" => head.len() + join.len(),
            "before the last byte" => bytes.len() - 1,
            _ => bytes.len(),
        };
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(&bytes[..at]).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        raw.send(&bytes[at..]).await;
        raw.switched().await;
        assert_eq!(raw.json().await["kind"], "welcome", "split {cut}");
        assert_eq!(raw.json().await["message"], "すぐ", "split {cut}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_that_the_dyno_is_full() {
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "2")]).await;
    let hanako = dyno.join("lobby", "花子").await;
    let _taro = dyno.join("lobby", "太郎").await;
    let mut third = dyno.connect().await;
    third.expect_error("busy").await;
    third.expect_close(1013).await;
    hanako.quit().await;
    crate::support::eventually("a place is free again", PATIENCE, async || {
        let mut raw = Raw::connect(dyno.addr()).await;
        raw.send(upgrade_head(&dyno.host(), &[])).await;
        raw.switched().await;
        raw.send(raw::frame(
            TEXT,
            join_frame("lobby", "次郎", &token(), None).to_string(),
        ))
        .await;
        let answer = raw.json().await;
        if answer["kind"] == "welcome" {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
}
