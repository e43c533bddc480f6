//! Properties of the pure parsers for any bytes. The fuzzers (`fuzz_targets/`) and proptest
//! (`tests/it/properties.rs`) call these with generated inputs and with the seeds.

use std::cell::RefCell;
use std::io::{self, Cursor, ErrorKind::WouldBlock, Read, Write};

use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, OpCode},
};

use dynochat::protocol::{
    ErrorCode, Id, Incoming, MAX_MESSAGE, MAX_NAME, MAX_ROOM, Message, Name, Refusal, RoomName,
    outgoing, parse,
};
use dynochat::socket::{Frame, MAX_FRAME, Reader, frame};
use dynochat::web::request::{self, MAX_HEAD};

/// A request's head is refused, incomplete, or so clear that all programs read it in the same way.
pub fn head(bytes: &[u8]) {
    let (request, length) = match request::parse(bytes) {
        Ok(Some(found)) => found,
        Ok(None) => return assert!(bytes.len() < MAX_HEAD, "waits for more than the limit"),
        Err((status, why)) => {
            assert!([400, 405, 431].contains(&status) && !why.is_empty());
            return;
        }
    };
    let head = &bytes[..length];
    assert!(length <= MAX_HEAD);
    let text = String::from_utf8_lossy(head);
    let lines = text
        .strip_suffix("\r\n\r\n")
        .expect("an empty line at its end");
    assert!(!lines.contains(|c: char| c.is_ascii_control() && !"\r\n\t".contains(c)));
    let mut lines = lines.trim_start_matches("\r\n").split("\r\n");
    let line = lines.next().expect("a request line");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");

    let (mut hosts, mut lengths) = (vec![], vec![]);
    for (name, value) in lines.map(|line| line.split_once(':').expect("name: value")) {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        assert!(!name.is_empty() && name.chars().all(token), "{name:?}");
        match &*name.to_ascii_lowercase() {
            "host" => hosts.push(value.trim_matches([' ', '\t'])),
            "content-length" => lengths.push(value.trim_matches([' ', '\t'])),
            "transfer-encoding" => panic!("a chunked body is accepted: {text}"),
            _ => {}
        }
    }
    let is_zero = |length: &&str| !length.is_empty() && length.bytes().all(|b| b == b'0');
    assert!(lengths.len() <= 1 && lengths.iter().all(is_zero), "{text}");
    let needs_no_host = line.ends_with("HTTP/1.0");
    assert!(
        hosts.len() == 1 || hosts.is_empty() && needs_no_host,
        "{text}"
    );
    assert_eq!(request.host, hosts.first().copied().unwrap_or_default());
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    assert!(request.host.chars().all(plain), "{:?}", request.host);
    assert!(request.path.starts_with('/') && request.target.starts_with(&request.path));
    let splits = |c: char| c.is_ascii_control() || c == ' ';
    assert!(!request.target.contains(splits), "{text}");
    assert_eq!(line.split(' ').collect::<Vec<_>>()[1], request.target);

    // The bytes after the head change nothing, and a part of the head is incomplete.
    let alone = request::parse(head).expect("as before").expect("as before");
    assert_eq!(format!("{alone:?}"), format!("{:?}", (&request, length)));
    for cut in [length - 1, length - 2, length / 2, length / 3] {
        let parsed = request::parse(&bytes[..cut]);
        assert!(matches!(parsed, Ok(None)), "cut at {cut}: {text}");
    }

    match request.upgrade() {
        Ok(answer) => {
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let mut response = httparse::Response::new(&mut headers);
            let whole = httparse::Status::Complete(answer.len());
            assert_eq!(response.parse(answer.as_bytes()), Ok(whole), "{answer}");
            assert_eq!(response.code, Some(101), "{answer}");
            assert_eq!(response.headers.len(), 3, "{answer}");
        }
        Err((status, _)) => assert!([400, 426].contains(&status)),
    }
    if request.origin_allowed(&[]) == Ok(true) {
        let without_port = |host: &str| {
            let host = host.to_lowercase();
            let ports = [":80", ":443"];
            let shorter = ports.iter().find_map(|port| host.strip_suffix(port));
            shorter.unwrap_or(&host).to_owned()
        };
        let host = without_port(&request.host);
        let is_own = |origin: &str| without_port(origin).ends_with(&host);
        let origin = request.only("origin").expect("at most one");
        assert!(origin.is_none_or(is_own), "{text}");
    }
}

