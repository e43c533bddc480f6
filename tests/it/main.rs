//! Every integration test, in one program: `tests/run` runs all of them, `tests/run NAME` those of one file.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod browser;
mod deploy;
mod dynos;
mod faults;
mod follow;
mod hostile;
mod http;
mod idle;
mod observe;
mod properties;
mod protocol;
mod proxies;
mod races;
mod redis_servers;
mod restart;
mod router;
mod single_file;
mod tidy;
mod two_dynos;
