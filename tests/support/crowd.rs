//! A crowd of pages in one room that goes on talking while things happen to its dynos and its Redis.

use super::{PATIENCE, Page, Redis, Router, check};
use std::time::{Duration, Instant};
use tokio::time::sleep;

pub struct Crowd {
    pub room: String,
    pub pages: Vec<Page>,
}

impl Crowd {
    /// Pages at whatever dyno the router gives them, once they all see each other.
    pub async fn gather(router: &Router, room: &str, count: usize) -> Crowd {
        let pages: Vec<Page> = (0..count)
            .map(|i| Page::open(router, room, &format!("n{i:03}")))
            .collect();
        for page in &pages {
            page.welcomed().await;
        }
        for page in &pages {
            let all = count as u64;
            page.until("everyone is listed", PATIENCE, |life| {
                life.counts.last().is_some_and(|c| c.1 == all)
            })
            .await;
            page.life().counts.clear();
        }
        Crowd {
            room: room.to_string(),
            pages,
        }
    }

    /// Everybody says something, one after the other, at about fifty messages a second.
    pub async fn everyone_talks(&self, what: &str) {
        for page in &self.pages {
            page.say(&format!("{what} from {}", page.user));
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Somebody says something, so many times a second.
    pub async fn chat(&self, per_second: u32, lasting: Duration) {
        let start = Instant::now();
        let mut said = 0;
        while start.elapsed() < lasting {
            let page = &self.pages[fastrand::usize(..self.pages.len())];
            page.say(&format!("number {said} from {}", page.user));
            said += 1;
            sleep((said * (Duration::from_secs(1) / per_second)).saturating_sub(start.elapsed()))
                .await;
        }
    }

    /// Whatever happened: everyone is connected, everything typed is in the log once, and everyone has seen it all.
    pub async fn lost_nothing(&self, redis: &Redis, within: Duration) {
        let start = Instant::now();
        for page in &self.pages {
            page.until(
                "connected",
                within.saturating_sub(start.elapsed()),
                |life| life.connected,
            )
            .await;
        }
        for page in &self.pages {
            page.all_sent(PATIENCE).await;
        }
        let log = check::stream(redis, &self.room);
        let newest = log.last().copied();
        for page in &self.pages {
            page.until("up to date", PATIENCE, |life| {
                life.shown.last().map(|s| s.id) >= newest
            })
            .await;
            assert_eq!(page.life().gaps, [], "{} was told of a gap", page.user);
        }
        check::pages_saw_everything(redis, &self.pages);
        let typed: usize = self.pages.iter().map(|page| page.life().typed).sum();
        assert!(
            log.len() == typed || log.len() >= 1_000,
            "{typed} typed, {} in the log",
            log.len()
        );
    }

    /// Since the crowd gathered, everyone saw everyone all the time.
    pub fn saw_nobody_come_or_go(&self) {
        let all = self.pages.len() as u64;
        for page in &self.pages {
            let counts: Vec<u64> = page.life().counts.iter().map(|c| c.1).collect();
            assert!(
                counts.iter().all(|count| *count == all),
                "{} saw members come or go: {counts:?}",
                page.user
            );
        }
    }

    /// Every end of a connection since `then`: how long after, and its code.
    pub fn closes_since(&self, then: Instant) -> Vec<(Duration, u16)> {
        let mut closes = vec![];
        for page in &self.pages {
            closes.extend(
                page.life()
                    .closes
                    .iter()
                    .map(|(at, code)| (at.duration_since(then.into()), *code)),
            );
        }
        closes.sort();
        closes
    }
}
