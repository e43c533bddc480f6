//! Incoming WebSocket frames, read by tungstenite without I/O of its own: it pulls bytes from, and
//! puts its Pongs and its answer to a Close into, whatever stream it is given.

use std::io::{self, ErrorKind, Read, Write};

use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::frame::code;

/// A frame, and a message of any number of frames, may hold this many bytes.
pub const MAX_FRAME: usize = 8 * 1024;
/// Bytes a message may take on the wire: six of header for each of its own, if it comes byte by byte.
/// Who needs more sends empty fragments, which would go on for ever.
const MAX_WIRE: usize = 7 * MAX_FRAME + READ_BUFFER;
/// tungstenite's default of 128 KiB is allocated at once for everybody, and zeroed on every read.
const READ_BUFFER: usize = 512;

/// What was read.
#[derive(Debug)]
pub enum Frame {
    Text(Utf8Bytes),
    /// A Ping, which has been answered, or a Pong.
    Control,
    /// The stream has no more bytes for now.
    Nothing,
    /// The peer has closed, which has been answered, or is gone.
    End,
    /// The peer is to be told this close code (RFC 6455 §7.4.1): tungstenite leaves that to us.
    Broken(u16, &'static str),
}

pub struct Reader<S> {
    context: WebSocketContext,
    wire: Wire<S>,
}

impl<S: Read + Write> Reader<S> {
    /// `early`: bytes that came behind the request's head.
    pub fn new(stream: S, early: Vec<u8>) -> Reader<S> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(READ_BUFFER)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        let wire = Wire(stream, MAX_WIRE);
        Reader { context, wire }
    }

    /// The next frame. Not to be called again after `End` or `Broken`.
    pub fn read(&mut self) -> Frame {
        let frame = match self.context.read(&mut self.wire) {
            Ok(Message::Text(text)) => Frame::Text(text),
            Ok(Message::Binary(_)) => Frame::Broken(code::BINARY, "binary"),
            Ok(Message::Close(_)) => {
                let _ = self.context.flush(&mut self.wire); // answers, and reports the end as an error
                Frame::End
            }
            Ok(_) => Frame::Control,
            Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => return Frame::Nothing,
            Err(Error::Io(e)) if e.kind() != ErrorKind::FileTooLarge => Frame::End,
            Err(Error::Io(_)) => Frame::Broken(code::FLOOD, "flood"),
            Err(Error::Capacity(_)) => Frame::Broken(code::TOO_BIG, "too_big"),
            Err(Error::Utf8(_)) => Frame::Broken(code::NOT_UTF8, "not_utf8"),
            Err(Error::Protocol(ResetWithoutClosingHandshake)) => Frame::End,
            Err(Error::Protocol(_)) => Frame::Broken(code::PROTOCOL, "protocol"),
            Err(_) => Frame::End,
        };
        self.wire.1 = MAX_WIRE;
        frame
    }
}

/// A stream, and how many bytes it may still give before a message must be complete.
struct Wire<S>(S, usize);

impl<S: Read> Read for Wire<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buf)?;
        self.1 = self.1.checked_sub(n).ok_or(ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}

impl<S: Write> Write for Wire<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
