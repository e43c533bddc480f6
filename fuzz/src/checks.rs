//! What must hold of the pure parsers, whatever bytes they are given. libFuzzer calls these with what it finds
//! (`fuzz_targets/`), proptest with what it makes up (`tests/it/properties.rs`), and both with the seeds.

use std::cell::RefCell;
use std::io::{self, Cursor, ErrorKind::WouldBlock, Read, Write};

use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

use dynochat::frame;
use dynochat::http::{self, MAX_HEAD};
use dynochat::message::{self, Code, Id, Incoming, MAX_MESSAGE, Refused};
use dynochat::name::{MAX_NAME, MAX_ROOM, Name, RoomName};
use dynochat::reader::{Frame, MAX_FRAME, Reader};

/// A request's head is refused, or incomplete, or such that no two programs could read it differently.
pub fn head(bytes: &[u8]) {
    let (request, length) = match http::parse(bytes) {
        Ok(Some(found)) => found,
        Ok(None) => return assert!(bytes.len() < MAX_HEAD, "waits for more than it takes"),
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
        .expect("an empty line ends it");
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
            "transfer-encoding" => panic!("a body in chunks is no request of ours"),
            _ => {}
        }
    }
    assert!(
        lengths.len() <= 1
            && lengths
                .iter()
                .all(|n| !n.is_empty() && n.bytes().all(|b| b == b'0')),
        "{text}"
    );
    assert!(
        hosts.len() == 1 || hosts.is_empty() && line.ends_with("HTTP/1.0"),
        "{text}"
    );
    assert_eq!(request.host, hosts.first().copied().unwrap_or_default());
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    assert!(request.host.chars().all(plain), "{:?}", request.host);
    assert!(request.path.starts_with('/') && request.target.starts_with(&request.path));
    assert!(
        !request
            .target
            .contains(|c: char| c.is_ascii_control() || c == ' ')
    );
    assert_eq!(line.split(' ').collect::<Vec<_>>()[1], request.target);

    // Nothing that follows has a part in it, and no part of it is enough.
    let alone = http::parse(head).expect("as before").expect("as before");
    assert_eq!(format!("{alone:?}"), format!("{:?}", (&request, length)));
    for cut in [length - 1, length - 2, length / 2, length / 3] {
        assert!(
            matches!(http::parse(&bytes[..cut]), Ok(None)),
            "cut at {cut}: {text}"
        );
    }

    match request.upgrade() {
        Ok(answer) => {
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let mut response = httparse::Response::new(&mut headers);
            let whole = httparse::Status::Complete(answer.len());
            assert_eq!(response.parse(answer.as_bytes()), Ok(whole), "{answer}");
            assert_eq!(
                (response.code, response.headers.len()),
                (Some(101), 3),
                "{answer}"
            );
        }
        Err((status, _)) => assert!([400, 426].contains(&status)),
    }
    let foreign = |origin: &str| {
        !origin
            .to_lowercase()
            .ends_with(&request.host.to_lowercase())
    };
    if request.origin_allowed(&[]) == Ok(true) {
        let origin = request.only("origin").expect("at most one");
        assert!(!origin.is_some_and(foreign), "{text}");
    }
}

