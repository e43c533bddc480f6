//! What a session asks of the bus: to come in, and to say something.

use std::sync::Arc;

use sha1_smol::Sha1;

use super::{Session, Stop};
use crate::{
    bus::Fate,
    frame,
    message::{self, Join, Refused, Talk, quote},
    room::{Member, Seat},
};

impl Session {
    /// Claims the name, then enters the room once it is caught up.
    pub(super) async fn join(&mut self, join: Join) -> Result<(), Stop> {
        let token = join
            .token
            .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        let mut member = Member {
            name: join.user,
            owner: Sha1::from(&token).digest(),
        };
        member.name.shown = self.dyno.bus.claim(&join.room, &member).await?;
        let (room, user) = (quote(join.room.as_str()), quote(&member.name.shown));
        let (token, dyno, boot) = (quote(&token), quote(&self.dyno.name), &self.dyno.boot);
        let greeting =
            format!(r#""room":{room},"user":{user},"token":{token},"dyno":{dyno},"boot":"{boot}""#);
        let member = Arc::new(member);
        while self.seat.is_none() {
            let room = self.dyno.bus.open(&join.room).await?;
            self.seat = room.enter(&self.conn, member.clone(), join.last, &greeting);
            tokio::task::yield_now().await; // it may just have fallen behind again
        }
        Ok(())
    }

    pub(super) async fn talk(&self, seat: &Seat, talk: Talk) -> Result<(), Stop> {
        match self.dyno.bus.talk(&seat.room, &seat.member, &talk).await {
            Ok(Fate::Repeated(id)) if id < seat.covers => {
                // Said before, and before what the welcome showed: nothing else would confirm it.
                let body = message::body(&seat.member.name.shown, &talk.message, &talk.cid);
                self.conn.push(&frame::text(&message::talk_json(id, &body)));
                Ok(())
            }
            Ok(_) => Ok(()), // it has come, or will come, through the room
            Err(code) => Err(Refused(code, Some(talk.cid), None).into()),
        }
    }
}
