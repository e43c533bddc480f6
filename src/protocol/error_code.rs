//! Why the server refuses a join or a message.

/// Sent in an `error` frame, and as the reason of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ErrorCode {
    BadMessage,
    BadName,
    NameTaken,
    BadRoom,
    TooLong,
    Empty,
    SlowDown,
    Busy,
}

impl ErrorCode {
    /// The code as it is sent.
    pub fn word(self) -> &'static str {
        self.texts().0
    }

    /// A sentence for a person.
    pub fn sentence(self) -> &'static str {
        self.texts().1
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            ErrorCode::BadMessage => ("bad_message", "Invalid message."),
            ErrorCode::BadName => (
                "bad_name",
                "Use 1 to 24 letters, numbers, spaces, _ - . ' ’ or ・",
            ),
            ErrorCode::NameTaken => ("name_taken", "Someone here has this name already."),
            ErrorCode::BadRoom => (
                "bad_room",
                "Use 1 to 32 letters, numbers, spaces, _ - . ' ’ or ・",
            ),
            ErrorCode::TooLong => ("too_long", "A message is 1000 characters at most."),
            ErrorCode::Empty => ("empty", "There is nothing in this message."),
            ErrorCode::SlowDown => ("slow_down", "Too fast. Please wait a moment."),
            ErrorCode::Busy => ("busy", "The server is busy. Please try again."),
        }
    }
}

/// A refused join or talk.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub code: ErrorCode,
    /// The cid of the refused talk.
    pub cid: Option<String>,
    /// When to try again, in ms.
    pub retry_ms: Option<u64>,
}

impl Refusal {
    pub fn of_talk(code: ErrorCode, cid: &str) -> Refusal {
        let cid = Some(cid.to_owned());
        Refusal { cid, ..code.into() }
    }

    pub fn retry_in(self, ms: u64) -> Refusal {
        let retry_ms = Some(ms);
        Refusal { retry_ms, ..self }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        let (cid, retry_ms) = (None, None);
        Refusal {
            code,
            cid,
            retry_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_MESSAGE, MAX_NAME, MAX_ROOM};

    #[test]
    fn sentences_name_the_limits_of_the_program() {
        for (code, limit) in [
            (ErrorCode::BadName, MAX_NAME),
            (ErrorCode::BadRoom, MAX_ROOM),
            (ErrorCode::TooLong, MAX_MESSAGE),
        ] {
            let sentence = code.sentence();
            assert!(sentence.contains(&format!(" {limit} ")), "{sentence}");
        }
    }
}
