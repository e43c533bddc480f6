//! Plain answers: the page and its two files, redirects, refusals. `server.rs` sends them.
//!
//! Every answer says its length and closes: the router keeps connections for 90 s and would send the
//! next request into one that we are about to close.

use std::sync::LazyLock;

use sha1_smol::Sha1;

use crate::http::{Refusal, Request};

/// The page, compiled in: the program runs from anywhere. Path, type and body of each file.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html", include_str!("../public/index.html")),
    (
        "/chat.js",
        "text/javascript",
        include_str!("../public/chat.js"),
    ),
    ("/chat.css", "text/css", include_str!("../public/chat.css")),
];
static ETAGS: LazyLock<[String; 3]> =
    LazyLock::new(|| FILES.map(|(.., body)| format!("\"{}\"", Sha1::from(body).digest())));

/// The answer, and whether it upgrades. `origins`: whose pages may connect besides our own.
pub fn route(
    request: &Request,
    origins: &[String],
    health: impl Fn() -> String,
) -> Result<(Vec<u8>, bool), Refusal> {
    let scheme = request.only("x-forwarded-proto")?.unwrap_or_default();
    let plain = match (&*request.path, &*scheme.to_lowercase()) {
        ("/ws", "http") => return Err((403, "Use wss: a socket follows no redirect.")),
        (_, "http") => {
            let location = format!("https://{}{}", request.host, request.target);
            answer(308, &[("Location", &location)], "", request.is_head())
        }
        ("/ws", _) if !request.origin_allowed(origins)? => {
            return Err((403, "Pages from elsewhere need to be in ALLOWED_ORIGINS."));
        }
        ("/ws", _) => return Ok((request.upgrade()?.into_bytes(), true)),
        ("/healthz", _) => {
            let kind = ("Content-Type", "application/json");
            let headers = [kind, ("Cache-Control", "no-store")];
            answer(200, &headers, &health(), request.is_head())
        }
        (_, scheme) => file(request, scheme == "https")?,
    };
    Ok((plain, false))
}

/// The page or a file of it; 304 where the browser has it already.
fn file(request: &Request, https: bool) -> Result<Vec<u8>, Refusal> {
    let place = FILES.iter().position(|(path, ..)| *path == request.path);
    let place = place.ok_or((404, "There is no such page here."))?;
    let ((_, kind, body), etag) = (FILES[place], &*ETAGS[place]);
    let (kind, host) = (format!("{kind}; charset=utf-8"), &request.host);
    // Older Safari does not count the page's own host as 'self' for sockets.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    );
    let mut headers = vec![
        ("Content-Type", &*kind),
        ("Cache-Control", "no-cache"), // ask each time, and be told 304
        ("ETag", etag),
        ("Content-Security-Policy", &policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    ];
    if https {
        headers.push(("Strict-Transport-Security", "max-age=31536000"));
    }
    let weak = format!("W/{etag}"); // as a proxy that compresses makes it
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
