//! Proves of the pure files what must hold of every input, on inputs made up by proptest and on the fuzzers' seeds.
//! What that is stands in `fuzz/src/checks.rs`, which the fuzzers share.

#[path = "../../fuzz/src/checks.rs"]
mod checks;

use std::fs;
use std::io::{self, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame, FrameHeader,
    coding::{Control, Data, OpCode},
};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use unicode_normalization::UnicodeNormalization;

use dynochat::message::Id;
use dynochat::name::{Name, RoomName};
use dynochat::{frame, http, reader};

/// So many inputs of each kind; PROPTEST_CASES says another number.
fn cases(number: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let cases = wanted.map_or(number, |n| n.parse().expect("PROPTEST_CASES is a number"));
    ProptestConfig {
        cases,
        failure_persistence: None, // the input is printed, and belongs into fuzz/seeds
        ..ProptestConfig::default()
    }
}

#[test]
fn every_seed_of_the_fuzzers_holds() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/");
    type Check = fn(&[u8]);
    let checks: [(&str, Check); 4] = [
        ("head", checks::head),
        ("client_message", checks::client_message),
        ("line", checks::line),
        ("frames", checks::frames),
    ];
    for (target, check) in checks {
        let files = fs::read_dir(seeds.to_owned() + target).expect("seeds of every target");
        let seeds: Vec<_> = files
            .map(|file| fs::read(file.expect("a file").path()).expect("a seed"))
            .collect();
        assert!(seeds.len() >= 4, "{target} has seeds");
        seeds.iter().for_each(|seed| check(seed));
    }
}

