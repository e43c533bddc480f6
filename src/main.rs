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
mod reader;
mod room;
mod rooms;
mod server;
mod session;

use std::{
    io,
    process::{ExitCode, exit},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use simple_logger::SimpleLogger;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::{Instant, interval},
};

use crate::{bus::Bus, config::Config, rooms::Rooms, server::Server, session::Dyno};

/// Threads for host names that Redis is looked up by; tokio's default is 512, the platform's limit
/// for everything is 256.
const BLOCKING_THREADS: usize = 2;
const METRICS: Duration = Duration::from_secs(60);
/// Two Ctrl-C within a second are one: `heroku local` delivers it twice.
const ONE_CTRL_C: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(e) => return fail(&e),
    };
    SimpleLogger::new()
        .with_level(config.log)
        .init()
        .expect("the first logger");
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e.to_string()),
    }
}

fn fail(sentence: &str) -> ExitCode {
    eprintln!("dynochat: {sentence}");
    ExitCode::FAILURE
}

/// Listens, serves, and drains.
async fn run(config: Config) -> io::Result<()> {
    let listener = server::listen(config.port).map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("failed to listen on PORT {}: {e}", config.port),
        )
    })?;
    let shutdown = shutdown()?;
    say_hello(&config);
    let bus = Arc::new(Bus::new(config.redis, Arc::new(Rooms::default())));
    let dyno = Arc::new(Dyno {
        name: config.dyno,
        boot: format!("{:016x}", rand::random::<u64>()),
        link: bus.link(),
        bus: bus.clone(),
        talk_per_second: config.talk_per_second,
    });
    let server = Arc::new(Server::new(
        dyno,
        config.allowed_origins,
        config.max_connections,
    ));
    tokio::spawn(bus.run());
    tokio::spawn({
        let server = server.clone();
        async move { server.beat.run().await }
    });
    tokio::spawn(measure(server.clone()));
    let serving = tokio::spawn(server.run(listener, shutdown));
    serving.await.map_err(io::Error::other)
}

fn say_hello(config: &Config) {
    let mode = if config.redis.is_some() {
        "redis"
    } else {
        "single process, no REDIS_URL"
    };
    log::info!(
        "listening=http://localhost:{} dyno={} bus={mode:?}",
        config.port,
        config.dyno
    );
    if config.tls_unverified {
        log::warn!("redis_tls=unverified cause=REDIS_TLS_VERIFY=false");
    }
}

/// SIGTERM, which the platform may repeat, or SIGINT. A second SIGINT exits at once.
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
                    exit(130); // as a shell says it: ended by SIGINT
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
