//! Proves the promise of DESIGN §1 where things meet: who joins while others talk, a receipt that is cut off, a person in
//! several tabs or with a dead socket, one who reads too slowly (SCENARIOS 13 to 23). On two dynos with one Redis, and on
//! a single process with a log of its own.

use crate::support::client::{Heard, join_frame, talk_until};
use crate::support::proxy::{Flow, Proxy};
use crate::support::raw::{self, Raw};
use crate::support::{
    Bus, Client, Dyno, Id, PATIENCE, Page, Redis, Router, TALKATIVE, check, eventually, token,
};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

on_both_buses!(
    there_is_no_seam_between_history_and_what_is_said_while_joining,
    a_free_name_that_many_ask_for_at_once_goes_to_exactly_one,
    a_receipt_that_is_cut_off_leaves_one_entry_shown_once_as_sent,
    three_tabs_are_one_member_until_the_last_is_gone,
    who_returns_while_the_old_socket_is_half_open_has_the_name_at_once,
    a_dyno_that_was_frozen_for_longer_than_a_lease_keeps_its_people,
    one_who_stops_reading_is_closed_and_delays_nobody,
    a_crowd_whose_connections_are_cut_again_and_again_loses_nothing,
    a_page_that_comes_and_goes_for_long_leaves_nothing_behind,
);

/// Two dynos on one Redis, or one process alone, which then is both here and there. Fields end in this order.
struct Place {
    dynos: Vec<Dyno>,
    redis: Option<Redis>,
}

impl Place {
    async fn start(bus: Bus) -> Place {
        match bus {
            Bus::Alone => Place {
                dynos: vec![Dyno::start(&[TALKATIVE]).await],
                redis: None,
            },
            Bus::Redis => {
                let redis = Redis::start(&[]).await;
                let dynos = (0..2).map(|_| Dyno::start_on(&redis, &[TALKATIVE]));
                Place {
                    dynos: join_all(dynos).await,
                    redis: Some(redis),
                }
            }
        }
    }

    fn here(&self) -> &Dyno {
        &self.dynos[0]
    }

    fn there(&self) -> &Dyno {
        &self.dynos[self.dynos.len() - 1]
    }

    /// From now on, everything that is said in the room.
    async fn witness(&self, room: &str) -> Witness<'_> {
        Witness {
            client: self.there().join(room, "witness").await,
            redis: self.redis.as_ref(),
        }
    }

    /// I2, where leases can be looked at.
    async fn names_are(&self, room: &str, names: &[&str]) {
        if let Some(redis) = &self.redis {
            check::names_are(redis, room, names).await;
        }
    }
}

/// Somebody who misses nothing; with a Redis, the room's stream says what there was to see.
struct Witness<'a> {
    client: Client,
    redis: Option<&'a Redis>,
}

impl Witness<'_> {
    /// The log up to `last` at least, oldest first.
    async fn log(&self, last: Id) -> Vec<Id> {
        if let Some(redis) = self.redis {
            return check::stream(redis, &self.client.room);
        }
        let seen = async || {
            let ids = self.client.ids();
            if ids.last() >= Some(&last) {
                Ok(ids)
            } else {
                Err(ids.last().copied())
            }
        };
        eventually("the witness has seen it too", PATIENCE, seen).await
    }

    /// I1: from the first id it saw, this client saw everything so far, in order and once.
    async fn agrees_with(&self, client: &Client) {
        let seen = client.ids();
        let Some(last) = seen.last() else { return };
        let log = self.log(*last).await;
        let so_far: Vec<Id> = log.into_iter().filter(|id| id <= last).collect();
        check::slice_of(&so_far, &client.user, &seen, &[]);
    }

    async fn agrees_with_page(&self, page: &Page) {
        let ids = page.ids();
        let log = self.log(ids.last().copied().unwrap_or_default()).await;
        check::slice_of(&log, &page.user, &ids, &page.life().gaps.clone());
        check::nothing_wrong(page);
    }
}

// ---- joining

