//! A room on this dyno: its connections, its members, its history, and the channel of live events.
//!
//! One short lock, never held across an await. The room's task in `follow.rs` calls [`catch_up`](Room::catch_up) and
//! [`poll_deliver`](Room::poll_deliver); sessions enter and leave.

use std::mem::replace;
use std::sync::{Arc, Mutex, atomic::AtomicBool};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc::Receiver};

use super::connections::Connections;
use super::history::History;
use super::members::Members;
use super::metrics::Metrics;
use crate::lock::lock;
use crate::protocol::outgoing::{self, Welcome};
use crate::protocol::{ErrorCode, Id, Message, RoomName};
use crate::socket::{Conn, counted, frame};
use crate::store::{Entry, Following, Member, Names, Store};

/// Bytes that are joined into one write. Ten messages joined cost a reader one system call, not ten; much
/// more would fill the outbox of a reader that pauses briefly.
const BATCH: usize = 16 * 1024;

/// Within this time after the room went live, pages send again what had no answer before.
const RESEND: Duration = Duration::from_secs(10);

pub struct Room {
    pub name: RoomName,
    /// Someone came or left, on any dyno: the list of members is due.
    pub names_changed: Arc<Notify>,
    /// A member on this dyno has lost a name since the list was last read.
    pub name_was_lost: AtomicBool,
    went_live: Notify,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    connections: Connections,
    /// There while the room is live.
    events: Option<Receiver<Entry>>,
    /// The newest message that was taken. An invalid entry does not count: anybody can publish any id.
    position: Id,
    history: History,
    members: Members,
    /// An invalid entry was found in this room's stream, and logged.
    garbage_logged: bool,
    /// When the room went live the last time.
    caught_up: Option<Instant>,
}

impl State {
    /// Every message that the stream gets from now on comes through the channel.
    fn is_live(&self) -> bool {
        let events = self.events.as_ref();
        events.is_some_and(|events| !events.is_closed())
    }
}

impl Room {
    /// A room that is not live yet.
    pub fn new(name: RoomName, metrics: Arc<Metrics>) -> Room {
        Room {
            name,
            names_changed: Arc::default(),
            name_was_lost: AtomicBool::new(false),
            went_live: Notify::new(),
            state: Mutex::default(),
            metrics,
        }
    }

    /// Waits until the room is live. Returns how many messages the stream should keep with this one; or its id, if the
    /// history holds it: after a long outage Redis may have forgotten its cid.
    pub async fn accept(&self, message: &Message<'_>) -> Result<usize, Id> {
        let accept = |state: &mut State| {
            let caught_up = state.caught_up.filter(|_| state.is_live())?;
            let known = match caught_up.elapsed() < RESEND {
                true => state.history.find(message),
                false => None,
            };
            Some(known.map_or(Ok(state.history.keep()), Err))
        };
        self.when_live(accept).await
    }

    /// The JSON of a message that the history holds.
    pub fn message(&self, id: Id) -> Option<Vec<u8>> {
        lock(&self.state).history.get(id).map(<[u8]>::to_vec)
    }

    /// Follows the stream from the newest message that this room has, sends what was missed to all connections, and
    /// goes live. `Ok(false)`: messages are missing in between, so everyone is closed with 1012, to resume and
    /// see a gap. An error: the store cannot be read now.
    pub async fn catch_up(&self, store: &Store) -> Result<bool, ErrorCode> {
        let position = lock(&self.state).position;
        let names_changed = self.names_changed.clone();
        let following = store.follow(&self.name, position, names_changed).await?;
        Ok(self.go_live(following))
    }

    fn go_live(&self, Following { past, events }: Following) -> bool {
        let mut state = lock(&self.state);
        let is_new = state.position == Id::default() && state.connections.len() == 0;
        if !past.contiguous && !is_new {
            (state.history, state.position) = Default::default();
            log::debug!("event=gap room={:?}", self.name);
            state.connections.close_all();
            return false;
        }
        state.history.trimmed |= !past.contiguous;
        state.history.newest_given = state.history.newest_given.max(past.newest);
        let mut entries = past.entries.into_iter().peekable();
        while entries.peek().is_some() {
            self.publish(&mut state, || entries.next());
        }
        if state.connections.len() == 0 {
            state.members = Members::new(past.names);
        } else {
            self.names_changed.notify_one();
        }
        state.events = Some(events);
        state.caught_up = Some(Instant::now());
        self.went_live.notify_waiters();
        true
    }

