//! Parses the head of an HTTP/1.1 request, and answers the handshake of RFC 6455 §4.2.
//!
//! Does no I/O. Strict: a head that the router could read differently is refused (request smuggling, RFC 9112
//! §2.2, §3.2, §5, §6.3).

use data_encoding::BASE64;
use httparse::{EMPTY_HEADER, Status};
use sha1_smol::Sha1;

use super::origin;

/// Bytes of a head; a larger one is refused with 431. Cookies of other programs on the same host may take 8 KiB.
pub const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A checked request. It has no body.
#[derive(Debug)]
pub struct Request {
    method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// The path without the query.
    pub path: String,
    pub host: String,
    http_1_1: bool,
    headers: Vec<(String, String)>,
}

/// Why a request is refused: the status, and a sentence.
pub type Refusal = (u16, &'static str);

/// Parses a head at the start of `bytes`. `None` while it is incomplete; then the request and the length
/// of its head. WebSocket frames may follow it. An incomplete head has few lines, so a parse at the end of each
/// line takes linear time.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    if bytes.starts_with(b"\r\n\r\n\r\n") {
        return Err((400, "There are empty lines before the request."));
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) => return Err((431, "The request head is over 32 KiB.")),
        Err(httparse::Error::TooManyHeaders) => return Err((431, "There are over 100 headers.")),
        Err(_) => return Err((400, "This is not an HTTP/1.1 request.")),
    };
    // httparse takes a bare LF as the end of a line; other programs take it as a part of the line.
    let mut lines = bytes[..length].split_inclusive(|byte| *byte == b'\n');
    if !lines.all(|line| line.ends_with(b"\r\n")) {
        return Err((400, "Lines end with CR LF."));
    }
    // Spaces and tabs only: other Unicode white space is a part of the value.
    let text = |value: &[u8]| String::from_utf8_lossy(value.trim_ascii()).into_owned();
    let target = head.path.unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let header = |h: &mut httparse::Header| (h.name.to_lowercase(), text(h.value));
    let mut request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: target.to_owned(),
        path: path.to_owned(),
        host: String::new(),
        http_1_1: head.version == Some(1),
        headers: head.headers.iter_mut().map(header).collect(),
    };
    request.host = request.checked_host()?;
    Ok(Some((request, length)))
}

impl Request {
    /// Checks everything that a head can be refused for. Returns the host.
    fn checked_host(&self) -> Result<String, Refusal> {
        let host = self.only("host")?;
        let is_host = |host: &str| !host.is_empty() && host.bytes().all(origin::is_host_byte);
        if !host.map_or(!self.http_1_1, is_host) {
            return Err((
                400,
                "One Host header is needed, with a host and nothing else.",
            ));
        }
        let length = self.only("content-length")?;
        let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()); // no sign
        if length.is_some_and(|n| !number(n)) || self.all("transfer-encoding").next().is_some() {
            return Err((400, "A request body is not allowed."));
        }
        if !self.path.starts_with('/') {
            return Err((400, "The target of a request is a path."));
        }
        if !matches!(&*self.method, "GET" | "HEAD") {
            return Err((405, "Only GET and HEAD are allowed."));
        }
        if length.is_some_and(|n| n.bytes().any(|digit| digit != b'0')) {
            return Err((400, "A request body is not allowed."));
        }
        Ok(host.unwrap_or_default().to_owned())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The value of a header that may occur once.
    pub fn only<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err((400, "A header that may occur once occurs twice.")),
            (value, None) => Ok(value),
        }
    }

    /// Whether a list, perhaps in several headers, holds a token (RFC 9110 §5.6.1).
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let mut items = self.all(name).flat_map(|value| value.split(','));
        items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
    }

    /// The last item of a list, perhaps in several headers: the one that the nearest proxy has added.
    pub fn last(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        let mut items = named.flat_map(|(_, value)| value.split(',').map(str::trim_ascii));
        items.rfind(|item| !item.is_empty())
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether the request comes from this server's page, from an allowed origin, or not from a browser.
    pub fn origin_allowed(&self, allowed: &[String]) -> Result<bool, Refusal> {
        let origin = self.only("origin")?;
        Ok(origin.is_none_or(|origin| origin::is_allowed(origin, &self.host, allowed)))
    }

    /// The answer to a WebSocket handshake.
    pub fn upgrade(&self) -> Result<String, Refusal> {
        let asked = self.lists("upgrade", "websocket") && self.lists("connection", "upgrade");
        if !asked || self.is_head() || !self.http_1_1 {
            return Err((426, "WebSocket upgrade required."));
        }
        if self.only("sec-websocket-version")? != Some("13") {
            return Err((426, "WebSocket version 13 is required."));
        }
        let key = self.only("sec-websocket-key")?.unwrap_or_default();
        // 16 bytes in base64: 22 characters and two of padding. The unused bits of the last one may be set.
        let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        let digits = key.strip_suffix("==").unwrap_or_default();
        if digits.len() != 22 || !digits.bytes().all(base64) {
            return Err((400, "Sec-WebSocket-Key is not 16 bytes in base64."));
        }
        let accept = BASE64.encode(&Sha1::from(format!("{key}{GUID}")).digest().bytes());
        Ok(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_gives_its_accept_key() {
        let head = b"GET /ws HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n";
        let (request, length) = parse(head).expect("a good head").expect("a whole head");
        assert_eq!(length, head.len());
        assert!(
            request
                .upgrade()
                .expect("101")
                .contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
        );
    }
}
