//! The state that all dynos share: leases of names, and the stream of each room. It is in Redis, or in the
//! memory of a single process; nothing above this folder knows which.
//!
//! Messages come back by [`follow`](Store::follow): it returns what was missed and a channel of live events.
//! The channel ends whenever messages may be missing; the room follows again then.

mod entry;
mod follower;
mod lease;
mod memory;
mod redis;

use std::sync::Arc;

use ::redis::Client;
use tokio::sync::{Notify, watch};

use self::memory::Memory;
use self::redis::Redis;
use crate::protocol::{ErrorCode, Id, RoomName};

#[cfg(test)]
pub use self::entry::Past;
pub use self::entry::{Entry, MAX_BYTES, MAX_MESSAGES, Stored, Talk};
pub use self::follower::Following;
pub use self::lease::{Member, Names, Renewal};
pub use self::redis::client as redis_client;

pub enum Store {
    Memory(Memory),
    Redis(Redis),
}

impl Store {
    /// Redis, or without a client the memory of this process.
    pub fn start(client: Option<Client>) -> Store {
        match client {
            None => Store::Memory(Memory::default()),
            Some(client) => Store::Redis(Redis::start(client)),
        }
    }

    /// Whether Redis can be used; always true in memory. While it is false, every request fails at once.
    pub fn up(&self) -> watch::Receiver<bool> {
        match self {
            Store::Memory(memory) => memory.up(),
            Store::Redis(redis) => redis.up(),
        }
    }

    /// Leases the name to its owner. Returns the name as it was first claimed.
    pub async fn claim(&self, room: &RoomName, member: &Member) -> Result<String, ErrorCode> {
        match self {
            Store::Memory(memory) => memory.claim(room, member),
            Store::Redis(redis) => redis.claim(room, member).await,
        }
    }

    /// Extends leases. Returns, for each renewal, those who have lost their name.
    pub async fn renew(&self, renewals: &[Renewal]) -> Vec<Vec<Arc<Member>>> {
        match self {
            Store::Memory(memory) => memory.renew(renewals),
            Store::Redis(redis) => redis.renew(renewals).await,
        }
    }

    /// Ends the lease, if it is still the member's. If this fails, the lease ends by itself.
    pub async fn release(&self, room: &RoomName, member: &Member) {
        match self {
            Store::Memory(memory) => memory.release(room, member),
            Store::Redis(redis) => redis.release(room, member).await,
        }
    }

    /// Everyone in the room, on all dynos.
    pub async fn names(&self, room: &RoomName) -> Result<Names, ErrorCode> {
        match self {
            Store::Memory(memory) => Ok(memory.names(room)),
            Store::Redis(redis) => redis.names(room).await,
        }
    }

    /// Stores a message in the room's stream and sends it to everyone who follows the room, if the name is
    /// still the member's and the cid is new.
    pub async fn talk(&self, talk: &Talk<'_>) -> Result<Stored, ErrorCode> {
        match self {
            Store::Memory(memory) => {
                let stored = memory.talk(talk);
                tokio::task::yield_now().await; // the room's task delivers it meanwhile
                stored
            }
            Store::Redis(redis) => redis.talk(talk).await,
        }
    }

    /// Follows the room's stream from the message `from`, which the caller has (`0-0`: none).
    /// `names_changed` is notified when someone came or left. If the room is followed already, the earlier channel ends.
    pub async fn follow(
        &self,
        room: &RoomName,
        from: Id,
        names_changed: Arc<Notify>,
    ) -> Result<Following, ErrorCode> {
        match self {
            Store::Memory(memory) => Ok(memory.follow(room, from, names_changed)),
            Store::Redis(redis) => redis.follow(room, from, names_changed).await,
        }
    }

