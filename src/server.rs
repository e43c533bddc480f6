//! The listener: accepts, answers plain requests, upgrades to WebSocket, and at the end lets everyone
//! go. What is said over a WebSocket is the business of `session.rs`.

use std::io::{self, ErrorKind, Read, Write};
use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::conn::{Conn, SEND_BUFFER};
use crate::frame::{self, code};
use crate::http::{self, Refusal, Request};
use crate::message::{self, Code, Refused};
use crate::session::{Dyno, Session};
use crate::{beat::Beat, bucket::Minute, web};

/// From the accept to a complete head, and for a plain answer to be taken.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Until all connections are closed: well before the platform's SIGKILL, 30 s after its SIGTERM.
const DRAIN_DEADLINE: Duration = Duration::from_secs(9);
/// Sockets beside those of WebSockets: heads being read, plain answers.
const PLAIN: usize = 64;
/// When no descriptor is left: until one may be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: u32 = 1024;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What someone who finds the dyno full is asked to wait, in ms; another dyno may have room.
const FULL_RETRY: u64 = 8_000;

pub struct Server {
    pub dyno: Arc<Dyno>,
    beat: Arc<Beat>,
    started: Instant,
    /// A permit for each WebSocket, and one for each socket.
    websockets: Semaphore,
    sockets: Arc<Semaphore>,
}

/// Listens on every address, IPv6 and IPv4.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |socket: TcpSocket, addr: SocketAddr| {
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?; // which accepted sockets inherit
        socket.set_nodelay(true)?; // and this, without which frames are only later
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    let six = TcpSocket::new_v6().and_then(|socket| open(socket, ([0; 16], port).into()));
    six.or_else(|_| open(TcpSocket::new_v4()?, ([0; 4], port).into()))
}

impl Server {
    pub fn new(dyno: Dyno) -> Arc<Server> {
        Arc::new(Server {
            beat: Beat::start(dyno.bus.link.clone()),
            started: Instant::now(),
            websockets: Semaphore::new(dyno.config.max_connections),
            sockets: Arc::new(Semaphore::new(dyno.config.max_connections + PLAIN)),
            dyno: Arc::new(dyno),
        })
    }

    /// WebSockets open now.
    pub fn connections(&self) -> usize {
        self.dyno.config.max_connections - self.websockets.available_permits()
    }

    /// Serves until `shutdown`, then stops listening, closes everyone, and returns.
    pub async fn run(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let failed = Minute::default();
        loop {
            tokio::select! {
                _ = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream),
                    Err(e) => {
                        if failed.is_new() {
                            log::warn!("accept=failed error={:?}", e.to_string());
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Whom the kernel has let in already is served, for it would reset them. Who comes later is
        // refused, and tried elsewhere.
        if let Ok(listener) = listener.into_std() {
            while let Ok((stream, _)) = listener.accept() {
                let _ = stream.set_nonblocking(true); // fails only for what is no socket
                let _ = TcpStream::from_std(stream).map(|stream| self.admit(stream));
            }
        }
        log::info!("drain=begun connections={}", self.connections());
        let drained = async {
            self.beat.drain().await;
            let all = self.dyno.config.max_connections + PLAIN;
            let _ = self.sockets.acquire_many(all as u32).await; // it is never closed
        };
        let complete = timeout(DRAIN_DEADLINE, drained).await.is_ok();
        log::info!("drain=ended complete={complete}");
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) {
        let Ok(permit) = self.sockets.clone().try_acquire_owned() else {
            return refuse_at_once(stream);
        };
        let server = self.clone();
        tokio::spawn(async move {
            let conn = Arc::new(Conn::new(stream));
            if let Some(early) = server.greet(&conn).await {
                server.open(conn, early).await;
            }
            drop(permit);
        });
    }

    /// Reads a head and answers it. If it was a WebSocket's handshake, returns what came behind it.
    async fn greet(&self, conn: &Conn) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let head = match timeout(HEAD_DEADLINE, read_head(conn, &mut bytes)).await {
            Ok(head) => head.ok()?,
            Err(_) if bytes.is_empty() => return None, // browsers connect in advance
            Err(_) => Err((408, "The head of the request took too long.")),
        };
        let origins = &self.dyno.config.allowed_origins;
        let (answer, upgrade) = match &head {
            Ok((request, length)) => match web::route(request, origins, || self.health()) {
                Ok((answer, upgrade)) => (answer, upgrade.then(|| bytes.split_off(*length))),
                Err(refusal) => (web::refusal(refusal, request.is_head()), None),
            },
            Err(refusal) => (web::refusal(*refusal, false), None),
        };
        conn.push(&answer.into());
        if upgrade.is_none() {
            conn.hang_up();
            if timeout(ANSWER_DEADLINE, conn.pump()).await.is_ok() {
                conn.linger().await;
            }
        }
        upgrade
    }

    /// What `/healthz` says. A dyno is well while it answers; that Redis is away restarts no dyno.
    fn health(&self) -> String {
        let (boot, uptime) = (&self.dyno.boot, self.started.elapsed().as_secs());
        let (connections, rooms) = (self.connections(), self.dyno.bus.rooms.count());
        let redis = match *self.dyno.bus.link.borrow() {
            _ if self.dyno.config.redis.is_none() => "none",
            true => "up",
            false => "down",
        };
        format!(
            r#"{{"version":"{VERSION}","boot":"{boot}","uptime_s":{uptime},"connections":{connections},"rooms":{rooms},"redis":"{redis}"}}"#
        )
    }

    async fn open(&self, conn: Arc<Conn>, early: Vec<u8>) {
        let permit = self.websockets.try_acquire();
        self.beat.register(&conn);
        conn.status(&self.dyno.bus.link);
        if permit.is_err() {
            let full = Refused(Code::Busy, None, Some(FULL_RETRY));
            conn.push(&frame::text(&message::error(&full)));
            conn.close(code::FULL, "busy"); // all that is left for the session is to see it out
        }
        Session::new(self.dyno.clone(), conn).run(early).await;
    }
}

/// Reads until the head is complete, or known to be bad. An error: the peer is gone.
async fn read_head(
    mut conn: &Conn,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<(Request, usize), Refusal>> {
    loop {
        conn.readable().await?;
        let mut chunk = [0; 2048];
        match conn.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        if let Some(head) = http::parse(bytes).transpose() {
            return Ok(head);
        }
    }
}

/// Where there is no socket to spare there is no task either: one write that may fail, and the end.
fn refuse_at_once(stream: TcpStream) {
    let full = (503, "This dyno is full. Please try again in a moment.");
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.read(&mut [0; 2048]); // left unread, it would make a reset of our end
        let _ = stream.write(&web::refusal(full, false));
    }
}