async fn there_is_no_seam_between_history_and_what_is_said_while_joining(bus: Bus) {
    let place = Place::start(bus).await;
    let witness = place.witness("lobby").await;
    let mut talkers = vec![
        place.here().join("lobby", "a").await,
        place.there().join("lobby", "b").await,
    ];
    talkers[0].say("first").await;
    let done = Cell::new(false);
    let comers = join_all((0..20).map(|i| {
        let (place, witness) = (&place, &witness);
        async move {
            let (user, token) = (format!("n{i}"), token());
            let mut last: Option<String> = None;
            for round in 0..50 {
                let dyno = fastrand::choice(&place.dynos).expect("there is one");
                let client = dyno
                    .join_with("lobby", &user, &token, last.as_deref())
                    .await;
                sleep(Duration::from_millis(fastrand::u64(0..400))).await;
                assert_eq!(client.welcome["gap"], false, "{}", client.transcript());
                witness.agrees_with(&client).await;
                // Resuming from where it stopped goes on with the very next message.
                if let (Some(before), Some(first)) = (&last, client.ids().first()) {
                    let before: Id = before.parse().expect("an id");
                    let log = witness.log(*first).await;
                    let next = log.iter().find(|id| **id > before);
                    assert_eq!(
                        next,
                        Some(first),
                        "{user} resumed from {before} in round {round}"
                    );
                }
                last = fastrand::bool().then(|| client.last());
            }
        }
    }));
    let watch = async {
        comers.await;
        done.set(true);
    };
    let (said, ()) = tokio::join!(talk_until(&done, &mut talkers), watch);
    assert!(said >= 300, "only {said} messages were said meanwhile");
    for talker in &talkers {
        assert_eq!(
            talker.count_heard(|heard| matches!(heard, Heard::Frame(f) if f["kind"] == "error")),
            0
        );
    }
}

async fn a_free_name_that_many_ask_for_at_once_goes_to_exactly_one(bus: Bus) {
    let place = Place::start(bus).await;
    for round in 0..100 {
        let (room, name) = (format!("room {}", round % 10), format!("name {round}"));
        let mut rivals = vec![];
        for dyno in [place.here(), place.there()].repeat(3) {
            rivals.push(dyno.connect().await);
        }
        let ask = rivals.iter_mut().map(|rival| {
            let frame = join_frame(&room, &name, &token(), None);
            async move {
                rival.send(frame).await;
                let answer = rival
                    .expect_any_within(&["welcome", "error"], PATIENCE)
                    .await;
                assert!(
                    answer["kind"] == "welcome" || answer["code"] == "name_taken",
                    "{answer}"
                );
                usize::from(answer["kind"] == "welcome")
            }
        });
        let won: usize = join_all(ask).await.into_iter().sum();
        assert_eq!(won, 1, "{won} of six won {name:?}");
    }
}

// ---- one person

async fn a_receipt_that_is_cut_off_leaves_one_entry_shown_once_as_sent(bus: Bus) {
    let place = Place::start(bus).await;
    let witness = place.witness("lobby").await;
    let proxy = Proxy::to(place.here().addr()).await; // between page and dyno
    let router = Router::to(&[proxy.addr]);
    let hanako = Page::open(&router, "lobby", "hanako");
    hanako.welcomed().await;
    let mut taro = place.there().join("lobby", "taro").await;
    for i in 0..5 {
        proxy.set(Flow::SwallowAnswers);
        hanako.say(&format!("m{i}"));
        taro.hears(&format!("m{i}")).await; // it is in the log, and hanako does not know
        hanako.drop_connection();
        proxy.set(Flow::Through);
        hanako.all_sent(20 * SECOND).await;
    }
    taro.say("end").await;
    hanako
        .until("the end is shown", PATIENCE, |life| life.shown.len() == 6)
        .await;
    assert_eq!(hanako.texts(), ["m0", "m1", "m2", "m3", "m4", "end"]);
    witness.agrees_with_page(&hanako).await;
    witness.agrees_with(&taro).await;
}

async fn three_tabs_are_one_member_until_the_last_is_gone(bus: Bus) {
    let place = Place::start(bus).await;
    let (here, there) = (place.here(), place.there());
    let mut taro = there.join("lobby", "taro").await;
    let first = here.join("lobby", "hanako").await;
    let token = first.token.clone();
    let second = there.join_with("lobby", "hanako", &token, None).await;
    let third = here.join_with("lobby", "hanako", &token, None).await;
    taro.expect_members(&["hanako", "taro"]).await;
    drop(third);
    first.quit().await; // on two dynos, the last one on its own: the name is released there …
    sleep(2 * SECOND).await;
    taro.expect_members(&["hanako", "taro"]).await; // … and claimed again for the tab on the other
    place.names_are("lobby", &["hanako", "taro"]).await;
    here.join_refused("lobby", "hanako", &crate::support::token(), "name_taken")
        .await;
    drop(second);
    taro.expect_members_within(&["taro"], 30 * SECOND).await;
    place.names_are("lobby", &["taro"]).await;
}