/// An input, and something done to it: bytes cut out somewhere, and others put there.
fn spoilt(
    good: impl Strategy<Value = Vec<u8>>,
    spoilers: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => select(spoilers).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    (good, vec((any::<Index>(), 0..3usize, piece), 0..4)).prop_map(|(mut bytes, edits)| {
        for (at, cut, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    })
}

// ---- heads

const HEADERS: &[&str] = &[
    "Host: chat.example",
    "host:\tb:3000 ",
    "Content-Length: 0",
    "Content-Length: 5",
    "content-length: +0",
    "Transfer-Encoding: chunked",
    "Connection: keep-alive, Upgrade",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c, WebSocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Origin: https://chat.example",
    "Origin: https://elsewhere.example",
    "X-Forwarded-Proto: https",
    "Cookie: a=b; c=\"d\"",
    "X-Any: caf\u{e9}",
    "Accept:",
];

fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let line = select(&[
        "GET / HTTP/1.1",
        "GET /ws HTTP/1.1",
        "GET /chat.js?x=%0d%0a HTTP/1.1",
        "HEAD /?room=a#b HTTP/1.1",
        "GET //a/../b HTTP/1.0",
        "POST / HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ]);
    let headers = vec(select(HEADERS), 0..9);
    (line, headers, "[^\0]{0,4}").prop_map(|(line, headers, behind)| {
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        format!("{line}\r\nHost: a\r\n{headers}\r\n{behind}").into_bytes()
    })
}

/// What makes one request of two, or two of one, where programs disagree.
const SMUGGLED: &[&str] = &[
    "\n",
    "\r",
    "\r\n",
    "\r\n\r\n",
    "\r\n ",
    " :",
    "\0",
    "\t",
    " ",
    ":",
    "\u{a0}",
    "\u{85}",
    "Host: b\r\n",
    "Content-Length: 7\r\n",
    "Transfer-Encoding:\tchunked\r\n",
    " HTTP/1.1\r\n",
    "%00",
    "\u{b}",
    "\u{2028}",
    "+",
];

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn a_head_is_read_in_one_way_or_not_at_all(bytes in spoilt(any_head(), SMUGGLED)) {
        checks::head(&bytes);
    }

    #[test]
    fn any_bytes_are_no_danger_as_a_head_a_message_a_line_or_frames(bytes in vec(any::<u8>(), 0..300)) {
        checks::head(&bytes);
        checks::client_message(String::from_utf8_lossy(&bytes).as_bytes());
        checks::line(&bytes);
        checks::frames(&bytes);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_head_may_be_split_at_every_byte(
        path in "/[!-\"$->@-~]{0,20}",
        query in proptest::option::of("\\?[!-~]{0,20}"),
        host in "[A-Za-z0-9.:-]{1,20}",
        headers in vec(("x-[a-z0-9]{1,9}", "[!-~]([ -~]{0,20}[!-~])?"), 0..8),
        behind in vec(any::<u8>(), 0..20),
    ) {
        let target = path.clone() + query.as_deref().unwrap_or_default();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
        let bytes = [head.as_bytes(), &behind].concat();
        for cut in 0..head.len() {
            prop_assert!(matches!(http::parse(&bytes[..cut]), Ok(None)), "cut at {}", cut);
        }
        for cut in head.len()..=bytes.len() {
            let (request, length) = http::parse(&bytes[..cut]).expect("good").expect("whole");
            prop_assert_eq!((&request.path, &request.target, &request.host, length), (&path, &target, &host, head.len()));
        }
    }

    #[test]
    fn what_is_once_refused_stays_refused_whatever_follows(bytes in spoilt(any_head(), SMUGGLED)) {
        let refused = (0..=bytes.len()).map(|cut| http::parse(&bytes[..cut]).is_err());
        prop_assert!(refused.is_sorted(), "an incomplete head was refused that is good when complete");
    }
}

// ---- names and rooms

#[test]
fn every_kind_of_character_is_no_name_or_an_inert_one() {
    let (mut tried, mut names) = (0, 0);
    // Of ideographs, syllables and what is not assigned, a few; of everything else, all.
    let alike = |c: char| ('\u{3400}'..'\u{d7b0}').contains(&c) || c >= '\u{1f000}';
    let chars = ('\0'..=char::MAX).filter(|c| !alike(*c) || (*c as u32).is_multiple_of(61));
    for c in chars.chain('\u{e0000}'..'\u{e0200}') {
        for text in [format!("{c}"), format!("A{c}\u{307}b")] {
            tried += 1;
            if let Some(name) = Name::new(&text) {
                checks::name(&name);
                names += 1;
            }
            if let Some(room) = RoomName::new(&text) {
                checks::room(room.as_str());
            }
        }
    }
    println!("measured: of {tried} texts with every kind of character {names} are names");
    assert!(names > 20_000, "{names}"); // the letters of all scripts
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn names_fold_alike_in_every_normal_form_and_either_case(text in "[\\p{L}\\p{M}\\p{N} _.\u{ff21}-\u{ff5a}-]{1,12}") {
        let folded = |s: &str| Name::new(s).map(|name| name.folded);
        if let Some(wanted) = folded(&text) {
            let forms = [text.nfc().collect::<String>(), text.nfd().collect(), text.nfkc().collect(), text.nfkd().collect()];
            for form in forms {
                prop_assert!(folded(&form).is_none_or(|other| other == wanted), "{:?} and {:?}", text, form);
            }
            let wide = |c: char| if c.is_ascii_alphanumeric() { char::from_u32(c as u32 + 0xfee0).expect("a letter") } else { c };
            let wide: String = text.chars().map(wide).collect();
            prop_assert_eq!(folded(&wide), Some(wanted));
        }
    }

    #[test]
    fn any_text_is_no_name_or_an_inert_one(text in "\\PC{0,40}|[a-z\\p{Cf}\\p{Z}\\p{M}\\p{Cc}<>&{}:]{0,30}") {
        checks::client_message(text.as_bytes());
    }
}

// ---- ids

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn ids_are_two_integers(a in any::<(u64, u64)>(), b in any::<(u64, u64)>(), text in "[-+0-9 a]{0,24}") {
        let (x, y) = (Id(a.0, a.1), Id(b.0, b.1));
        prop_assert_eq!(Id::parse(&x.to_string()), Some(x));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        let number = |s: &str| s.parse::<u64>().ok().filter(|_| !s.starts_with('+'));
        let pair = text.split_once('-').and_then(|(ms, seq)| Some(Id(number(ms)?, number(seq)?)));
        prop_assert_eq!(Id::parse(&text), pair);
    }
}

// ---- messages

fn any_value() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        select(&[
            "join",
            "talk",
            "ping",
            "quit",
            "0123456789abcdef",
            "c-1",
            "7-1",
            "0-0",
            "-",
            "lobby",
            "花子",
            ""
        ])
        .prop_map(Value::from),
        "\\PC{0,30}".prop_map(Value::from),
        "[\\n\\t\\r\0\u{1b}\u{202e}a ]{0,9}".prop_map(Value::from),
        "[a😀]{998,1002}".prop_map(Value::from),
    ];
    let leaf = prop_oneof![6 => texts, 1 => Just(Value::Null), 1 => any::<bool>().prop_map(Value::from), 1 => any::<f64>().prop_map(Value::from)];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-z]{1,4}", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

