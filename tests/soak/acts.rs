//! What a person does besides waiting, and how it falls silent.

use super::client::{Client, DEAD_LINE, Ended, TRY};
use super::line::Line;
use super::record::{Fate, Saying};
use super::support::client::Socket;
use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Heard so late after a pause in reading, a list of members proves nothing.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How long a dyno may take a silent socket for alive.
pub const LATELY: Duration = Duration::from_secs(31);

/// What a person does next, decided by its own random numbers.
pub enum Act {
    Talk(u32),
    Reload,
    Drop,
    Leave,
    /// The path swallows everything; noticed at once (`true`) or after the dead line.
    BlackHole(bool),
    StopReading(Duration),
    Nothing,
}

impl Client {
    pub async fn act(
        &mut self,
        act: Act,
        line: &mut Line,
        mut socket: Socket,
    ) -> Result<Socket, Ended> {
        match act {
            Act::Nothing => {}
            Act::Talk(count) => {
                for _ in 0..count {
                    let cid = format!("{:016x}", self.rng.u64(..));
                    let text = "wort ".repeat(self.rng.usize(1..20)) + &cid;
                    self.me.borrow_mut().sayings.push(Saying {
                        cid,
                        text,
                        sent: None,
                        fate: Fate::Pending,
                    });
                    self.town.tally.borrow_mut().said += 1;
                }
            }
            Act::Reload => {
                self.town.count_fault("reload");
                self.me.borrow_mut().note("reload");
                // What is pending outlives a reload, what was shown does not.
                drop(socket);
                self.me.borrow_mut().reloaded = true;
                self.tries = 0;
                return Err(Ended::Lost(1001));
            }
            Act::Drop => {
                self.town.count_fault("connection dropped");
                self.me.borrow_mut().note("connection dropped");
                return Err(Ended::Lost(1006));
            }
            Act::Leave => {
                self.town.count_fault("leave");
                // From now on, for others may see it before its own socket is closed.
                self.me.borrow_mut().gone = Some(Instant::now());
                let quit = json!({"kind": "quit"}).to_string();
                let _ = socket.send(Message::text(quit)).await; // lost or not, the person is gone
                let rest = async { while let Some(Ok(_)) = socket.next().await {} };
                let _ = timeout(TRY, rest).await;
                return Err(Ended::Left);
            }
            Act::BlackHole(at_once) => {
                self.town.count_fault("black hole");
                self.me.borrow_mut().note("black hole");
                let now = Instant::now();
                self.me.borrow_mut().half_open_until = Some(now + LATELY);
                self.me.borrow_mut().seat = None;
                let town = self.town.clone();
                tokio::task::spawn_local(async move {
                    // Neither read nor closed, until long after the server must have given it up.
                    while now.elapsed() < 2 * DEAD_LINE && !town.settling.get() {
                        sleep(Duration::from_millis(500)).await;
                    }
                    drop(socket);
                });
                if !at_once {
                    let noticed = now + DEAD_LINE;
                    while Instant::now() < noticed && !self.town.settling.get() {
                        sleep(Duration::from_millis(500)).await;
                    }
                }
                return Err(Ended::Lost(1006));
            }
            Act::StopReading(pause) => {
                self.town.count_fault("stopped reading");
                self.me.borrow_mut().note("stopped reading");
                self.me.borrow_mut().blind_until = Some(Instant::now() + pause + CATCH_UP);
                sleep(pause).await;
                self.me.borrow_mut().note("reads again");
                line.heard = Instant::now();
            }
        }
        Ok(socket)
    }
}

/// What a person does, and how long it then does nothing.
pub fn live(rng: &mut Rng) -> (Act, Duration) {
    let pause = Duration::from_secs_f64(1.0 + rng.f64() * 38.0);
    let act = match rng.u32(..1000) {
        0..850 => Act::Talk(1),
        850..890 => Act::Talk(rng.u32(2..8)),
        890..895 => Act::Talk(15), // in haste: it will be told to slow down
        895..930 => Act::Reload,
        930..950 => Act::Drop,
        950..970 => Act::Leave,
        970..980 => Act::BlackHole(rng.bool()),
        980..990 => Act::StopReading(Duration::from_secs(rng.u64(2..25))),
        _ => Act::Nothing,
    };
    (act, pause)
}
