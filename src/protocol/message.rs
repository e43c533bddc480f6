//! A message as the stream stores it: who said what, and the cid it was sent with.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::error_code::ErrorCode;
use super::name::MAX_NAME;
use super::text::is_invisible;

/// Code points of one message, counted as the page counts them.
pub const MAX_MESSAGE: usize = 1_000;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Message<'a> {
    #[serde(borrow)]
    pub user: Cow<'a, str>,
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    #[serde(borrow)]
    pub cid: Cow<'a, str>,
}

impl<'a> Message<'a> {
    /// The JSON that goes into the stream.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings are JSON")
    }

    /// Reads an entry of a stream. `None` unless a page may be shown it: anybody who can reach the Redis
    /// can write there.
    pub fn from_json(body: &'a [u8]) -> Option<Message<'a>> {
        // serde would take an array for the fields in their order.
        let body = Some(body).filter(|body| body.trim_ascii_start().starts_with(b"{"))?;
        let message: Message = serde_json::from_slice(body).ok()?;
        let fits = |text: &str, max| (1..=max).contains(&text.chars().take(max + 1).count());
        let good = fits(&message.user, MAX_NAME)
            && fits(&message.message, MAX_MESSAGE)
            && fits(&message.cid, 64);
        good.then_some(message)
    }
}

/// The text of a message as it is stored: trimmed, with line breaks of one kind.
pub fn check_text(text: &str) -> Result<String, ErrorCode> {
    let text = text.replace("\r\n", "\n");
    let text = text.trim();
    if text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        return Err(ErrorCode::BadMessage);
    }
    if text.chars().all(|c| c.is_whitespace() || is_invisible(c)) {
        return Err(ErrorCode::Empty);
    }
    match text.chars().count() {
        ..=MAX_MESSAGE => Ok(text.to_owned()),
        _ => Err(ErrorCode::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_visible_character_is_empty() {
        for text in [
            "",
            " \u{3000}\n\t",
            "\u{200b}",
            "\u{2060}",
            "\u{feff}",
            "\u{ad}",
            "\u{3164}",
            "\u{ffa0}",
            "\u{115f}\u{1160}",
            "\u{2800}",
            "\u{34f}",
            "\u{180e}",
            "\u{202e}\u{202c}",
            "\u{fe0f}",
            "\u{e0100}",
            "\u{e0067}\u{e007f}",
            "\u{200d} \u{200e}\n\u{200f}",
            &"\u{200b}".repeat(MAX_MESSAGE + 1),
        ] {
            assert_eq!(check_text(text), Err(ErrorCode::Empty), "{text:?}");
        }
    }

    #[test]
    fn invisible_characters_beside_visible_ones_stay() {
        for text in [
            "👩\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "می\u{200c}خواهم",
            "葛\u{e0100}城",
            "\u{200b}a",
            "\u{301}",
            ".",
        ] {
            assert_eq!(check_text(text).as_deref(), Ok(text));
        }
    }
}
