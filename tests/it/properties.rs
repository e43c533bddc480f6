//! Properties of the pure parsers, for inputs that proptest generates and for the fuzzers' seeds. The checks are in
//! `fuzz/src/checks.rs`, which the fuzzers use too.

#[path = "../../fuzz/src/checks.rs"]
mod checks;

use crate::support::broken_frames::broken_frames;
use crate::support::facts::MAX_HEADERS;
use crate::support::raw::{CLOSE, PING, PONG, TEXT, close_payload, fragment, frame, upgrade_head};
use std::fmt::Debug;
use std::fs;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

use dynochat::protocol::{Id, Name, RoomName};
use dynochat::web::request;

/// The number of inputs, unless PROPTEST_CASES is set.
fn cases(number: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let cases = wanted.map_or(number, |n| n.parse().expect("PROPTEST_CASES is a number"));
    ProptestConfig {
        cases,
        failure_persistence: None, // a failing input is printed; add it to fuzz/seeds
        ..ProptestConfig::default()
    }
}

#[test]
fn every_seed_of_the_fuzzers_passes() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/");
    type Check = fn(&[u8]);
    let checks: [(&str, Check); 4] = [
        ("head", checks::head),
        ("client_message", checks::client_message),
        ("entry", checks::entry),
        ("frames", checks::frames),
    ];
    for (target, check) in checks {
        let files = fs::read_dir(seeds.to_owned() + target).expect("seeds of every target");
        let paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        assert!(paths.len() >= 4, "{target} has seeds");
        for path in paths {
            check(&fs::read(path).expect("a seed"));
        }
    }
}

// ---- heads

/// `|` separates them.
const HEADERS: &str = "Host: chat.example|host:\tb:3000 |Content-Length: 0|Content-Length: 5|\
    content-length: +0|Transfer-Encoding: chunked|Connection: keep-alive, Upgrade|Connection: Upgrade|\
    Upgrade: websocket|Upgrade: h2c, WebSocket|Sec-WebSocket-Version: 13|\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Origin: https://chat.example|\
    Origin: https://elsewhere.example|X-Forwarded-Proto: https|Cookie: a=b; c=\"d\"|X-Any: caf\u{e9}|Accept:";
const LINES: &str = "GET / HTTP/1.1|GET /ws HTTP/1.1|GET /chat.js?x=%0d%0a HTTP/1.1|HEAD /?room=a#b HTTP/1.1|\
    GET //a/../b HTTP/1.0|POST / HTTP/1.1|GET http://a/ HTTP/1.1|OPTIONS * HTTP/1.1";

/// An input that proptest generates, for a test that is not its own.
pub fn one_of<T: Debug>(strategy: impl Strategy<Value = T>) -> T {
    let tree = strategy.new_tree(&mut TestRunner::default());
    tree.expect("nothing is rejected").current()
}

fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let line = select(LINES.split('|').collect::<Vec<_>>());
    let headers = vec(select(HEADERS.split('|').collect::<Vec<_>>()), 0..9);
    (line, headers, "[^\0]{0,4}").prop_map(|(line, headers, more)| {
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        format!("{line}\r\nHost: a\r\n{headers}\r\n{more}").into_bytes()
    })
}

/// Bytes that two programs may read in two ways (request smuggling).
const SEPARATORS: &[&str] = &[
    "\n", "\r", "\r\n", "\r\n\r\n", "\r\n ", " :", "\0", "\t", " ", ":", "\u{a0}", "\u{85}", "%00",
    "\u{b}", "\u{2028}", "+",
];
const SMUGGLED: &[&str] = &[
    "Host: b\r\n",
    "Content-Length: 7\r\n",
    "Transfer-Encoding:\tchunked\r\n",
    " HTTP/1.1\r\n",
];

