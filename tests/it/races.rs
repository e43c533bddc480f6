//! Tests of concurrent events: clients that join while others talk, a lost acknowledgement, one member in several tabs or
//! with a half-open connection, a client that reads too slowly. Each runs on two dynos with one Redis, and on a single
//! process with its messages in memory.

use crate::support::client::talk_until;
use crate::support::prelude::*;
use crate::support::proxy::{Flow, Proxy, narrow_socket};
use std::cell::Cell;

on_both_stores!(
    no_message_is_lost_between_history_and_live_while_joining,
    a_free_name_that_many_claim_at_once_goes_to_exactly_one,
    a_message_whose_ack_is_lost_is_stored_once_and_shown_as_sent,
    three_tabs_are_one_member_until_the_last_is_closed,
    a_member_returns_at_once_while_the_old_connection_is_half_open,
    a_dyno_frozen_for_longer_than_a_lease_keeps_its_members,
    a_client_that_stops_reading_is_closed_and_delays_nobody,
    many_short_visits_leave_nothing_behind,
);

/// Two dynos on one Redis, or a single process that is used as both of them. Fields are dropped in this order.
struct Place {
    second: Option<Dyno>,
    world: World,
}

impl Place {
    async fn start(store: Store) -> Place {
        let world = World::talkative(store).await;
        let second = match &world.redis {
            Some(redis) => Some(Dyno::start_on(redis, &[TALKATIVE]).await),
            None => None,
        };
        Place { second, world }
    }

    fn first(&self) -> &Dyno {
        &self.world.dyno
    }

    fn last(&self) -> &Dyno {
        self.second.as_ref().unwrap_or(self.first())
    }

    /// A client that misses no message in the lobby from now on.
    async fn witness(&self) -> Client {
        self.last().join("lobby", "witness").await
    }

    /// A client or page that saw these messages saw all that the witness did from the first to the last of them, in order
    /// and once, except before `gaps`. Where there is a Redis, the witness agrees with the stream.
    async fn agrees(&self, witness: &Client, user: &str, seen: &[Id], gaps: &[Id]) {
        let Some(last) = seen.last() else { return };
        let ids = eventually("the witness has seen it too", PATIENCE, async || {
            let mut ids = witness.ids();
            ids.retain(|id| id <= last);
            if ids.last() == Some(last) {
                Ok(ids)
            } else {
                Err(ids)
            }
        })
        .await;
        if let Some(redis) = &self.world.redis {
            check::saw_everything_so_far(redis, witness);
        }
        check::slice_of(&ids, user, seen, gaps);
    }
}

// ---- joining

async fn no_message_is_lost_between_history_and_live_while_joining(store: Store) {
    let place = Place::start(store).await;
    let witness = place.witness().await;
    let mut talkers = vec![
        place.first().join("lobby", "a").await,
        place.last().join("lobby", "b").await,
    ];
    talkers[0].say("first").await;
    let done = Cell::new(false);
    let visits = async |i: usize| {
        let (user, token) = (format!("n{i}"), token());
        let mut last: Option<String> = None;
        for _ in 0..50 {
            let dyno = fastrand::choice([place.first(), place.last()]).expect("there is one");
            let client = dyno.join_with("lobby", &user, &token, last.as_deref());
            let client = client.await;
            sleep(Duration::from_millis(fastrand::u64(0..400))).await;
            assert_eq!(client.welcome["gap"], false, "{}", client.context());
            // A client that resumes continues with the very next message.
            let resumed = last.iter().map(|id| Id::parse(id));
            let seen: Vec<Id> = resumed.chain(client.ids()).collect();
            place.agrees(&witness, &user, &seen, &[]).await;
            last = fastrand::bool().then(|| client.last());
        }
    };
    let watch = async {
        join_all((0..20).map(visits)).await;
        done.set(true);
    };
    let (said, ()) = tokio::join!(talk_until(&done, &mut talkers), watch);
    assert!(said >= 300, "only {said} messages were said meanwhile");
    for talker in &talkers {
        let errors = talker.frames("error");
        assert!(errors.is_empty(), "{errors:?}");
    }
}

