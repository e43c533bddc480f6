//! The frames that the clients send, and a minimal parser of those that they receive.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{sync::LazyLock, time::Instant};

use crate::support::client::{cid, join_frame, token};
use crate::support::raw::{self, TEXT};

pub const PING: u8 = 9;
/// Bytes of every message's text. It begins with the time at which it was sent.
const TEXT_LENGTH: usize = 100;
const STAMP: usize = 16;
/// Bytes after the text: `","cid":"0123456789abcdef"}`.
const AFTER_TEXT: usize = 27;

/// All clients share one clock.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The text of a message that is sent now.
pub fn stamped() -> String {
    let now = START.elapsed().as_micros();
    format!("{now:0STAMP$}{:x<1$}", "", TEXT_LENGTH - STAMP)
}

/// The offset of the text in a `talk` frame of the chat.
pub fn place(talk: &[u8]) -> usize {
    talk.len() - AFTER_TEXT - TEXT_LENGTH
}

/// The offset of the text in a frame of another server, if the frame has one.
pub fn find(payload: &[u8]) -> Option<usize> {
    let rest = [b'x'; TEXT_LENGTH - STAMP];
    let place = payload.windows(rest.len()).position(|text| text == rest)?;
    place.checked_sub(STAMP)
}

/// How long ago the text at this offset was sent, in µs.
pub fn age(talk: &[u8], place: usize) -> f64 {
    let stamp = &talk[place..][..STAMP];
    let digits = stamp.iter().map(|digit| u64::from(digit - b'0'));
    let said = digits.fold(0, |number, digit| 10 * number + digit);
    (START.elapsed().as_nanos() as f64 / 1e3) - said as f64
}

pub fn is_talk(payload: &[u8]) -> bool {
    payload.starts_with(br#"{"kind":"talk""#)
}

/// A name that no client has had before.
pub fn name() -> String {
    static PEOPLE: AtomicUsize = AtomicUsize::new(0);
    format!("n{:06}", PEOPLE.fetch_add(1, Relaxed))
}

/// A join, for the chat.
pub fn join(room: usize) -> Vec<u8> {
    let join = join_frame(&format!("r{room}"), &name(), &token(), None);
    raw::frame(TEXT, join.to_string())
}

/// A talk, for the chat.
pub fn talk(text: &str) -> Vec<u8> {
    let cid = cid();
    raw::frame(
        TEXT,
        format!(r#"{{"kind":"talk","message":"{text}","cid":"{cid}"}}"#),
    )
}

/// The frame that the chat makes of a talk. The floor gets it ready-made.
pub fn delivery(text: &str) -> Vec<u8> {
    let (id, cid) = ("1732412345678-0", cid());
    let json = format!(
        r#"{{"kind":"talk","id":"{id}","user":"n000000","message":"{text}","cid":"{cid}"}}"#
    );
    let length = (json.len() as u16).to_be_bytes();
    [&[0x81, 126], &length[..], json.as_bytes()].concat()
}

/// For the floor: a payload after its length.
pub fn sized(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes(), payload].concat()
}

/// The first frame in these bytes, if it is complete: opcode, payload, and length of the whole frame.
pub fn next(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (head, length) = match *bytes {
        [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        [_, 126, a, b, ..] => (4, u16::from_be_bytes([a, b]).into()),
        [_, length @ 0..126, ..] => (2, length.into()),
        _ => return None,
    };
    let end = head + length as usize;
    Some((bytes[0] & 0x0f, bytes.get(head..end)?, end))
}