async fn who_returns_while_the_old_socket_is_half_open_has_the_name_at_once(bus: Bus) {
    let place = Place::start(bus).await;
    let mut taro = place.there().join("lobby", "taro").await;
    let base = check::Base::of(place.here()).await;
    let proxy = Proxy::to(place.here().addr()).await;
    let mut old = Client::connect(proxy.addr).await;
    old.join("lobby", "hanako", &token(), None).await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    proxy.set(Flow::Swallow); // as when a train enters a tunnel: no FIN, no reset
    let black = Instant::now();
    taro.say("missed").await;
    let mut back = place
        .there()
        .join_with("lobby", "hanako", &old.token, Some(&old.last()))
        .await;
    assert_eq!(back.history(), ["missed"]);
    back.say("here again").await;
    taro.hears("here again").await;
    // Alone, the one who is back sits on the same dyno.
    let sockets = usize::from(place.dynos.len() == 1);
    base.and(sockets)
        .is_back(place.here(), 56 * SECOND, 5_000)
        .await;
    assert!(
        black.elapsed() > 20 * SECOND,
        "the old socket was noticed to be dead after {:?}",
        black.elapsed()
    );
    sleep(2 * SECOND).await;
    assert_eq!(
        taro.members_frames(),
        lists,
        "it died silently\n{}",
        taro.transcript()
    );
    place.names_are("lobby", &["hanako", "taro"]).await;
}

async fn a_dyno_that_was_frozen_for_longer_than_a_lease_keeps_its_people(bus: Bus) {
    let place = Place::start(bus).await;
    let (mut hanako, mut taro) = (
        place.here().join("lobby", "hanako").await,
        place.here().join("lobby", "taro").await,
    );
    hanako.expect_members(&["hanako", "taro"]).await;
    sleep(8 * SECOND).await; // together with the ice, longer than anyone alive is silent
    place.here().signal(Signal::SIGSTOP);
    sleep(26 * SECOND).await;
    place.here().signal(Signal::SIGCONT);
    sleep(3 * SECOND).await;
    place.here().has_redis().await;
    for client in [&mut hanako, &mut taro] {
        client.say("still here").await;
        assert_eq!(client.members().0, ["hanako", "taro"]);
    }
    place.names_are("lobby", &["hanako", "taro"]).await;
    for name in ["hanako", "taro"] {
        place
            .there()
            .join_refused("lobby", name, &token(), "name_taken")
            .await;
    }
}

// ---- the network

async fn one_who_stops_reading_is_closed_and_delays_nobody(bus: Bus) {
    let place = Place::start(bus).await;
    let (dyno, witness) = (place.here(), place.witness("lobby").await);
    let mut others = vec![];
    for i in 0..50 {
        others.push(dyno.join("lobby", &format!("n{i:02}")).await);
    }
    // Half a second of talk is 25 messages of 3 kB: whoever reads has them at once.
    let mut latencies = async |seconds: u32| {
        let mut took: Vec<Duration> = vec![];
        for i in 0..50 * seconds as usize {
            let start = Instant::now();
            others[i % 50]
                .say(&format!("{i} {}", "あ".repeat(990)))
                .await;
            took.push(start.elapsed());
            sleep((SECOND / 50).saturating_sub(start.elapsed())).await;
        }
        took.sort();
        took[took.len() * 99 / 100]
    };
    let before = latencies(4).await;
    let memory = dyno.rss_kb();
    // A reader with little room in its own kernel, who then stops.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let stream = socket
        .connect(dyno.addr())
        .await
        .expect("the dyno accepts connections");
    let mut slow = Raw::over(stream);
    let token = token();
    slow.send(raw::upgrade_head(&dyno.host(), &[])).await;
    slow.send(raw::frame(
        raw::TEXT,
        join_frame("lobby", "slow", &token, None).to_string(),
    ))
    .await;
    slow.switched().await;
    assert_eq!(slow.json().await["kind"], "welcome");
    let during = latencies(4).await;
    assert!(
        during <= before.max(SECOND / 20) * 3,
        "p99 was {before:?}, and {during:?} beside a slow reader"
    );
    let grown = dyno.rss_kb().saturating_sub(memory);
    assert!(grown < 5_000, "memory grew by {grown} kB");
    // It wakes up within the ten seconds it is given: what it reads is whole and in order, and the reason is told.
    let mut seen: Vec<Id> = vec![];
    let code = loop {
        match slow.frame(PATIENCE).await {
            Ok((raw::TEXT, payload)) => {
                let frame: serde_json::Value =
                    serde_json::from_slice(&payload).expect("whole frames");
                if frame["kind"] == "talk" {
                    seen.push(Id::of(&frame, "id"));
                }
            }
            Ok((raw::CLOSE, payload)) => break u16::from_be_bytes([payload[0], payload[1]]),
            Ok(_) => {}
            Err(end) => panic!("{end:?} after {} messages, and no Close", seen.len()),
        }
    };
    assert_eq!(code, 4008);
    let log = witness.log(*seen.last().expect("it saw something")).await;
    let from = log
        .iter()
        .position(|id| Some(id) == seen.first())
        .expect("it began with a message of the stream");
    assert_eq!(
        seen,
        log[from..from + seen.len()],
        "no hole before the Close"
    );
    let last = log[from + seen.len() - 1].to_string();
    let back = dyno.join_with("lobby", "slow", &token, Some(&last)).await;
    // The outbox is larger than the log, so that much cannot be resumed: then it is told.
    let gaps: Vec<Id> = back
        .ids()
        .first()
        .copied()
        .filter(|_| back.welcome["gap"] == true)
        .into_iter()
        .collect();
    let all: Vec<Id> = seen.iter().copied().chain(back.ids()).collect();
    let log = witness.log(all[all.len() - 1]).await;
    check::slice_of(&log, "slow", &all, &gaps);
}