async fn a_free_name_that_many_claim_at_once_goes_to_exactly_one(store: Store) {
    let place = Place::start(store).await;
    for round in 0..100 {
        let (room, name) = (format!("room {}", round % 10), format!("name {round}"));
        let rivals = [place.first(), place.last()].repeat(3).into_iter();
        let rivals = join_all(rivals.map(Raw::websocket)).await.into_iter();
        let claims = rivals.map(async |mut raw| {
            let join = join_frame(&room, &name, &token(), None);
            raw.send_json(join).await;
            let answer = raw.json().await;
            let won = answer["kind"] == "welcome";
            assert!(won || answer["code"] == "name_taken", "{answer}");
            (won, raw)
        });
        let claims = join_all(claims).await;
        let won = claims.iter().filter(|(won, _)| *won).count();
        assert_eq!(won, 1, "{won} of six won {name:?}");
    }
}

// ---- one member

async fn a_message_whose_ack_is_lost_is_stored_once_and_shown_as_sent(store: Store) {
    let place = Place::start(store).await;
    let witness = place.witness().await;
    let proxy = Proxy::to(place.first().addr()).await; // between page and dyno
    let router = Router::to(&[proxy.addr]);
    let hanako = Page::open(&router, "lobby", "hanako");
    hanako.welcomed().await;
    let mut taro = place.last().join("lobby", "taro").await;
    for i in 0..5 {
        proxy.set(Flow::SwallowAnswers);
        hanako.say(&format!("m{i}"));
        taro.hears(&format!("m{i}")).await; // stored, and hanako does not know it
        proxy.set(Flow::Cut);
        let lost = |life: &Life| !life.connected;
        hanako.until("the connection is lost", PATIENCE, lost).await;
        proxy.set(Flow::Through);
        hanako.all_sent(20 * SECOND).await;
    }
    taro.say("end").await;
    let all = |life: &Life| life.shown.len() == 6;
    hanako.until("the end is shown", PATIENCE, all).await;
    assert_eq!(hanako.texts(), ["m0", "m1", "m2", "m3", "m4", "end"]);
    place.agrees(&witness, "hanako", &hanako.ids(), &[]).await;
    check::nothing_wrong(&hanako);
    place.agrees(&witness, "taro", &taro.ids(), &[]).await;
}

async fn three_tabs_are_one_member_until_the_last_is_closed(store: Store) {
    let place = Place::start(store).await;
    let mut taro = place.last().join("lobby", "taro").await;
    let first = place.first().join("lobby", "hanako").await;
    let tab = async |dyno: &Dyno| dyno.join_with("lobby", "hanako", &first.token, None).await;
    let second = tab(place.last()).await;
    let third = tab(place.first()).await;
    taro.expect_members(&["hanako", "taro"]).await;
    drop(third);
    first.quit().await; // with two dynos, it was the last tab on its dyno, which releases the name
    sleep(2 * SECOND).await;
    taro.expect_members(&["hanako", "taro"]).await; // and the other dyno claims it again for the second tab
    place.world.names_are(&["hanako", "taro"]).await;
    place.first().name_is_taken("lobby", "hanako").await;
    drop(second);
    taro.expect_members_within(&["taro"], 30 * SECOND).await;
    place.world.names_are(&["taro"]).await;
}

async fn a_member_returns_at_once_while_the_old_connection_is_half_open(store: Store) {
    let place = Place::start(store).await;
    let mut taro = place.last().join("lobby", "taro").await;
    let proxy = Proxy::to(place.first().addr()).await;
    let mut old = Client::connect(proxy.addr).await;
    old.join("lobby", "hanako", &token(), None).await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    proxy.set(Flow::Swallow); // neither a FIN nor a reset arrives
    let swallowed = Instant::now();
    taro.say("missed").await;
    let mut back = old.join_again(place.last()).await;
    assert_eq!(back.history(), ["missed"]);
    back.say("here again").await;
    taro.hears("here again").await;
    // A single process has taro's connection and the new one, too.
    let left = if place.second.is_some() { 0 } else { 2 };
    let open = async || place.first().health().await["connections"].clone();
    check::becomes("open connections", SILENCE + 6 * SECOND, json!(left), open).await;
    let after = swallowed.elapsed();
    assert!(after > 20 * SECOND, "it was closed after {after:?}");
    sleep(2 * SECOND).await;
    taro.saw_no_change_since(lists);
    place.world.names_are(&["hanako", "taro"]).await;
}

