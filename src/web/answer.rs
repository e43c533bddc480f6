//! Plain HTTP answers: the page and its files, `/healthz`, redirects, refusals.
//!
//! Every answer has its length and closes the connection: the router keeps connections for 90 s and would
//! send the next request into one that is about to close.

use std::sync::LazyLock;

use sha1_smol::Sha1;

use super::origin;
use super::request::{Refusal, Request};
use crate::log_throttle::LogThrottle;

/// Path, type and body of each file of the page. Compiled in, so that the program runs from any folder.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html", include_str!("../../public/index.html")),
    (
        "/chat.css",
        "text/css",
        include_str!("../../public/chat.css"),
    ),
    ("/chat.js", SCRIPT, include_str!("../../public/chat.js")),
    ("/common.js", SCRIPT, include_str!("../../public/common.js")),
    (
        "/connection.js",
        SCRIPT,
        include_str!("../../public/connection.js"),
    ),
    (
        "/messages.js",
        SCRIPT,
        include_str!("../../public/messages.js"),
    ),
    (
        "/outgoing.js",
        SCRIPT,
        include_str!("../../public/outgoing.js"),
    ),
    ("/words.js", SCRIPT, include_str!("../../public/words.js")),
];
const SCRIPT: &str = "text/javascript";
static ETAGS: LazyLock<[String; FILES.len()]> =
    LazyLock::new(|| FILES.map(|(.., body)| format!("\"{}\"", Sha1::from(body).digest())));

/// A page cannot see why its WebSocket was refused, so the log says it.
static REFUSED_ORIGIN: LogThrottle = LogThrottle::new();
static LOST_UPGRADE: LogThrottle = LogThrottle::new();

/// The answer to a request, and whether it is an upgrade. `origins`: whose pages may connect, besides this
/// server's own. `behind_router`: http is redirected to https. `health`: the body of `/healthz`.
pub fn route(
    request: &Request,
    origins: &[String],
    behind_router: bool,
    health: impl Fn() -> String,
) -> Result<(Vec<u8>, bool), Refusal> {
    let scheme = request.last("x-forwarded-proto").unwrap_or_default();
    let is_https = scheme.eq_ignore_ascii_case("https");
    let redirect = behind_router && scheme.eq_ignore_ascii_case("http");
    let plain = match &*request.path {
        "/healthz" => {
            let kind = ("Content-Type", "application/json");
            let headers = [kind, ("Cache-Control", "no-store")];
            answer(200, &headers, &health(), request.is_head())
        }
        path if is_websocket(path) && redirect => {
            return Err((
                403,
                "Use wss:// (WebSocket clients do not follow redirects).",
            ));
        }
        path if is_websocket(path) => return Ok((websocket(request, origins)?, true)),
        _ if redirect => {
            let host = request.host.strip_suffix(":80").unwrap_or(&request.host);
            let location = format!("https://{host}{}", request.target);
            answer(308, &[("Location", &location)], "", request.is_head())
        }
        _ => file(request, is_https)?,
    };
    Ok((plain, false))
}

/// `/ws`, or `/ws/` and letters and digits. Each try of the page has a path of its own: see `open` in
/// `public/connection.js`.
fn is_websocket(path: &str) -> bool {
    let rest = path.strip_prefix("/ws/");
    let is_word = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    path == "/ws" || rest.is_some_and(is_word)
}

/// The answer to a WebSocket handshake.
fn websocket(request: &Request, origins: &[String]) -> Result<Vec<u8>, Refusal> {
    if !request.origin_allowed(origins)? {
        if REFUSED_ORIGIN.is_due() {
            let origin = origin::shown(request.only("origin")?.unwrap_or_default());
            let host = origin::shown(&request.host);
            log::warn!(
                "websocket=refused origin={origin:?} host={host:?} \
                 hint=\"let the proxy pass the Host header, or add the origin to ALLOWED_ORIGINS\""
            );
        }
        return Err((403, "Origin not allowed; add it to ALLOWED_ORIGINS."));
    }
    let upgrade = request.upgrade();
    let of_browser = request.last("sec-websocket-version") == Some("13");
    if matches!(upgrade, Err((426, _))) && of_browser && LOST_UPGRADE.is_due() {
        log::warn!(
            "websocket=refused hint=\"let the proxy pass the Upgrade and Connection headers, and HTTP/1.1\""
        );
    }
    Ok(upgrade?.into_bytes())
}

/// A file of the page; 304 if the browser has it already.
fn file(request: &Request, https: bool) -> Result<Vec<u8>, Refusal> {
    let place = FILES.iter().position(|(path, ..)| *path == request.path);
    let place = place.ok_or((404, "There is no such page."))?;
    let ((_, kind, body), etag) = (FILES[place], &*ETAGS[place]);
    let (kind, host) = (format!("{kind}; charset=utf-8"), &request.host);
    // Older Safari does not treat a WebSocket to the page's own host as 'self'.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    );
    let mut headers = vec![
        ("Content-Type", &*kind),
        ("Cache-Control", "no-cache"), // ask each time; the answer is 304 if nothing changed
        ("ETag", etag),
        ("Content-Security-Policy", &policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    ];
    if https {
        headers.push(("Strict-Transport-Security", "max-age=31536000"));
    }
    let weak = format!("W/{etag}"); // a proxy that compresses weakens the ETag
    let mut known = [etag, &weak, "*"].into_iter();
    let known = known.any(|tag| request.lists("if-none-match", tag));
    let (status, body) = if known { (304, "") } else { (200, body) };
    Ok(answer(status, &headers, body, request.is_head()))
}

pub fn refusal((status, sentence): Refusal, head_only: bool) -> Vec<u8> {
    let mut headers = vec![("Content-Type", "text/plain; charset=utf-8")];
    match status {
        405 => headers.push(("Allow", "GET, HEAD")),
        426 => headers.extend([("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]),
        _ => {}
    }
    answer(status, &headers, &format!("{sentence}\n"), head_only)
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str, head_only: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let mut out = format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\n");
    for (name, value) in headers {
        out += &format!("{name}: {value}\r\n");
    }
    if status != 304 {
        out += &format!("Content-Length: {}\r\n", body.len());
    }
    out += "\r\n";
    if !head_only {
        out += body;
    }
    out.into_bytes()
}
