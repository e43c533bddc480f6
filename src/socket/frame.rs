//! Outgoing WebSocket frames as bytes (RFC 6455 §5.2). A frame is encoded once and shared by every
//! connection that it is sent to. `reader.rs` reads incoming frames.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// The first byte of a Close frame: the last fragment, opcode 8.
pub const CLOSE: u8 = 0x88;
/// A Ping without payload.
pub const PING: [u8; 2] = [0x89, 0];

/// Appends a text frame.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let head = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    };
    let put = head.format(text.len() as u64, out);
    put.expect("writing to a vector cannot fail");
    out.extend_from_slice(text);
}

/// A text frame.
pub fn text(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 10);
    put_text(&mut out, text.as_bytes());
    out.into()
}

/// A Close frame. The reason is a code word: control frames hold 125 bytes at most (RFC 6455 §5.5).
pub fn close(code: u16, reason: &'static str) -> Bytes {
    let head = [CLOSE, 2 + reason.len() as u8];
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
    fn a_close_frame_holds_its_code_and_its_reason() {
        assert_eq!(close(1000, "quit"), b"\x88\x06\x03\xe8quit"[..]);
    }
}
