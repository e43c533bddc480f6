//! HTTP: the listener, request heads, plain answers, the upgrade to WebSocket.

mod addresses;
mod answer;
mod drain;
pub mod origin;
pub mod request;
mod server;

pub use self::server::{Limits, Server, listen};