/// A frame of a page is a bad message, or valid in all its fields.
pub fn client_message(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let word = |s: &str, min| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        (min..=64).contains(&s.len()) && s.bytes().all(allowed)
    };
    let fields: Value = serde_json::from_str(text).unwrap_or_default();
    let kind = fields["kind"].as_str().unwrap_or_default();
    match parse(text) {
        Ok(Incoming::Join(join)) => {
            assert_eq!(kind, "join");
            match &join.room {
                Ok(found) => room(found.as_str()),
                Err(code) => assert_eq!(*code, ErrorCode::BadRoom),
            }
            match &join.user {
                Ok(found) => name(found),
                Err(code) => assert_eq!(*code, ErrorCode::BadName),
            }
            assert!(join.token.is_none_or(|token| word(&token, 16)));
            let parsed_again = join.last.map(|id| Id::parse(&id.to_string()));
            assert_eq!(parsed_again, join.last.map(Some));
        }
        Ok(Incoming::Talk(talk)) => {
            assert_eq!(kind, "talk");
            assert!(word(&talk.cid, 1));
            let message = match talk.message {
                Ok(message) => message,
                Err(code) => {
                    let codes = [ErrorCode::Empty, ErrorCode::TooLong, ErrorCode::BadMessage];
                    return assert!(codes.contains(&code));
                }
            };
            let length = message.chars().count();
            assert!((1..=MAX_MESSAGE).contains(&length) && message.trim() == message);
            assert!(!message.contains(|c: char| c.is_control() && !"\n\t".contains(c)));
            let shows = |c: char| !c.is_whitespace() && !is_hidden(c);
            assert!(message.contains(shows), "{message:?}");
            // The talk can be stored in the stream and is read from it unchanged.
            let said = Message {
                user: "花子".into(),
                message: message.into(),
                cid: talk.cid.into(),
            };
            let body = said.to_json();
            assert_eq!(Message::from_json(body.as_bytes()).as_ref(), Some(&said));
            let json = outgoing::talk(Id(7, 1), &said);
            let talked: Value = serde_json::from_str(&json).expect("JSON");
            let wanted = serde_json::json!({"kind": "talk", "id": "7-1", "user": "花子", "message": said.message, "cid": said.cid});
            assert_eq!(talked, wanted);
            assert!(frame::text(&json).ends_with(json.as_bytes()));
        }
        Ok(Incoming::Ping {}) => assert_eq!(kind, "ping"),
        Ok(Incoming::Quit {}) => assert_eq!(kind, "quit"),
        Err(code) => {
            assert_eq!(code, ErrorCode::BadMessage);
            let refusal = Refusal::of_talk(code, "c-1").retry_in(5);
            let error: Value = serde_json::from_str(&outgoing::error(&refusal)).expect("JSON");
            let wanted = serde_json::json!(["error", "bad_message", "c-1", 5]);
            let fields = ["kind", "code", "cid", "retry_ms"].map(|field| error[field].clone());
            assert_eq!(Value::from(fields.to_vec()), wanted);
        }
    }
    // The same text as a name and as a room.
    if let Some(checked) = Name::new(text) {
        name(&checked);
    }
    if let Some(checked) = RoomName::new(text) {
        room(checked.as_str());
    }
}

/// A room's name is its own folded form, and harmless in a key.
pub fn room(folded: &str) {
    let again = RoomName::new(folded);
    assert_eq!(again.as_ref().map(RoomName::as_str), Some(folded));
    assert_harmless(folded, MAX_ROOM);
}

/// A valid name stays the same when it is checked or folded again, and is harmless on a page.
pub fn name(name: &Name) {
    let again = Name::new(&name.shown).expect("a name is a name");
    assert_eq!(&again, name);
    assert_harmless(&name.shown, MAX_NAME);
    if let Some(folded) = Name::new(&name.folded) {
        assert_eq!(folded.folded, name.folded, "folded twice");
    }
    assert_harmless(&name.folded, usize::MAX);
}

/// Draws nothing by itself, whatever font there is.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// No character breaks a line, a key, a log or a page, and none is invisible.
fn assert_harmless(text: &str, max: usize) {
    let blank = |c: char| c.is_control() || c.is_whitespace() && c != ' ';
    let special = |c: char| "{}:<>&\"/\\*?=|`$".contains(c);
    let bad = |c: char| is_hidden(c) || blank(c) || special(c);
    assert!(!text.contains(bad), "{text:?}");
    let length = text.chars().count();
    assert!(
        (1..=max).contains(&length) && text.trim() == text,
        "{text:?}"
    );
    assert!(!text.contains("  "), "{text:?}");
    assert!(text.contains(char::is_alphanumeric), "{text:?}");
}

