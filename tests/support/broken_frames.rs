//! Every broken frame that the tests send, and the code of the Close that must answer it (RFC 6455 §7.4.1; 4400 and 4429
//! are the chat's own codes for bad messages and for a flood). And texts that are no frame of the chat.

use super::facts::{BAD_MESSAGES, MAX_FRAME};
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
    let ping_and = |more: &[u8]| [ping.as_bytes(), more].concat();
    let start = |payload: &[u8]| fragment(payload, true, false);
    let more = |payload: &[u8]| fragment(payload, false, false);
    let in_two = |first: &[u8], last: &[u8]| [start(first), fragment(last, false, true)].concat();
    let close = |code, reason| frame(CLOSE, close_payload(code, reason));
    let open_close = odd_frame(CLOSE, close_payload(1000, b""), |h| h.is_final = false);
    let nested = [start(b"{"), frame(TEXT, ping)].concat();

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
        ("message in a message", nested),
        ("Close of one byte", frame(CLOSE, [3])),
    ];
    let any = fastrand::usize(1..MAX_FRAME);
    let binary = vec![
        ("empty", frame(BINARY, "")),
        ("of any length", frame(BINARY, vec![0; any])),
        ("of the maximal length", frame(BINARY, [0; MAX_FRAME])),
    ];
    let json = in_two(b"{\"kind\":\"ping\",\"x\":\"\xe8", b"\x41\"}");
    let no_utf8 = vec![
        ("text", frame(TEXT, b"\xff\xfe")),
        ("JSON", frame(TEXT, ping_with(b"\xc3\x28"))),
        ("overlong", frame(TEXT, b"\xc0\x80")),
        ("surrogate", frame(TEXT, b"\xed\xa0\x80")),
        ("above U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80")),
        ("cut at the end", frame(TEXT, ping_and(b"\xe8\x8a"))),
        ("broken between fragments", in_two(b"\xe8", b"x")),
        ("JSON in fragments", json),
        ("reason of a Close", close(1000, b"\xff")),
    ];
    let (half, full) = ([b'x'; MAX_FRAME * 5 / 8], [b'x'; MAX_FRAME]);
    let any = fastrand::usize(MAX_FRAME + 1..60_000);
    let ping_of = |length: usize| frame(TEXT, ping_of_length(length));
    let many = |payload: &[u8]| [start(payload), more(payload).repeat(10_000)].concat();
    let too_big = vec![
        ("one byte too long", ping_of(MAX_FRAME + 1)),
        ("too long", frame(TEXT, vec![b'x'; any])),
        ("100,000 bytes", ping_of(100_000)),
        ("two fragments", in_two(&half, &half)),
        ("full and a byte", [start(&full), more(b"x")].concat()),
        ("10,000 fragments", many(b"x")),
    ];
    let flood = vec![("10,000 empty fragments", many(b""))];

    let mut table: Vec<Broken> = vec![];
    for (code, what, rows) in [
        (1002, "protocol error", protocol_errors),
        (1003, "binary", binary),
        (1007, "no UTF-8", no_utf8),
        (1009, "too big", too_big),
        (4429, "flood", flood),
    ] {
        let rows = rows.into_iter();
        table.extend(rows.map(|(name, bytes)| (format!("{what}: {name}"), code, bytes)));
    }
    for n in 3..=7 {
        let data = OpCode::Data(Data::Reserved(n));
        table.push((format!("opcode {n}"), 1002, frame(data, ping)));
        let control = OpCode::Control(Control::Reserved(n + 8));
        table.push((format!("opcode {}", n + 8), 1002, frame(control, "")));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        table.push((format!("Close {code}"), 1002, close(code, b"")));
    }
    let max = MAX_FRAME as u64;
    let any = fastrand::u64(max + 1..1 << 63);
    for length in [max + 1, 65_536, 1 << 31, 1 << 40, (1 << 63) - 1, any] {
        table.push((format!("length {length}"), 1009, claimed_length(length)));
    }
    for texts in bad_messages().windows(BAD_MESSAGES) {
        let frames: Vec<_> = texts.iter().map(|text| frame(TEXT, text)).collect();
        let name = format!("bad messages: {:.200}", texts.join(" "));
        table.push((name, 4400, frames.concat()));
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

/// Texts that are no frame of the chat. The first of these lines is empty.
const TEXTS: &str = r#"
hello
[]
null
5
"talk"
{}
{"kind":"ping"
{"kind":"ping"} x
{"kind":NaN}
{"kind":"ping","x":1e999}
{"kind":"talk","message":"\ud800","cid":"c"}
{"kind":"talk","message":"\udc00","cid":"c"}
{"kind":"talk","message":"x","cid":"\u0063\u0020"}
{"kind":"talk","message":"no cid"}
{"kind":"talk","cid":"c"}
{"kind":"join","room":"lobby"}
["talk","hello","c1"]
 ["quit"]
{"kind":"talk","message":"first","cid":"c1","message":"last"}
{"kind":"quit","kind":"talk","message":"hello","cid":"c1"}"#;

/// Three of these close a connection.
pub fn bad_messages() -> Vec<String> {
    let brackets = "[".repeat(200) + &"]".repeat(200);
    let mut texts: Vec<String> = TEXTS.lines().map(String::from).collect();
    texts.extend([
        "\u{feff}{\"kind\":\"ping\"}".to_string(),
        "{\"kind\":\"talk\",\"message\":\"a\0b\",\"cid\":\"c\"}".to_string(),
        format!("{{\"kind\":\"ping\",\"x\":{brackets}}}"),
        format!("{{\"kind\":{}}}", "9".repeat(8_000)),
        "{\"kind\":".repeat(400) + &"[".repeat(400),
        "[".repeat(200),
        " ".repeat(MAX_FRAME),
    ]);
    texts
}