/// What a page says is a bad message, or something that a person may say, do and be called.
pub fn client_message(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let word = |s: &str, min| {
        (min..=64).contains(&s.len())
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let fields: Value = serde_json::from_str(text).unwrap_or_default();
    let kind = fields["kind"].as_str().unwrap_or_default();
    match message::parse(text) {
        Ok(Incoming::Join(join)) => {
            assert_eq!(kind, "join");
            match &join.room {
                Ok(found) => room(found.as_str()),
                Err(code) => assert_eq!(*code, Code::BadRoom),
            }
            match &join.user {
                Ok(found) => name(found),
                Err(code) => assert_eq!(*code, Code::BadName),
            }
            assert!(join.token.is_none_or(|token| word(&token, 16)));
            assert_eq!(
                join.last.map(|id| Id::parse(&id.to_string())),
                join.last.map(Some)
            );
        }
        Ok(Incoming::Talk(talk)) => {
            assert_eq!(kind, "talk");
            assert!(word(&talk.cid, 1));
            let message = match talk.message {
                Ok(message) => message,
                Err(code) => return assert!([Code::Empty, Code::TooLong].contains(&code)),
            };
            let length = message.chars().count();
            assert!((1..=MAX_MESSAGE).contains(&length) && message.trim() == message);
            assert!(!message.contains(|c: char| c.is_control() && !"\n\t".contains(c)));
            // What is said can be written into the log, and comes out of it as it was.
            let said = format!("7-1 {}", message::body("花子", &message, &talk.cid));
            let (id, json) = message::read_line(said.as_bytes()).expect("a line of our own");
            let talked: Value = serde_json::from_str(&json).expect("JSON of our own");
            let wanted = serde_json::json!({"kind": "talk", "id": "7-1", "user": "花子", "message": message, "cid": talk.cid});
            assert_eq!((id, talked), (Id(7, 1), wanted));
            assert!(frame::text(&json).ends_with(json.as_bytes()));
        }
        Ok(Incoming::Ping) => assert_eq!(kind, "ping"),
        Ok(Incoming::Quit) => assert_eq!(kind, "quit"),
        Err(refused) => {
            let Refused(code, cid, retry_ms) = &refused;
            assert!(*code == Code::BadMessage && retry_ms.is_none());
            assert!(cid.as_deref().is_none_or(|cid| word(cid, 1)));
            let error: Value =
                serde_json::from_str(&message::error(&refused)).expect("JSON of our own");
            assert_eq!(
                (error["kind"].as_str(), error["cid"].as_str()),
                (Some("error"), cid.as_deref())
            );
        }
    }
    // Whatever it is, as the name of a person or a room.
    if let Some(checked) = Name::new(text) {
        name(&checked);
    }
    if let Some(checked) = RoomName::new(text) {
        room(checked.as_str());
    }
}

/// A room's name is its own folded form, and can be a part of a key.
pub fn room(folded: &str) {
    assert_eq!(
        RoomName::new(folded).as_ref().map(RoomName::as_str),
        Some(folded)
    );
    inert(folded, MAX_ROOM);
}

/// A checked name folds alike however often, and shows as one word in one line.
pub fn name(name: &Name) {
    let again = Name::new(&name.shown).expect("a name is a name");
    assert_eq!(&again, name);
    inert(&name.shown, MAX_NAME);
    if let Some(folded) = Name::new(&name.folded) {
        assert_eq!(
            folded.folded, name.folded,
            "folding what is folded changes nothing"
        );
    }
    inert(&name.folded, usize::MAX);
}

/// Nothing that breaks a line, a key, a log or a page, and nothing that cannot be seen.
fn inert(text: &str, max: usize) {
    let hidden = |c| {
        matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
    };
    let breaks = |c: char| {
        c.is_control() || c.is_whitespace() && c != ' ' || "{}:<>&\"'/\\*?=|`$".contains(c)
    };
    assert!(!text.contains(|c| hidden(c) || breaks(c)), "{text:?}");
    assert!(
        (1..=max).contains(&text.chars().count()) && text.trim() == text,
        "{text:?}"
    );
    assert!(text.contains(char::is_alphanumeric), "{text:?}");
}

/// A line that Redis brings is garbage, or a talk that every page can show.
pub fn line(bytes: &[u8]) {
    let Some((id, json)) = message::read_line(bytes) else {
        return;
    };
    assert_eq!(Id::parse(&id.to_string()), Some(id));
    assert!(!json.contains(|c: char| c < ' '), "{json:?}");
    let talk: Value = serde_json::from_str(&json).expect("JSON of our own");
    assert_eq!(
        (&talk["kind"], &talk["id"]),
        (&"talk".into(), &id.to_string().into())
    );
    for (field, max) in [("user", MAX_NAME), ("message", MAX_MESSAGE), ("cid", 64)] {
        let length = talk[field].as_str().expect(field).chars().count();
        assert!((1..=max).contains(&length), "{field} has {length}");
    }
    assert_eq!(
        talk.as_object().map(|fields| fields.len()),
        Some(5),
        "{json}"
    );
}

/// Frames are read alike in whatever pieces their bytes come, each within its limits, to an end; and what is answered
/// by itself is a Pong or a Close. The first two bytes say what the pieces are.
pub fn frames(bytes: &[u8]) {
    let [size, early, bytes @ ..] = bytes else {
        return;
    };
    let (whole, answers) = heard(bytes, 0, usize::MAX);
    // What a message may take on the wire is counted as it is read, so in pieces a long one may end sooner.
    if bytes.len() < 7 * MAX_FRAME {
        for (early, size) in [
            (0, 1 + *size as usize),
            (*early as usize, 1),
            (usize::MAX, 1),
        ] {
            assert_eq!(
                heard(bytes, early, size),
                (whole.clone(), answers.clone()),
                "{early} early, then {size} at a time"
            );
        }
    }
    let mut rest = Cursor::new(&answers[..]);
    while (rest.position() as usize) < answers.len() {
        let (header, length) = FrameHeader::parse(&mut rest)
            .expect("a header")
            .expect("all of it");
        let [first, second] =
            [0x8a, 0x88].map(|byte| answers.get(rest.position() as usize - 2) == Some(&byte));
        assert!(
            (first || second) && header.is_final && header.mask.is_none() && length <= 125,
            "{header:?}"
        );
        rest.set_position(rest.position() + length);
    }
    assert_eq!(rest.position() as usize, answers.len(), "whole frames");
}

/// What a reader hears, to the end, and what it writes by itself. `early` bytes came with the head; the others come
/// `size` at a time, with nothing in between.
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
    panic!("it goes on and on after {heard:?}");
}

/// A stream that has something to say every other time it is asked, then ends.
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
