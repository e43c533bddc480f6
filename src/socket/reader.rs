//! Reads incoming WebSocket frames. tungstenite parses them and does no I/O of its own: it reads from the
//! stream it is given, and writes its Pongs and its answer to a Close there.

use std::io::{self, ErrorKind, Read, Write};

use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::protocol::close_code;

/// A frame, and a message of any number of frames, may hold this many bytes.
pub const MAX_FRAME: usize = 8 * 1024;
/// Bytes a message may take on the wire. The worst case is one-byte fragments with a header of 6 bytes
/// each; anything beyond that is a flood of empty fragments.
const MAX_WIRE: usize = (1 + 6) * MAX_FRAME + READ_BUFFER;
/// tungstenite allocates its default of 128 KiB for every connection, and zeroes it on every read.
const READ_BUFFER: usize = 512;

/// The result of a read.
#[derive(Debug)]
pub enum Frame {
    Text(Utf8Bytes),
    /// A Ping, which has been answered, or a Pong.
    Control,
    /// The stream has no more bytes for now.
    Nothing,
    /// The peer has sent a Close, which has been answered, or is gone.
    End,
    /// The peer broke the protocol. tungstenite does not send the Close (RFC 6455 §7.4.1): send this
    /// code and reason.
    Broken(u16, &'static str),
}

pub struct Reader<S> {
    context: WebSocketContext,
    wire: Limited<S>,
}

impl<S: Read + Write> Reader<S> {
    /// `early`: bytes that were received after the request's head.
    pub fn new(stream: S, early: Vec<u8>) -> Reader<S> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(READ_BUFFER)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        let wire = Limited {
            stream,
            left: MAX_WIRE,
        };
        Reader { context, wire }
    }

    /// The next frame. Must not be called again after `End` or `Broken`.
    pub fn read(&mut self) -> Frame {
        let frame = match self.context.read(&mut self.wire) {
            Ok(Message::Text(text)) => Frame::Text(text),
            Ok(Message::Binary(_)) => Frame::Broken(close_code::BINARY, "binary"),
            Ok(Message::Close(_)) => {
                let _ = self.context.flush(&mut self.wire); // sends the answer; then reports the end as an error
                Frame::End
            }
            Ok(_) => Frame::Control,
            Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => return Frame::Nothing,
            Err(Error::Io(_)) if self.wire.left == 0 => Frame::Broken(close_code::FLOOD, "flood"),
            Err(Error::Capacity(_)) => Frame::Broken(close_code::TOO_BIG, "too_big"),
            Err(Error::Utf8(_)) => Frame::Broken(close_code::NOT_UTF8, "not_utf8"),
            Err(Error::Protocol(ResetWithoutClosingHandshake)) => Frame::End,
            Err(Error::Protocol(_)) => Frame::Broken(close_code::PROTOCOL, "protocol"),
            Err(_) => Frame::End,
        };
        self.wire.left = MAX_WIRE;
        frame
    }
}

/// A stream that fails when a message takes too many bytes on the wire.
struct Limited<S> {
    stream: S,
    /// Bytes that may be read before a message must be complete.
    left: usize,
}

impl<S: Read> Read for Limited<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buf)?;
        self.left = self.left.saturating_sub(n);
        match self.left {
            0 => Err(ErrorKind::QuotaExceeded.into()),
            _ => Ok(n),
        }
    }
}

impl<S: Write> Write for Limited<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
