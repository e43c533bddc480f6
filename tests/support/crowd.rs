//! Pages in one room that keep talking while its dynos and its Redis fail.

use super::facts::HISTORY;
use super::page::{Life, model::RESEND};
use super::{PATIENCE, Page, Redis, Router, check};
use std::time::{Duration, Instant};
use tokio::time::sleep;

pub struct Crowd {
    pub room: String,
    pub pages: Vec<Page>,
}

impl Crowd {
    /// Opens pages and waits until each of them lists all of them.
    pub async fn gather(router: &Router, room: &str, count: usize) -> Crowd {
        let open = |i| Page::open(router, room, &format!("n{i:03}"));
        let pages: Vec<Page> = (0..count).map(open).collect();
        for page in &pages {
            page.welcomed().await;
        }
        for page in &pages {
            let all = |life: &Life| life.counts.last() == Some(&(count as u64));
            page.until("everyone is listed", PATIENCE, all).await;
            page.life().counts.clear();
        }
        let room = room.to_string();
        Crowd { room, pages }
    }

    /// Each page sends a message, one page after the other, about fifty a second.
    pub async fn everyone_talks(&self, what: &str) {
        for page in &self.pages {
            page.say(&format!("{what} from {}", page.user));
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Random pages send messages, so many a second.
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

    /// Checks that every page is connected, that everything typed is in the stream once, and that every page saw it all.
    pub async fn lost_nothing(&self, redis: &Redis, within: Duration) {
        let start = Instant::now();
        for page in &self.pages {
            let left = within.saturating_sub(start.elapsed());
            page.until("connected", left, |life| life.connected).await;
        }
        for page in &self.pages {
            page.all_sent(RESEND + PATIENCE).await;
        }
        let stream = check::stream(redis, &self.room);
        let newest = stream.last().copied();
        for page in &self.pages {
            let up_to_date = |life: &Life| life.shown.last().map(|s| s.id) >= newest;
            page.until("up to date", PATIENCE, up_to_date).await;
            assert_eq!(page.life().gaps, [], "{} was told of a gap", page.user);
        }
        check::pages_saw_everything(redis, &self.pages);
        let typed: usize = self.pages.iter().map(|page| page.life().own.len()).sum();
        assert!(
            stream.len() == typed || stream.len() >= HISTORY,
            "{typed} typed, {} in the stream",
            stream.len()
        );
    }

    /// Checks that every list of members since `gather` had everyone.
    pub fn saw_nobody_come_or_go(&self) {
        let all = self.pages.len() as u64;
        for page in &self.pages {
            let counts = page.life().counts.clone();
            assert!(
                counts.iter().all(|count| *count == all),
                "{} saw members come or go: {counts:?}",
                page.user
            );
        }
    }
}
