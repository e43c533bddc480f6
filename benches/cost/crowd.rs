//! A crowd of clients in one thread: sockets, one `epoll`, and frames that are counted, not kept. It has
//! to cost less than the server that it drives, for it shares its core with Redis.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::frames::{self, PING};
use crate::machine::{Server, Wire};
use crate::member::Member;
use crate::support::raw::{self, PONG};

/// Connections on their way in at a time, well within the server's queue of 1,024.
const AT_ONCE: usize = 256;
/// For what has been said to arrive. Long: the machine may be busy, and nobody is timed by it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Takes a welcome into a room with a full log.
const BUFFER: usize = 512 * 1024;

pub struct Crowd {
    wire: Wire,
    epoll: Epoll,
    pub members: Vec<Member>,
    joined: usize,
    buffer: Vec<u8>,
    /// Messages that have arrived, at all members together.
    pub talks: u64,
    /// The length of the last one's frame.
    pub frame: usize,
    /// Connections that the server has ended.
    pub ended: usize,
    stuck: usize,
    /// From saying to hearing, in µs; of every message heard while it is there.
    pub delays: Option<Vec<f64>>,
}

impl Crowd {
    pub fn new(wire: Wire) -> Crowd {
        Crowd {
            wire,
            epoll: Epoll::new(EpollCreateFlags::empty()).expect("an epoll"),
            members: vec![],
            joined: 0,
            buffer: vec![0; BUFFER],
            talks: 0,
            frame: 0,
            ended: 0,
            stuck: 0,
            delays: None,
        }
    }

    /// A crowd of that many, all joined. `room` says which room the nth member goes to.
    pub fn at(server: &Server, many: usize, room: impl Fn(usize) -> usize) -> Crowd {
        let mut crowd = Crowd::new(server.wire);
        crowd.join(server.addr, many, room);
        crowd
    }

    /// Has that many come in, a few at a time; returns when all have been welcomed.
    pub fn join(&mut self, addr: SocketAddr, many: usize, room: impl Fn(usize) -> usize) {
        let all = self.members.len() + many;
        let start = Instant::now();
        while self.joined < all {
            while self.members.len() < all && self.members.len() - self.joined < AT_ONCE {
                self.connect(addr, room(self.members.len()));
            }
            self.turn(Duration::from_millis(10));
            assert!(
                start.elapsed() < 4 * PATIENCE,
                "only {} of {all} came in",
                self.joined
            );
        }
    }

    fn connect(&mut self, addr: SocketAddr, room: usize) {
        let member = Member::connect(addr, self.wire, room);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.members.len() as u64);
        let watched = self.epoll.add(&member.stream, event);
        watched.expect("an epoll takes every socket");
        self.members.push(member);
    }

    /// A member says something: `joined` messages at once, which only the floor can take.
    pub fn say(&mut self, member: usize, joined: usize) {
        self.members[member].say(&frames::stamped(), joined);
    }

    /// Waits for something to arrive, and takes it in.
    pub fn turn(&mut self, wait: Duration) {
        let mut events = [EpollEvent::empty(); 256];
        // `epoll` counts in milliseconds, which is too coarse to say something in time.
        let ready = PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN);
        let _ = ppoll(&mut [ready], Some(wait.into()), None); // a signal only makes it shorter
        let ready = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        for event in &events[..ready] {
            self.read(event.data() as usize);
        }
    }

    fn read(&mut self, number: usize) {
        let member = &mut self.members[number];
        let (foreign, came_in) = (matches!(self.wire, Wire::Peer(_)), !member.switched);
        let Some(mut bytes) = member.read(&mut self.buffer) else {
            self.ended += 1;
            return self.epoll.delete(&member.stream).expect("it was watched");
        };
        // Another server's welcome is not known.
        self.joined += usize::from(foreign && came_in);
        while let Some((opcode, payload, used)) = frames::next(bytes) {
            let text = match foreign {
                true => frames::find(payload),
                false => frames::is_talk(payload).then(|| frames::place(payload)),
            };
            if let Some(text) = text {
                member.talks += 1;
                self.talks += 1;
                self.frame = used;
                if let Some(delays) = &mut self.delays {
                    delays.push(frames::age(payload, text));
                }
            } else if foreign && opcode != PING {
                // A welcome perhaps, or a list: it is not known.
            } else if payload.starts_with(br#"{"kind":"welcome""#) {
                self.joined += 1;
            } else if payload.starts_with(br#"{"kind":"error""#) {
                panic!("the server refuses: {}", String::from_utf8_lossy(payload));
            } else if opcode == PING {
                let _ = member.stream.write_all(&raw::frame(PONG, payload)); // or it has ended
            }
            bytes = &bytes[used..];
        }
        member.unread = bytes.to_vec();
    }

    /// Takes in what comes for so long.
    pub fn sit(&mut self, lasting: Duration) {
        let end = Instant::now() + lasting;
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.turn(left);
        }
    }

    /// Takes in what comes until so many messages have arrived since the beginning.
    pub fn hear(&mut self, talks: u64) {
        let start = Instant::now();
        while self.talks < talks {
            self.turn(Duration::from_millis(10));
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {talks} messages arrived",
                self.talks
            );
        }
        assert_eq!(self.talks, talks, "nothing arrives twice");
    }

    /// Has a member read no more.
    pub fn stall(&mut self, number: usize) {
        self.epoll
            .delete(&self.members[number].stream)
            .expect("it was watched");
        self.stuck += 1;
    }

    /// Those who do.
    pub fn reading(&self) -> usize {
        self.members.len() - self.stuck
    }
}
