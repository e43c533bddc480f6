//! Reads a room's stream, and the names in the room.

use std::collections::{BTreeMap, HashMap};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::keys::Keys;
use crate::protocol::{Id, Name};
use crate::store::entry::{Entry, MAX_MESSAGES, Past};
use crate::store::lease::Names;

/// Entries read from a known message on. A stream holds fewer, unless somebody else writes to it.
const MAX_ROWS: usize = 2 * MAX_MESSAGES;

/// An entry's id, and its fields and values in turn.
type Row = (String, Vec<Vec<u8>>);

/// Reads the stream from the message `from` on; the newest messages if `from` is `0-0`.
pub async fn read_past(
    con: &mut MultiplexedConnection,
    keys: &Keys,
    from: Id,
) -> RedisResult<Past> {
    let mut reads = redis::pipe();
    reads.ignore_errors();
    if from == Id::default() {
        reads.cmd("XREVRANGE").arg(&keys.stream).arg("+").arg("-");
        reads.arg("COUNT").arg(MAX_MESSAGES);
    } else {
        let last = from.to_string();
        reads.cmd("XRANGE").arg(&keys.stream).arg(last).arg("+");
        reads.arg("COUNT").arg(MAX_ROWS);
    }
    reads.cmd("HGETALL").arg(&keys.owners);
    // Last: a stream that is complete now was complete when its rows were read. Not a transaction, because a
    // Redis whose memory is full refuses those.
    reads.cmd("XINFO").arg("STREAM").arg(&keys.stream);
    let replies: Vec<RedisResult<Value>> = reads.query_async(con).await?;
    let replies = <[_; 3]>::try_from(replies);
    let [rows, owners, info] = replies.map_err(|_| unexpected("three replies"))?;

    let rows = Vec::<Row>::from_redis_value(rows?)?;
    let count = rows.len();
    let mut entries: Vec<_> = rows.into_iter().filter_map(entry).collect();
    let info = match info {
        Err(error) if is_no_such_key(&error) => HashMap::new(),
        info => HashMap::<String, Value>::from_redis_value(info?)?,
    };
    let newest = info.get("last-generated-id").cloned().unwrap_or(Value::Nil);
    let newest = Option::<String>::from_redis_value(newest)?;
    // A full page means that there may be more.
    let contiguous = if from == Id::default() {
        entries.reverse();
        count < MAX_MESSAGES && info.get("length") == info.get("entries-added")
    } else {
        // The first row is `from` itself: its absence means that messages were trimmed.
        count < MAX_ROWS && entries.first().is_some_and(|entry| entry.id == from)
    };
    entries.retain(|entry| entry.id > from);
    Ok(Past {
        entries,
        contiguous,
        newest: newest.and_then(|id| Id::parse(&id)).unwrap_or_default(),
        names: shown_names(BTreeMap::from_redis_value(owners?)?),
    })
}

/// An entry with other fields than ours has an empty body, which is no message.
fn entry((id, fields): Row) -> Option<Entry> {
    let body = match <[_; 2]>::try_from(fields) {
        Ok([field, body]) if field == b"m" => body,
        _ => Vec::new(),
    };
    Some(Entry {
        id: Id::parse(&id)?,
        body,
    })
}

/// Everyone in the room.
pub async fn read_names(con: &mut MultiplexedConnection, keys: &Keys) -> RedisResult<Names> {
    let owners = redis::cmd("HGETALL")
        .arg(&keys.owners)
        .query_async(con)
        .await?;
    Ok(shown_names(owners))
}

/// Folded → shown name, from folded name → owner (40 hex digits) and shown name. Skips what is not a
/// name: anybody who can reach the Redis can write there.
fn shown_names(owners: BTreeMap<Vec<u8>, Vec<u8>>) -> Names {
    let name = |(folded, owner): (Vec<u8>, Vec<u8>)| {
        let name = Name::new(str::from_utf8(owner.get(40..)?).ok()?)?;
        (name.folded.as_bytes() == folded).then_some((name.folded, name.shown))
    };
    owners.into_iter().filter_map(name).collect()
}

/// XINFO fails so where there is no stream.
pub fn is_no_such_key(error: &RedisError) -> bool {
    error.detail() == Some("no such key")
}

fn unexpected(wanted: &'static str) -> RedisError {
    (
        redis::ErrorKind::UnexpectedReturnType,
        "not what was asked",
        wanted.to_owned(),
    )
        .into()
}