    /// Waits for live events and sends them to all connections, a batch at a time. `Ready(false)`: the
    /// following has ended. It receives, sends and appends in one step under the lock: at any other moment
    /// a message is either in the channel or in the history.
    pub fn poll_deliver(&self, cx: &mut Context) -> Poll<bool> {
        let mut state = lock(&self.state);
        let Some(mut events) = state.events.take() else {
            return Poll::Ready(false);
        };
        let first = events.poll_recv(cx);
        if let Poll::Ready(Some(_)) | Poll::Pending = first {
            state.events = Some(events);
        }
        let Some(first) = ready!(first) else {
            return Poll::Ready(false);
        };
        self.publish_waiting(&mut state, first);
        Poll::Ready(true)
    }

    /// The room is not live from now on. The connections that are left are closed with 1012, to resume.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.events = None;
        state.connections.close_all();
    }

    /// Waits until the room is live, then sends the welcome and takes the connection in. `welcome` has
    /// the fields that the session knows. Returns the lowest id that the welcome could hold.
    pub async fn enter(
        &self,
        conn: &Arc<Conn>,
        member: &Arc<Member>,
        last: Option<Id>,
        welcome: Welcome<'_>,
    ) -> Id {
        self.when_live(|state| self.try_enter(state, conn, member, last, welcome))
            .await
    }

    /// Calls `f` until it returns something, now and whenever the room goes live.
    async fn when_live<T>(&self, mut f: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let live = self.went_live.notified(); // from this line on
            if let Some(done) = f(&mut lock(&self.state)) {
                return done;
            }
            live.await;
        }
    }

    /// Welcome and entry are one step, so that no message is missed between history and live events.
    /// `None` while the room is not live.
    fn try_enter(
        &self,
        state: &mut State,
        conn: &Arc<Conn>,
        member: &Arc<Member>,
        last: Option<Id>,
        welcome: Welcome,
    ) -> Option<Id> {
        // The page may have seen on another dyno what still waits in the channel of this one.
        while let Ok(first) = state.events.as_mut()?.try_recv() {
            self.publish_waiting(state, first);
        }
        if !state.is_live() {
            return None;
        }
        let replay = state.history.after(last);
        let first = state.connections.len() == 0;
        let members = state.members.add(&member.name, first);
        let welcome = Welcome {
            last: state.history.last(),
            gap: replay.gap,
            members: &members,
            ..welcome
        };
        let (before, after) = welcome.around_history();
        conn.push_pieces(frame::text_around(&before, &replay.messages, &after));
        state.connections.insert(conn, member);
        Some(replay.from)
    }

    /// Takes the connection out.
    pub fn leave(&self, conn: &Arc<Conn>) {
        lock(&self.state).connections.remove(conn);
    }

    /// The member's connections on this dyno.
    pub fn conns_of(&self, member: &Member) -> Vec<Arc<Conn>> {
        lock(&self.state).connections.of(member)
    }

    /// The connections on this dyno.
    pub fn conns(&self) -> Vec<Arc<Conn>> {
        lock(&self.state).connections.all()
    }

    /// The members on this dyno that were heard from lately, once for each of their connections.
    pub fn present(&self) -> Vec<Arc<Member>> {
        lock(&self.state).connections.present().cloned().collect()
    }

    /// Takes the list of members, and sends it to all connections if it has changed.
    pub fn set_members(&self, mut all: Names) {
        let mut state = lock(&self.state);
        // Members who joined while the list was being read are missing from it.
        for Member { name, .. } in state.connections.present().map(Arc::as_ref) {
            all.entry(name.folded.clone())
                .or_insert_with(|| name.shown.clone());
        }
        if let Some(members) = state.members.replace(all) {
            state.connections.send(&frame::text(&members));
        }
    }

    /// Publishes `first` and what waits behind it in the channel, as one batch.
    fn publish_waiting(&self, state: &mut State, first: Entry) {
        let (mut first, mut events) = (Some(first), state.events.take());
        let mut waiting = || events.as_mut()?.try_recv().ok();
        self.publish(state, || first.take().or_else(&mut waiting));
        state.events = events;
    }

    /// Steps 4 and 5 of a message. Takes entries up to [`BATCH`] bytes, encodes each message once, sends the
    /// joined frames to all connections, and appends the messages to the history.
    fn publish(&self, state: &mut State, mut next: impl FnMut() -> Option<Entry>) {
        let (mut joined, mut json, mut new) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        while bytes < BATCH
            && let Some(Entry { id, body }) = next()
        {
            bytes += body.len();
            if id <= state.position {
                continue; // pushed and read
            }
            match Message::from_json(&body) {
                Some(message) => {
                    state.position = id;
                    json.clear();
                    outgoing::put_talk(&mut json, id, &message);
                    frame::put_text(&mut joined, &json);
                    new.push((id, joined.len() - json.len()..joined.len()));
                    log::debug!("step=4 event=encoded room={:?} id={id}", self.name);
                }
                None if replace(&mut state.garbage_logged, true) => {}
                None => {
                    let room = &self.name;
                    log::warn!("room={room:?} id={id} skipped=\"invalid message in stream\"");
                }
            }
        }
        if new.is_empty() {
            return;
        }
        let joined = counted(joined);
        state.connections.send(&joined);
        log::debug!(
            "step=5 event=sent room={:?} bytes={}",
            self.name,
            joined.len()
        );
        let deliveries = new.len() * state.connections.len();
        self.metrics.count(new.len() as u64, deliveries as u64);
        for (id, json) in new {
            state.history.append(id, &joined[json]);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::protocol::Name;
    use crate::store::Past;

    fn entry(ms: u64) -> Entry {
        let body = br#"{"user":"taro","message":"hello","cid":"c"}"#;
        let (id, body) = (Id(ms, 0), body.to_vec());
        Entry { id, body }
    }

    /// A live room, and the sending end of its channel.
    fn live_room(entries: Vec<Entry>) -> (Room, mpsc::Sender<Entry>) {
        let room = Room::new(RoomName::new("lobby").expect("a name"), Arc::default());
        let (sender, events) = mpsc::channel(10);
        let past = Past {
            entries,
            contiguous: true,
            newest: Id::default(),
            names: Names::new(),
        };
        assert!(room.go_live(Following { past, events }));
        (room, sender)
    }

    /// Enters with `last`; returns the welcome, and the peer of the connection.
    async fn enter(room: &Room, last: Option<Id>) -> (String, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut peer = TcpStream::connect(addr).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("the peer");
        let name = Name::new("Hanako").expect("a name");
        let owner = "0".repeat(40);
        let member = Arc::new(Member { name, owner });
        let conn = Arc::new(Conn::new(stream));
        room.enter(&conn, &member, last, Welcome::default()).await;
        let mut bytes = [0; 4096];
        let length = peer.read(&mut bytes).await.expect("a welcome");
        (String::from_utf8_lossy(&bytes[..length]).into_owned(), peer)
    }

    #[tokio::test]
    async fn a_message_that_waits_in_the_channel_is_no_gap() {
        let (room, sender) = live_room(vec![entry(1)]);
        sender.try_send(entry(2)).expect("the room is live");
        let (welcome, _peer) = enter(&room, Some(Id(2, 0))).await;
        assert!(
            welcome.contains(r#""last":"2-0","gap":false,"history":[]"#),
            "{welcome}"
        );
    }

    #[tokio::test]
    async fn a_message_that_is_pushed_and_read_is_sent_once() {
        let (room, sender) = live_room(vec![entry(1), entry(2)]);
        for ms in [1, 2, 3] {
            sender.try_send(entry(ms)).expect("the room is live");
        }
        let (welcome, _peer) = enter(&room, None).await;
        assert_eq!(welcome.matches(r#""kind":"talk""#).count(), 3, "{welcome}");
    }

    #[tokio::test]
    async fn nobody_enters_a_room_whose_channel_has_ended() {
        let (room, sender) = live_room(vec![]);
        drop(sender);
        let entering = enter(&room, None);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(100), entering).await;
        assert!(waited.is_err(), "{waited:?}");
    }
}
