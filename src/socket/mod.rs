//! One WebSocket: frames, reading, writing, deadlines. Knows no rule of the chat.

mod close_staggered;
mod conn;
pub mod frame;
mod heartbeat;
mod outbox;
mod reader;

pub use self::close_staggered::close_staggered;
pub use self::conn::{Conn, HEARTBEAT_SECS, SEND_BUFFER};
pub use self::heartbeat::Heartbeat;
pub use self::outbox::LIMIT as OUTBOX_LIMIT;
pub use self::reader::{Frame, MAX_FRAME, Reader};
