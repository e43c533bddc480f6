//! The listener: accepts, answers plain requests, upgrades to WebSocket (RFC 6455 §4.2), and at the
//! end lets everyone go. What is said over a WebSocket is the business of `session.rs`.

use std::{
    future::Future,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use sha1_smol::Sha1;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use crate::{
    beat::Beat,
    conn::{Conn, SEND_BUFFER},
    frame::{self, code},
    http::{self, Refusal, Request},
    message::{self, Code},
    session::{Dyno, Session},
};

/// From the accept to a complete head: longer than any browser or router takes.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// For a plain answer to be taken.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// All connections closed and lingered over: well before the platform's SIGKILL after 30 s.
const DRAIN_DEADLINE: Duration = Duration::from_secs(9);
/// Sockets beside those of WebSockets: heads being read, plain answers.
const PLAIN: usize = 64;
/// When no descriptor is left: until one may be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: u32 = 1024;
/// What someone who finds the dyno full is asked to wait; another dyno may have room.
const FULL_RETRY_MS: u64 = 8_000;
/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A part of the page, compiled in: the program runs from anywhere.
struct File {
    path: &'static str,
    kind: &'static str,
    body: &'static str,
    etag: String,
}

impl File {
    fn new(path: &'static str, kind: &'static str, body: &'static str) -> File {
        File {
            path,
            kind,
            body,
            etag: format!("\"{}\"", Sha1::from(body).digest()),
        }
    }
}

pub struct Server {
    pub dyno: Arc<Dyno>,
    pub beat: Beat,
    pub allowed_origins: Vec<String>,
    pub max_connections: usize,
    pub started: Instant,
    files: [File; 3],
    /// A permit for each WebSocket, and one for each socket.
    websockets: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
}

/// Listens on every address, IPv6 and IPv4, before anything else is done: the platform waits for it.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |socket: TcpSocket, addr: SocketAddr| {
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?; // accepted sockets inherit it
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    let six = TcpSocket::new_v6().and_then(|s| open(s, (Ipv6Addr::UNSPECIFIED, port).into()));
    six.or_else(|_| open(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()))
}

impl Server {
    pub fn new(dyno: Arc<Dyno>, allowed_origins: Vec<String>, max_connections: usize) -> Server {
        let max = max_connections.min(Semaphore::MAX_PERMITS - PLAIN);
        Server {
            beat: Beat::new(dyno.link.clone()),
            dyno,
            allowed_origins,
            max_connections: max,
            started: Instant::now(),
            files: [
                File::new(
                    "/",
                    "text/html; charset=utf-8",
                    include_str!("../public/index.html"),
                ),
                File::new(
                    "/chat.js",
                    "text/javascript; charset=utf-8",
                    include_str!("../public/chat.js"),
                ),
                File::new(
                    "/chat.css",
                    "text/css; charset=utf-8",
                    include_str!("../public/chat.css"),
                ),
            ],
            websockets: Arc::new(Semaphore::new(max)),
            sockets: Arc::new(Semaphore::new(max + PLAIN)),
        }
    }

    /// WebSockets open now.
    pub fn connections(&self) -> usize {
        self.max_connections - self.websockets.available_permits()
    }

