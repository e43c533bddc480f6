//! Close codes: RFC 6455 §7.4.1, its registry (1012, 1013), and this protocol's own from 4000.

/// The page pressed Leave.
pub const NORMAL: u16 = 1000;
/// A frame breaks RFC 6455.
pub const PROTOCOL: u16 = 1002;
/// A binary frame.
pub const BINARY: u16 = 1003;
/// A text frame that is not UTF-8.
pub const NOT_UTF8: u16 = 1007;
/// A message over the limit.
pub const TOO_BIG: u16 = 1009;
/// This dyno is stopping, or the room must be read again: reconnect.
pub const RESTART: u16 = 1012;
/// This dyno is full, or this address has too many connections.
pub const FULL: u16 = 1013;
/// The client reads too slowly, or has been silent for too long.
pub const TOO_SLOW: u16 = 4008;
/// The client does not speak this protocol.
pub const NOT_OURS: u16 = 4400;
/// The room or the name was refused.
pub const REFUSED: u16 = 4409;
/// The client exceeds its rate limits again and again.
pub const FLOOD: u16 = 4429;
