//! The one connection to Redis, and its supervisor. Only the supervisor connects.
//!
//! The link is *up* from the readiness check until the connection is lost, does not answer a probe in time,
//! or gives an answer after which it is of no use. `ConnectionManager` of the redis crate is not used: it
//! subscribes again by itself and mixes up the replies, and it gives up after 9.5 s.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, Value,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::connection::{Connection, is_denied};
use super::followers::Followers;
use super::keys::Keys;
use super::readiness;
use super::script::Scripts;
use super::server_info::ServerInfo;
use crate::lock::lock;
use crate::protocol::{ErrorCode, Id};
use crate::store::entry::Entry;
use crate::store::follower::Follower;

/// Without an answer for this long, a request fails and the connection is lost.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two probes.
const PROBE: Duration = Duration::from_secs(1);
/// Back-off between attempts to connect: doubled up to the longest, with jitter, for ever.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// After an outage, how long every dyno has to renew its leases before a list of names is complete.
const SETTLE: Duration = Duration::from_secs(3);

/// Logged for a certificate that cannot be verified, such as that of Heroku's Redis.
const CERTIFICATE_HINT: &str = " hint=\"REDIS_TLS_VERIFY=false takes any certificate\"";
const VERSION_HINT: &str = " hint=\"Redis or Valkey 7.0 or newer is needed\"";
const CLUSTER_HINT: &str = " hint=\"one Redis is needed, not a cluster of several nodes\"";
const RIGHTS_HINT: &str = " hint=\"docs/REDIS.md names the rights that suffice\"";

pub struct Link {
    client: Client,
    pub scripts: Scripts,
    /// There while the link is up.
    connection: Mutex<Option<Arc<Connection>>>,
    up: watch::Sender<bool>,
    memory_warning: Once,
}

impl Link {
    /// A link that is not up yet. Its supervisor runs as long as the program.
    pub fn start(client: Client) -> Arc<Link> {
        let link = Arc::new(Link {
            client,
            scripts: Scripts::new(),
            connection: Mutex::default(),
            up: watch::Sender::new(false),
            memory_warning: Once::new(),
        });
        tokio::spawn(link.clone().supervise());
        link
    }

    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub fn keys(&self, room: &str) -> Keys {
        let info = self.client.get_connection_info();
        Keys::of(room, info.redis_settings().db())
    }

    /// The connection; `busy` while the link is down.
    pub fn connection(&self) -> Result<Arc<Connection>, ErrorCode> {
        lock(&self.connection).clone().ok_or(ErrorCode::Busy)
    }

    /// Opens a channel for what is pushed to `channel`, and the connection it belongs to. In one step under
    /// the lock that takes the link down: otherwise a room could wait on a connection that is given up.
    pub fn open_channel(
        &self,
        channel: &str,
        from: Id,
        names_changed: Arc<Notify>,
    ) -> Result<(Arc<Connection>, mpsc::Receiver<Entry>), ErrorCode> {
        let current = lock(&self.connection);
        let connection = current.as_ref().ok_or(ErrorCode::Busy)?;
        let (follower, events) = Follower::new(from, names_changed);
        connection.followers.insert(channel, follower);
        Ok((connection.clone(), events))
    }

    async fn supervise(self: Arc<Self>) {
        let (mut pause, mut settle, mut logged) = (FIRST_PAUSE, Duration::ZERO, String::new());
        loop {
            let Err(error) = self.serve(settle).await;
            let was_up = self.up.send_replace(false);
            if let Some(connection) = lock(&self.connection).take() {
                connection.give_up(); // still under the lock, see `open_channel`
            }
            if was_up {
                (pause, settle) = (FIRST_PAUSE, SETTLE);
            }
            // Logs an outage once, and what Redis itself says whenever that changes.
            let (refused, hint) = (!error.is_io_error(), hint(&error));
            let error = error.to_string();
            if was_up || logged.is_empty() || refused && error != logged {
                log::warn!("redis=down error={error:?}{hint}");
                logged = error;
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One connection, from connecting to its end.
    async fn serve(&self, settle: Duration) -> RedisResult<Infallible> {
        let (lost, mut reason) = mpsc::channel(1);
        let followers = Arc::<Followers>::default();
        let (handler, closed) = (followers.clone(), lost.clone());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_push_sender(move |push| {
                handler.handle(push, &closed);
                Ok::<(), ()>(())
            });
        let client = &self.client;
        let mut con = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let server = ServerInfo::read(&mut con).await;
        server.check_version()?;
        let keys = self.keys(readiness::ROOM);
        readiness::check(&mut con, &self.scripts, &keys).await?;
        let names_complete_at = Instant::now() + settle;
        let connection = Connection::new(con, followers, lost, names_complete_at);
        let connection = Arc::new(connection);
        *lock(&self.connection) = Some(connection.clone());
        self.up.send_replace(true);
        log::info!("redis=up");
        if server.refuses_when_full() {
            self.memory_warning.call_once(|| {
                log::warn!(
                    "redis_memory={} policy=noeviction hint=\"when full, this Redis refuses every message; with volatile-lru it evicts the rooms unused for longest\"",
                    server.max_memory
                );
            });
        }
        let probe = readiness::probe(&keys);
        let mut second = interval(PROBE);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick() => {
                    connection.query::<Value>(&probe).await?;
                }
                Some(reason) = reason.recv() => return Err(lost_because(reason)),
            }
        }
    }
}

/// A client for a `redis://` or `rediss://` URL; `None` if the URL is another. `verify`: whether a TLS
/// certificate is checked. RESP3 whatever the URL says: with it pushes and replies share a connection.
pub fn client(url: &str, verify: bool) -> Option<Client> {
    let mut url = redis::parse_redis_url(url)?;
    url.query_pairs_mut().append_pair("protocol", "resp3");
    url.set_fragment((!verify).then_some("insecure"));
    let info = url.into_connection_info().ok()?;
    Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true))).ok()
}

/// How to repair this error, for the log. Empty if the error itself says it.
fn hint(error: &RedisError) -> &'static str {
    let text = error.to_string();
    if text.contains("certificate") {
        CERTIFICATE_HINT // as rustls words it
    } else if error.kind() == ErrorKind::RESP3NotSupported
        || text.contains("too old")
        || text.contains("Error compiling script")
    {
        VERSION_HINT
    } else if error.code() == Some("MOVED") {
        CLUSTER_HINT
    } else if is_denied(error) {
        RIGHTS_HINT
    } else {
        ""
    }
}

fn lost_because(reason: String) -> RedisError {
    (redis::ErrorKind::Io, "connection lost", reason).into()
}