    /// Serves until `shutdown`, then stops listening, closes everyone, and returns.
    pub async fn run(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.clone().admit(stream),
                    Err(e) => {
                        log::warn!("accept=failed error={:?}", e.to_string());
                        sleep(ACCEPT_PAUSE).await; // EMFILE passes; a connection reset meanwhile is no harm
                    }
                },
                _ = &mut shutdown => break,
            }
        }
        drop(listener); // a refused connection is retried elsewhere, an accepted one is not
        log::info!("drain=begun connections={}", self.connections());
        let all = (self.max_connections + PLAIN) as u32;
        let drained = async {
            self.beat.drain().await;
            let _ = self.sockets.acquire_many(all).await; // never closed
        };
        let done = timeout(DRAIN_DEADLINE, drained).await.is_ok();
        log::info!("drain=ended complete={done}");
    }

    fn admit(self: Arc<Self>, stream: TcpStream) {
        match self.sockets.clone().try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(async move {
                    self.greet(stream).await;
                    drop(permit);
                });
            }
            Err(_) => refuse_at_once(stream),
        }
    }

    async fn greet(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true); // a frame waits for no other; without, it is only slower
        let conn = Arc::new(Conn::new(stream));
        let mut bytes = Vec::new();
        let head = match timeout(HEAD_DEADLINE, read_head(&conn, &mut bytes)).await {
            Ok(Ok(head)) => head,
            Err(_) if !bytes.is_empty() => Err((408, "The request head took over 10 s.")),
            _ => return, // gone, or a browser that connected in advance
        };
        let plain = match head {
            Ok((request, length)) => match self.route(&request) {
                Ok(Some(answer)) => answer,
                Ok(None) => return self.upgrade(conn, &request, bytes.split_off(length)).await,
                Err(refusal) => refused(refusal),
            },
            Err(refusal) => refused(refusal),
        };
        drop(bytes);
        conn.push(&plain.into());
        conn.hang_up();
        if timeout(ANSWER_DEADLINE, conn.pump()).await.is_ok() {
            conn.linger().await;
        }
    }

    /// A plain answer, or `None`: it is a WebSocket's handshake, and a good one.
    fn route(&self, request: &Request) -> Result<Option<Vec<u8>>, Refusal> {
        let socket = request.path == "/ws";
        let scheme = request.only("x-forwarded-proto")?.unwrap_or_default();
        if scheme.eq_ignore_ascii_case("http") && socket {
            return Err((403, "Use wss: a socket follows no redirect."));
        }
        if scheme.eq_ignore_ascii_case("http") {
            let there = format!("https://{}{}", request.host, request.target);
            return Ok(Some(http::answer(308, &[("Location", &there)], b"", false)));
        }
        if socket && !request.origin_allowed(&self.allowed_origins)? {
            return Err((
                403,
                "This origin may not connect; ALLOWED_ORIGINS names those that may.",
            ));
        }
        if socket {
            return request.websocket_key().map(|_| None);
        }
        let head_only = request.method == "HEAD";
        if request.path == "/healthz" {
            let headers = [
                ("Content-Type", "application/json"),
                ("Cache-Control", "no-store"),
            ];
            return Ok(Some(http::answer(
                200,
                &headers,
                self.health().as_bytes(),
                head_only,
            )));
        }
        let file = self.files.iter().find(|file| file.path == request.path);
        let file = file.ok_or((404, "There is no such page here."))?;
        let host = &request.host;
        // Older Safari does not count the page's own host for sockets as 'self'.
        let csp = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        let mut headers = vec![
            ("Content-Type", file.kind),
            ("Cache-Control", "no-cache"), // ask each time, and be answered 304
            ("ETag", &file.etag),
            ("Content-Security-Policy", &csp),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ];
        if scheme.eq_ignore_ascii_case("https") {
            headers.push(("Strict-Transport-Security", "max-age=31536000"));
        }
        let weak = format!("W/{}", file.etag); // as a proxy that compresses may make it
        let tags = [&*file.etag, &*weak, "*"];
        let known = tags.iter().any(|tag| request.lists("if-none-match", tag));
        let (status, body) = if known { (304, "") } else { (200, file.body) };
        Ok(Some(http::answer(
            status,
            &headers,
            body.as_bytes(),
            head_only,
        )))
    }

    /// Well as long as it answers; whether Redis is there is said, but restarts no dyno.
    fn health(&self) -> String {
        let redis = match (self.dyno.bus.is_shared(), *self.dyno.link.borrow()) {
            (false, _) => "none",
            (true, true) => "up",
            (true, false) => "down",
        };
        format!(
            r#"{{"version":"{}","boot":"{}","uptime_s":{},"connections":{},"rooms":{},"redis":"{redis}"}}"#,
            env!("CARGO_PKG_VERSION"),
            self.dyno.boot,
            self.started.elapsed().as_secs(),
            self.connections(),
            self.dyno.bus.rooms.count(),
        )
    }

    async fn upgrade(&self, conn: Arc<Conn>, request: &Request, early: Vec<u8>) {
        let Ok(key) = request.websocket_key() else {
            return;
        }; // route() has looked
        let accept = http::base64(&Sha1::from(format!("{key}{GUID}")).digest().bytes());
        let upgraded = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        conn.push(&upgraded.into());
        let permit = self.websockets.clone().try_acquire_owned();
        self.beat.register(&conn);
        if permit.is_err() {
            conn.push(&frame::text(&message::error(
                Code::Busy,
                None,
                Some(FULL_RETRY_MS),
            )));
            conn.close(code::FULL, "busy");
        }
        // A task of its own, so that the larger one that read the head is gone.
        let session = Session::new(self.dyno.clone(), conn);
        session.run(early).await;
        drop(permit);
    }
}

async fn read_head(
    mut conn: &Conn,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<(Request, usize), Refusal>> {
    loop {
        conn.readable().await?;
        let mut chunk = [0; 2048];
        match conn.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        if let Some(done) = http::parse(bytes).transpose() {
            return Ok(done);
        }
    }
}

fn refused((status, sentence): Refusal) -> Vec<u8> {
    let mut headers = vec![
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    match status {
        405 => headers.push(("Allow", "GET, HEAD")),
        426 => headers.extend([("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]),
        _ => {}
    }
    http::answer(status, &headers, format!("{sentence}\n").as_bytes(), false)
}

/// With no socket to spare there is no task to spare either: one write that may fail, and the end.
fn refuse_at_once(stream: TcpStream) {
    let full = refused((503, "This dyno is full. Please try again in a moment."));
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream
            .read(&mut [0; 2048])
            .and_then(|_| stream.write(&full));
    }
}
