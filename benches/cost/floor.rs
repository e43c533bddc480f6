//! The floor: the least a server of this shape can do on this machine. One thread, one `epoll`, and for
//! each message a bare `write(2)` per reader: no JSON, no names, no log, no Redis, no limits.
//!
//! It runs as a process of its own, so that its CPU is counted as the chat's is. A client sends a
//! request's head, then messages of four bytes of length and a payload. The first payload is the number
//! of a room; every later one is handed to all who are in it, as it is. Whether messages are joined is
//! the client's choice: it puts several frames into one payload.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Sent for the head: what the chat answers, about.
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Sent for the first message: as long as a welcome into a room of ten that has been silent.
const WELCOME: &[u8] = b"{\"kind\":\"welcome\"}";
const WELCOME_LENGTH: u8 = 125;
const LISTENER: u64 = u64::MAX;

struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    switched: bool,
    room: Option<u32>,
}

/// Serves until it is killed. Says on stdout on which port.
pub fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let socket = socket2::SockRef::from(&listener);
    socket
        .set_send_buffer_size(64 * 1024)
        .expect("as the chat has it");
    socket.listen(1024).expect("a longer queue of connections");
    println!("{}", listener.local_addr().expect("it is bound").port());
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll");
    let readable = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
    epoll.add(&listener, readable(LISTENER)).expect("watched");
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
                    .expect("watched");
                peers.push(Some(Peer {
                    stream,
                    unread: vec![],
                    switched: false,
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
                            let _ = (&reader.stream).write_all(&payload); // who is gone is seen above
                        }
                    }
                }
            }
        }
    }
}

impl Peer {
    /// The payloads that have arrived whole; `None` at the end of the connection.
    fn read(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        self.unread.extend_from_slice(&chunk[..n]);
        if !self.switched {
            if !self.unread.ends_with(b"\r\n\r\n") {
                return Some(vec![]);
            }
            self.unread.clear();
            self.switched = true;
            self.stream.write_all(SWITCHED).ok()?;
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
