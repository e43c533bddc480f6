//! Outgoing WebSocket frames as bytes (RFC 6455 §5.2). A frame is encoded once and shared by every
//! connection that it is sent to. `reader.rs` reads incoming frames.

use std::sync::Arc;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::buffer::{Buffer, counted, slice_of};

/// The first byte of a Close frame: the last fragment, opcode 8.
pub const CLOSE: u8 = 0x88;
/// A Ping without payload.
pub const PING: [u8; 2] = [0x89, 0];

/// A shorter middle of a frame is copied: three pieces take three system calls, and the kernel's send buffer
/// takes so much at once.
const SHARED: usize = 32 * 1024;

/// Appends a text frame.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_header(out, text.len());
    out.extend_from_slice(text);
}

/// A text frame.
pub fn text(text: impl AsRef<[u8]>) -> Bytes {
    let text = text.as_ref();
    let mut out = Vec::with_capacity(text.len() + 10);
    put_text(&mut out, text);
    counted(out)
}

/// One text frame in pieces. Frames with the same `middle` share its bytes, unless it is short.
pub fn text_around(before: &str, middle: &Arc<Buffer>, after: &str) -> Vec<Bytes> {
    let (before, shared, after) = (before.as_bytes(), middle.bytes(), after.as_bytes());
    let length = before.len() + shared.len() + after.len();
    let mut first = Vec::with_capacity(10 + before.len());
    put_header(&mut first, length);
    first.extend_from_slice(before);
    if shared.len() < SHARED {
        return vec![counted([&first, shared, after].concat())];
    }
    vec![counted(first), slice_of(middle), counted(after.to_vec())]
}

fn put_header(out: &mut Vec<u8>, length: usize) {
    let head = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    };
    let put = head.format(length as u64, out);
    put.expect("writing to a vector cannot fail");
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
    fn pieces_make_one_frame_and_share_a_long_middle() {
        for (length, pieces) in [(0, 1), (SHARED - 1, 1), (SHARED, 3)] {
            let json = "x".repeat(length);
            let middle = Arc::new(Buffer::new(json.clone().into_bytes()));
            let frame = text_around("[", &middle, "]");
            assert_eq!(frame.len(), pieces);
            assert_eq!(frame.concat(), text(format!("[{json}]")));
            let other = text_around("", &middle, "");
            assert_eq!(
                frame.get(1).map(|b| b.as_ptr()),
                other.get(1).map(|b| b.as_ptr())
            );
        }
    }

    #[test]
    fn a_close_frame_holds_its_code_and_its_reason() {
        assert_eq!(close(1000, "quit"), b"\x88\x06\x03\xe8quit"[..]);
    }
}
