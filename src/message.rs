//! What travels: the kinds of message, their limits, JSON in and out. Pure; nothing here does I/O.
//! Unknown fields are ignored: old and new pages and dynos live side by side during a deploy.

use std::fmt;

use serde_json::Value;

use crate::name::{MAX_NAME, Name, RoomName};

/// Code points of one message, counted as the page counts them.
pub const MAX_MESSAGE: usize = 1_000;
/// Names in a list of members; the `count` beside it is exact.
pub const MAX_USERS: usize = 200;

/// A message's place in its room's log, and its time: milliseconds since 1970, and a number within
/// the millisecond. A Redis stream id; compared as two integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u64, pub u64);

impl Id {
    /// Reads `ms-seq`, decimal digits only.
    pub fn parse(text: &str) -> Option<Id> {
        let (ms, seq) = text.split_once('-')?;
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let number = |s: &str| s.parse().ok().filter(|_| digits(s));
        Some(Id(number(ms)?, number(seq)?))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// What a browser may say.
pub enum Incoming {
    Join(Join),
    Talk(Talk),
    Ping,
    Quit,
}

/// Room and name: checked, or the code that they are refused with.
pub struct Join {
    pub room: Result<RoomName, Code>,
    pub user: Result<Name, Code>,
    /// The secret that owns the name; the server makes one for a page that has none.
    pub token: Option<String>,
    /// The id of the last message that the page saw.
    pub last: Option<Id>,
}

pub struct Talk {
    pub message: Result<String, Code>,
    /// The page's own id of this message, the same on every resend.
    pub cid: String,
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    BadMessage,
    BadName,
    NameTaken,
    BadRoom,
    TooLong,
    Empty,
    SlowDown,
    Busy,
}

impl Code {
    /// The word that travels, and a sentence for a person.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Code::BadMessage => ("bad_message", "This is no message of this chat."),
            Code::BadName => ("bad_name", "Use 1 to 24 letters, numbers, spaces, _ - or ."),
            Code::NameTaken => ("name_taken", "Someone here has this name already."),
            Code::BadRoom => ("bad_room", "Use 1 to 32 letters, numbers, spaces, _ - or ."),
            Code::TooLong => ("too_long", "A message is 1000 characters at most."),
            Code::Empty => ("empty", "There is nothing in this message."),
            Code::SlowDown => ("slow_down", "Too fast. Please wait a moment."),
            Code::Busy => ("busy", "The chat cannot take this just now."),
        }
    }
}

/// A refusal: why, of which talk, and after how many ms to try again.
pub struct Refused(pub Code, pub Option<String>, pub Option<u64>);

impl From<Code> for Refused {
    fn from(code: Code) -> Refused {
        Refused(code, None, None)
    }
}

/// Reads a text frame. What no page of ours sends is a `bad_message`.
pub fn parse(text: &str) -> Result<Incoming, Refused> {
    let fields: Value = serde_json::from_str(text).unwrap_or_default();
    match fields["kind"].as_str() {
        Some("join") => join(&fields),
        Some("talk") => talk(&fields),
        Some("ping") => Ok(Incoming::Ping),
        Some("quit") => Ok(Incoming::Quit),
        _ => Err(Code::BadMessage.into()),
    }
}

fn join(fields: &Value) -> Result<Incoming, Refused> {
    let given = |key| Some(&fields[key]).filter(|value| !value.is_null());
    let id = |value| Id::parse(text(value)?).ok_or(Code::BadMessage);
    let token = given("token").map(|value| word(value, 16)).transpose()?;
    let last = given("last").map(id).transpose()?;
    let (room, user) = (text(&fields["room"])?, text(&fields["user"])?);
    Ok(Incoming::Join(Join {
        room: RoomName::new(room).ok_or(Code::BadRoom),
        user: Name::new(user).ok_or(Code::BadName),
        token,
        last,
    }))
}

fn talk(fields: &Value) -> Result<Incoming, Refused> {
    let cid = word(&fields["cid"], 1)?;
    let message = text(&fields["message"])?.replace("\r\n", "\n");
    let message = message.trim().to_owned();
    if message.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        return Err(Refused(Code::BadMessage, Some(cid), None));
    }
    let message = match message.chars().count() {
        0 => Err(Code::Empty),
        1..=MAX_MESSAGE => Ok(message),
        _ => Err(Code::TooLong),
    };
    Ok(Incoming::Talk(Talk { message, cid }))
}

fn text(value: &Value) -> Result<&str, Code> {
    value.as_str().ok_or(Code::BadMessage)
}

/// Tokens and cids: `min` to 64 of `[A-Za-z0-9_-]`.
fn word(value: &Value, min: usize) -> Result<String, Code> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let good = |s: &&str| (min..=64).contains(&s.len()) && s.bytes().all(plain);
    let word = value.as_str().filter(good).ok_or(Code::BadMessage)?;
    Ok(word.to_owned())
}

/// What stands behind the id in a room's log.
pub fn body(user: &str, message: &str, cid: &str) -> String {
    let [user, message, cid] = [user, message, cid].map(quote);
    // Done twice for every message: `format!` would take almost twice as long for all of it.
    let [a, b, c] = [r#"{"user":"#, r#","message":"#, r#","cid":"#];
    [a, &user, b, &message, c, &cid, "}"].concat()
}

/// A `talk` frame's text: a message's body, and its id.
pub fn talk_json(id: Id, body: &str) -> String {
    format!(r#"{{"kind":"talk","id":"{id}",{}"#, &body[1..])
}

/// Reads a line of a room's log, `ID BODY`, and returns the id and the `talk` frame's text. Strict in
/// what a page will be shown: whoever reaches the Redis can write there.
pub fn read_line(line: &[u8]) -> Option<(Id, String)> {
    let (id, text) = str::from_utf8(line).ok()?.split_once(' ')?;
    let fields: Value = serde_json::from_str(text).ok()?;
    let field = |key, max| {
        let fits = |text: &&str| (1..=max).contains(&text.chars().count());
        fields[key].as_str().filter(fits)
    };
    let (user, message) = (field("user", MAX_NAME)?, field("message", MAX_MESSAGE)?);
    let (id, body) = (Id::parse(id)?, body(user, message, field("cid", 64)?));
    Some((id, talk_json(id, &body)))
}

/// `"users":[…],"count":n`, which `welcome` and `members` share. The names come sorted.
pub fn members<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = names.len();
    let users: Vec<_> = names.take(MAX_USERS).collect();
    let users = serde_json::to_string(&users).expect("a list of strings is JSON");
    format!(r#""users":{users},"count":{count}"#)
}

/// An `error` frame's text.
pub fn error(Refused(code, cid, retry_ms): &Refused) -> String {
    let (word, sentence) = code.words();
    let cid = cid.as_deref().map_or("null".to_owned(), quote);
    let retry = retry_ms.map_or(String::new(), |ms| format!(r#","retry_ms":{ms}"#));
    format!(r#"{{"kind":"error","code":"{word}","message":"{sentence}","cid":{cid}{retry}}}"#)
}

/// A JSON string.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}