const JSON: &[&str] = &[
    "\"", "\\", "\\ud83d", "\\u0000", "{", "}", "[", ",", ":", "1e999", "NaN", "-", "null", "\n",
    "\u{feff}",
];

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn whatever_a_page_says_is_refused_or_can_be_said(
        fields in vec((select(&["kind", "room", "user", "token", "last", "message", "cid", "x"]), any_value()), 0..8),
        kind in select(&["join", "talk", "ping"]),
        spoil in any::<bool>(),
        at in any::<Index>(),
        with in select(JSON),
    ) {
        let mut frame = json!({"kind": kind, "room": "lobby", "user": "花子", "message": "hi", "cid": "c"});
        for (key, value) in fields {
            frame[key] = value;
        }
        let mut text = frame.to_string();
        if spoil {
            let at = (0..=at.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).expect("0 is one");
            text.insert_str(at, with);
        }
        checks::client_message(text.as_bytes());
    }

    #[test]
    fn whatever_redis_brings_is_garbage_or_a_talk(
        id in "[0-9]{1,20}-[0-9]{1,3}|new [0-9]-0|\\PC{0,5}",
        body in prop_oneof![any_value(), (any_value(), any_value(), any_value()).prop_map(|(u, m, c)| json!({"user": u, "message": m, "cid": c}))],
    ) {
        checks::line(format!("{id} {body}").as_bytes());
    }
}

// ---- frames