    /// Stops following a room.
    pub async fn unfollow(&self, room: &RoomName) {
        match self {
            Store::Memory(memory) => memory.unfollow(room),
            Store::Redis(redis) => redis.unfollow(room).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::protocol::Name;

    /// A private `redis-server`, or the program that `REDIS_SERVER` names.
    struct Server {
        child: Child,
        _dir: TempDir,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// The store in Redis, if the server is installed.
    async fn redis_store() -> Option<(Store, Server)> {
        let program = std::env::var("REDIS_SERVER").unwrap_or("redis-server".to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let dir = TempDir::new().expect("a directory");
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--save", "", "--port"]);
        let child = command.arg(port.to_string()).current_dir(dir.path());
        let child = child.stdout(Stdio::null()).spawn().ok()?;
        let server = Server { child, _dir: dir };
        let client = redis_client(&format!("redis://127.0.0.1:{port}"), true);
        let store = Store::start(Some(client.expect("a URL")));
        let mut up = store.up();
        let ready = timeout(Duration::from_secs(30), up.wait_for(|up| *up)).await;
        ready.expect("Redis answers").expect("the link is there");
        Some((store, server))
    }

    /// A request to a store, and the expected answer. A member is a shown name and the owner's letter; an id is
    /// the number of the message in the stream, from 1; 0 is `0-0`.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Claim(&'static str, char, Result<&'static str, ErrorCode>),
        /// Those who have lost their names.
        Renew(&'static [(&'static str, char)], &'static [&'static str]),
        Release(&'static str, char),
        /// The shown names.
        Names(&'static [&'static str]),
        /// With a cid. The number of the message, and whether it is new.
        Say(
            &'static str,
            char,
            &'static str,
            Result<(usize, bool), ErrorCode>,
        ),
        /// Many messages, of which about ten are kept.
        SayMany(usize),
        /// Follows from this message on. Expects this `contiguous`, and these messages.
        Follow(usize, bool, &'static [usize]),
        /// The same, of a stream that was trimmed.
        FollowTrimmed(usize),
        /// The next live event.
        Event(usize),
        /// Someone came or left since the last step of this kind.
        Changed(bool),
    }
    use Step::*;

    const RULES: &[Step] = &[
        Follow(0, true, &[]),
        Changed(false),
        Claim("Hanako", 'a', Ok("Hanako")),
        Changed(true),
        Claim("HANAKO", 'a', Ok("Hanako")), // shown as first claimed
        Claim("hanako", 'b', Err(ErrorCode::NameTaken)),
        Changed(false),
        Claim("Taro", 'b', Ok("Taro")),
        Names(&["Hanako", "Taro"]),
        Renew(&[("Hanako", 'a'), ("Taro", 'b')], &[]),
        Renew(
            &[("Hanako", 'b'), ("Taro", 'b'), ("Jiro", 'c')],
            &["Hanako", "Jiro"],
        ),
        Names(&["Hanako", "Taro"]), // a renewal makes no lease
        Changed(true),
        // Messages, each stored once for an owner and a cid.
        Say("Hanako", 'a', "one", Ok((1, true))),
        Event(1),
        Say("Hanako", 'a', "one", Ok((1, false))),
        Say("Hanako", 'b', "two", Err(ErrorCode::NameTaken)),
        Say("Taro", 'b', "one", Ok((2, true))),
        Say("Jiro", 'c', "one", Ok((3, true))), // nobody has the name
        Event(2),
        Event(3),
        // Following from a message that the stream holds, or not.
        Follow(0, true, &[1, 2, 3]),
        Follow(1, true, &[2, 3]),
        Follow(3, true, &[]),
        Say("Taro", 'b', "two", Ok((4, true))),
        Event(4),
        Changed(false),
        // Only the owner releases a name.
        Release("Hanako", 'b'),
        Names(&["Hanako", "Taro"]),
        Changed(false),
        Release("Hanako", 'a'),
        Names(&["Taro"]),
        Changed(true),
        Claim("HANAKO", 'b', Ok("HANAKO")),
        Say("Hanako", 'a', "three", Err(ErrorCode::NameTaken)),
        Say("Hanako", 'a', "one", Err(ErrorCode::NameTaken)),
        // A stream that was trimmed.
        SayMany(400),
        FollowTrimmed(0),
        FollowTrimmed(3),
    ];

    fn member(shown: &str, owner: char) -> Arc<Member> {
        let name = Name::new(shown).expect("a name");
        let owner = owner.to_string().repeat(40);
        Arc::new(Member { name, owner })
    }

    /// Carries the steps out, and compares the answers.
    async fn obeys_the_rules(what: &str, store: &Store) {
        let room = RoomName::new("lobby").expect("a name");
        let names_changed = Arc::new(Notify::new());
        let mut ids = vec![Id::default()];
        let mut following = None;
        let talk = async |member: &Member, cid: &str, keep| {
            let (room, body) = (&room, "{}");
            let talk = Talk {
                room,
                member,
                cid,
                body,
                keep,
            };
            store.talk(&talk).await
        };
        for (n, step) in RULES.iter().enumerate() {
            let at = format!("{what}, step {n}: {step:?}");
            match *step {
                Claim(name, owner, expected) => {
                    let shown = store.claim(&room, &member(name, owner)).await;
                    assert_eq!(shown.as_deref(), expected.as_ref().map(|n| *n), "{at}");
                }
                Renew(names, expected) => {
                    let members = names.iter().map(|(name, owner)| member(name, *owner));
                    let members = members.collect();
                    let room = room.clone();
                    let lost = store.renew(&[Renewal { room, members }]).await;
                    let lost = lost[0].iter().map(|member| &*member.name.shown);
                    assert_eq!(lost.collect::<Vec<_>>(), expected, "{at}");
                }
                Release(name, owner) => store.release(&room, &member(name, owner)).await,
                Names(expected) => {
                    let names = store.names(&room).await.expect(&at);
                    assert_eq!(names.values().collect::<Vec<_>>(), expected, "{at}");
                }
                Say(name, owner, cid, expected) => {
                    let stored = talk(&member(name, owner), cid, MAX_MESSAGES).await;
                    let (id, is_new) = match stored {
                        Ok(Stored::New(id)) => (id, true),
                        Ok(Stored::Duplicate(id)) => (id, false),
                        Err(code) => {
                            assert_eq!(Err(code), expected, "{at}");
                            continue;
                        }
                    };
                    if is_new {
                        assert!(id > ids[ids.len() - 1], "{at}");
                        ids.push(id);
                    }
                    let number = ids.iter().position(|known| *known == id).expect(&at);
                    assert_eq!(Ok((number, is_new)), expected, "{at}");
                }
                SayMany(count) => {
                    for n in 0..count {
                        let cid = format!("many {n}");
                        talk(&member("Taro", 'b'), &cid, 10).await.expect(&at);
                    }
                }
                Follow(from, contiguous, expected) => {
                    let new = store.follow(&room, ids[from], names_changed.clone()).await;
                    let past = &new.as_ref().map_err(|_| &at).expect("followed").past;
                    let entries = past.entries.iter().map(|entry| entry.id);
                    let expected: Vec<_> = expected.iter().map(|n| ids[*n]).collect();
                    assert!(entries.eq(expected), "{at}");
                    assert_eq!(past.contiguous, contiguous, "{at}");
                    assert!(past.newest == ids[ids.len() - 1], "{at}");
                    following = new.ok();
                }
                FollowTrimmed(from) => {
                    let new = store.follow(&room, ids[from], names_changed.clone()).await;
                    let past = new.map_err(|_| &at).expect("followed").past;
                    assert!(!past.contiguous, "{at}");
                    assert!((10..200).contains(&past.entries.len()), "{at}");
                }
                Event(number) => {
                    let events = &mut following.as_mut().expect(&at).events;
                    let event = timeout(Duration::from_secs(5), events.recv()).await;
                    let event = event.expect(&at).expect(&at);
                    assert!(event.id == ids[number] && event.body == b"{}", "{at}");
                }
                Changed(expected) => {
                    let wait = Duration::from_millis(if expected { 5_000 } else { 100 });
                    let changed = timeout(wait, names_changed.notified()).await;
                    assert_eq!(changed.is_ok(), expected, "{at}");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_store_in_memory_obeys_the_rules() {
        obeys_the_rules("memory", &Store::start(None)).await;
    }

    #[tokio::test]
    async fn the_store_in_redis_obeys_the_rules() {
        match redis_store().await {
            Some((store, _server)) => obeys_the_rules("redis", &store).await,
            None => println!("skipped: redis-server is not installed"),
        }
    }
}
