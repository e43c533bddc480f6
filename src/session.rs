//! One browser, from its upgrade to its end: reads what it says, asks the bus, and answers.
//!
//! Everything it sends goes through its [`Conn`], beside what its room delivers. One talk is under way
//! at a time; while it is, nothing is read, and so a browser cannot outrun Redis.

use std::{ops::Range, sync::Arc};

use tokio::sync::watch;

use crate::{
    bucket::Bucket,
    bus::{Bus, Fate},
    conn::Conn,
    frame::{self, code},
    message::{self, Code, Incoming, Join, Refused, Said, Talk, quote},
    reader::{Frame, Reader},
    room::{Member, Seat},
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

/// Why a session ends.
enum End {
    /// We say so, with a close code and a reason.
    Close(u16, &'static str),
    /// The person leaves.
    Quit,
    /// The peer has closed, or is gone.
    Gone,
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
        let end = tokio::select! {
            biased;
            _ = conn.pump() => End::Gone, // somebody else closed it, or it failed
            end = self.listen(early) => end,
        };
        let seat = self
            .seat
            .take()
            .map(|seat| (seat.room.clone(), seat.member.clone()));
        match end {
            End::Gone => conn.hang_up(),
            End::Close(code, reason) => conn.close(code, reason),
            End::Quit => {
                conn.close(code::NORMAL, "quit");
                if let Some((room, member)) = seat {
                    // If it fails, the lease runs out.
                    let _ = self.dyno.bus.release(&room, &member).await;
                }
            }
        }
        conn.pump().await;
        conn.linger().await;
    }

    async fn listen(&mut self, early: Vec<u8>) -> End {
        let conn = self.conn.clone();
        let mut reader = Reader::new(&*conn, early);
        loop {
            let answered = match reader.read() {
                Frame::Text(text) => self.answer(&text).await,
                Frame::Control => draw(&mut self.pings, None),
                Frame::Nothing if self.conn.readable().await.is_ok() => Ok(()),
                Frame::Nothing | Frame::End => return End::Gone,
                Frame::Broken(code, reason) => return End::Close(code, reason),
            };
            match answered {
                Ok(()) => {}
                Err(Stop::End(end)) => return end,
                Err(Stop::Refused(refused)) => {
                    if let Some(end) = self.refuse(refused) {
                        return end;
                    }
                }
            }
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), Stop> {
        let not_ours = |reason| Err(Stop::End(End::Close(code::NOT_OURS, reason)));
        match (&self.seat, message::parse(text)) {
            (_, Ok(Incoming::Quit)) => return Err(Stop::End(End::Quit)),
            (_, Ok(Incoming::Ping)) => {
                draw(&mut self.pings, None)?;
                self.conn.push(&frame::TICK);
            }
            // Boxed, so that whoever is idle does not keep room for it.
            (None, Ok(Incoming::Join(join))) => {
                draw(&mut self.pings, None)?;
                Box::pin(self.join(join)).await?;
            }
            (Some(seat), Ok(Incoming::Talk(talk))) => {
                draw(&mut self.talks, Some(&talk.cid))?;
                Box::pin(self.dyno.talk(seat, talk, &self.conn)).await?;
            }
            (None, Ok(Incoming::Talk(_))) => return not_ours("join_expected"),
            (Some(_), Ok(Incoming::Join(_))) => return not_ours("joined_already"),
            (seat, Err(refused)) => match refused.code {
                Code::Empty | Code::TooLong if seat.is_none() => return not_ours("join_expected"),
                Code::BadName | Code::BadRoom if seat.is_some() => {
                    return not_ours("joined_already");
                }
                Code::Empty | Code::TooLong => {
                    draw(&mut self.talks, refused.cid.as_deref())?;
                    return Err(Stop::Refused(refused));
                }
                _ => return Err(Stop::Refused(refused)),
            },
        }
        Ok(())
    }

    async fn join(&mut self, join: Join) -> Result<(), Refused> {
        let token = join
            .token
            .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        let owner = sha1_smol::Sha1::from(&token).digest();
        let mut member = Member {
            shown: join.user.shown,
            folded: join.user.folded,
            owner,
        };
        member.shown = self.dyno.bus.claim(&join.room, &member).await?;
        let greeting = format!(
            r#""room":{},"user":{},"token":{},"dyno":{},"boot":"{}""#,
            quote(join.room.as_str()),
            quote(&member.shown),
            quote(&token),
            quote(&self.dyno.name),
            self.dyno.boot,
        );
        let member = Arc::new(member);
        while self.seat.is_none() {
            let room = self.dyno.bus.open(&join.room).await?;
            self.seat = room.enter(&self.conn, member.clone(), join.last, &greeting);
            tokio::task::yield_now().await; // it may just have fallen behind again
        }
        Ok(())
    }

    /// Says why, and ends what is beyond repair.
    fn refuse(&mut self, mut refused: Refused) -> Option<End> {
        let code = refused.code;
        if code == Code::Busy {
            // Whoever is to wait for Redis hears of Redis first, and of its return while we said so.
            self.conn.status(*self.dyno.link.borrow());
            refused.retry_ms = Some(rand::random_range(BUSY_RETRY));
        }
        self.conn.push(&frame::text(&message::error(&refused)));
        if code == Code::Busy {
            self.conn.status(*self.dyno.link.borrow());
        }
        self.bad += u32::from(code == Code::BadMessage);
        let word = code.words().0;
        match code {
            // A browser shows no reason for a failed handshake: people are turned away behind it.
            Code::BadName | Code::BadRoom | Code::NameTaken => {
                Some(End::Close(code::REFUSED, word))
            }
            Code::BadMessage if self.bad >= BAD_MESSAGES => Some(End::Close(code::NOT_OURS, word)),
            Code::SlowDown if self.talks.refused.max(self.pings.refused) >= FLOOD => {
                Some(End::Close(code::FLOOD, "flood"))
            }
            _ => None,
        }
    }
}

impl Dyno {
    async fn talk(&self, seat: &Seat, talk: Talk, conn: &Conn) -> Result<(), Refused> {
        match self.bus.talk(&seat.room, &seat.member, &talk).await {
            Ok(Fate::Repeated(id)) if id < seat.covers => {
                // Said before, and before what the welcome showed: nothing else would confirm it.
                let user = seat.member.shown.clone();
                let said = Said {
                    id,
                    user,
                    message: talk.message,
                    cid: talk.cid,
                };
                conn.push(&frame::text(&said.to_json()));
                Ok(())
            }
            Ok(_) => Ok(()), // it has come, or will come, through the room
            Err(code) => Err(Refused {
                cid: Some(talk.cid),
                ..code.into()
            }),
        }
    }
}

/// What becomes of something that was not simply done.
enum Stop {
    Refused(Refused),
    End(End),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Stop {
        Stop::Refused(refused)
    }
}

fn draw(bucket: &mut Bucket, cid: Option<&str>) -> Result<(), Stop> {
    bucket.draw().map_err(|retry_ms| {
        let cid = cid.map(str::to_owned);
        Stop::Refused(Refused {
            code: Code::SlowDown,
            cid,
            retry_ms: Some(retry_ms),
        })
    })
}
