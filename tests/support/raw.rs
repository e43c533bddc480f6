//! A bare socket: HTTP heads and WebSocket frames made by hand, for everything that a correct client never sends.

use super::client::{is_unprompted, join_frame};
use super::{Dyno, PATIENCE, token};
use serde_json::Value;
use std::io::{Cursor, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame, FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The key of RFC 6455 §1.3 and its answer.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: OpCode = OpCode::Data(Data::Text);
pub const BINARY: OpCode = OpCode::Data(Data::Binary);
pub const CONTINUE: OpCode = OpCode::Data(Data::Continue);
pub const CLOSE: OpCode = OpCode::Control(Control::Close);
pub const PING: OpCode = OpCode::Control(Control::Ping);
pub const PONG: OpCode = OpCode::Control(Control::Pong);

pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// A FIN: everything sent before has arrived.
    Eof,
    /// A reset: what was on its way may be lost.
    Reset,
    StillOpen,
}

/// An HTTP answer; its framing has been checked.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the one header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        let mut all = self.headers.iter().filter(named);
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice in {:?}", self.headers);
        first
    }

    pub fn expect_header(&self, name: &str) -> &str {
        self.header(name)
            .unwrap_or_else(|| panic!("no {name} in {} {:?}", self.status, self.headers))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }
}

/// A request head: the line, `Host`, then `headers`, one per line.
pub fn head(line: &str, host: &str, headers: &[&str]) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n");
    for header in headers {
        head += header;
        head += "\r\n";
    }
    head + "\r\n"
}

/// The head with which a browser asks for a WebSocket, plus `headers`.
pub fn upgrade_head(host: &str, headers: &[&str]) -> String {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let usual = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        &key,
    ];
    head("GET /ws", host, &[&usual, headers].concat())
}

/// A masked frame as a browser sends it.
pub fn frame(opcode: OpCode, payload: impl AsRef<[u8]>) -> Vec<u8> {
    odd_frame(opcode, payload, |_| ())
}

/// A frame with something wrong in its header.
pub fn odd_frame(
    opcode: OpCode,
    payload: impl AsRef<[u8]>,
    spoil: impl Fn(&mut FrameHeader),
) -> Vec<u8> {
    let mut header = masked(opcode);
    spoil(&mut header);
    let frame = Frame::from_payload(header, payload.as_ref().to_vec().into());
    let mut bytes = vec![];
    frame.format(&mut bytes).expect("memory takes it");
    bytes
}

fn masked(opcode: OpCode) -> FrameHeader {
    FrameHeader {
        opcode,
        mask: Some(fastrand::u32(..).to_be_bytes()),
        ..FrameHeader::default()
    }
}

/// A fragment of a text message: the `first` carries the opcode, the `last` the FIN bit.
pub fn fragment(payload: impl AsRef<[u8]>, first: bool, last: bool) -> Vec<u8> {
    odd_frame(if first { TEXT } else { CONTINUE }, payload, |header| {
        header.is_final = last
    })
}

/// Only the header of a masked text frame, which claims this length.
pub fn claimed_length(length: u64) -> Vec<u8> {
    let mut bytes = vec![];
    let formatted = masked(TEXT).format(length, &mut bytes);
    formatted.expect("memory takes it");
    bytes
}

