//! The truth: every entry of every room's stream, read all the time over a connection of its own, because the stream
//! itself is trimmed. A thread, for it must not wait with the clients when Redis is stopped.

use super::support::Id;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: Id,
    pub cid: String,
    pub user: String,
}

pub type Log = Vec<Entry>;

#[derive(Clone)]
pub struct Truth {
    logs: Arc<Mutex<HashMap<String, Log>>>,
    over: Arc<AtomicBool>,
}

impl Truth {
    pub fn watch(url: &str, rooms: &[String]) -> Truth {
        let truth = Truth {
            logs: Arc::default(),
            over: Arc::default(),
        };
        let client = redis::Client::open(url).expect("the URL of our own Redis");
        let (rooms, own) = (rooms.to_vec(), truth.clone());
        std::thread::spawn(move || {
            while !own.over.load(Relaxed) {
                let _ = own.follow(&client, &rooms); // Redis is away: again soon
                std::thread::sleep(PAUSE);
            }
        });
        truth
    }

    fn follow(&self, client: &redis::Client, rooms: &[String]) -> redis::RedisResult<()> {
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        while !self.over.load(Relaxed) {
            for room in rooms {
                let last = self
                    .logs()
                    .get(room)
                    .and_then(|log| log.last())
                    .map(|e| e.id);
                let from = last.map_or("-".to_string(), |id| format!("({id}"));
                let mut more = read(&mut connection, room, &from)?;
                self.logs()
                    .entry(room.clone())
                    .or_default()
                    .append(&mut more);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub fn logs(&self) -> MutexGuard<'_, HashMap<String, Log>> {
        self.logs.lock().expect("no reader of the truth panics")
    }

    pub fn last(&self, room: &str) -> Id {
        let logs = self.logs();
        logs.get(room)
            .and_then(|log| log.last())
            .map_or(Id::default(), |e| e.id)
    }

    pub fn end(&self) {
        self.over.store(true, Relaxed);
    }
}

/// A room's stream from an id on (`-`: all that is left of it).
pub fn read(
    connection: &mut impl redis::ConnectionLike,
    room: &str,
    from: &str,
) -> redis::RedisResult<Log> {
    let rows: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(format!("chat:{{{room}}}"))
        .arg(from)
        .arg("+")
        .query(connection)?;
    Ok(rows
        .iter()
        .map(|(id, fields)| {
            let body: Value = fields
                .get(1)
                .and_then(|body| serde_json::from_str(body).ok())
                .unwrap_or_default();
            let word = |field: &str| body[field].as_str().unwrap_or("?").to_string();
            Entry {
                id: id.parse().unwrap_or_default(),
                cid: word("cid"),
                user: word("user"),
            }
        })
        .collect())
}