async fn a_dyno_frozen_for_longer_than_a_lease_keeps_its_members(store: Store) {
    let place = Place::start(store).await;
    let mut hanako = place.first().join("lobby", "hanako").await;
    let mut taro = place.first().join("lobby", "taro").await;
    hanako.expect_members(&["hanako", "taro"]).await;
    // With the time of the freeze, longer than the 30 s after which a dyno takes a silent client for gone.
    sleep(8 * SECOND).await;
    place.first().signal(Signal::SIGSTOP);
    sleep(LEASE + 6 * SECOND).await;
    place.first().signal(Signal::SIGCONT);
    sleep(3 * SECOND).await;
    place.first().has_redis().await;
    for client in [&mut hanako, &mut taro] {
        client.say("still here").await;
        assert_eq!(client.members().0, ["hanako", "taro"]);
    }
    place.world.names_are(&["hanako", "taro"]).await;
    for name in ["hanako", "taro"] {
        place.last().name_is_taken("lobby", name).await;
    }
}

// ---- the network

async fn a_client_that_stops_reading_is_closed_and_delays_nobody(store: Store) {
    let _turn = heavy(2).await;
    let place = Place::start(store).await;
    let (dyno, witness) = (place.first(), place.witness().await);
    let mut others = vec![];
    for i in 0..50 {
        others.push(dyno.join("lobby", &format!("n{i:02}")).await);
    }
    // Fifty messages of 3 kB a second. Gives the 99th percentile of their round trips.
    let mut latencies = async |seconds: u32| {
        let mut took: Vec<Duration> = vec![];
        for i in 0..50 * seconds as usize {
            let start = Instant::now();
            let text = format!("{i} {}", "あ".repeat(990));
            others[i % 50].say(&text).await;
            took.push(start.elapsed());
            sleep((SECOND / 50).saturating_sub(start.elapsed())).await;
        }
        took.sort();
        took[took.len() * 99 / 100]
    };
    let before = latencies(4).await;
    let memory = dyno.rss_kb();
    let token = token();
    let mut slow = Raw::over(narrow_socket(dyno.addr(), 4_096).await);
    slow.send(raw::upgrade_head(&dyno.host(), &[])).await;
    slow.switched().await;
    let join = join_frame("lobby", "slow", &token, None);
    slow.send_json(join).await;
    assert_eq!(slow.json().await["kind"], "welcome");
    let during = latencies(4).await;
    let limit = before.max(SECOND / 10) * 3;
    assert!(during <= limit, "p99 {before:?}, then {during:?}");
    let grown = dyno.rss_kb().saturating_sub(memory);
    assert!(grown < 5_000, "memory grew by {grown} kB");
    // It reads again before the write deadline: it gets whole frames in order, and then the reason.
    let mut seen: Vec<Id> = vec![];
    let code = loop {
        match slow.frame(PATIENCE).await {
            Ok((raw::TEXT, payload)) => {
                let frame: Value = serde_json::from_slice(&payload).expect("whole frames");
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
    place.agrees(&witness, "slow", &seen, &[]).await;
    let last = seen[seen.len() - 1].to_string();
    let back = dyno.join_with("lobby", "slow", &token, Some(&last)).await;
    // The outbox may hold more than the history. Then the client cannot resume, and gets a gap.
    let gap = back.welcome["gap"] == true;
    let gaps: Vec<Id> = back.ids().into_iter().take(usize::from(gap)).collect();
    seen.extend(back.ids());
    place.agrees(&witness, "slow", &seen, &gaps).await;
}

async fn many_short_visits_leave_nothing_behind(store: Store) {
    let place = Place::start(store).await;
    let dyno = place.first();
    let visits = async |name: &str| {
        for i in 0..300 {
            let room = format!("room {}", i % 100);
            let mut client = dyno.join(&room, &format!("{name} {i}")).await;
            if i % 3 == 0 {
                client.say("hello").await;
            }
            if i % 2 == 0 {
                client.quit().await;
            }
        }
    };
    visits("first").await;
    sleep(6 * SECOND).await;
    let base = check::Base::of(dyno).await;
    for i in 0..5 {
        visits(&format!("again {i}")).await;
    }
    base.is_back(dyno, 15 * SECOND, 3_000).await;
    if let Some(redis) = &place.world.redis {
        let channels = async || redis.cmd::<Vec<String>>(&["PUBSUB", "CHANNELS", "chat:*"]);
        check::becomes("rooms that the dyno follows", 15 * SECOND, vec![], channels).await;
    }
    dyno.join("lobby", "hanako").await; // the dyno goes on
}