/// A part of what a browser sends, and what a reader makes of it.
#[derive(Clone, Debug)]
enum Piece {
    /// A message, in fragments that end here, with a Ping behind each.
    Text(String, Vec<Index>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// How the stream ends: in the middle, with a Close, or with something that must not be.
type Fault = (&'static str, &'static str, fn(&mut Vec<u8>));

const FAULTS: &[Fault] = &[
    ("nothing more", "end", |_| ()),
    ("half a frame", "end", |out| {
        out.extend(&masked(TEXT, b"half", |_| ())[..7])
    }),
    ("a Close", "end", |out| {
        out.extend(masked(OpCode::Control(Control::Close), b"\x03\xe8", |_| ()))
    }),
    ("binary", "broken 1003", |out| {
        out.extend(masked(OpCode::Data(Data::Binary), b"x", |_| ()))
    }),
    ("not masked", "broken 1002", |out| {
        out.extend(masked(TEXT, b"x", |h| h.mask = None))
    }),
    ("a reserved bit", "broken 1002", |out| {
        out.extend(masked(TEXT, b"x", |h| h.rsv2 = true))
    }),
    ("a reserved opcode", "broken 1002", |out| {
        out.extend(masked(OpCode::Data(Data::Reserved(5)), b"", |_| ()))
    }),
    ("a continuation of nothing", "broken 1002", |out| {
        out.extend(masked(OpCode::Data(Data::Continue), b"", |_| ()))
    }),
    ("half a Ping", "broken 1002", |out| {
        out.extend(masked(PING, b"", |h| h.is_final = false))
    }),
    ("a long Ping", "broken 1002", |out| {
        out.extend(masked(PING, &[0; 126], |_| ()))
    }),
    ("not UTF-8", "broken 1007", |out| {
        out.extend(masked(TEXT, b"\xc0\x80", |_| ()))
    }),
    ("too long", "broken 1009", |out| {
        out.extend(masked(TEXT, &[b'x'; reader::MAX_FRAME + 1], |_| ()))
    }),
    ("a claim", "broken 1009", |out| {
        out.extend(b"\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00mask")
    }),
];

const TEXT: OpCode = OpCode::Data(Data::Text);
const PING: OpCode = OpCode::Control(Control::Ping);

fn masked(opcode: OpCode, payload: &[u8], spoil: impl Fn(&mut FrameHeader)) -> Vec<u8> {
    let mask = Some([7, payload.len() as u8, 0, 0xff]);
    let mut header = FrameHeader {
        opcode,
        mask,
        ..FrameHeader::default()
    };
    spoil(&mut header);
    let mut out = vec![];
    Frame::from_payload(header, payload.to_vec().into())
        .format(&mut out)
        .expect("memory takes it");
    out
}

/// A client's socket: it reads these bytes, and nobody hears what it says.
struct Client<'a>(&'a [u8]);

impl Read for Client<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let text = "\\PC{0,60}|[花x]{100,700}";
    let payload = || vec(any::<u8>(), 0..=125);
    vec(
        prop_oneof![
            3 => (text, vec(any::<Index>(), 0..4)).prop_map(|(text, cuts)| Piece::Text(text, cuts)),
            1 => payload().prop_map(Piece::Ping),
            1 => payload().prop_map(Piece::Pong),
        ],
        0..6,
    )
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn frames_are_heard_as_they_were_meant(pieces in pieces(), (what, end, fault) in select(FAULTS), size in 1..200usize, early in any::<Index>()) {
        let (mut bytes, mut wanted, mut pongs) = (vec![], vec![], vec![]);
        let mut ping = |bytes: &mut Vec<u8>, wanted: &mut Vec<String>, payload: &[u8]| {
            bytes.extend(masked(PING, payload, |_| ()));
            wanted.push("control".into());
            pongs.extend([0x8a, payload.len() as u8]);
            pongs.extend(payload);
        };
        for piece in &pieces {
            match piece {
                Piece::Ping(payload) => ping(&mut bytes, &mut wanted, payload),
                Piece::Pong(payload) => {
                    bytes.extend(masked(OpCode::Control(Control::Pong), payload, |_| ()));
                    wanted.push("control".into());
                }
                Piece::Text(text, cuts) => {
                    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
                    cuts.sort_unstable(); // anywhere, also within a character
                    let mut start = 0;
                    for (n, cut) in cuts.iter().enumerate() {
                        let opcode = if n == 0 { TEXT } else { OpCode::Data(Data::Continue) };
                        bytes.extend(masked(opcode, &text.as_bytes()[start..*cut], |h| h.is_final = false));
                        ping(&mut bytes, &mut wanted, b"between");
                        start = *cut;
                    }
                    let opcode = if cuts.is_empty() { TEXT } else { OpCode::Data(Data::Continue) };
                    bytes.extend(masked(opcode, &text.as_bytes()[start..], |_| ()));
                    wanted.push(format!("text {text}"));
                }
            }
        }
        fault(&mut bytes);
        wanted.push(end.into());
        let (heard, mut answers) = checks::heard(&bytes, early.index(bytes.len() + 1), size);
        prop_assert_eq!(heard, wanted, "{}", what);
        if what == "a Close" {
            prop_assert_eq!(answers.split_off(answers.len() - 4), b"\x88\x02\x03\xe8");
        }
        prop_assert_eq!(answers, pongs);
    }

    #[test]
    fn what_is_encoded_here_is_read_by_a_client(texts in vec(prop_oneof!["\\PC{0,40}", "x{120,130}", "[花]{21800,21860}"], 1..6), code in 1000..1004u16) {
        let mut bytes = vec![];
        for text in &texts {
            frame::put_text(&mut bytes, text);
            prop_assert!(bytes.ends_with(&frame::text(text)));
        }
        bytes.extend(&frame::BEAT);
        bytes.extend(frame::close(code, "why"));
        let config = WebSocketConfig::default();
        let mut client = WebSocketContext::new(Role::Client, Some(config));
        let mut wire = Client(&bytes);
        let mut next = || client.read(&mut wire).expect("well made");
        for text in texts {
            prop_assert_eq!(next(), Message::text(text));
        }
        prop_assert_eq!(next(), Message::Ping("".into()));
        prop_assert_eq!(next(), Message::text(r#"{"kind":"tick"}"#));
        let Message::Close(Some(close)) = next() else { panic!("a Close") };
        prop_assert_eq!((u16::from(close.code), close.reason.as_str()), (code, "why"));
    }
}
