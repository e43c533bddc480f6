//! The pure files of the program, without the rest of it, and what must hold of them.

#![allow(dead_code)] // each target uses its part

#[path = "../../src/frame.rs"]
mod frame;
#[path = "../../src/http.rs"]
mod http;
#[path = "../../src/message.rs"]
mod message;
#[path = "../../src/name.rs"]
mod name;
#[path = "../../src/reader.rs"]
mod reader;

pub mod checks;
