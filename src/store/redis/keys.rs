//! The keys of a room. The braces are literal, so that all keys of a room are in one slot of a cluster.

/// All of them expire.
pub struct Keys {
    /// `chat:{ROOM}`, STREAM: the messages. Also the name of the channel. Written by `talk.lua`.
    pub stream: String,
    /// `chat:{ROOM}:names`, ZSET: folded name by the end of its lease. Written by `lease.lua`.
    pub names: String,
    /// `chat:{ROOM}:owners`, HASH: folded name to token hash and shown name. Written by `lease.lua`.
    pub owners: String,
}

impl Keys {
    pub fn of(room: &str) -> Keys {
        let stream = format!("chat:{{{room}}}");
        Keys {
            names: format!("{stream}:names"),
            owners: format!("{stream}:owners"),
            stream,
        }
    }

    /// `chat:{ROOM}:cid:OWNER:CID`, STRING: the id of a message that was stored lately. Written by `talk.lua`.
    pub fn cid(&self, owner: &str, cid: &str) -> String {
        [&self.stream, ":cid:", owner, ":", cid].concat()
    }
}
