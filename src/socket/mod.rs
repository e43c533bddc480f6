//! One WebSocket: frames, reading, writing, deadlines. Knows no rule of the chat.

mod buffer;
mod conn;
pub mod frame;
mod heartbeat;
mod outbox;
mod reader;
mod stagger;

pub use self::buffer::{Buffer, counted};
pub use self::conn::{Conn, HEARTBEAT_SECS, SEND_BUFFER};
pub use self::heartbeat::Heartbeat;
pub use self::outbox::LIMIT as OUTBOX_LIMIT;
pub use self::reader::{Frame, MAX_FRAME, Reader};
pub use self::stagger::stagger;
