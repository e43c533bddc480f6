//! The keys of a room, and its channel. The braces are literal, so that all keys of a room are in one slot of
//! a cluster.

/// All keys expire.
pub struct Keys {
    /// `chat:{ROOM}`, STREAM: the messages. Written by `talk.lua`.
    pub stream: String,
    /// `chat:{ROOM}:names`, ZSET: folded name by the end of its lease. Written by `lease.lua`.
    pub names: String,
    /// `chat:{ROOM}:owners`, HASH: folded name to token hash and shown name. Written by `lease.lua`.
    pub owners: String,
    /// `chat:{ROOM}@DATABASE`: what is pushed to everyone who follows the room. Redis delivers a channel's
    /// messages in all databases, so the name carries the database's number.
    pub channel: String,
}

impl Keys {
    pub fn of(room: &str, database: i64) -> Keys {
        let stream = format!("chat:{{{room}}}");
        Keys {
            names: format!("{stream}:names"),
            owners: format!("{stream}:owners"),
            channel: format!("{stream}@{database}"),
            stream,
        }
    }

    /// `chat:{ROOM}:cid:OWNER:CID`, STRING: the id of a message that was stored lately. Written by `talk.lua`.
    pub fn cid(&self, owner: &str, cid: &str) -> String {
        [&self.stream, ":cid:", owner, ":", cid].concat()
    }
}
