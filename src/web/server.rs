//! The listener: accepts, answers plain requests, upgrades to WebSocket, and stops.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::addresses::{self, Addresses, Place};
use super::answer;
use super::drain::drain;
use super::request::{self, MAX_HEAD, Refusal, Request};
use crate::chat::{App, Phase, Session, heartbeat_frames};
use crate::log_throttle::LogThrottle;
use crate::protocol::close_code;
use crate::socket::{Conn, Heartbeat, SEND_BUFFER};

/// For a complete request head, counted from the accept.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a head that every socket may hold. A longer head waits for one of the permits, so that incomplete
/// heads together take little memory.
const SHORT_HEAD: usize = 4 * 1024;
const LONG_HEADS: usize = 256;
/// For sending a plain answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// For the first byte of a request that is on its way when this dyno stops.
const IN_FLIGHT: Duration = Duration::from_millis(100);
/// For a complete request head after this dyno begins to stop.
const LAST_HEADS: Duration = Duration::from_secs(1);
/// Sockets beside those of WebSockets: heads being read, plain answers.
const PLAIN: usize = 64;
/// Back-off after accept() fails, for instance because no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the kernel accepts in advance.
const BACKLOG: u32 = 1024;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long a page is asked to wait when this dyno is full, or its address is at the limit, in ms. Another dyno may
/// have space.
const FULL_RETRY_MS: u64 = 8_000;

/// The settings about connections.
pub struct Limits {
    /// Origins that may connect besides the page's own.
    pub allowed_origins: Vec<String>,
    /// WebSockets at a time.
    pub max_connections: usize,
    /// How long pages may move to another dyno when this one stops.
    pub grace: Duration,
    /// WebSockets of one address; 0 is no limit.
    pub max_per_address: u32,
    /// The platform's router adds `X-Forwarded-Proto` and `X-Forwarded-For`.
    pub behind_router: bool,
}

pub struct Server {
    app: Arc<App>,
    limits: Limits,
    heartbeat: Arc<Heartbeat>,
    started: Instant,
    /// A permit for each WebSocket.
    websockets: Semaphore,
    addresses: Addresses,
    long_heads: Semaphore,
    /// A permit for each socket.
    sockets: Arc<Semaphore>,
}

/// Listens on every address, IPv6 and IPv4. Fails if another program listens on this port, even if only on one
/// of the addresses: some visitors would reach that program.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |socket: TcpSocket, addr: SocketAddr| {
        socket.set_reuseaddr(true)?;
        if addr.is_ipv6() {
            SockRef::from(&socket).set_only_v6(false)?; // the default is a setting of the system
        }
        // Accepted sockets inherit both. Nagle's algorithm would only add latency.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_nodelay(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    let six = TcpSocket::new_v6().and_then(|socket| open(socket, ([0; 16], port).into()));
    six.or_else(|error| match error.kind() {
        ErrorKind::AddrInUse => Err(error),
        _ => open(TcpSocket::new_v4()?, ([0; 4], port).into()), // there is no IPv6
    })
}

impl Server {
    pub fn new(app: Arc<App>, limits: Limits) -> Arc<Server> {
        let frames = {
            let app = app.clone();
            move || heartbeat_frames(&app)
        };
        Arc::new(Server {
            app,
            heartbeat: Heartbeat::start(frames),
            started: Instant::now(),
            websockets: Semaphore::new(limits.max_connections),
            addresses: Addresses::new(limits.max_per_address),
            long_heads: Semaphore::new(LONG_HEADS),
            sockets: Arc::new(Semaphore::new(limits.max_connections + PLAIN)),
            limits,
        })
    }

    /// WebSockets open now.
    pub fn connections(&self) -> usize {
        self.limits.max_connections - self.websockets.available_permits()
    }

