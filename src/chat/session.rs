//! One browser, from its upgrade to its end: reads frames, asks the store, and answers.
//!
//! Everything it sends goes through its [`Conn`], beside what its room sends. One talk is in progress at a
//! time: meanwhile nothing is read, so a browser cannot send faster than Redis stores.

use std::{borrow::Cow, ops::Range, pin::Pin, sync::Arc, time::Duration};

use sha1_smol::Sha1;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};

use super::app::{App, Phase};
use super::frames::{MOVE, REDIS_DOWN, REDIS_UP, TICK};
use super::membership::Membership;
use super::token_bucket::TokenBucket;
use crate::protocol::outgoing::{self, Welcome};
use crate::protocol::{ErrorCode, Incoming, Join, Message, Refusal, Talk, close_code, parse};
use crate::socket::{Conn, Frame, HEARTBEAT_SECS, Reader, frame};
use crate::store::{self, Member, Stored};

/// How long to wait for the first `join`. The wait is longer while Redis is down.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a join or a talk waits for its room to go live.
const LIVE_DEADLINE: Duration = Duration::from_secs(5);
/// Rate limit of pings, pongs and joins together, per second.
const PINGS_PER_SECOND: f64 = 2.0;
/// Consecutive rate-limit errors before the connection is closed.
const MAX_REFUSALS: u32 = 20;
/// Invalid messages before the connection is closed; our page sends none.
const MAX_BAD_MESSAGES: u32 = 3;
/// How long a page is asked to wait while Redis is down, in ms: random, because all pages are asked at once.
const BUSY_RETRY_MS: Range<u64> = 1_000..3_000;

pub struct Session {
    app: Arc<App>,
    conn: Arc<Conn>,
    /// There from the welcome on.
    membership: Option<Membership>,
    /// There until the welcome.
    join_deadline: Option<Pin<Box<Sleep>>>,
    redis_up: watch::Receiver<bool>,
    /// The page was sent `status down` last.
    notified_down: bool,
    talks: TokenBucket,
    pings: TokenBucket,
    bad_messages: u32,
    /// Made for a page that sends no token; kept, because it owns the name also after a `busy`.
    made_token: Option<String>,
}

impl Session {
    pub fn new(app: Arc<App>, conn: Arc<Conn>) -> Session {
        Session {
            redis_up: app.rooms.store.up(),
            talks: TokenBucket::new(app.talk_per_second),
            pings: TokenBucket::new(PINGS_PER_SECOND),
            app,
            conn,
            membership: None,
            join_deadline: None,
            notified_down: false,
            bad_messages: 0,
            made_token: None,
        }
    }

    /// Refuses the connection: this dyno is full, or this address has too many connections. A browser does not
    /// show the status of a failed handshake, so this comes after the upgrade. `retry_ms`: when the page should
    /// try again.
    pub fn refuse(&mut self, retry_ms: u64) {
        self.send_status();
        let busy = Refusal::from(ErrorCode::Busy).retry_in(retry_ms);
        self.conn.push(&frame::text(outgoing::error(&busy)));
        self.conn.close(close_code::FULL, ErrorCode::Busy.word());
    }

    /// Runs until the socket may be closed. `early`: bytes received after the request's head.
    pub async fn run(&mut self, early: Vec<u8>) {
        let conn = self.conn.clone();
        self.send_status();
        self.expect_join();
        tokio::select! {
            biased;
            () = conn.flushed() => {} // closed by this side, and written; or the socket failed
            () = self.listen(&conn, early) => conn.finish(),
        }
        self.membership = None; // leaves the room before the lingering close
        conn.flushed().await;
        conn.linger().await;
    }

    /// Reads and answers frames until one side closes.
    async fn listen(&mut self, conn: &Conn, early: Vec<u8>) {
        let mut reader = Reader::new(conn, early);
        while conn.is_open() {
            let answered = match reader.read() {
                // Boxed, because most connections are idle most of the time and would keep memory for it.
                Frame::Text(text) => Box::pin(self.answer(&text)).await,
                Frame::Control => self.take_ping(),
                Frame::Nothing => match self.wait().await {
                    true => Ok(()),
                    false => return,
                },
                Frame::End => return,
                Frame::Broken(code, reason) => return conn.close(code, reason),
            };
            if let Err(refusal) = answered {
                self.send_error(refusal);
            }
        }
    }

