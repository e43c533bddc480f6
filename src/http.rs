//! Just enough HTTP/1.1: reading one request head, and writing plain answers.
//!
//! The parser is pure and strict: whatever two programs could read differently is refused, because a
//! router stands in front of us (RFC 9112 §2.2, §3.2, §5, §6.3). `server.rs` decides what to answer.

use httparse::{EMPTY_HEADER, Status};

/// A head larger than this is refused with 431; the router's own limit for a line.
pub const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// A request head. It has no body: a request with one is refused.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Begins with a slash; without the query.
    pub path: String,
    /// As it was sent, for a redirect.
    pub target: String,
    pub host: String,
    http_1_1: bool,
    headers: Vec<(String, String)>,
}

/// Why a request is refused: the status, and a sentence.
pub type Refusal = (u16, &'static str);

/// Reads a head from the start of `bytes`. `None` while it is incomplete; else the request and the
/// length of its head, behind which the first frames may stand.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) => return Err((431, "The request head is over 8 KiB.")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err((431, "There are more than 64 headers."));
        }
        Err(_) => return Err((400, "This is not an HTTP/1.1 request.")),
    };
    // httparse takes a bare LF for a line's end; other programs take it for part of the line.
    let bare_lf = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    if bytes[..length].windows(2).any(bare_lf) {
        return Err((400, "Lines end with CR LF."));
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head
            .path
            .and_then(|p| p.split(['?', '#']).next())
            .unwrap_or_default()
            .to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        host: String::new(),
        http_1_1: head.version == Some(1),
        headers: head
            .headers
            .iter()
            .map(|h| (h.name.to_ascii_lowercase(), text(h.value)))
            .collect(),
    };
    request.check().map(|request| Some((request, length)))
}

impl Request {
    fn check(mut self) -> Result<Request, Refusal> {
        self.host = self.only("host")?.unwrap_or_default().to_owned();
        let host_char = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if (self.host.is_empty() && (self.http_1_1 || self.has("host")))
            || !self.host.bytes().all(host_char)
        {
            return Err((
                400,
                "One Host header is needed, with a host and nothing else.",
            ));
        }
        let length = self.only("content-length")?;
        if self.has("transfer-encoding")
            || length.is_some_and(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err((400, "This server takes no request bodies."));
        }
        if !self.path.starts_with('/') {
            return Err((400, "The request target is a path."));
        }
        if !matches!(self.method.as_str(), "GET" | "HEAD") {
            return Err((405, "Only GET and HEAD are allowed."));
        }
        if length.is_some_and(|n| n.bytes().any(|b| b != b'0')) {
            return Err((400, "This server takes no request bodies."));
        }
        Ok(self)
    }

    fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a header that may stand there once.
    pub fn only<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            Err((400, "A header that may come once came twice."))
        } else {
            Ok(first)
        }
    }

    /// Whether a comma-separated list, perhaps in several headers, holds a token (RFC 9110 §5.6.1).
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// The key of a WebSocket handshake (RFC 6455 §4.2.1). An HTTP/1.0 request cannot upgrade.
    pub fn websocket_key(&self) -> Result<&str, Refusal> {
        if self.method != "GET"
            || !self.http_1_1
            || !self.lists("upgrade", "websocket")
            || !self.lists("connection", "upgrade")
        {
            return Err((426, "This is the chat's WebSocket: upgrade, please."));
        }
        if self.only("sec-websocket-version")? != Some("13") {
            return Err((
                426,
                "Only version 13 of the WebSocket protocol is spoken here.",
            ));
        }
        // 16 bytes in base64: 22 characters and two signs of padding.
        let key = self.only("sec-websocket-key")?.unwrap_or_default();
        let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        match key.strip_suffix("==") {
            Some(digits) if digits.len() == 22 && digits.bytes().all(base64) => Ok(key),
            _ => Err((400, "Sec-WebSocket-Key is not 16 bytes in base64.")),
        }
    }

    /// Whether the request comes from our own page, from an allowed origin, or not from a browser.
    pub fn origin_allowed(&self, allowed: &[String]) -> Result<bool, Refusal> {
        let Some(origin) = self.only("origin")? else {
            return Ok(true);
        };
        let own = origin
            .split_once("://")
            .is_some_and(|(_, host)| host.eq_ignore_ascii_case(&self.host));
        Ok(own || allowed.iter().any(|o| o.eq_ignore_ascii_case(origin)))
    }
}

/// A plain answer. It says its length and closes: the router would reuse the connection otherwise.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8], head_only: bool) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 {status} {}\r\nConnection: close\r\n",
        reason(status)
    );
    for (name, value) in headers {
        out += &format!("{name}: {value}\r\n");
    }
    if status != 304 {
        out += &format!("Content-Length: {}\r\n", body.len());
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    if !head_only {
        out.extend_from_slice(body);
    }
    out
}

fn reason(status: u16) -> &'static str {
    match status {
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
    }
}

/// Base64 (RFC 4648 §4) of the handshake's SHA-1.
pub fn base64(bytes: &[u8; 20]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |n: usize| bytes.get(n / 8).map_or(0, |byte| (byte >> (7 - n % 8)) & 1) as usize;
    let digit = |n: usize| DIGITS[(0..6).fold(0, |sum, k| sum * 2 + bit(n * 6 + k))] as char;
    (0..27).map(digit).chain(['=']).collect()
}
