//! A server's own description: its version, and its policy when its memory is full.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, InfoDict, RedisResult};

/// The oldest version that takes scripts with flags. Valkey calls itself 7 in this field, too.
const OLDEST: u32 = 7;

pub struct ServerInfo {
    version: Option<String>,
    pub max_memory: u64,
    policy: Option<String>,
}

impl ServerInfo {
    /// Knows nothing if this Redis does not allow INFO: the program does not need it.
    pub async fn read(con: &mut MultiplexedConnection) -> ServerInfo {
        let info = redis::cmd("INFO").query_async(con).await;
        let info = info.unwrap_or_else(|_| InfoDict::new(""));
        ServerInfo {
            version: info.get("redis_version"),
            max_memory: info.get("maxmemory").unwrap_or_default(),
            policy: info.get("maxmemory_policy"),
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

    /// With a limit of memory and no eviction, a full Redis refuses every message.
    pub fn refuses_when_full(&self) -> bool {
        self.max_memory > 0 && self.policy.as_deref() == Some("noeviction")
    }
}