/// An entry of the stream is ignored, or a talk that every page can show.
pub fn entry(bytes: &[u8]) {
    let Some(message) = Message::from_json(bytes) else {
        return;
    };
    let json = outgoing::talk(Id(7, 1), &message);
    assert!(!json.contains(|c: char| c < ' '), "{json:?}");
    let talk: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(talk["kind"], "talk");
    assert_eq!(talk["id"], "7-1");
    for (field, max) in [("user", MAX_NAME), ("message", MAX_MESSAGE), ("cid", 64)] {
        let length = talk[field].as_str().expect(field).chars().count();
        assert!((1..=max).contains(&length), "{field} has {length}");
    }
    let fields = talk.as_object().map(|fields| fields.len());
    assert_eq!(fields, Some(5), "{json}");
}

/// Frames are read in the same way however their bytes are split, within the limits, to an end. The reader itself writes
/// only Pongs and Closes. The first two bytes of the input choose the split.
pub fn frames(bytes: &[u8]) {
    let [size, early, bytes @ ..] = bytes else {
        return;
    };
    let (whole, answers) = heard(bytes, 0, usize::MAX);
    // The limit of wire bytes per message is checked at each read, so a long message in pieces may end sooner.
    if bytes.len() < 7 * MAX_FRAME {
        let size = 1 + *size as usize;
        for (early, size) in [(0, size), (*early as usize, 1), (usize::MAX, 1)] {
            let (in_pieces, written) = heard(bytes, early, size);
            assert_eq!(in_pieces, whole, "{early} early, then {size} at a time");
            assert_eq!(written, answers, "{early} early, then {size} at a time");
        }
    }
    let mut rest = Cursor::new(&answers[..]);
    while (rest.position() as usize) < answers.len() {
        let header = FrameHeader::parse(&mut rest).expect("a header");
        let (header, length) = header.expect("a complete header");
        let control = [
            OpCode::Control(Control::Pong),
            OpCode::Control(Control::Close),
        ];
        assert!(control.contains(&header.opcode), "{header:?}");
        let reserved = header.rsv1 || header.rsv2 || header.rsv3;
        assert!(
            header.is_final && header.mask.is_none() && !reserved,
            "{header:?}"
        );
        assert!(length <= 125, "{length}");
        rest.set_position(rest.position() + length);
    }
    assert_eq!(rest.position() as usize, answers.len(), "whole frames");
}

/// What a reader reports up to the end, and what it writes itself. `early` bytes came with the head; the others come
/// `size` at a time, and every other read returns `WouldBlock`.
pub fn heard(bytes: &[u8], early: usize, size: usize) -> (Vec<String>, Vec<u8>) {
    let (early, rest) = bytes.split_at(early.min(bytes.len()));
    let wire = Wire {
        rest: RefCell::new((rest, false)),
        size,
        written: RefCell::default(),
    };
    let mut reader = Reader::new(&wire, early.to_vec());
    let mut heard = vec![];
    for _ in 0..2 * bytes.len() + 2 {
        match reader.read() {
            Frame::Nothing => continue,
            Frame::Text(text) => {
                assert!(text.len() <= MAX_FRAME);
                heard.push(format!("text {text}"));
                continue;
            }
            Frame::Control => {
                heard.push("control".into());
                continue;
            }
            Frame::End => heard.push("end".into()),
            Frame::Broken(code, reason) => {
                assert!([1002, 1003, 1007, 1009, 4429].contains(&code) && !reason.is_empty());
                heard.push(format!("broken {code}"));
            }
        }
        return (heard, wire.written.into_inner());
    }
    panic!("no end after {heard:?}");
}

/// A stream whose every other read returns `WouldBlock`.
struct Wire<'a> {
    rest: RefCell<(&'a [u8], bool)>,
    size: usize,
    written: RefCell<Vec<u8>>,
}

impl Read for &Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (rest, asked) = &mut *self.rest.borrow_mut();
        *asked = !*asked;
        if *asked && !rest.is_empty() {
            return Err(WouldBlock.into());
        }
        let n = rest.len().min(self.size).min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        *rest = &rest[n..];
        Ok(n)
    }
}

impl Write for &Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.written.borrow_mut().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
