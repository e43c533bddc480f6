//! One browser, from its upgrade to its end: reads what it says, asks the bus, and answers.
//!
//! Everything it sends goes through its [`Conn`], beside what its room delivers; whoever wants to end
//! it closes that. One talk is under way at a time; while it is, nothing is read, and so a browser
//! cannot outrun Redis.

use std::{ops::Range, sync::Arc};

use sha1_smol::Sha1;

use crate::frame::{self, code};
use crate::message::{self, Code, Incoming, Join, Refused, Talk, quote};
use crate::reader::{Frame, Reader};
use crate::room::{Member, Seat};
use crate::{bucket::Bucket, bus::Bus, config::Config, conn::Conn};

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
    pub config: Config,
    /// Random, for every start another.
    pub boot: String,
    pub bus: Arc<Bus>,
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

impl Session {
    pub fn new(dyno: Arc<Dyno>, conn: Arc<Conn>) -> Session {
        Session {
            talks: Bucket::new(dyno.config.talk_per_second),
            pings: Bucket::new(PINGS_PER_SECOND),
            dyno,
            conn,
            seat: None,
            bad: 0,
        }
    }

    /// Runs until the socket may be closed. `early`: bytes that came behind the request's head.
    pub async fn run(&mut self, early: Vec<u8>) {
        let conn = self.conn.clone();
        conn.expect_join(true);
        tokio::select! {
            biased;
            _ = conn.pump() => {} // closed from our side, and written; or it failed
            _ = self.listen(&conn, early) => conn.hang_up(),
        }
        self.seat = None; // before the peer's last bytes are awaited
        conn.pump().await;
        conn.linger().await;
    }

    /// Reads and answers until one side closes.
    async fn listen(&mut self, conn: &Conn, early: Vec<u8>) {
        let mut reader = Reader::new(conn, early);
        while conn.is_open() {
            let answered = match reader.read() {
                // Boxed, so that whoever is idle does not keep room for it.
                Frame::Text(text) => Box::pin(self.answer(&text)).await,
                Frame::Control => draw(&mut self.pings, None),
                Frame::Nothing if conn.readable().await.is_ok() => Ok(()),
                Frame::Nothing | Frame::End => return,
                Frame::Broken(code, reason) => return conn.close(code, reason),
            };
            if let Err(refused) = answered {
                self.refuse(refused);
            }
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), Refused> {
        match (message::parse(text)?, &self.seat) {
            (Incoming::Quit, _) => {
                if let Some(seat) = self.seat.take() {
                    self.dyno.bus.leave(seat).await; // first, so that a Close means: it is free
                }
                self.conn.close(code::NORMAL, "quit");
            }
            (Incoming::Ping, _) => {
                draw(&mut self.pings, None)?;
                self.conn.push(&frame::TICK);
            }
            (Incoming::Join(join), None) => {
                draw(&mut self.pings, None)?;
                self.conn.expect_join(false);
                let joined = Box::pin(self.join(join)).await; // rare, and larger than all else
                self.conn.expect_join(joined.is_err());
                joined?;
            }
            (Incoming::Talk(talk), Some(seat)) => {
                draw(&mut self.talks, Some(&talk.cid))?;
                let said = self.talk(seat, &talk).await;
                said.map_err(|code| Refused(code, Some(talk.cid), None))?;
            }
            (_, None) => self.conn.close(code::NOT_OURS, "join_expected"),
            (_, Some(_)) => self.conn.close(code::NOT_OURS, "joined_already"),
        }
        Ok(())
    }

    /// Claims the name, then enters the room once it is caught up.
    async fn join(&mut self, join: Join) -> Result<(), Refused> {
        let made = || format!("{:032x}", rand::random::<u128>());
        let token = join.token.unwrap_or_else(made);
        let (room_name, name) = (join.room?, join.user?);
        let owner = Sha1::from(&token).digest().to_string();
        let mut member = Member { name, owner };
        member.name.shown = self.dyno.bus.claim(&room_name, &member).await?;
        let (room, user) = (quote(room_name.as_str()), quote(&member.name.shown));
        let (dyno, boot) = (quote(&self.dyno.config.dyno), &self.dyno.boot);
        let greeting = format!(
            r#""room":{room},"user":{user},"token":"{token}","dyno":{dyno},"boot":"{boot}""#
        );
        let member = Arc::new(member);
        loop {
            let room = self.dyno.bus.open(&room_name).await?;
            self.seat = room.enter(&self.conn, member.clone(), join.last, &greeting);
            if self.seat.is_some() {
                return Ok(());
            }
            tokio::task::yield_now().await; // it has just fallen behind again
        }
    }

    async fn talk(&self, seat: &Seat, Talk { message, cid }: &Talk) -> Result<(), Code> {
        let Seat { room, member, .. } = seat;
        let message = message.as_ref().map_err(|code| *code)?;
        let body = message::body(&member.name.shown, message, cid);
        let said_before = self.dyno.bus.talk(room, member, cid, &body).await?;
        if let Some(id) = said_before.filter(|id| *id < seat.covers) {
            // It lies before what the welcome covered: nothing else would confirm it.
            self.conn.push(&frame::text(&message::talk_json(id, &body)));
        }
        Ok(()) // or it has come, or will come, through the room
    }

    /// Says why, and ends what is beyond repair.
    fn refuse(&mut self, Refused(code, cid, mut retry_ms): Refused) {
        if code == Code::Busy {
            self.conn.status(&self.dyno.bus.link); // who has to wait for Redis hears of it first
            retry_ms = Some(rand::random_range(BUSY_RETRY));
        }
        let refused = Refused(code, cid, retry_ms);
        self.conn.push(&frame::text(&message::error(&refused)));
        self.bad += u32::from(code == Code::BadMessage);
        let flood = self.talks.refused.max(self.pings.refused) >= FLOOD;
        let word = code.words().0;
        match code {
            // A browser shows no reason for a failed handshake: people are turned away behind it.
            Code::BadName | Code::BadRoom | Code::NameTaken => {
                self.conn.close(code::REFUSED, word);
            }
            Code::BadMessage if self.bad >= BAD_MESSAGES => self.conn.close(code::NOT_OURS, word),
            Code::SlowDown if flood => self.conn.close(code::FLOOD, "flood"),
            _ => {}
        }
    }
}

fn draw(bucket: &mut Bucket, cid: Option<&str>) -> Result<(), Refused> {
    let refused = |retry_ms| Refused(Code::SlowDown, cid.map(str::to_owned), Some(retry_ms));
    bucket.draw().map_err(refused)
}