/// A head in which some bytes are replaced.
pub fn mutated_head() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => select([SEPARATORS, SMUGGLED].concat()).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    let edits = vec((any::<Index>(), 0..3usize, piece), 0..4);
    let upgrade = upgrade_head("chat.example", &["Origin: https://chat.example"]);
    let heads = prop_oneof![2 => any_head(), 1 => Just(upgrade.into_bytes())];
    (heads, edits).prop_map(|(mut bytes, edits)| {
        for (at, cut, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn a_head_is_unambiguous_or_refused(bytes in mutated_head()) {
        checks::head(&bytes);
    }

    #[test]
    fn any_bytes_are_safe_for_every_parser(bytes in vec(any::<u8>(), 0..300)) {
        checks::head(&bytes);
        checks::client_message(String::from_utf8_lossy(&bytes).as_bytes());
        checks::entry(&bytes);
        checks::frames(&bytes);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_head_of_visible_characters_is_accepted(
        path in "/[!-\"$->@-~]{0,20}",
        query in proptest::option::of("\\?[!-~]{0,20}"),
        host in "[A-Za-z0-9.:-]{1,20}",
        headers in vec("x-[a-z0-9]{1,9}: [!-~]([ -~]{0,20}[!-~])?\r\n", 0..8),
    ) {
        let target = path.clone() + query.as_deref().unwrap_or_default();
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", headers.concat());
        let (request, length) = request::parse(head.as_bytes()).expect("good").expect("whole");
        prop_assert_eq!((request.path, request.target, request.host, length), (path, target, host, head.len()));
    }

    /// So it is enough to parse at the end of each line, and that is done seldom.
    #[test]
    fn a_head_is_complete_at_the_end_of_a_line_and_has_few_lines(
        empty_lines in select(&[0usize, 1, 2, 3, 200]),
        head in mutated_head(),
        more_lines in 0..2 * MAX_HEADERS,
    ) {
        let more = b"X: y\r\n".repeat(more_lines);
        let bytes = [b"\r\n".repeat(empty_lines), head, more].concat();
        let mut is_refused = false;
        for end in 1..=bytes.len() {
            let parsed = request::parse(&bytes[..end]);
            prop_assert!(parsed.is_err() || !is_refused, "refused while incomplete, then valid");
            match parsed {
                Ok(None) => {
                    let lines = bytes[..end].iter().filter(|byte| **byte == b'\n').count();
                    prop_assert!(lines <= MAX_HEADERS + 3, "{} lines", lines);
                }
                Ok(Some((_, length))) => {
                    prop_assert_eq!((length, bytes[end - 1]), (end, b'\n'));
                    break;
                }
                Err(_) => is_refused = true,
            }
        }
    }
}

// ---- names and rooms

#[test]
fn any_character_is_refused_or_harmless_in_names_and_a_run_of_blanks_is_one_space() {
    let (mut tried, mut names) = (0, 0);
    // A sample of the ideographs, syllables and unassigned code points, and all other characters.
    let alike = |c: char| ('\u{3400}'..'\u{d7b0}').contains(&c) || c >= '\u{1f000}';
    let chars = ('\0'..=char::MAX).filter(|c| !alike(*c) || (*c as u32).is_multiple_of(61));
    for c in chars.chain('\u{e0000}'..'\u{e0200}') {
        if c.is_whitespace() && !c.is_control() && !"\u{2028}\u{2029}".contains(c) {
            let text = format!("{c}{c}A{c} {c}b{c}");
            let (name, room) = (Name::new(&text), RoomName::new(&text));
            assert_eq!(name.expect("a name").shown, "A b", "{c:?}");
            assert_eq!(room.expect("a room").as_str(), "a b", "{c:?}");
        }
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
    println!("measured: {names} of {tried} texts are names");
    assert!(names > 20_000, "{names}"); // the letters of all scripts
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn names_fold_alike_in_every_normal_form_and_width(text in "[\\p{L}\\p{M}\\p{N} _.'’・\u{ff21}-\u{ff5a}-]{1,12}") {
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
    fn names_fold_alike_in_upper_and_lower_case(text in "[A-Za-z0-9À-ÖØ-öø-ÿΑ-ΡΣ-Ωα-ωЀ-яԱ-Ֆﬀ-ﬆあ花]{1,12}") {
        let folded = |s: &str| Name::new(s).map(|name| name.folded);
        let wanted = folded(&text).expect("a name");
        prop_assert_eq!(folded(&text.to_lowercase()), Some(wanted.clone()));
        // Upper case may be three times as long (`ﬃ`), hence the rooms: their limit is a higher one.
        let room = |s: &str| RoomName::new(s).map(|room| room.as_str().to_owned());
        prop_assert!(room(&text.to_uppercase()).is_none_or(|other| other == wanted), "{}", text);
    }

    #[test]
    fn any_text_is_refused_or_harmless_as_a_name(text in "\\PC{0,40}|[a-z\\p{Cf}\\p{Z}\\p{M}\\p{Cc}<>&{}:]{0,30}|[\\p{L}\\p{M}\\p{N}\\p{Zs}]{1,12}") {
        checks::client_message(text.as_bytes());
    }
}

// ---- ids

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn ids_are_parsed_and_compared_as_two_integers(a in any::<(u64, u64)>(), b in any::<(u64, u64)>(), text in "[-+0-9 a]{0,24}") {
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
    const WORDS: &str = "join talk ping quit 0123456789abcdef c-1 7-1 0-0 - lobby 花子 ";
    let words: Vec<&str> = WORDS.split(' ').collect(); // the last one is empty
    let texts = prop_oneof![
        select(words).prop_map(Value::from),
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
    fn any_client_message_is_refused_or_valid(
        fields in vec((select(&["kind", "room", "user", "token", "last", "message", "cid", "x"]), any_value()), 0..8),
        kind in select(&["join", "talk", "ping"]),
        is_broken in any::<bool>(),
        at in any::<Index>(),
        with in select(JSON),
    ) {
        let mut frame = json!({"kind": kind, "room": "lobby", "user": "花子", "message": "hi", "cid": "c"});
        for (key, value) in fields {
            frame[key] = value;
        }
        let mut text = frame.to_string();
        if is_broken {
            let at = (0..=at.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).expect("0 is one");
            text.insert_str(at, with);
        }
        checks::client_message(text.as_bytes());
    }

    #[test]
    fn any_stream_entry_is_ignored_or_a_valid_talk(
        body in prop_oneof![any_value(), (any_value(), any_value(), any_value()).prop_map(|(u, m, c)| json!({"user": u, "message": m, "cid": c}))],
    ) {
        checks::entry(body.to_string().as_bytes());
    }
}

// ---- frames

/// A name, the code with which the connection must be closed, and the last bytes of the stream.
type Ending = (String, Option<u16>, Vec<u8>);

static ENDINGS: LazyLock<Vec<Ending>> = LazyLock::new(|| {
    let close = frame(CLOSE, close_payload(1000, b""));
    let half = frame(TEXT, "half")[..7].to_vec();
    let valid = [
        ("nothing more".to_string(), None, vec![]),
        ("half a frame".to_string(), None, half),
        ("a Close".to_string(), Some(1000), close),
    ];
    let broken = broken_frames().into_iter();
    let broken = broken.map(|(name, code, bytes)| (name, Some(code), bytes));
    // The session detects bad messages (4400) and floods (4429), not the reader.
    let broken = broken.filter(|(_, code, _)| *code < Some(4000));
    valid.into_iter().chain(broken).collect()
});

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn frames_are_read_as_they_were_sent(
        pieces in vec((
            select(&[TEXT, TEXT, TEXT, PING, PONG]),
            "\\PC{0,60}|[花x]{100,700}",
            vec(any::<Index>(), 0..4), // where the text is split; a Ping follows each fragment but the last
            vec(any::<u8>(), 0..=125), // the payload of a control frame
        ), 0..6),
        ending in any::<Index>(),
        size in 1..200usize,
        early in any::<Index>(),
    ) {
        let (mut bytes, mut wanted, mut pongs) = (vec![], vec![], vec![]);
        for (opcode, text, cuts, payload) in &pieces {
            let mut control = |bytes: &mut Vec<u8>, opcode, payload: &[u8]| {
                bytes.extend(frame(opcode, payload));
                wanted.push("control".to_string());
                if opcode == PING {
                    pongs.extend([0x8a, payload.len() as u8]);
                    pongs.extend(payload);
                }
            };
            if *opcode != TEXT {
                control(&mut bytes, *opcode, payload);
                continue;
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable(); // anywhere, also within a character
            let mut start = 0;
            for (n, cut) in cuts.iter().enumerate() {
                bytes.extend(fragment(&text.as_bytes()[start..*cut], n == 0, false));
                control(&mut bytes, PING, b"between");
                start = *cut;
            }
            bytes.extend(fragment(&text.as_bytes()[start..], cuts.is_empty(), true));
            wanted.push(format!("text {text}"));
        }
        let (what, expected, last) = ending.get(&ENDINGS);
        bytes.extend(last);
        let (mut heard, mut answers) = checks::heard(&bytes, early.index(bytes.len() + 1), size);
        let close = answers.split_off(pongs.len().min(answers.len()));
        let end = heard.pop();
        prop_assert_eq!(answers, pongs, "{}", what);
        prop_assert_eq!(heard, wanted, "{}", what);
        // tungstenite answers a Close itself, also a broken one; to all else the session answers with the code.
        let code = match (end.as_deref(), &close[..]) {
            (Some("end"), []) => None,
            (Some("end"), [0x88, length, code @ ..]) if code.len() == *length as usize => {
                code.first_chunk().map(|code| u16::from_be_bytes(*code))
            }
            (Some(broken), []) => broken.strip_prefix("broken ").and_then(|code| code.parse().ok()),
            other => panic!("{what}: {other:?}"),
        };
        prop_assert_eq!(code, *expected, "{}", what);
        if code == Some(1000) {
            prop_assert_eq!(close, b"\x88\x02\x03\xe8", "an echo");
        }
    }
}