    /// Serves until `terminate` or `interrupt`, then stops listening and drains. After `terminate` pages move;
    /// `interrupt` ends that.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        terminate: impl Future<Output = ()>,
        interrupt: impl Future<Output = ()>,
    ) {
        tokio::pin!(terminate, interrupt);
        let failed = LogThrottle::default();
        let grace = loop {
            tokio::select! {
                () = &mut terminate => break self.limits.grace,
                () = &mut interrupt => break Duration::ZERO,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream),
                    Err(e) => {
                        if failed.is_due() {
                            log::warn!("accept=failed error={:?}", e.to_string());
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        };
        // Serve the accept backlog before closing the listener: the kernel would reset those connections.
        // Later connections are refused, and the router tries another dyno.
        if let Ok(listener) = listener.into_std() {
            while let Ok((stream, _)) = listener.accept() {
                let _ = stream.set_nonblocking(true); // fails only for what is not a socket
                let _ = TcpStream::from_std(stream).map(|stream| self.admit(stream));
            }
        }
        let open_sockets =
            || self.limits.max_connections + PLAIN - self.sockets.available_permits();
        drain(&self.app, &self.heartbeat, grace, interrupt, open_sockets).await;
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) {
        let Ok(permit) = self.sockets.clone().try_acquire_owned() else {
            return refuse_at_once(stream);
        };
        let (server, conn) = (self.clone(), Arc::new(Conn::new(stream)));
        tokio::spawn(async move {
            if let Some((early, place)) = server.handle_request(&conn).await {
                server.serve_websocket(conn, early, place.is_some()).await;
            }
            drop(permit);
        });
    }

    /// Reads a request and answers it. Returns the bytes after the head if it was an upgrade, and whether its
    /// address has a place; `None` if the connection is done.
    async fn handle_request(&self, conn: &Conn) -> Option<(Vec<u8>, Option<Place<'_>>)> {
        let mut bytes = Vec::new();
        let stop = self.after_stop(IN_FLIGHT);
        let read = tokio::select! {
            biased; // a head that has arrived is answered, also on a machine that stalled
            head = read_head(conn, &mut bytes, &self.long_heads, stop) => Some(head.ok()?),
            () = sleep_and_look(HEAD_DEADLINE) => None,
            () = self.after_stop(LAST_HEADS) => None,
        };
        let head = match read {
            Some(head) => head,
            None if bytes.is_empty() => return None, // browsers connect in advance
            None => Err((408, "The head of the request took too long.")),
        };
        let (origins, behind_router) = (&self.limits.allowed_origins, self.limits.behind_router);
        let (answer, upgrade) = match &head {
            Ok((request, length)) => {
                match answer::route(request, origins, behind_router, || self.health()) {
                    Ok((answer, true)) => {
                        let address = addresses::of(request, conn.peer().ok()?, behind_router);
                        let place = self.addresses.enter(address);
                        (answer, Some((bytes.split_off(*length), place)))
                    }
                    Ok((answer, false)) => (answer, None),
                    Err(refusal) => (answer::refusal(refusal, request.is_head()), None),
                }
            }
            Err(refusal) => (answer::refusal(*refusal, false), None),
        };
        conn.push(&answer.into());
        if upgrade.is_none() {
            conn.finish();
            if timeout(ANSWER_DEADLINE, conn.flushed()).await.is_ok() {
                conn.linger().await;
            }
        }
        upgrade
    }

    /// Waits until this dyno has been stopping for so long.
    async fn after_stop(&self, time: Duration) {
        let mut phase = self.app.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
        sleep_and_look(time).await;
    }

    /// The body of `/healthz`. Only liveness: that Redis is down must not restart a dyno.
    fn health(&self) -> String {
        let (boot, uptime) = (&self.app.boot, self.started.elapsed().as_secs());
        let (connections, rooms) = (self.connections(), self.app.rooms.count());
        let redis = self.app.redis_status();
        format!(
            r#"{{"version":"{VERSION}","boot":"{boot}","uptime_s":{uptime},"connections":{connections},"rooms":{rooms},"redis":"{redis}"}}"#
        )
    }

    async fn serve_websocket(&self, conn: Arc<Conn>, early: Vec<u8>, has_place: bool) {
        let permit = self.websockets.try_acquire();
        let most = &self.app.most_connections;
        most.fetch_max(self.connections(), Relaxed);
        self.heartbeat.register(&conn);
        if *self.app.phase.borrow() == Phase::Closing {
            conn.close(close_code::RESTART, "restart"); // its upgrade came late
        }
        let mut session = Session::new(self.app.clone(), conn);
        if permit.is_err() || !has_place {
            session.refuse(FULL_RETRY_MS);
        }
        session.run(early).await;
    }
}

/// Reads until the head is complete, or refused. The outer error: the peer is gone, or had sent nothing at `stop`.
async fn read_head(
    mut conn: &Conn,
    bytes: &mut Vec<u8>,
    long_heads: &Semaphore,
    stop: impl Future<Output = ()>,
) -> io::Result<Result<(Request, usize), Refusal>> {
    tokio::pin!(stop);
    let mut permit = None;
    loop {
        tokio::select! {
            biased;
            readable = conn.readable() => readable?,
            () = &mut stop, if bytes.is_empty() => return Err(ErrorKind::TimedOut.into()),
        }
        if bytes.len() >= SHORT_HEAD && permit.is_none() {
            permit = long_heads.acquire().await.ok(); // it is never closed
        }
        let mut chunk = [0; 2048];
        let new = match conn.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => &chunk[..n],
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        bytes.extend_from_slice(new);
        // A parse starts at the first byte. After every segment of one byte, that would take quadratic time.
        let is_first = bytes.len() == new.len();
        if (is_first || new.contains(&b'\n') || bytes.len() >= MAX_HEAD)
            && let Some(head) = request::parse(bytes).transpose()
        {
            return Ok(head);
        }
    }
}

/// Over the limit of sockets: no task is spawned, just one best-effort write of the 503.
fn refuse_at_once(stream: TcpStream) {
    let full = (503, "This dyno is full. Please try again in a moment.");
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.read(&mut [0; 2048]); // closing with unread data would send RST instead of FIN
        let _ = stream.write(&answer::refusal(full, false));
    }
}

/// Sleeps, and then lets the runtime look at the sockets: after a stall of the machine, its timers may fire before that.
async fn sleep_and_look(time: Duration) {
    sleep(time).await;
    sleep(Duration::from_millis(1)).await;
}
