//! What travels: the kinds of message, their limits, JSON in and out. Pure functions; nothing here does I/O.
//!
//! `session.rs` parses what a browser sent, `room.rs` and `session.rs` write what it gets. The text of the wire protocol
//! is in the README; fields that this version does not know are ignored, so that old and new pages and dynos can talk.

use std::fmt;

use serde_json::{Map, Value};

use crate::name::{Name, RoomName};

/// Code points of one message, counted as the page counts them.
pub const MAX_MESSAGE: usize = 1_000;
/// Names in a list of members; `count` is exact beyond it.
pub const MAX_USERS: usize = 200;
/// Messages a newcomer, or someone who missed too much, is shown.
pub const NEWCOMER_HISTORY: usize = 50;

/// A message's place in its room's log, and its time: milliseconds since 1970 and a number within the millisecond.
/// A Redis stream id; compared as two integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub ms: u64,
    pub seq: u64,
}

impl Id {
    /// Reads `ms-seq`, decimal digits only.
    pub fn parse(text: &str) -> Option<Id> {
        let (ms, seq) = text.split_once('-')?;
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let number = |s: &str| if digits(s) { s.parse().ok() } else { None };
        Some(Id {
            ms: number(ms)?,
            seq: number(seq)?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What a browser may say.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    Join(Join),
    Talk(Talk),
    Ping,
    Quit,
}

#[derive(Debug, PartialEq)]
pub struct Join {
    pub room: RoomName,
    pub user: Name,
    /// The secret that owns the name; one is made where the page has none.
    pub token: Option<String>,
    /// The id of the last message that the page saw.
    pub last: Option<Id>,
}

#[derive(Debug, PartialEq)]
pub struct Talk {
    pub message: String,
    /// The page's own id of this message, the same on every resend.
    pub cid: String,
}

/// Why something was refused, in the words of the wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The code word, and a sentence for a person.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Code::BadMessage => (
                "bad_message",
                "This is not a message of the chat's protocol.",
            ),
            Code::BadName => (
                "bad_name",
                "A name is 1 to 24 letters, numbers, spaces or _ - . with a letter or number.",
            ),
            Code::NameTaken => (
                "name_taken",
                "Someone in this room has this name. Please choose another.",
            ),
            Code::BadRoom => (
                "bad_room",
                "A room is 1 to 32 letters, numbers, spaces or _ - . with a letter or number.",
            ),
            Code::TooLong => (
                "too_long",
                "This message is too long: 1000 characters are the limit.",
            ),
            Code::Empty => ("empty", "There is nothing in this message."),
            Code::SlowDown => ("slow_down", "Too fast. Please wait a moment."),
            Code::Busy => (
                "busy",
                "The chat cannot take this right now. It will be tried again.",
            ),
        }
    }
}

/// A refusal: why, of which talk, and when to try again.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub code: Code,
    pub cid: Option<String>,
    pub retry_ms: Option<u64>,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Refused {
        Refused {
            code,
            cid: None,
            retry_ms: None,
        }
    }
}

/// Reads one text frame. `bad_message` is for what no page of ours sends; the other codes are for what a person typed.
pub fn parse(text: &str) -> Result<Incoming, Refused> {
    let bad = || Refused::from(Code::BadMessage);
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return Err(bad());
    };
    match string(&fields, "kind").ok_or_else(bad)? {
        "join" => {
            let token = optional(&fields, "token", |s| is_word(s, 16).then(|| s.to_owned()))
                .ok_or_else(bad)?;
            let last = optional(&fields, "last", Id::parse).ok_or_else(bad)?;
            let (room, user) = string(&fields, "room")
                .zip(string(&fields, "user"))
                .ok_or_else(bad)?;
            let room = RoomName::new(room).ok_or(Code::BadRoom)?;
            let user = Name::new(user).ok_or(Code::BadName)?;
            Ok(Incoming::Join(Join {
                room,
                user,
                token,
                last,
            }))
        }
        "talk" => {
            let cid = string(&fields, "cid")
                .filter(|cid| is_word(cid, 1))
                .ok_or_else(bad)?
                .to_owned();
            let text = string(&fields, "message")
                .ok_or_else(bad)?
                .replace("\r\n", "\n");
            let message = text.trim();
            let code = if message
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t')
            {
                Code::BadMessage
            } else if message.is_empty() {
                Code::Empty
            } else if message.chars().count() > MAX_MESSAGE {
                Code::TooLong
            } else {
                return Ok(Incoming::Talk(Talk {
                    message: message.to_owned(),
                    cid,
                }));
            };
            Err(Refused {
                cid: Some(cid),
                ..code.into()
            })
        }
        "ping" => Ok(Incoming::Ping),
        "quit" => Ok(Incoming::Quit),
        _ => Err(bad()),
    }
}

fn string<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    fields.get(key)?.as_str()
}

/// `Some(None)` where the field is absent or null, `None` where it is there and wrong.
fn optional<T>(
    fields: &Map<String, Value>,
    key: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<Option<T>> {
    match fields.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(value) => read(value.as_str()?).map(Some),
    }
}

/// Tokens and cids: `min` to 64 of `[A-Za-z0-9_-]`, so they need no quoting anywhere.
fn is_word(text: &str, min: usize) -> bool {
    (min..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A message as it stands in a room's log: the life of a [`Talk`] after it was said.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub id: Id,
    pub user: String,
    pub message: String,
    pub cid: String,
}

impl Said {
    /// The `talk` frame's text.
    pub fn to_json(&self) -> String {
        let Said {
            id,
            user,
            message,
            cid,
        } = self;
        format!(
            r#"{{"kind":"talk","id":"{id}","user":{},"message":{},"cid":{}}}"#,
            quote(user),
            quote(message),
            quote(cid)
        )
    }

    /// How a dyno writes a message into Redis, where the id is put in front of it.
    pub fn body(user: &str, talk: &Talk) -> String {
        format!(
            r#"{{"user":{},"message":{},"cid":"{}"}}"#,
            quote(user),
            quote(&talk.message),
            talk.cid
        )
    }

    /// Reads `ID BODY`. Lenient in what it does not need, strict in what a page will be shown: anybody who can reach the
    /// Redis can write there.
    pub fn parse(line: &[u8]) -> Option<Said> {
        let (id, body) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let Value::Object(fields) = serde_json::from_str(body).ok()? else {
            return None;
        };
        let field = |key, max| {
            string(&fields, key).filter(|s| !s.is_empty() && s.chars().take(max + 1).count() <= max)
        };
        Some(Said {
            id: Id::parse(id)?,
            user: field("user", crate::name::MAX_NAME)?.to_owned(),
            message: field("message", MAX_MESSAGE)?.to_owned(),
            cid: field("cid", 64)?.to_owned(),
        })
    }
}

/// `"users":[…],"count":n`, the part that `welcome` and `members` share. `names` come sorted.
pub fn members<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = names.len();
    let users: Vec<String> = names.take(MAX_USERS).map(|name| quote(name)).collect();
    format!(r#""users":[{}],"count":{count}"#, users.join(","))
}

/// An `error` frame's text.
pub fn error(refused: &Refused) -> String {
    let (word, sentence) = refused.code.words();
    let cid = refused.cid.as_deref().map_or("null".to_owned(), quote);
    let retry = refused
        .retry_ms
        .map_or(String::new(), |ms| format!(r#","retry_ms":{ms}"#));
    format!(r#"{{"kind":"error","code":"{word}","message":"{sentence}","cid":{cid}{retry}}}"#)
}

/// A JSON string.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}
