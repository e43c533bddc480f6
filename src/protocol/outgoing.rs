//! Frames to the page, as JSON text.

use serde::Serialize;

use super::error_code::Refusal;
use super::id::Id;
use super::message::{MAX_MESSAGE, Message};

/// Names in a list of members; the `count` beside it is exact.
pub const MAX_USERS: usize = 200;

/// The answer to a page's `ping`.
pub const TICK: &str = r#"{"kind":"tick"}"#;
/// This dyno is stopping: the page connects elsewhere, then closes this connection. Comes again until it does.
pub const MOVE: &str = r#"{"kind":"move"}"#;
/// Redis cannot be reached: joins and messages are refused with `busy`.
pub const REDIS_DOWN: &str = r#"{"kind":"status","redis":"down"}"#;
pub const REDIS_UP: &str = r#"{"kind":"status","redis":"up"}"#;

/// The answer to a join, and all that a page needs to show the room.
#[derive(Clone, Copy, Default)]
pub struct Welcome<'a> {
    pub room: &'a str,
    pub user: &'a str,
    pub token: &'a str,
    pub dyno: &'a str,
    /// Random, another one for each start of a dyno.
    pub boot: &'a str,
    /// The newest id in the room.
    pub last: Id,
    /// Messages between the page's `last` and `history` may be missing.
    pub gap: bool,
    /// The fields `users` and `count` as JSON, made by [`member_fields`].
    pub members: &'a str,
    /// Milliseconds between two ticks.
    pub tick_ms: u32,
    /// Over how many milliseconds the page spreads its first try after its connection ended unexpectedly.
    pub spread_ms: usize,
}

impl Welcome<'_> {
    /// The JSON before and after the messages of the history, which are `talk` frames joined by commas.
    pub fn around_history(&self) -> (String, String) {
        let [room, user, token, dyno, boot] =
            [self.room, self.user, self.token, self.dyno, self.boot].map(quote);
        let Welcome {
            last,
            gap,
            members,
            tick_ms,
            spread_ms,
            ..
        } = self;
        let before = format!(
            r#"{{"kind":"welcome","room":{room},"user":{user},"token":{token},"dyno":{dyno},"boot":{boot},"last":"{last}","gap":{gap},"history":["#
        );
        let after = format!(
            r#"],{members},"tick_ms":{tick_ms},"max_message":{MAX_MESSAGE},"spread_ms":{spread_ms}}}"#
        );
        (before, after)
    }
}

/// A `tick` frame, every 25 s: a page cannot see WebSocket Pings. It repeats `spread_ms` of the welcome, because
/// that of an early welcome is too low when many connections came later.
pub fn tick(spread_ms: usize) -> String {
    format!(r#"{{"kind":"tick","spread_ms":{spread_ms}}}"#)
}

/// A `talk` frame.
pub fn talk(id: Id, message: &Message) -> String {
    let mut out = Vec::new();
    put_talk(&mut out, id, message);
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Appends a `talk` frame's JSON to `out`.
pub fn put_talk(out: &mut Vec<u8>, id: Id, message: &Message) {
    #[derive(Serialize)]
    struct Talk<'a> {
        kind: &'static str,
        id: Id,
        user: &'a str,
        message: &'a str,
        cid: &'a str,
    }
    let talk = Talk {
        kind: "talk",
        id,
        user: &message.user,
        message: &message.message,
        cid: &message.cid,
    };
    serde_json::to_writer(out, &talk).expect("strings are JSON");
}

/// A `members` frame; `fields` is what [`member_fields`] gives.
pub fn members(fields: &str) -> String {
    format!(r#"{{"kind":"members",{fields}}}"#)
}

/// `"users":[…],"count":n`, which `welcome` and `members` share. `names` are sorted.
pub fn member_fields<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = names.len();
    let users: Vec<_> = names.take(MAX_USERS).collect();
    let users = serde_json::to_string(&users).expect("a list of strings is JSON");
    format!(r#""users":{users},"count":{count}"#)
}

/// An `error` frame.
pub fn error(refusal: &Refusal) -> String {
    let (code, sentence) = (refusal.code.word(), refusal.code.sentence());
    let cid = refusal.cid.as_deref().map_or("null".to_owned(), quote);
    let retry = refusal.retry_ms.map(|ms| format!(r#","retry_ms":{ms}"#));
    let retry = retry.unwrap_or_default();
    format!(r#"{{"kind":"error","code":"{code}","message":"{sentence}","cid":{cid}{retry}}}"#)
}

fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}