    /// Waits for bytes, a change of the Redis status, or the join deadline. False: the socket failed.
    async fn wait(&mut self) -> bool {
        let join_deadline = &mut self.join_deadline;
        let deadline = async {
            match join_deadline {
                Some(deadline) => deadline.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // the deadline last: it starts again when Redis is back
            readable = self.conn.readable() => return readable.is_ok(),
            Ok(()) = self.redis_up.changed() => {
                self.send_status();
                if self.membership.is_none() {
                    self.expect_join();
                }
            }
            () = deadline => {
                let up = *self.redis_up.borrow();
                match up {
                    true => self.conn.close(close_code::NOT_OURS, "join_expected"),
                    false => self.expect_join(),
                }
            }
        }
        true
    }

    /// Restarts the join deadline.
    fn expect_join(&mut self) {
        self.join_deadline = Some(Box::pin(sleep(JOIN_DEADLINE)));
    }

    async fn answer(&mut self, text: &str) -> Result<(), Refusal> {
        match (parse(text)?, &self.membership) {
            (Incoming::Quit {}, _) => {
                if let Some(membership) = self.membership.take() {
                    // Before the Close, so that the name is free when the page sees it.
                    membership.quit(&self.app.rooms).await;
                }
                self.conn.close(close_code::NORMAL, "quit");
            }
            (Incoming::Ping {}, _) => {
                self.take_ping()?;
                self.conn.push(&TICK);
            }
            (Incoming::Join(join), None) => {
                self.take_ping()?;
                let random = || format!("{:032x}", rand::random::<u128>());
                let token = match &join.token {
                    Some(token) => token.clone(),
                    None => self.made_token.get_or_insert_with(random).clone(),
                };
                // Boxed, because joins are rare and their future is large.
                let joined = Box::pin(self.join(join, &token)).await;
                self.expect_join(); // if it was refused
                self.membership = Some(joined?);
                self.join_deadline = None;
            }
            (Incoming::Talk(talk), Some(membership)) => {
                let refused = |code| Refusal::of_talk(code, &talk.cid);
                let slow_down = |ms| refused(ErrorCode::SlowDown).retry_in(ms);
                self.talks.take().map_err(slow_down)?;
                self.talk(membership, &talk).await.map_err(refused)?;
            }
            (_, None) => self.conn.close(close_code::NOT_OURS, "join_expected"),
            (_, Some(_)) => self.conn.close(close_code::NOT_OURS, "joined_already"),
        }
        Ok(())
    }

    /// Claims the name, then enters the room.
    async fn join(&self, join: Join, token: &str) -> Result<Membership, Refusal> {
        let (room_name, name) = (join.room?, join.user?);
        let owner = Sha1::from(token).digest().to_string();
        let mut member = Member { name, owner };
        member.name.shown = self.app.rooms.store.claim(&room_name, &member).await?;
        let welcome = Welcome {
            room: room_name.as_str(),
            user: &member.name.shown.clone(),
            token,
            dyno: &self.app.dyno,
            boot: &self.app.boot,
            tick_ms: HEARTBEAT_SECS * 1000,
            spread_ms: self.app.spread_ms(),
            ..Welcome::default()
        };
        let room = self.app.rooms.open(&room_name);
        let (conn, member) = (self.conn.clone(), Arc::new(member));
        let entering = Membership::enter(room, conn, member, join.last, welcome);
        let entered = timeout(LIVE_DEADLINE, entering).await;
        let membership = entered.map_err(|_| ErrorCode::Busy)?;
        // After the welcome: a connection that enters later is not part of the round of `move` frames.
        if *self.app.phase.borrow() == Phase::Moving {
            self.conn.push(&MOVE);
        }
        Ok(membership)
    }

    /// Step 1 of a message: the session has checked it. The store takes it, or knows it already.
    async fn talk(&self, membership: &Membership, talk: &Talk) -> Result<(), ErrorCode> {
        let Membership { room, member, .. } = membership;
        let text = talk.message.as_ref().map_err(|code| *code)?;
        let message = Message {
            user: Cow::Borrowed(&member.name.shown),
            message: Cow::Borrowed(text),
            cid: Cow::Borrowed(&talk.cid),
        };
        let (room_name, cid) = (&room.name, &talk.cid);
        log::debug!("step=1 event=received room={room_name:?} cid={cid}");
        if !*self.redis_up.borrow() {
            return Err(ErrorCode::Busy);
        }
        let accepting = timeout(LIVE_DEADLINE, room.accept(&message));
        let stored = match accepting.await.map_err(|_| ErrorCode::Busy)? {
            Err(id) => Stored::Duplicate(id),
            Ok(keep) => {
                let talk = store::Talk {
                    room: room_name,
                    member,
                    cid,
                    body: &message.to_json(),
                    keep,
                };
                self.app.rooms.store.talk(&talk).await?
            }
        };
        log::debug!("step=2 event=stored as={stored:?} room={room_name:?} cid={cid}");
        match stored {
            // Older than this connection's welcome, so its `talk` will not come from the room: send it now.
            Stored::Duplicate(id) if id < membership.replay_from => {
                let stored = room.message(id);
                let json = stored.unwrap_or_else(|| outgoing::talk(id, &message).into_bytes());
                self.conn.push(&frame::text(&json));
            }
            // Step 7: the page finds its cid in the `talk` that the room sends or has sent.
            Stored::Duplicate(_) | Stored::New(_) => {}
        }
        Ok(())
    }

    /// Sends the error, and closes where that is the rule.
    fn send_error(&mut self, mut refusal: Refusal) {
        let code = refusal.code;
        if code == ErrorCode::Busy {
            self.send_status(); // if the outage is known, the page hears of it first
            refusal.retry_ms = Some(rand::random_range(BUSY_RETRY_MS));
        }
        self.conn.push(&frame::text(outgoing::error(&refusal)));
        self.bad_messages += u32::from(code == ErrorCode::BadMessage);
        let flood = self.talks.refused.max(self.pings.refused) >= MAX_REFUSALS;
        let close = match code {
            ErrorCode::BadName | ErrorCode::BadRoom | ErrorCode::NameTaken => close_code::REFUSED,
            ErrorCode::BadMessage if self.bad_messages >= MAX_BAD_MESSAGES => close_code::NOT_OURS,
            ErrorCode::SlowDown if flood => return self.conn.close(close_code::FLOOD, "flood"),
            _ => return,
        };
        self.conn.close(close, code.word());
    }

    /// Sends the Redis status if it changed. Sends `up` only after `down`.
    fn send_status(&mut self) {
        let up = *self.redis_up.borrow_and_update();
        if self.notified_down == up {
            self.notified_down = !up;
            self.conn.push(if up { &REDIS_UP } else { &REDIS_DOWN });
        }
    }

    fn take_ping(&mut self) -> Result<(), Refusal> {
        let slow_down = |ms| Refusal::from(ErrorCode::SlowDown).retry_in(ms);
        self.pings.take().map_err(slow_down)
    }
}
