//! dynochat: a chat over WebSockets for a platform that cuts idle connections, runs many processes
//! and restarts them every day.
//!
//! A browser's request comes in through [`server`], becomes a [`session`], and what it says goes to
//! the [`bus`]: Redis, or this process alone. From there it comes back into the [`room`], on this dyno
//! and on every other, and out through each [`conn`].

#![forbid(unsafe_code)]

mod beat;
mod bucket;
mod bus;
mod config;
mod conn;
mod frame;
mod history;
mod http;
mod inbox;
mod message;
mod name;
mod outbox;
mod reader;
mod room;
mod rooms;
mod server;
mod session;
mod web;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed};
use std::{io, process::ExitCode, time::Duration};

use simple_logger::SimpleLogger;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval};

use crate::{bus::Bus, config::Config, server::Server, session::Dyno};

/// Threads that look up Redis' host name; the platform allows 256 of all kinds, tokio would take 512.
const BLOCKING_THREADS: usize = 2;
const METRICS: Duration = Duration::from_secs(60);
/// Two Ctrl-C within a second are one: `heroku local` delivers it twice.
const ONE_CTRL_C: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match Config::from_env().and_then(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("dynochat: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> Result<(), String> {
    let logger = Log(SimpleLogger::new().with_level(config.log));
    log::set_boxed_logger(Box::new(logger)).map_err(|e| e.to_string())?;
    log::set_max_level(config.log);
    let mut runtime = runtime::Builder::new_multi_thread();
    runtime.enable_all().max_blocking_threads(BLOCKING_THREADS);
    let runtime = runtime.build();
    let runtime = runtime.map_err(|e| format!("failed to start the runtime: {e}"))?;
    let served = runtime.block_on(run(config));
    runtime.shutdown_background(); // a look-up of Redis' name may take longer than there is time
    served
}

/// The log on stdout. Where nobody takes it any more `println!` panics, which must end nobody's chat.
struct Log(SimpleLogger);

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {}
}

/// Listens first, for the platform waits for that; then serves until a signal, and drains.
async fn run(config: Config) -> Result<(), String> {
    let port = config.port;
    let failed = |e: io::Error| format!("failed to listen on PORT {port}: {e}");
    let listener = server::listen(port).map_err(failed)?;
    let shutdown = shutdown().map_err(|e| format!("failed to wait for signals: {e}"))?;
    let (dyno, redis) = (&config.dyno, config.redis.as_ref());
    let redis = redis.map_or("none, a single process", |_| "redis");
    log::info!("listening=http://localhost:{port} dyno={dyno:?} redis={redis:?}");
    if config.trusts_any_redis() {
        log::warn!("redis_certificate=unverified cause=\"REDIS_TLS_VERIFY=false\"");
    }
    let server = Server::new(Dyno {
        boot: format!("{:016x}", rand::random::<u64>()),
        bus: Bus::start(config.redis.clone()),
        config,
    });
    tokio::spawn(measure(server.clone()));
    let serving = tokio::spawn(server.run(listener, shutdown)); // on the workers, not beside them
    serving.await.map_err(|e| format!("failed to serve: {e}"))
}

/// SIGTERM, which the platform may repeat, or SIGINT; another SIGINT later exits at once.
fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let first = Instant::now();
        tokio::spawn(async move {
            while int.recv().await.is_some() {
                if first.elapsed() > ONE_CTRL_C {
                    std::process::exit(130); // as a shell counts it: 128 and the signal
                }
            }
        });
    })
}

/// One line a minute, in the form that the platform's log makes metrics of.
async fn measure(server: Arc<Server>) {
    let mut minute = interval(METRICS);
    minute.tick().await; // the first comes at once
    loop {
        minute.tick().await;
        log::info!(
            "sample#connections={} sample#rooms={} count#messages={} count#deliveries={}",
            server.connections(),
            server.dyno.bus.rooms.count(),
            room::MESSAGES.swap(0, Relaxed),
            room::DELIVERIES.swap(0, Relaxed),
        );
    }
}

/// A locked mutex, also after a panic elsewhere: one session's end must not be everyone's.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
