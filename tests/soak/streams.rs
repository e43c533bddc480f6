//! Records every entry of every room's stream while the soak runs, because Redis trims the streams. It has a thread of
//! its own: it must not block the clients while Redis is stopped.

use super::support::{Id, facts::stream_key};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: Id,
    pub cid: String,
    pub user: String,
}

type Entries = HashMap<String, Vec<Entry>>;

#[derive(Clone)]
pub struct Streams {
    entries: Arc<Mutex<Entries>>,
    stopped: Arc<AtomicBool>,
}

impl Streams {
    pub fn record(url: &str, rooms: &[String]) -> Streams {
        let streams = Streams {
            entries: Arc::default(),
            stopped: Arc::default(),
        };
        let client = redis::Client::open(url).expect("the URL of our own Redis");
        let (rooms, own) = (rooms.to_vec(), streams.clone());
        std::thread::spawn(move || {
            while !own.stopped.load(Relaxed) {
                let _ = own.follow(&client, &rooms); // while Redis is down: try again soon
                std::thread::sleep(PAUSE);
            }
        });
        streams
    }

    fn follow(&self, client: &redis::Client, rooms: &[String]) -> redis::RedisResult<()> {
        let mut connection = client.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        while !self.stopped.load(Relaxed) {
            for room in rooms {
                let newest = self.entries().get(room).and_then(|e| Some(e.last()?.id));
                let from = newest.map_or("-".to_string(), |id| format!("({id}"));
                let mut more = read(&mut connection, room, &from)?;
                let mut entries = self.entries();
                entries.entry(room.clone()).or_default().append(&mut more);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().expect("no reader panics")
    }

    /// The newest id of a room; `0-0` if there is none.
    pub fn newest(&self, room: &str) -> Id {
        let newest = self.entries().get(room).and_then(|e| Some(e.last()?.id));
        newest.unwrap_or_default()
    }

    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }
}

/// A room's stream from an id on (`-`: all that is left of it).
pub fn read(
    connection: &mut impl redis::ConnectionLike,
    room: &str,
    from: &str,
) -> redis::RedisResult<Vec<Entry>> {
    let rows: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(stream_key(room))
        .arg(from)
        .arg("+")
        .query(connection)?;
    let entry = |(id, fields): &(String, Vec<String>)| {
        let body = fields.get(1).and_then(|b| serde_json::from_str(b).ok());
        let body: Value = body.unwrap_or_default();
        let word = |field: &str| body[field].as_str().unwrap_or("?").to_string();
        Entry {
            id: id.parse().unwrap_or_default(),
            cid: word("cid"),
            user: word("user"),
        }
    };
    Ok(rows.iter().map(entry).collect())
}
