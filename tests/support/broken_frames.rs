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
    let ping = "{\"kind\":\"ping\"}";
    let ping_with = |x: &[u8]| [b"{\"kind\":\"ping\",\"x\":\"", x, b"\"}"].concat();
    let start = |payload: &[u8]| fragment(payload, true, false);
    let more = |payload: &[u8]| fragment(payload, false, false);
    let end = |payload: &[u8]| fragment(payload, false, true);
    let close = |payload: Vec<u8>| frame(CLOSE, payload);
    let open_close = odd_frame(CLOSE, close_payload(1000, b""), |h| h.is_final = false);
    let many = 10_000;

    let protocol_errors = vec![
        ("unmasked", odd_frame(TEXT, ping, |h| h.mask = None)),
        ("RSV1", odd_frame(TEXT, ping, |h| h.rsv1 = true)),
        ("RSV2", odd_frame(TEXT, ping, |h| h.rsv2 = true)),
        ("RSV3", odd_frame(TEXT, ping, |h| h.rsv3 = true)),
        ("Ping with RSV1", odd_frame(PING, "", |h| h.rsv1 = true)),
        ("Ping with RSV3", odd_frame(PING, "x", |h| h.rsv3 = true)),
        ("Ping 1 of 2", odd_frame(PING, "x", |h| h.is_final = false)),
        ("Close 1 of 2", open_close),
        ("Ping of 126 bytes", frame(PING, [0; 126])),
        ("Pong of 126 bytes", frame(PONG, [0; 126])),
        ("continuation without a start", frame(CONTINUE, ping)),
        (
            "message in a message",
            [start(b"{"), frame(TEXT, ping)].concat(),
        ),
        ("Close of one byte", close(vec![3])),
    ];
    let binary = vec![
        ("empty", frame(BINARY, "")),
        (
            "of any length",
            frame(BINARY, vec![0; fastrand::usize(1..MAX_FRAME)]),
        ),
        ("of the maximal length", frame(BINARY, vec![0; MAX_FRAME])),
    ];
    let json_in_two = [start(b"{\"kind\":\"ping\",\"x\":\"\xe8"), end(b"\x41\"}")];
    let no_utf8 = vec![
        ("text", frame(TEXT, b"\xff\xfe")),
        ("JSON", frame(TEXT, ping_with(b"\xc3\x28"))),
        ("overlong", frame(TEXT, b"\xc0\x80")),
        ("surrogate", frame(TEXT, b"\xed\xa0\x80")),
        ("above U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80")),
        (
            "cut at the end",
            frame(TEXT, [ping.as_bytes(), b"\xe8\x8a"].concat()),
        ),
        (
            "broken between fragments",
            [start(b"\xe8"), end(b"x")].concat(),
        ),
        ("JSON broken between fragments", json_in_two.concat()),
        ("reason of a Close", close(close_payload(1000, b"\xff"))),
    ];
    let half = vec![b'x'; MAX_FRAME * 5 / 8];
    let full = vec![b'x'; MAX_FRAME];
    let any = fastrand::usize(MAX_FRAME + 1..60_000);
    let too_big = vec![
        (
            "one byte too long",
            frame(TEXT, ping_of_length(MAX_FRAME + 1)),
        ),
        ("too long", frame(TEXT, vec![b'x'; any])),
        ("100,000 bytes", frame(TEXT, ping_of_length(100_000))),
        ("two fragments", [start(&half), end(&half)].concat()),
        (
            "one byte too long in fragments",
            [start(&full), more(b"x")].concat(),
        ),
        (
            "10,000 fragments",
            [start(b"x"), more(b"x").repeat(many)].concat(),
        ),
    ];
    let flood = [start(b""), more(b"").repeat(many)].concat();

    let mut table: Vec<Broken> = vec![];
    for (code, what, rows) in [
        (1002, "protocol error", protocol_errors),
        (1003, "binary", binary),
        (1007, "no UTF-8", no_utf8),
        (1009, "too big", too_big),
        (4429, "flood", vec![("10,000 empty fragments", flood)]),
    ] {
        let rows = rows.into_iter();
        table.extend(rows.map(|(name, bytes)| (format!("{what}: {name}"), code, bytes)));
    }
    for opcode in (3..=7).map(|n| OpCode::Data(Data::Reserved(n))) {
        table.push((format!("{opcode:?}"), 1002, frame(opcode, ping)));
    }
    for opcode in (11..=15).map(|n| OpCode::Control(Control::Reserved(n))) {
        table.push((format!("{opcode:?}"), 1002, frame(opcode, "")));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        table.push((
            format!("Close {code}"),
            1002,
            close(close_payload(code, b"")),
        ));
    }
    let max = MAX_FRAME as u64;
    let any = fastrand::u64(max + 1..1 << 63);
    for length in [max + 1, 65_536, 1 << 31, 1 << 40, (1 << 63) - 1, any] {
        table.push((format!("length {length}"), 1009, claimed_length(length)));
    }
    table
}

/// A valid ping frame's text of exactly this length in bytes.
pub fn ping_of_length(length: usize) -> String {
    let ping = |pad: usize| format!("{{\"kind\":\"ping\",\"x\":\"{}\"}}", "x".repeat(pad));
    let text = ping(length - ping(0).len());
    assert_eq!(text.len(), length);
    text
}
