//! A script in Redis, called by its hash. `redis::Script` does this too, but copies every argument,
//! and its future has room for all three commands that it may need.

use redis::aio::MultiplexedConnection as Connection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind};
use sha1_smol::Sha1;

pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub fn new(text: &'static str) -> Script {
        let hash = Sha1::from(text).digest().to_string();
        Script { text, hash }
    }

    /// A call of it. What is added to the command is what the script finds in `ARGV`.
    pub fn call(&self, keys: &[&str]) -> Cmd {
        let mut call = Cmd::with_capacity(16, 512);
        call.arg("EVALSHA")
            .arg(&self.hash)
            .arg(keys.len())
            .arg(keys);
        call
    }

    /// Makes a call. A Redis that does not know the script is told it first.
    pub async fn run<T: FromRedisValue>(&self, call: &Cmd, con: &mut Connection) -> RedisResult<T> {
        match call.query_async(con).await {
            Err(e) if is_unknown(&e) => {
                // Boxed, so that the usual case does not keep room for it.
                let () = Box::pin(self.load().query_async(con)).await?;
                Box::pin(call.query_async(con)).await
            }
            reply => reply,
        }
    }

    /// Has Redis learn the script.
    pub fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
