//! The two scripts, called by their hash. `redis::Script` does this too, but copies every argument.

use redis::Cmd;
use sha1_smol::Sha1;

pub struct Script {
    text: &'static str,
    hash: String,
}

/// All scripts of the program. They are loaded when the link connects.
pub struct Scripts {
    pub lease: Script,
    pub talk: Script,
}

impl Scripts {
    pub fn new() -> Scripts {
        Scripts {
            lease: Script::new(include_str!("lease.lua")),
            talk: Script::new(include_str!("talk.lua")),
        }
    }
}

impl Script {
    fn new(text: &'static str) -> Script {
        let hash = Sha1::from(text).digest().to_string();
        Script { text, hash }
    }

    /// A command that loads the script into Redis.
    pub fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }

    /// A call of the script. Arguments that are added to it become the script's `ARGV`.
    pub fn call(&self, keys: &[&str]) -> Cmd {
        let mut call = Cmd::with_capacity(16, 512);
        call.arg("EVALSHA").arg(&self.hash);
        call.arg(keys.len()).arg(keys);
        call
    }
}
