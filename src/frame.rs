//! Outgoing WebSocket frames as bytes (RFC 6455 §5.2), encoded once and shared by everyone who gets
//! them. Incoming frames are the business of `reader.rs`.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// Close codes: RFC 6455 §7.4.1, its registry (1012, 1013), and our own from 4000.
pub mod code {
    pub const NORMAL: u16 = 1000;
    pub const PROTOCOL: u16 = 1002;
    pub const BINARY: u16 = 1003;
    pub const NOT_UTF8: u16 = 1007;
    pub const TOO_BIG: u16 = 1009;
    pub const RESTART: u16 = 1012;
    pub const FULL: u16 = 1013;
    pub const TOO_SLOW: u16 = 4008;
    pub const NOT_OURS: u16 = 4400;
    pub const REFUSED: u16 = 4409;
    pub const FLOOD: u16 = 4429;
}

/// A Ping without payload and a `tick`: one write keeps the router's window open in both directions
/// and shows the page that the line lives. A page cannot see Pings.
pub static BEAT: Bytes = Bytes::from_static(b"\x89\x00\x81\x0f{\"kind\":\"tick\"}");
/// The `tick` alone, the answer to a page's `ping`.
pub static TICK: Bytes = Bytes::from_static(b"\x81\x0f{\"kind\":\"tick\"}");
pub static DOWN: Bytes = Bytes::from_static(b"\x81\x20{\"kind\":\"status\",\"redis\":\"down\"}");
pub static UP: Bytes = Bytes::from_static(b"\x81\x1e{\"kind\":\"status\",\"redis\":\"up\"}");

/// Appends a text frame.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let head = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    };
    let put = head.format(text.len() as u64, out);
    put.expect("a vector takes whatever is written to it");
    out.extend_from_slice(text.as_bytes());
}

/// A text frame.
pub fn text(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 10);
    put_text(&mut out, text);
    out.into()
}

/// A Close frame. The reason is a code word: control frames hold 125 bytes at most (RFC 6455 §5.5).
pub fn close(code: u16, reason: &'static str) -> Bytes {
    let head = [0x88, 2 + reason.len() as u8]; // the last fragment, a Close; its length
    [&head, &code.to_be_bytes(), reason.as_bytes()]
        .concat()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_text_decides_its_header() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let json = "x".repeat(length);
            let frame = text(&json);
            assert_eq!(frame.len() - length, head);
            assert_eq!(frame[head..], *json.as_bytes());
        }
    }

    #[test]
    fn frames_by_hand_are_what_the_encoder_makes() {
        assert_eq!(BEAT[..2], [0x89, 0]);
        assert_eq!(BEAT[2..], text(r#"{"kind":"tick"}"#));
        assert_eq!(TICK, BEAT[2..]);
        assert_eq!(DOWN, text(r#"{"kind":"status","redis":"down"}"#));
        assert_eq!(UP, text(r#"{"kind":"status","redis":"up"}"#));
        assert_eq!(close(1000, "quit"), b"\x88\x06\x03\xe8quit"[..]);
    }
}
