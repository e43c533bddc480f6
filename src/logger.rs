//! The log: one line per event on stdout, in logfmt, without time or colours, because the platform adds both.

use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// `println!` panics when stdout is closed: catches it, so that sessions survive.
struct Stdout(SimpleLogger);

impl Log for Stdout {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {}
}

/// Logs lines of `level` and above from now on. The error: a logger was started before.
pub fn start(level: LevelFilter) -> Result<(), String> {
    let logger = Stdout(SimpleLogger::new().with_level(level));
    log::set_boxed_logger(Box::new(logger)).map_err(|e| e.to_string())?;
    log::set_max_level(level);
    Ok(())
}
