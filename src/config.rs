//! The settings, read once from the environment at the start. A wrong value stops the boot with the
//! variable's name; an empty one counts as absent. No other file reads the environment.

use std::{env, fs, time::Duration};

use log::LevelFilter;

use redis::{Client, ConnectionAddr};

use crate::store::redis_client;
use crate::web::origin;

const DEFAULT_PORT: u16 = 3000;
const DEFAULT_LOG: LevelFilter = LevelFilter::Info;
const DEFAULT_DYNO: &str = "local";
/// Messages per second of one connection.
const DEFAULT_TALK_PER_SECOND: f64 = 2.0;
/// Seconds that pages have to move to another dyno: the platform kills 30 s after its SIGTERM.
const DEFAULT_GRACE: u64 = 25;
const MAX_GRACE: u64 = 3600;
/// WebSockets of one address where the platform sets `DYNO`: a class in a school has one address.
const DEFAULT_PER_ADDRESS: u32 = 100;
/// Descriptors that are not WebSockets: the listener, Redis, plain requests, the log.
const RESERVED: usize = 128;
/// Connections where the limit of descriptors is unknown.
const FALLBACK_CONNECTIONS: usize = 1_000;

pub struct Config {
    pub port: u16,
    /// `None`: a single process with its messages in memory.
    pub redis: Option<Client>,
    /// Origins (`https://chat.example.com`) that may connect besides the page's own.
    pub allowed_origins: Vec<String>,
    pub max_connections: usize,
    /// WebSockets of one address; 0 is no limit.
    pub max_per_address: u32,
    /// Refill of each connection's bucket; 0 is no limit.
    pub talk_per_second: f64,
    /// How long after SIGTERM pages may move to another dyno; 0 closes them at once.
    pub grace: Duration,
    pub log: LevelFilter,
    /// Shown to people; not unique during a restart, so nothing else is done with it.
    pub dyno: String,
    /// The platform sets `DYNO`, so its router adds the `X-Forwarded` headers.
    pub behind_router: bool,
}

impl Config {
    /// The error is a sentence that names the variable, and never holds a password.
    pub fn from_env() -> Result<Config, String> {
        let verify = read("REDIS_TLS_VERIFY", "true or false", |s| s.parse().ok())?.unwrap_or(true);
        let url = "the URL of a Redis, like redis://HOST:6379 or rediss://:PASSWORD@HOST:6379";
        let redis = match read("REDIS_URL", url, |s| redis_client(s, verify))? {
            None => read("REDISCLOUD_URL", url, |s| redis_client(s, verify))?,
            redis => redis,
        };
        let port = |s: &str| s.parse().ok().filter(|port| *port > 0u16);
        let connections = |s: &str| s.parse::<u32>().ok().filter(|max| *max > 0);
        let number = |s: &str| s.parse().ok();
        let rate = |s: &str| s.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
        let seconds = |s: &str| s.parse().ok().filter(|seconds| *seconds <= MAX_GRACE);
        let level = |s: &str| s.parse().ok();
        let text = |s: &str| Some(s.to_owned());
        let dyno = read("DYNO", "text", text)?;
        let per_address = dyno.as_ref().map_or(0, |_| DEFAULT_PER_ADDRESS);
        Ok(Config {
            port: read("PORT", "a port, 1 to 65535", port)?.unwrap_or(DEFAULT_PORT),
            redis,
            allowed_origins: read("ALLOWED_ORIGINS", "text", text)?
                .map_or(Ok(vec![]), |origins| allowed_origins(&origins))?,
            max_connections: read("MAX_CONNECTIONS", "a whole number above 0", connections)?
                .map_or_else(default_connections, |max| max as usize),
            max_per_address: read("MAX_PER_ADDRESS", "a whole number, 0 for no limit", number)?
                .unwrap_or(per_address),
            talk_per_second: read("TALK_PER_SECOND", "a number, 0 for no limit", rate)?
                .unwrap_or(DEFAULT_TALK_PER_SECOND),
            grace: read("GRACE_SECONDS", "whole seconds, 0 to 3600", seconds)?
                .map_or(Duration::from_secs(DEFAULT_GRACE), Duration::from_secs),
            log: read("RUST_LOG", "off, error, warn, info or debug", level)?.unwrap_or(DEFAULT_LOG),
            behind_router: dyno.is_some(),
            dyno: dyno.unwrap_or(DEFAULT_DYNO.to_owned()),
        })
    }

    /// Whether Redis is reached by TLS without a check of its certificate.
    pub fn trusts_any_redis(&self) -> bool {
        let addr = self
            .redis
            .as_ref()
            .map(|client| client.get_connection_info().addr());
        matches!(addr, Some(ConnectionAddr::TcpTls { insecure: true, .. }))
    }
}

/// A variable's value; `None` if it is absent or empty.
fn read<T>(name: &str, kind: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, String> {
    let value = match env::var(name) {
        Err(env::VarError::NotPresent) => return Ok(None),
        value => value.map_err(|_| format!("{name} is not text in UTF-8"))?,
    };
    let value = value.trim();
    let parsed = (!value.is_empty()).then(|| parse(value).ok_or(format!("{name} is not {kind}")));
    parsed.transpose()
}

/// The origins in the form that browsers send. A value in another form would let nobody in, so it stops the boot.
fn allowed_origins(list: &str) -> Result<Vec<String>, String> {
    let parse = |value: &str| {
        let value = value.trim();
        origin::checked(value).ok_or_else(|| {
            let shown = match value.rsplit_once('@') {
                Some((_password, host)) => format!("...@{host}"),
                None => value.to_owned(),
            };
            let shown = origin::shown(&shown);
            format!(
                "ALLOWED_ORIGINS has {shown:?}, which is not an origin like https://chat.example.com or \
                 http://localhost:8080: http or https, a whole host name in ASCII, perhaps a port, nothing after it"
            )
        })
    };
    list.split(',').map(parse).collect()
}

/// The soft limit of open files, less what else needs one.
fn default_connections() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default(); // Linux only
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|files| files.split_whitespace().next()?.parse::<usize>().ok());
    soft.map_or(FALLBACK_CONNECTIONS, |files| {
        files.saturating_sub(RESERVED).max(1)
    })
}
