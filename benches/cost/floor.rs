//! The floor: the least work with which a server can deliver messages on this machine. One thread, one
//! `epoll`, and a bare `write(2)` for each message and reader: no JSON, no names, no history, no Redis, no limits.
//!
//! It is a process of its own, so its CPU is counted in the same way as the chat's. A client sends the head of a
//! request, then payloads, each after its length in four bytes. The first payload is the number of a room; each
//! later one is written to everyone in that room, as it is. A client joins messages by putting several frames
//! into one payload.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The answer to the head: about as long as that of the chat.
const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// The answer to the first payload: as long as the welcome to a room with ten members and no history.
const WELCOME: &[u8] = b"{\"kind\":\"welcome\"}";
const WELCOME_LENGTH: u8 = 125;
const LISTENER: u64 = u64::MAX;

struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    upgraded: bool,
    room: Option<u32>,
}

/// Serves until it is killed. Prints its port on stdout.
pub fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let socket = socket2::SockRef::from(&listener);
    socket
        .set_send_buffer_size(64 * 1024)
        .expect("as the chat has it");
    socket.listen(1024).expect("a longer accept backlog");
    println!("{}", listener.local_addr().expect("it is bound").port());
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll");
    let readable = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
    epoll.add(&listener, readable(LISTENER)).expect("added");
    let (mut peers, mut rooms) = (Vec::new(), HashMap::<u32, Vec<usize>>::new());
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        for event in &events[..ready] {
            if event.data() == LISTENER {
                let (stream, _) = listener.accept().expect("a connection");
                stream.set_nodelay(true).expect("as the chat has it");
                epoll
                    .add(&stream, readable(peers.len() as u64))
                    .expect("added");
                peers.push(Some(Peer {
                    stream,
                    unread: vec![],
                    upgraded: false,
                    room: None,
                }));
                continue;
            }
            let from = event.data() as usize;
            let Some(payloads) = peers[from].as_mut().and_then(Peer::read) else {
                if let Some(room) = peers[from].take().and_then(|peer| peer.room) {
                    rooms
                        .entry(room)
                        .or_default()
                        .retain(|member| *member != from);
                }
                continue;
            };
            for payload in payloads {
                let peer = peers[from].as_mut().expect("it has just been read");
                match peer.room {
                    None => {
                        let room = u32::from_le_bytes(payload[..4].try_into().expect("a room"));
                        peer.room = Some(room);
                        rooms.entry(room).or_default().push(from);
                        let mut welcome = [b' '; 2 + WELCOME_LENGTH as usize];
                        welcome[..2].copy_from_slice(&[0x81, WELCOME_LENGTH]);
                        welcome[2..][..WELCOME.len()].copy_from_slice(WELCOME);
                        let _ = peer.stream.write_all(&welcome);
                    }
                    Some(room) => {
                        for reader in rooms[&room].iter().filter_map(|n| peers[*n].as_ref()) {
                            let _ = (&reader.stream).write_all(&payload); // an error: its end is read above
                        }
                    }
                }
            }
        }
    }
}

impl Peer {
    /// The payloads that have arrived completely. `None`: the connection has ended.
    fn read(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        self.unread.extend_from_slice(&chunk[..n]);
        if !self.upgraded {
            if !self.unread.ends_with(b"\r\n\r\n") {
                return Some(vec![]);
            }
            self.unread.clear();
            self.upgraded = true;
            self.stream.write_all(UPGRADED).ok()?;
        }
        let mut payloads = vec![];
        while let Some((length, rest)) = self.unread.split_first_chunk()
            && let Some(payload) = rest.get(..u32::from_le_bytes(*length) as usize)
        {
            payloads.push(payload.to_vec());
            self.unread.drain(..4 + payload.len());
        }
        Some(payloads)
    }
}
