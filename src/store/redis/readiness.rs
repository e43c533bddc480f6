//! The readiness check: loads the scripts, and runs all that the program needs once, on keys that no room
//! has. If the check fails, Redis counts as down. Otherwise it would count as up, and refuse every request.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};

use super::keys::Keys;
use super::read::{is_no_such_key, read_past};
use super::script::Scripts;
use crate::protocol::Id;

/// No room has this name: a name needs a letter or a number.
pub const ROOM: &str = "!";
/// Reads of keys in as many slots of a cluster. A node that does not serve one of them answers MOVED.
const SLOTS: u32 = 16;
/// The life of the keys that the check writes, in ms and in s.
const LIFE_MS: u32 = 1_000;
const LIFE_S: u32 = 1;

/// `keys`: those of [`ROOM`].
pub async fn check(
    con: &mut MultiplexedConnection,
    scripts: &Scripts,
    keys: &Keys,
) -> RedisResult<()> {
    let _: () = redis::cmd("PING").query_async(con).await?;
    let replies: Vec<RedisResult<Value>> = every_command(keys).query_async(con).await?;
    for reply in replies {
        match reply {
            Err(error) if !is_out_of_memory(&error) && !is_no_such_key(&error) => {
                return Err(error);
            }
            _ => {}
        }
    }
    let _: () = scripts.lease.load().query_async(con).await?;
    let _: () = scripts.talk.load().query_async(con).await?;
    con.subscribe(&keys.channel).await?;
    for verb in ["claim", "renew", "release"] {
        let mut call = scripts
            .lease
            .call(&[&keys.names, &keys.owners, &keys.stream]);
        call.arg(&keys.channel).arg(verb).arg(LIFE_MS).arg(LIFE_S);
        call.arg("name").arg("0".repeat(40)).arg("name");
        let _: Value = call.query_async(con).await?;
    }
    let random = format!("{:016x}", rand::random::<u64>()); // another check may have run just now
    let cid = keys.cid("check", &random);
    let mut call = scripts.talk.call(&[&keys.owners, &keys.stream, &cid]);
    call.arg(&keys.channel)
        .arg("name")
        .arg("0".repeat(40))
        .arg("{}");
    call.arg(1).arg(LIFE_S).arg(LIFE_S);
    match call.query_async::<Value>(con).await {
        Err(error) if is_out_of_memory(&error) => {}
        reply => drop(reply?),
    }
    read_past(con, keys, Id::default()).await?;
    con.unsubscribe(&keys.channel).await
}

/// A write that changes nothing. It fails if this Redis cannot be written to any more.
pub fn probe(keys: &Keys) -> Cmd {
    let mut expire = redis::cmd("EXPIRE");
    expire.arg(keys.cid("none", "none")).arg(LIFE_S);
    expire
}

/// Every command that the scripts and `read.rs` run, once and outside of a script: a script would fail only
/// after its first writes, and Redis 7.0 does not say which command a script lacks. All but HSET change
/// nothing where there is no key.
fn every_command(keys: &Keys) -> Pipeline {
    let (stream, names, owners) = (&*keys.stream, &*keys.names, &*keys.owners);
    let cid = &*keys.cid("none", "none");
    let commands: [&[&str]; 20] = [
        &["TIME"],
        &["HSET", owners, "check", ""],
        &["PEXPIRE", owners, "1000"],
        &["HDEL", owners, "check"],
        &["HGET", owners, "check"],
        &["HLEN", owners],
        &["HKEYS", owners],
        &["HGETALL", owners],
        &["ZADD", names, "XX", "0", "check"],
        &["ZRANGEBYSCORE", names, "-inf", "0"],
        &["ZCARD", names],
        &["ZREM", names, "check"],
        &["SET", cid, "", "XX"],
        &["GET", cid],
        &["EXPIRE", cid, "1"],
        &["XADD", stream, "NOMKSTREAM", "*", "m", ""],
        &["XRANGE", stream, "-", "+", "COUNT", "1"],
        &["XREVRANGE", stream, "+", "-", "COUNT", "1"],
        &["XINFO", "STREAM", stream],
        &["PUBLISH", &keys.channel, "names"],
    ];
    let mut all = redis::pipe();
    all.ignore_errors();
    for command in commands {
        all.cmd(command[0]).arg(&command[1..]);
    }
    for n in 0..SLOTS {
        all.cmd("GET").arg(format!("chat:{{{ROOM}{n}}}"));
    }
    all
}

/// Memory is full: nothing can be said, but everybody can join and read.
fn is_out_of_memory(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}
