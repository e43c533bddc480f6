//! What the clients send, and just enough of a parser for what they get.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{sync::LazyLock, time::Instant};

use crate::support::client::{cid, join_frame, token};
use crate::support::raw::{self, TEXT};

pub const PING: u8 = 9;
/// The text of every message has this many bytes, and begins with the time at which it was said.
const TEXT_LENGTH: usize = 100;
const STAMP: usize = 16;
/// What stands behind the text: `","cid":"0123456789abcdef"}`.
const BEHIND: usize = 27;

/// All clients have one clock.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A message's text, said now.
pub fn stamped() -> String {
    let now = START.elapsed().as_micros();
    format!("{now:0STAMP$}{:x<1$}", "", TEXT_LENGTH - STAMP)
}

/// Where the text begins in the payload of one of our frames.
pub fn place(talk: &[u8]) -> usize {
    talk.len() - BEHIND - TEXT_LENGTH
}

/// Where it begins in what another server sends, if it is in there.
pub fn find(payload: &[u8]) -> Option<usize> {
    let rest = [b'x'; TEXT_LENGTH - STAMP];
    let place = payload.windows(rest.len()).position(|text| text == rest)?;
    place.checked_sub(STAMP)
}

/// How long ago the text was said that begins there; in µs.
pub fn age(talk: &[u8], place: usize) -> f64 {
    let stamp = &talk[place..][..STAMP];
    let digits = stamp.iter().map(|digit| u64::from(digit - b'0'));
    let said = digits.fold(0, |number, digit| 10 * number + digit);
    (START.elapsed().as_nanos() as f64 / 1e3) - said as f64
}

pub fn is_talk(payload: &[u8]) -> bool {
    payload.starts_with(br#"{"kind":"talk""#)
}

/// Nobody has a name that anyone had before.
pub fn name() -> String {
    static PEOPLE: AtomicUsize = AtomicUsize::new(0);
    format!("n{:06}", PEOPLE.fetch_add(1, Relaxed))
}

/// To the chat.
pub fn join(room: usize) -> Vec<u8> {
    let join = join_frame(&format!("r{room}"), &name(), &token(), None);
    raw::frame(TEXT, join.to_string())
}

/// To the chat.
pub fn talk(text: &str) -> Vec<u8> {
    let cid = cid();
    raw::frame(
        TEXT,
        format!(r#"{{"kind":"talk","message":"{text}","cid":"{cid}"}}"#),
    )
}

/// The frame that the chat makes of it, which the floor is told to hand out.
pub fn delivery(text: &str) -> Vec<u8> {
    let (id, cid) = ("1732412345678-0", cid());
    let json = format!(
        r#"{{"kind":"talk","id":"{id}","user":"n000000","message":"{text}","cid":"{cid}"}}"#
    );
    let length = (json.len() as u16).to_be_bytes();
    [&[0x81, 126], &length[..], json.as_bytes()].concat()
}

/// To the floor: a payload behind its length.
pub fn sized(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes(), payload].concat()
}

/// The first frame of what a server sent, if it is there whole: opcode, payload, length of it all.
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
