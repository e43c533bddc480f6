//! One client: its socket, and the messages that it sends.

use std::io::{ErrorKind::WouldBlock, Read, Write};
use std::mem::take;
use std::net::{SocketAddr, TcpStream};

use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::GetSockOpt};

use crate::frames;
use crate::machine::Wire;
use crate::peer::filled;
use crate::support::raw::{self, TEXT};

// On loopback, one write is one segment: the segments that a client has received are the server's writes.
sockopt_impl!(
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

pub struct Client {
    pub stream: TcpStream,
    wire: Wire,
    room: usize,
    /// The start of a frame whose rest has not arrived.
    pub unread: Vec<u8>,
    pub upgraded: bool,
    /// Messages received.
    pub talks: u64,
}

impl Client {
    /// Connects and requests the upgrade. `read` sends the join when the answer arrives.
    pub fn connect(addr: SocketAddr, wire: Wire, room: usize) -> Client {
        let mut stream = TcpStream::connect(addr).expect("the server accepts");
        stream.set_nodelay(true).expect("a socket");
        stream.set_nonblocking(true).expect("a socket");
        let mut head = raw::upgrade_head(&addr.to_string(), &[]);
        if let Wire::Peer(peer) = wire {
            head = head.replacen("/ws", &peer.path, 1);
        }
        stream.write_all(head.as_bytes()).expect("a head fits");
        let (unread, upgraded, talks) = Default::default();
        Client {
            stream,
            wire,
            room,
            unread,
            upgraded,
            talks,
        }
    }

    pub fn send(&mut self, text: &str, joined: usize) {
        let bytes = match self.wire {
            Wire::Chat => frames::talk(text),
            Wire::Floor => frames::sized(&frames::delivery(text).repeat(joined)),
            Wire::Peer(peer) => raw::frame(TEXT, filled(&peer.talk, self.room, "", text)),
        };
        let sent = self.stream.write_all(&bytes);
        sent.expect("a message fits into the buffer of a socket that is read");
    }

    /// The bytes left over from the last read, and those that have arrived since. `None`: the connection has ended.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let unread = take(&mut self.unread);
        buffer[..unread.len()].copy_from_slice(&unread);
        let new = match self.stream.read(&mut buffer[unread.len()..]) {
            Ok(n) if n > 0 => n,
            Err(e) if e.kind() == WouldBlock => 0,
            _ => return None,
        };
        let bytes = &buffer[..unread.len() + new];
        if self.upgraded {
            return Some(bytes);
        }
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")?; // it arrives in one read
        assert!(bytes.starts_with(b"HTTP/1.1 101 "), "the server refuses");
        self.upgraded = true;
        let join = match self.wire {
            Wire::Chat => frames::join(self.room),
            Wire::Floor => frames::sized(&(self.room as u32).to_le_bytes()),
            Wire::Peer(peer) if peer.join.is_empty() => vec![],
            Wire::Peer(peer) => {
                raw::frame(TEXT, filled(&peer.join, self.room, &frames::name(), ""))
            }
        };
        self.stream.write_all(&join).ok()?;
        Some(&bytes[head + 4..])
    }

    /// How many writes the server has made to this client.
    pub fn writes(&self) -> u64 {
        let info = TcpInfo.get(&self.stream).expect("a TCP socket");
        info.tcpi_data_segs_in.into()
    }
}
