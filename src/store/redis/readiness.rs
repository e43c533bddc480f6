//! The readiness check: loads the scripts, and runs all that the program needs once, on keys that no room
//! has. A Redis that fails is never called up, instead of being connected and refusing every request.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::keys::Keys;
use super::read::read_past;
use super::script::Scripts;
use crate::protocol::Id;

/// No room has this name: a name needs a letter or a number.
pub const ROOM: &str = "!";
/// How long what the check writes lives, in ms and in s.
const LIFE_MS: u32 = 1_000;
const LIFE_S: u32 = 1;

/// `keys`: those of [`ROOM`].
pub async fn check(
    con: &mut MultiplexedConnection,
    scripts: &Scripts,
    keys: &Keys,
) -> RedisResult<()> {
    let _: () = redis::cmd("PING").query_async(con).await?;
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
        // Memory is full: nothing can be said, but everybody can join and read.
        Err(error) if error.code() == Some("OOM") => {}
        reply => drop(reply?),
    }
    read_past(con, keys, Id::default()).await?;
    con.unsubscribe(&keys.channel).await
}
