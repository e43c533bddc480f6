//! What a Redis says about itself: its version.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, InfoDict, RedisResult};

/// The oldest version that takes scripts with flags. Valkey calls itself 7 here, too.
const OLDEST: u32 = 7;

pub struct ServerInfo {
    version: Option<String>,
}

impl ServerInfo {
    /// Knows nothing if this Redis does not allow INFO: the program does not need it.
    pub async fn read(con: &mut MultiplexedConnection) -> ServerInfo {
        let info = redis::cmd("INFO").query_async(con).await;
        let info = info.unwrap_or_else(|_| InfoDict::new(""));
        ServerInfo {
            version: info.get("redis_version"),
        }
    }

    /// Fails if this Redis is known to be too old.
    pub fn check_version(&self) -> RedisResult<()> {
        let version = self.version.as_deref().unwrap_or_default();
        let major = version.split('.').next().map(str::parse::<u32>);
        match major {
            Some(Ok(major)) if major < OLDEST => {
                let version = format!("version {version}");
                Err((ErrorKind::Client, "this Redis is too old", version).into())
            }
            _ => Ok(()),
        }
    }
}
