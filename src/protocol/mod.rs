//! The wire protocol: every JSON frame in and out, ids, error codes, close codes, checked names.
//!
//! Pure: nothing in this folder does I/O. Unknown fields are ignored, because old and new pages and
//! dynos run side by side during a deploy.

pub mod close_code;
mod error_code;
mod id;
mod incoming;
mod message;
mod name;
pub mod outgoing;
mod text;

pub use self::error_code::{ErrorCode, Refusal};
pub use self::id::Id;
pub use self::incoming::{Incoming, Join, Talk, parse};
pub use self::message::{MAX_MESSAGE, Message};
pub use self::name::{MAX_NAME, MAX_ROOM, Name, RoomName};
pub use self::outgoing::MAX_USERS;
