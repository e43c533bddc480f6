//! Many clients in one thread: sockets, one `epoll`, and frames that are counted and not kept. They must cost
//! less than the server that they drive, because they share their core with Redis.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::client::Client;
use crate::frames::{self, PING};
use crate::machine::{Server, Wire};
use crate::support::raw::{self, PONG};

/// Connections that are joining at a time: well within the server's accept backlog of 1,024.
const AT_ONCE: usize = 256;
/// The longest wait for a message. Long, because the machine may be busy; no figure depends on it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes. Larger than a welcome with a full history.
const BUFFER: usize = 512 * 1024;

pub struct Clients {
    wire: Wire,
    epoll: Epoll,
    pub list: Vec<Client>,
    joined: usize,
    buffer: Vec<u8>,
    /// Messages received, by all clients together.
    pub talks: u64,
    /// Bytes of the last message's frame.
    pub frame: usize,
    /// Connections that the server has closed.
    pub ended: usize,
    stuck: usize,
    /// From sending to receiving, in µs, for every message received while this is `Some`.
    pub delays: Option<Vec<f64>>,
}

impl Clients {
    pub fn new(wire: Wire) -> Clients {
        Clients {
            wire,
            epoll: Epoll::new(EpollCreateFlags::empty()).expect("an epoll"),
            list: vec![],
            joined: 0,
            buffer: vec![0; BUFFER],
            talks: 0,
            frame: 0,
            ended: 0,
            stuck: 0,
            delays: None,
        }
    }

    /// So many clients, all joined. `room` gives the room of the nth client.
    pub fn join_all(server: &Server, many: usize, room: impl Fn(usize) -> usize) -> Clients {
        let mut clients = Clients::new(server.wire);
        clients.join(server.addr, many, room);
        clients
    }

    /// Joins so many more, some at a time. Returns when all have their welcome.
    pub fn join(&mut self, addr: SocketAddr, many: usize, room: impl Fn(usize) -> usize) {
        let all = self.list.len() + many;
        let start = Instant::now();
        while self.joined < all {
            while self.list.len() < all && self.list.len() - self.joined < AT_ONCE {
                self.connect(addr, room(self.list.len()));
            }
            self.poll(Duration::from_millis(10));
            assert!(
                start.elapsed() < 4 * PATIENCE,
                "only {} of {all} have joined",
                self.joined
            );
        }
    }

    fn connect(&mut self, addr: SocketAddr, room: usize) {
        let client = Client::connect(addr, self.wire, room);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.list.len() as u64);
        let added = self.epoll.add(&client.stream, event);
        added.expect("epoll takes every socket");
        self.list.push(client);
    }

    /// A client sends a message; to the floor, `joined` messages in one payload.
    pub fn send(&mut self, client: usize, joined: usize) {
        self.list[client].send(&frames::stamped(), joined);
    }

    /// Waits for bytes, at most so long, and reads them.
    pub fn poll(&mut self, wait: Duration) {
        let mut events = [EpollEvent::empty(); 256];
        // The timeout of `epoll_wait` is in milliseconds, too coarse to send at an even rate.
        let ready = PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN);
        let _ = ppoll(&mut [ready], Some(wait.into()), None); // a signal only makes the wait shorter
        let ready = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        for event in &events[..ready] {
            self.read(event.data() as usize);
        }
    }

    fn read(&mut self, number: usize) {
        let client = &mut self.list[number];
        let (foreign, is_new) = (matches!(self.wire, Wire::Peer(_)), !client.upgraded);
        let Some(mut bytes) = client.read(&mut self.buffer) else {
            self.ended += 1;
            return self.epoll.delete(&client.stream).expect("it was added");
        };
        // The welcome of another program is not known.
        self.joined += usize::from(foreign && is_new);
        while let Some((opcode, payload, used)) = frames::next(bytes) {
            let text = match foreign {
                true => frames::find(payload),
                false => frames::is_talk(payload).then(|| frames::place(payload)),
            };
            if let Some(text) = text {
                client.talks += 1;
                self.talks += 1;
                self.frame = used;
                if let Some(delays) = &mut self.delays {
                    delays.push(frames::age(payload, text));
                }
            } else if foreign && opcode != PING {
                // Perhaps a welcome, or a list of clients.
            } else if payload.starts_with(br#"{"kind":"welcome""#) {
                self.joined += 1;
            } else if payload.starts_with(br#"{"kind":"error""#) {
                panic!("the server refuses: {}", String::from_utf8_lossy(payload));
            } else if opcode == PING {
                let _ = client.stream.write_all(&raw::frame(PONG, payload)); // an error: the connection has ended
            }
            bytes = &bytes[used..];
        }
        client.unread = bytes.to_vec();
    }

    /// Receives for so long.
    pub fn receive_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.poll(left);
        }
    }

    /// Receives until so many messages have arrived since the start.
    pub fn receive_until(&mut self, talks: u64) {
        let start = Instant::now();
        while self.talks < talks {
            self.poll(Duration::from_millis(10));
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {talks} messages arrived",
                self.talks
            );
        }
        assert_eq!(self.talks, talks, "no message arrives twice");
    }

    /// Makes a client stop reading.
    pub fn stall(&mut self, number: usize) {
        self.epoll
            .delete(&self.list[number].stream)
            .expect("it was added");
        self.stuck += 1;
    }

    /// How many clients read.
    pub fn reading(&self) -> usize {
        self.list.len() - self.stuck
    }
}
