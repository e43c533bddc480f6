//! Every broken frame that the tests send, and the code of the Close that must answer it (RFC 6455 §7.4.1; 4429 is the
//! chat's own code for a flood). `protocol` sends each once, `hostile` many at a time.

use super::facts::MAX_FRAME;
use super::raw::{
    BINARY, CLOSE, CONTINUE, PING, PONG, TEXT, claimed_length, close_payload, fragment, frame,
    odd_frame,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A name, the expected close code, and the bytes to send.
pub type Broken = (String, u16, Vec<u8>);

/// Some rows draw a random length, so each call returns other bytes.
pub fn broken_frames() -> Vec<Broken> {
    let ok = "{\"kind\":\"ping\"}";
    let ping_with = |x: &[u8]| [b"{\"kind\":\"ping\",\"x\":\"", x, b"\"}"].concat();
    let x = |count: usize| vec![b'x'; count];
    let close = |code: u16| frame(CLOSE, close_payload(code, b""));
    let data = |opcode: u8| frame(OpCode::Data(Data::Reserved(opcode)), ok);
    let control = |opcode: u8| frame(OpCode::Control(Control::Reserved(opcode)), "");
    let two = |first: &[u8], second: &[u8], is_last: bool| {
        [
            fragment(first, true, false),
            fragment(second, false, is_last),
        ]
        .concat()
    };
    let endless = |byte: &str| {
        [
            fragment(byte, true, false),
            fragment(byte, false, false).repeat(10_000),
        ]
        .concat()
    };

    let mut rows: Vec<(&str, u16, Vec<u8>)> = vec![
        ("unmasked", 1002, odd_frame(TEXT, ok, |h| h.mask = None)),
        ("RSV1", 1002, odd_frame(TEXT, ok, |h| h.rsv1 = true)),
        ("RSV2", 1002, odd_frame(TEXT, ok, |h| h.rsv2 = true)),
        ("RSV3", 1002, odd_frame(TEXT, ok, |h| h.rsv3 = true)),
        (
            "RSV1 on a Ping",
            1002,
            odd_frame(PING, "", |h| h.rsv1 = true),
        ),
        (
            "RSV3 on a Ping",
            1002,
            odd_frame(PING, "x", |h| h.rsv3 = true),
        ),
        (
            "a fragmented Ping",
            1002,
            odd_frame(PING, "x", |h| h.is_final = false),
        ),
        (
            "a fragmented Close",
            1002,
            odd_frame(CLOSE, close_payload(1000, b""), |h| h.is_final = false),
        ),
        ("a Ping of 126 bytes", 1002, frame(PING, [0; 126])),
        ("a Pong of 126 bytes", 1002, frame(PONG, [0; 126])),
        ("a continuation without a start", 1002, frame(CONTINUE, ok)),
        (
            "a message inside a message",
            1002,
            [fragment("{", true, false), frame(TEXT, ok)].concat(),
        ),
        ("a Close of one byte", 1002, frame(CLOSE, [3])),
        ("empty binary", 1003, frame(BINARY, "")),
        (
            "binary",
            1003,
            frame(BINARY, vec![0; fastrand::usize(1..MAX_FRAME)]),
        ),
        (
            "binary of the maximal length",
            1003,
            frame(BINARY, vec![0; MAX_FRAME]),
        ),
        ("no UTF-8", 1007, frame(TEXT, b"\xff\xfe")),
        (
            "no UTF-8 inside JSON",
            1007,
            frame(TEXT, ping_with(b"\xc3\x28")),
        ),
        ("a surrogate in UTF-8", 1007, frame(TEXT, b"\xed\xa0\x80")),
        (
            "a code point above U+10FFFF",
            1007,
            frame(TEXT, b"\xf4\x90\x80\x80"),
        ),
        (
            "a cut character",
            1007,
            frame(TEXT, [ok.as_bytes(), b"\xe8\x8a"].concat()),
        ),
        (
            "a character broken between fragments",
            1007,
            two(b"\xe8", b"x", true),
        ),
        (
            "a character in JSON broken between fragments",
            1007,
            two(b"{\"kind\":\"ping\",\"x\":\"\xe8", b"\x41\"}", true),
        ),
        (
            "a Close with a reason that is no UTF-8",
            1007,
            frame(CLOSE, close_payload(1000, b"\xff")),
        ),
        (
            "one byte too long",
            1009,
            frame(TEXT, ping_of_length(MAX_FRAME + 1)),
        ),
        (
            "too long",
            1009,
            frame(TEXT, x(fastrand::usize(MAX_FRAME + 1..60_000))),
        ),
        ("100,000 bytes", 1009, frame(TEXT, ping_of_length(100_000))),
        ("two fragments", 1009, two(&x(5_000), &x(5_000), true)),
        (
            "one byte too long in two fragments",
            1009,
            two(&x(MAX_FRAME), b"x", false),
        ),
        ("10,000 fragments of one byte", 1009, endless("x")),
        ("10,000 empty fragments", 4429, endless("")),
    ];
    let mut table: Vec<Broken> = vec![];
    table.extend(
        rows.drain(..)
            .map(|(name, code, bytes)| (name.to_string(), code, bytes)),
    );
    table.extend((3..=7).map(|n| (format!("opcode {n}"), 1002, data(n))));
    table.extend((11..=15).map(|n| (format!("opcode {n}"), 1002, control(n))));
    let reserved = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535];
    table.extend(reserved.map(|code| (format!("Close {code}"), 1002, close(code))));
    let any = fastrand::u64(MAX_FRAME as u64 + 1..1 << 63);
    let lengths = [
        MAX_FRAME as u64 + 1,
        65_536,
        1 << 31,
        1 << 40,
        (1 << 63) - 1,
        any,
    ];
    table.extend(lengths.map(|n| (format!("a claim of {n} bytes"), 1009, claimed_length(n))));
    table
}

/// A valid ping frame's text of exactly this length in bytes.
pub fn ping_of_length(length: usize) -> String {
    let ping = |pad: usize| format!("{{\"kind\":\"ping\",\"x\":\"{}\"}}", "x".repeat(pad));
    let text = ping(length - ping(0).len());
    assert_eq!(text.len(), length);
    text
}
