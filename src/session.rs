//! One browser, from its upgrade to its end: reads what it says, asks the bus, and answers.
//!
//! Everything it sends goes through its [`Conn`], beside what its room delivers. One talk is under way
//! at a time; while it is, nothing is read, and so a browser cannot outrun Redis.

mod ask;

use std::{ops::Range, sync::Arc};

use tokio::sync::watch;

use crate::{
    bucket::Bucket,
    bus::Bus,
    conn::Conn,
    frame::{self, code},
    message::{self, Code, Incoming, Refused},
    reader::{Frame, Reader},
    room::Seat,
};

/// Refill of the bucket that pings, pongs and joins draw from.
const PINGS_PER_SECOND: f64 = 2.0;
/// Refusals in a row after which it is no haste any more.
const FLOOD: u32 = 20;
/// Frames that are not of this protocol, of which a page of ours sends none.
const BAD_MESSAGES: u32 = 3;
/// How long a page is asked to wait while Redis is away, in ms: spread, for all are told at once.
const BUSY_RETRY: Range<u64> = 1_000..3_000;

/// What a session knows of the process it runs in.
pub struct Dyno {
    pub name: String,
    /// Random, for every start another.
    pub boot: String,
    pub bus: Arc<Bus>,
    /// Whether Redis is there.
    pub link: watch::Receiver<bool>,
    pub talk_per_second: f64,
}

pub struct Session {
    dyno: Arc<Dyno>,
    conn: Arc<Conn>,
    /// There from the welcome on.
    seat: Option<Seat>,
    talks: Bucket,
    pings: Bucket,
    bad: u32,
}

/// What becomes of a session that does not simply go on.
enum Stop {
    /// It is told why, and may go on all the same.
    Refused(Refused),
    /// We end it, with a close code and a reason.
    Close(u16, &'static str),
    /// The person leaves.
    Quit,
    /// The peer has closed, or is gone.
    Gone,
}

impl<T: Into<Refused>> From<T> for Stop {
    fn from(refused: T) -> Stop {
        Stop::Refused(refused.into())
    }
}

impl Session {
    pub fn new(dyno: Arc<Dyno>, conn: Arc<Conn>) -> Session {
        let talks = Bucket::new(dyno.talk_per_second);
        let pings = Bucket::new(PINGS_PER_SECOND);
        Session {
            dyno,
            conn,
            seat: None,
            talks,
            pings,
            bad: 0,
        }
    }

    /// Runs until the socket may be closed. `early`: bytes that came behind the request's head.
    pub async fn run(mut self, early: Vec<u8>) {
        let conn = self.conn.clone();
        let stop = tokio::select! {
            biased;
            _ = conn.pump() => Stop::Gone, // somebody else closed it, or it failed
            stop = self.listen(early) => stop,
        };
        let seat = self
            .seat
            .take()
            .map(|seat| (seat.room.clone(), seat.member.clone()));
        match (stop, seat) {
            (Stop::Close(code, reason), _) => conn.close(code, reason),
            (Stop::Quit, seat) => {
                conn.close(code::NORMAL, "quit");
                if let Some((room, member)) = seat {
                    let _ = self.dyno.bus.release(&room, &member).await; // or the lease runs out
                }
            }
            _ => conn.hang_up(),
        }
        conn.pump().await;
        conn.linger().await;
    }

    async fn listen(&mut self, early: Vec<u8>) -> Stop {
        let conn = self.conn.clone();
        let mut reader = Reader::new(&*conn, early);
        loop {
            let answered = match reader.read() {
                Frame::Text(text) => self.answer(&text).await,
                Frame::Control => draw(&mut self.pings, None),
                Frame::Nothing => conn.readable().await.map_err(|_| Stop::Gone),
                Frame::End => Err(Stop::Gone),
                Frame::Broken(code, reason) => Err(Stop::Close(code, reason)),
            };
            let refused = match answered {
                Ok(()) => continue,
                Err(Stop::Refused(refused)) => self.refuse(refused),
                Err(stop) => Err(stop),
            };
            if let Err(stop) = refused {
                return stop;
            }
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), Stop> {
        let not_ours = |reason| Err(Stop::Close(code::NOT_OURS, reason));
        match (message::parse(text), &self.seat) {
            (Ok(Incoming::Quit), _) => Err(Stop::Quit),
            (Ok(Incoming::Ping), _) => {
                draw(&mut self.pings, None)?;
                self.conn.push(&frame::TICK);
                Ok(())
            }
            // Boxed, so that whoever is idle does not keep room for it.
            (Ok(Incoming::Join(join)), None) => {
                draw(&mut self.pings, None)?;
                Box::pin(self.join(join)).await
            }
            (Ok(Incoming::Talk(talk)), Some(seat)) => {
                draw(&mut self.talks, Some(&talk.cid))?;
                Box::pin(self.talk(seat, talk)).await
            }
            (Err(Refused(code @ (Code::Empty | Code::TooLong), cid, _)), Some(_)) => {
                draw(&mut self.talks, cid.as_deref())?;
                Err(Refused(code, cid, None).into())
            }
            (Err(Refused(Code::BadMessage, cid, _)), _) => {
                Err(Refused(Code::BadMessage, cid, None).into())
            }
            (Err(Refused(code @ (Code::BadName | Code::BadRoom), ..)), None) => Err(code.into()),
            (_, None) => not_ours("join_expected"),
            (_, Some(_)) => not_ours("joined_already"),
        }
    }

    /// Says why, and ends what is beyond repair.
    fn refuse(&mut self, Refused(code, cid, mut retry_ms): Refused) -> Result<(), Stop> {
        let busy = code == Code::Busy;
        if busy {
            // Whoever is to wait for Redis hears of Redis first, and of its return while we said so.
            self.conn.status(*self.dyno.link.borrow());
            retry_ms = Some(rand::random_range(BUSY_RETRY));
        }
        self.conn
            .push(&frame::text(&message::error(&Refused(code, cid, retry_ms))));
        if busy {
            self.conn.status(*self.dyno.link.borrow());
        }
        self.bad += u32::from(code == Code::BadMessage);
        let flood = self.talks.refused.max(self.pings.refused) >= FLOOD;
        let word = code.words().0;
        match code {
            // A browser shows no reason for a failed handshake: people are turned away behind it.
            Code::BadName | Code::BadRoom | Code::NameTaken => {
                Err(Stop::Close(code::REFUSED, word))
            }
            Code::BadMessage if self.bad >= BAD_MESSAGES => Err(Stop::Close(code::NOT_OURS, word)),
            Code::SlowDown if flood => Err(Stop::Close(code::FLOOD, "flood")),
            _ => Ok(()),
        }
    }
}

fn draw(bucket: &mut Bucket, cid: Option<&str>) -> Result<(), Stop> {
    let cid = || cid.map(str::to_owned);
    bucket
        .draw()
        .map_err(|retry_ms| Refused(Code::SlowDown, cid(), Some(retry_ms)).into())
}
