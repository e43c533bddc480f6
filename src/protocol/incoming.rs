//! Frames from the page: parsed, with every field checked.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error};

use super::error_code::ErrorCode;
use super::id::Id;
use super::message::check_text;
use super::name::{Name, RoomName};

/// A field that is well-formed, or the code that the join or talk is refused with.
type Checked<T> = Result<T, ErrorCode>;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Incoming {
    Join(Join),
    Talk(Talk),
    Ping {},
    Quit {},
}

#[derive(Deserialize)]
pub struct Join {
    #[serde(deserialize_with = "room")]
    pub room: Checked<RoomName>,
    #[serde(deserialize_with = "user")]
    pub user: Checked<Name>,
    /// The secret that owns the name. The server makes one for a page that has none.
    #[serde(default, deserialize_with = "token")]
    pub token: Option<String>,
    /// The id of the last message that the page has seen.
    #[serde(default)]
    pub last: Option<Id>,
}

#[derive(Deserialize)]
pub struct Talk {
    #[serde(deserialize_with = "message")]
    pub message: Checked<String>,
    /// The page's own id of this message, the same on every resend.
    #[serde(deserialize_with = "cid")]
    pub cid: String,
}

/// Parses a text frame. A frame that is not of this protocol is refused with `bad_message`.
pub fn parse(text: &str) -> Checked<Incoming> {
    // serde would take an array for the fields in their order.
    let is_object = text.trim_start().starts_with('{');
    let frame = is_object.then(|| serde_json::from_str(text).ok());
    frame.flatten().ok_or(ErrorCode::BadMessage)
}

fn room<'de, D: Deserializer<'de>>(field: D) -> Result<Checked<RoomName>, D::Error> {
    let text = Cow::<str>::deserialize(field)?;
    Ok(RoomName::new(&text).ok_or(ErrorCode::BadRoom))
}

fn user<'de, D: Deserializer<'de>>(field: D) -> Result<Checked<Name>, D::Error> {
    let text = Cow::<str>::deserialize(field)?;
    Ok(Name::new(&text).ok_or(ErrorCode::BadName))
}

fn message<'de, D: Deserializer<'de>>(field: D) -> Result<Checked<String>, D::Error> {
    Ok(check_text(&Cow::<str>::deserialize(field)?))
}

fn token<'de, D: Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    let token = Option::<String>::deserialize(field)?;
    token.map(|token| word(token, 16)).transpose()
}

fn cid<'de, D: Deserializer<'de>>(field: D) -> Result<String, D::Error> {
    word(String::deserialize(field)?, 1)
}

/// Checks a token or a cid: `min` to 64 of `[A-Za-z0-9_-]`.
fn word<E: Error>(text: String, min: usize) -> Result<String, E> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let good = (min..=64).contains(&text.len()) && text.bytes().all(plain);
    good.then_some(text)
        .ok_or(E::custom("not a token or a cid"))
}
