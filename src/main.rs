//! The process: reads the settings, starts the log and the runtime, listens, and turns signals into a stop.

#![forbid(unsafe_code)]

use std::{io, process::ExitCode, time::Duration};

use dynochat::config::Config;
use dynochat::logger;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Threads that look up Redis' host name; the platform allows 256 of all kinds, tokio would take 512.
const BLOCKING_THREADS: usize = 2;
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
    logger::start(config.log)?;
    let mut runtime = runtime::Builder::new_multi_thread();
    runtime.enable_all().max_blocking_threads(BLOCKING_THREADS);
    let runtime = runtime.build();
    let runtime = runtime.map_err(|e| format!("failed to start the runtime: {e}"))?;
    let served = runtime.block_on(serve(config));
    runtime.shutdown_background(); // a look-up of Redis' name may take longer than there is time
    served
}

/// Listens first, because the platform waits for that; then serves until a signal.
async fn serve(config: Config) -> Result<(), String> {
    let port = config.port;
    let failed = |e: io::Error| format!("failed to listen on PORT {port}: {e}");
    let listener = dynochat::web::listen(port).map_err(failed)?;
    let (terminate, interrupt) =
        signals().map_err(|e| format!("failed to wait for signals: {e}"))?;
    let (dyno, redis) = (&config.dyno, config.redis.as_ref());
    let redis = redis.map_or("none, a single process", |_| "redis");
    log::info!("listening=http://localhost:{port} dyno={dyno:?} redis={redis:?}");
    if config.trusts_any_redis() {
        log::warn!("redis_certificate=unverified cause=\"REDIS_TLS_VERIFY=false\"");
    }
    // Spawned, so that it runs on a worker thread and not on the thread of `block_on`.
    let serving = tokio::spawn(dynochat::run(listener, config, terminate, interrupt));
    serving.await.map_err(|e| format!("failed to serve: {e}"))
}

/// SIGTERM, which the platform may repeat, and SIGINT. A second SIGINT exits at once.
fn signals() -> io::Result<(impl Future<Output = ()>, impl Future<Output = ()>)> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let (sender, first_int) = oneshot::channel();
    tokio::spawn(async move {
        int.recv().await;
        let _ = sender.send(()); // fails if nobody waits for it any more
        let first = Instant::now();
        while int.recv().await.is_some() {
            if first.elapsed() > ONE_CTRL_C {
                std::process::exit(130); // as a shell counts it: 128 and the signal
            }
        }
    });
    let terminate = async move { _ = term.recv().await };
    let interrupt = async move { _ = first_int.await };
    Ok((terminate, interrupt))
}