/// The payload of a Close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Raw {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        stream.set_nodelay(true).expect("nodelay can be set");
        Raw::over(stream)
    }

    /// Over a socket that was made in a special way.
    pub fn over(stream: TcpStream) -> Raw {
        let unread = vec![];
        Raw { stream, unread }
    }

    /// Connects and sends these bytes.
    pub async fn request(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Raw {
        let mut raw = Raw::connect(addr).await;
        raw.send(bytes).await;
        raw
    }

    /// Connects and upgrades.
    pub async fn websocket(dyno: &Dyno) -> Raw {
        let mut raw = Raw::request(dyno.addr(), upgrade_head(&dyno.host(), &[])).await;
        raw.switched().await;
        raw
    }

    /// Connects, upgrades and asks to join; gives the answer too.
    pub async fn asked_to_join(dyno: &Dyno, room: &str, user: &str) -> (Raw, Value) {
        let mut raw = Raw::websocket(dyno).await;
        raw.send_json(join_frame(room, user, &token(), None)).await;
        let answer = raw.json().await;
        (raw, answer)
    }

    /// Connects, upgrades, joins and reads up to the welcome.
    pub async fn joined(dyno: &Dyno, room: &str, user: &str) -> Raw {
        let (raw, answer) = Raw::asked_to_join(dyno, room, user).await;
        assert_eq!(answer["kind"], "welcome", "{user} joins {room}: {answer}");
        raw
    }

    /// Sends a text frame.
    pub async fn send_json(&mut self, value: Value) {
        self.send(frame(TEXT, value.to_string())).await;
    }

    /// Sends all of it, or what the server takes before it closes the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends a FIN.
    pub async fn finish(&mut self) {
        let shut = self.stream.shutdown().await;
        shut.expect("the sending side can be shut");
    }

    /// Reads what has arrived. Returns how the connection ended, if it did.
    async fn more(&mut self, deadline: Instant) -> Option<End> {
        match timeout_at(deadline, self.stream.read_buf(&mut self.unread)).await {
            Err(_) => Some(End::StillOpen),
            Ok(Ok(0)) => Some(End::Eof),
            Ok(Ok(_)) => None,
            Ok(Err(e)) if e.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Ok(Err(e)) => panic!("reading failed in an unexpected way: {e}"),
        }
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self, within: Duration) -> (Vec<u8>, End) {
        let deadline = Instant::now() + within;
        loop {
            if let Some(end) = self.more(deadline).await {
                return (std::mem::take(&mut self.unread), end);
            }
        }
    }

    /// A plain answer, and the end of the connection after it. Checks what holds for every answer: a reason phrase,
    /// `Connection: close`, an exact `Content-Length`, a FIN and not a reset.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET", PATIENCE).await
    }

    /// The same for `HEAD`, which has a length and no body, and for slow answers.
    pub async fn answer_to(&mut self, request: &str, within: Duration) -> Answer {
        let (bytes, end) = self.rest(within).await;
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]);
        let shown = format!("{request:.200}\n{start}");
        assert_eq!(end, End::Eof, "a FIN after the answer: {shown}");
        let Some((answer, _)) = parse_head(&bytes) else {
            panic!("the head is not complete: {shown}");
        };
        assert_eq!(answer.expect_header("Connection"), "close", "{shown}");
        let claimed = answer.header("Content-Length");
        let claimed = claimed.map(|l| l.parse::<usize>().expect("a length is a number"));
        if request.starts_with("HEAD") || answer.status == 304 {
            assert!(answer.body.is_empty(), "a body: {shown}");
        } else {
            assert_eq!(claimed, Some(answer.body.len()), "the length: {shown}");
        }
        answer
    }

    /// The head of the answer `101`; what follows it stays unread.
    pub async fn switched(&mut self) -> Answer {
        let answer = self.head().await;
        assert_eq!(answer.status, 101, "{:?}", answer.headers);
        answer
    }

    /// The head of any answer; what follows it stays unread.
    pub async fn head(&mut self) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((answer, length)) = parse_head(&self.unread) {
                self.unread.drain(..length);
                return answer;
            }
            if let Some(end) = self.more(deadline).await {
                let unread = String::from_utf8_lossy(&self.unread);
                panic!("the head is not complete, then {end:?}: {unread}");
            }
        }
    }

    /// The next frame, or how the connection ended instead. The server must not mask.
    pub async fn frame(&mut self, within: Duration) -> Result<(OpCode, Vec<u8>), End> {
        let deadline = Instant::now() + within;
        loop {
            let mut cursor = Cursor::new(&self.unread);
            if let Some((header, length)) =
                FrameHeader::parse(&mut cursor).expect("the server's frames are well made")
            {
                let start = cursor.position() as usize;
                let end = start + length as usize;
                if self.unread.len() >= end {
                    let usual = header.is_final && header.mask.is_none();
                    assert!(usual, "an odd frame from the server: {header:?}");
                    let payload = self.unread[start..end].to_vec();
                    self.unread.drain(..end);
                    return Ok((header.opcode, payload));
                }
            }
            if let Some(end) = self.more(deadline).await {
                return Err(end);
            }
        }
    }

    /// The next text frame, without `members` and `tick`. Leaves Pings unanswered.
    pub async fn json(&mut self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.frame(deadline - Instant::now()).await {
                Ok((TEXT, payload)) => {
                    let value = serde_json::from_slice(&payload);
                    let value = value.expect("the server sends JSON");
                    if !is_unprompted(&value) {
                        return value;
                    }
                }
                Ok((PING, _)) => {}
                other => panic!("a text frame was expected: {other:?}"),
            }
        }
    }

    /// The connection is closed with a Close frame and then a FIN; its code and reason. Other frames may come before.
    pub async fn closed(&mut self, within: Duration) -> (u16, String) {
        let deadline = Instant::now() + within;
        let mut before = vec![];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frame(left).await {
                Ok((CLOSE, payload)) => {
                    let rest = self.rest(PATIENCE).await;
                    assert_eq!(rest, (vec![], End::Eof), "a FIN after the Close");
                    let Some((code, reason)) = payload.split_first_chunk() else {
                        return (1005, String::new());
                    };
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    return (u16::from_be_bytes(*code), reason);
                }
                Ok((_, payload)) => before.push(String::from_utf8_lossy(&payload).into_owned()),
                Err(end) => panic!("a Close frame was expected, but {end:?} after {before:?}"),
            }
        }
    }
}

/// The head of an answer and its length in bytes, once it is complete. Requires a reason phrase.
fn parse_head(bytes: &[u8]) -> Option<(Answer, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes);
    let shown = String::from_utf8_lossy(bytes);
    let parsed = parsed.unwrap_or_else(|e| panic!("this is not an HTTP answer ({e}): {shown}"));
    let httparse::Status::Complete(length) = parsed else {
        return None;
    };
    let reason = response.reason.unwrap_or_default();
    assert!(!reason.is_empty(), "no reason phrase in {response:?}");
    let value = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
    let headers = response.headers.iter();
    let answer = Answer {
        status: response.code.unwrap_or(0),
        headers: headers.map(|h| (h.name.into(), value(h.value))).collect(),
        body: bytes[length..].to_vec(),
    };
    Some((answer, length))
}

/// Sends one request; returns its checked answer.
pub async fn http(addr: SocketAddr, request: &str) -> Answer {
    let mut raw = Raw::request(addr, request).await;
    raw.answer_to(request, PATIENCE).await
}
