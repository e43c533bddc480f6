//! A message as the stream stores it: who said what, and the cid it was sent with.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::name::MAX_NAME;

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