#[tokio::test]
async fn one_who_never_reads_again_leaves_nothing_behind() {
    let dyno = Dyno::start(&[TALKATIVE]).await;
    let mut talker = dyno.join("lobby", "talker").await;
    let base = check::Base::of(&dyno).await;
    let mut stuck = vec![];
    for i in 0..20 {
        stuck.push(Raw::joined(&dyno, "lobby", &format!("stuck {i}")).await);
    }
    let text = "😀".repeat(1_000);
    // More than the kernels hold between them for each, and the outbox on top of it.
    for _ in 0..2_500 {
        talker.say(&text).await;
    }
    base.is_back(&dyno, 15 * SECOND, 10_000).await;
    assert_eq!(
        talker.count_heard(|heard| matches!(heard, Heard::Close(..))),
        0
    );
    drop(stuck);
}

async fn a_crowd_whose_connections_are_cut_again_and_again_loses_nothing(bus: Bus) {
    let place = Place::start(bus).await;
    let witness = place.witness("lobby").await;
    let mut proxies = vec![];
    for dyno in &place.dynos {
        proxies.push(Proxy::to(dyno.addr()).await); // between pages and dyno
    }
    let router = Router::to(&proxies.iter().map(|p| p.addr).collect::<Vec<_>>());
    let pages: Vec<Page> = (0..40)
        .map(|i| Page::open(&router, "lobby", &format!("n{i:02}")))
        .collect();
    join_all(pages.iter().map(Page::welcomed)).await;
    for round in 0..6 {
        for page in &pages {
            page.say(&format!("{} in round {round}", page.user));
        }
        sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        let proxy = fastrand::choice(&proxies).expect("there is one");
        proxy.set(Flow::Cut);
        sleep(SECOND / 2).await;
        proxy.set(Flow::Through);
        sleep(2 * SECOND).await;
    }
    for page in &pages {
        page.all_sent(30 * SECOND).await;
        page.until("everything is shown", 30 * SECOND, |life| {
            life.shown.len() == 40 * 6
        })
        .await;
        witness.agrees_with_page(page).await;
    }
}

async fn a_page_that_comes_and_goes_for_long_leaves_nothing_behind(bus: Bus) {
    let place = Place::start(bus).await;
    let dyno = place.here();
    let round = async |name: &str| {
        for i in 0..300 {
            let mut client = dyno
                .join(&format!("room {}", i % 100), &format!("{name} {i}"))
                .await;
            if i % 3 == 0 {
                client.say("hello").await;
            }
            if i % 2 == 0 {
                client.quit().await;
            }
        }
    };
    round("first").await;
    sleep(6 * SECOND).await;
    let base = check::Base::of(dyno).await;
    for i in 0..5 {
        round(&format!("again {i}")).await;
    }
    base.is_back(dyno, 15 * SECOND, 3_000).await;
    if let Some(redis) = &place.redis {
        let left = async || {
            let channels: Vec<String> = redis.cmd(&["PUBSUB", "CHANNELS", "chat:*"]);
            if channels.is_empty() {
                Ok(())
            } else {
                Err(channels.len())
            }
        };
        eventually(
            "a dyno with nobody on it listens to no room",
            15 * SECOND,
            left,
        )
        .await;
    }
    timeout(PATIENCE, dyno.join("lobby", "hanako"))
        .await
        .expect("and it goes on");
}
