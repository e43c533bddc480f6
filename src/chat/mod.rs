//! The chat: sessions, rooms, and how a room follows its stream.

mod app;
mod connections;
mod follow;
mod frames;
mod history;
mod leases;
mod members;
mod membership;
mod metrics;
mod room;
mod rooms;
mod session;
mod token_bucket;

pub use self::app::{App, Phase};
pub use self::frames::{MOVE, heartbeat as heartbeat_frames};
pub use self::session::Session;
