//! SIGTERM and SIGINT, as plain clients see them: a dyno asks its members to move, serves them until they have moved, and
//! then ends. What the page does is in `browser/moving.rs`.

use crate::dynos::pair;
use crate::support::prelude::*;
use tokio::net::TcpStream;

/// For the limits of a time: the machine may be busy.
const TOLERANCE: Duration = Duration::from_millis(1_500);
/// The platform kills a process this long after its SIGTERM.
const KILL: Duration = Duration::from_secs(30);

async fn members_on(dyno: &Dyno, who: &str, count: usize) -> Vec<Client> {
    let names = (0..count).map(|i| format!("{who} {i:03}"));
    join_all(names.map(async |name| dyno.join("lobby", &name).await)).await
}

/// The dyno refuses new connections, closes every client with 1012, and ends. The signal may come again: one Ctrl-C can
/// arrive as several SIGINTs, from the terminal and from a process manager.
async fn stops_at_once(case: &str, dyno: &mut Dyno, signal: Signal, clients: &mut [Client]) {
    let asked = Instant::now();
    dyno.signal(signal);
    let refused = async || match TcpStream::connect(dyno.addr()).await {
        Err(_) => Ok(()),
        Ok(_) => Err("accepted"),
    };
    let what = format!("{case}: new connections are refused");
    eventually(&what, SECOND, refused).await;
    assert!(dyno.is_running(), "{case}: it is still closing");
    while asked.elapsed() < SECOND / 2 {
        dyno.signal(signal); // a second SIGINT after a second would end it at once
        sleep(SECOND / 10).await;
    }
    for client in clients {
        let left = (CLOSES_WITHIN + TOLERANCE).saturating_sub(asked.elapsed());
        let reason = client.closed_after_all_within(1012, left).await;
        assert!(!reason.is_empty(), "{case}: a page shows the reason");
    }
    let left = (EXITS_WITHIN + TOLERANCE).saturating_sub(asked.elapsed());
    dyno.exits_with_0(left).await;
}

fn spread(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() - 1] - times[0]
}

#[tokio::test]
async fn members_are_asked_to_move_again_and_again_and_closed_after_the_grace() {
    let mut world = World::talkative(Store::Redis).await; // with the default of GRACE_SECONDS
    let mut members = members_on(&world.dyno, "n", 100).await;
    let mut silent = vec![]; // do not even answer a Close
    for i in 0..5 {
        silent.push(Raw::joined(&world.dyno, "library", &format!("n{i}")).await);
    }
    let stopped = Instant::now();
    world.dyno.signal(Signal::SIGTERM);
    for member in &mut members {
        member.expect_move().await;
    }
    let asked = stopped.elapsed();
    assert!(asked < ASKED_TO_MOVE_WITHIN, "{asked:?}");
    for text in ["first", "second", "third"] {
        members[0].say(text).await;
        for member in &mut members[1..] {
            member.hears(text).await;
        }
        world.dyno.signal(Signal::SIGTERM); // changes nothing
        sleep(MOVE_EVERY).await;
    }
    sleep((GRACE - SECOND).saturating_sub(stopped.elapsed())).await;
    members[0].say("still served").await;
    let mut firsts = vec![];
    for member in &members {
        assert_eq!(member.count_heard(Heard::is_end), 0);
        let times = member.heard_at(|heard| heard.frame(&["move"]).is_some());
        assert!((6..=7).contains(&times.len()), "{times:?}");
        let pause = times[1] - times[0];
        assert!(pause.abs_diff(MOVE_EVERY) < TOLERANCE, "{times:?}");
        firsts.push(times[0]);
    }
    let firsts = spread(firsts); // a hundred pages in steps of 20 ms
    assert!(firsts > SECOND / 2, "spread over {firsts:?}");

    let mut closes = vec![];
    for member in &mut members {
        member.closed_after_all_within(1012, 6 * SECOND).await;
        closes.extend(member.heard_at(|heard| matches!(heard, Heard::Close(..))));
    }
    let within = KILL.saturating_sub(stopped.elapsed());
    world.dyno.exits_with_0(within).await;
    assert!(stopped.elapsed() > GRACE, "{:?}", stopped.elapsed());
    let closes = spread(closes);
    let expected = SECOND..CLOSES_WITHIN;
    assert!(expected.contains(&closes), "spread over {closes:?}");
}

#[tokio::test]
async fn a_join_on_a_stopping_dyno_is_answered_by_welcome_and_then_move() {
    let mut world = World::talkative(Store::Redis).await;
    let mut clients = join_all((0..20).map(|_| world.dyno.connect())).await;
    let mut silent = world.dyno.connect().await;
    let join = async |client: &mut Client| {
        let join = join_frame("lobby", &token()[..8], &token(), None);
        client.send(join).await;
    };
    for client in &mut clients[..10] {
        join(client).await; // the signal comes while these are being answered
    }
    world.dyno.signal(Signal::SIGTERM);
    sleep(SECOND).await; // the first round of `move` frames is over
    for client in &mut clients[10..] {
        join(client).await;
    }
    for client in &mut clients {
        client.joined().await;
        client.expect_kind("move").await;
    }
    assert!(silent.frames("move").is_empty(), "it has not joined");
    drop(clients);
    silent.expect_close(4400).await; // after the join deadline, as ever
    world.dyno.exits_with_0(PATIENCE).await;
}

#[tokio::test]
async fn the_dyno_ends_when_its_last_member_has_moved_and_nobody_sees_a_change() {
    let (mut old, next, redis) = pair().await;
    let mut hanako = old.join("lobby", "hanako").await;
    let mut taro = next.join("lobby", "taro").await;
    taro.say("before").await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    hanako.hears("before").await;
    old.signal(Signal::SIGTERM);
    hanako.expect_move().await;
    let mut hanako = hanako.move_to(&next).await;
    let moved = Instant::now();
    hanako.welcomed_with(json!({"gap": false, "history": [], "users": ["hanako", "taro"]}));
    old.exits_with_0(PATIENCE).await;
    hanako.say("after").await;
    taro.hears("after").await;
    sleep((GONE + SECOND).saturating_sub(moved.elapsed())).await; // a lease that was not renewed would have ended
    taro.saw_no_change_since(lists);
    check::names_are(&redis, "lobby", &["hanako", "taro"]).await;
    check::saw_everything(&redis, &hanako);
    check::saw_everything(&redis, &taro);
}

#[tokio::test]
async fn without_grace_without_redis_and_on_sigint_members_are_closed_at_once() {
    let cases = [
        (
            "grace of 0",
            Store::Redis,
            Some(("GRACE_SECONDS", "0")),
            Signal::SIGTERM,
        ),
        ("SIGINT", Store::Redis, None, Signal::SIGINT),
        ("no Redis", Store::Memory, None, Signal::SIGTERM),
        ("Redis is down", Store::Redis, None, Signal::SIGTERM),
    ];
    join_all(cases.map(async |(case, store, vars, signal)| {
        let mut world = World::start(store, vars.as_slice()).await;
        let mut members = members_on(&world.dyno, case, 50).await;
        if let ("Redis is down", Some(redis)) = (case, &mut world.redis) {
            redis.stop().await;
            for member in &mut members {
                member.expect_redis("down", REDIS_KNOWN_WITHIN).await;
            }
        }
        stops_at_once(case, &mut world.dyno, signal, &mut members).await;
        for member in members {
            assert!(member.frames("move").is_empty(), "{}", member.context());
        }
    }))
    .await;
}

#[tokio::test]
async fn sigint_during_a_move_closes_at_once() {
    let mut world = World::talkative(Store::Redis).await;
    let mut members = members_on(&world.dyno, "n", 20).await;
    world.dyno.signal(Signal::SIGTERM);
    for member in &mut members {
        member.expect_move().await;
    }
    let case = "during a move";
    stops_at_once(case, &mut world.dyno, Signal::SIGINT, &mut members).await;
}

#[tokio::test]
async fn a_second_sigint_after_a_second_ends_the_process_at_once() {
    let mut dyno = Dyno::start(&[]).await;
    let members = members_on(&dyno, "n", 150).await;
    dyno.signal(Signal::SIGINT);
    sleep(Duration::from_millis(1_200)).await;
    dyno.signal(Signal::SIGTERM);
    sleep(SECOND / 10).await;
    assert!(dyno.is_running(), "SIGTERM is not SIGINT");
    dyno.signal(Signal::SIGINT);
    dyno.exit(SECOND / 2).await;
    let is_closed = |client: &&Client| client.count_heard(|h| matches!(h, Heard::Close(..))) > 0;
    let closed = members.iter().filter(is_closed).count();
    assert!((1..150).contains(&closed), "{closed} of 150 were closed");
}

#[tokio::test]
async fn sockets_without_a_complete_request_are_closed_soon_after_sigterm() {
    let mut world = World::talkative(Store::Redis).await;
    let dyno = &mut world.dyno;
    let mut idle = join_all((0..10).map(|_| Raw::connect(dyno.addr()))).await;
    let begin = "GET / HTTP/1.1\r\n";
    let mut begun = Raw::request(dyno.addr(), begin).await;
    let mut incomplete = Raw::request(dyno.addr(), begin).await;
    dyno.has_redis().await; // the dyno has accepted them
    let stopped = Instant::now();
    dyno.signal(Signal::SIGTERM);
    for socket in &mut idle {
        let (bytes, _) = socket.rest(SECOND / 2).await;
        assert_eq!(bytes, b"");
    }
    begun.send(format!("Host: {}\r\n\r\n", dyno.host())).await;
    assert_eq!(begun.answer().await.status, 200);
    // Heads that never end must not delay the exit until their deadline, 10 s.
    incomplete.send("Host: a\r\n").await;
    assert_eq!(incomplete.answer().await.status, 408);
    let took = stopped.elapsed();
    assert!((SECOND / 2..3 * SECOND).contains(&took), "{took:?}");
    drop((begun, incomplete));
    dyno.exits_with_0(SECOND / 2).await;
}

#[tokio::test]
async fn heads_that_arrive_in_time_are_answered_although_the_machine_stalls() {
    let mut world = World::talkative(Store::Redis).await;
    let dyno = &mut world.dyno;
    let begin = || Raw::request(dyno.addr(), "GET / HTTP/1.1\r\n");
    let mut begun = join_all((0..20).map(|_| begin())).await;
    dyno.has_redis().await; // the dyno has accepted them
    dyno.signal(Signal::SIGTERM);
    sleep(SECOND / 4).await; // its last second for them has begun
    dyno.signal(Signal::SIGSTOP);
    for raw in &mut begun {
        raw.send("Host: a\r\n\r\n").await;
    }
    sleep(SECOND).await;
    dyno.signal(Signal::SIGCONT);
    for mut raw in begun {
        assert_eq!(raw.answer().await.status, 200);
    }
    dyno.exits_with_0(SECOND / 2).await;
}

#[tokio::test]
async fn spread_ms_grows_with_the_most_connections_that_the_dyno_had() {
    let dyno = Dyno::start(&[]).await;
    let spread_ms = async |name: &str| {
        let client = dyno.join("lobby", name).await;
        client.welcome["spread_ms"].as_u64()
    };
    assert_eq!(spread_ms("first").await, Some(*SPREAD_MS.start()));
    let many = members_on(&dyno, "n", 100).await;
    let expected = Some(101 * SPREAD_MS_PER_CONNECTION);
    assert_eq!(spread_ms("hundred and first").await, expected);
    drop(many);
    dyno.health_becomes("connections", 0).await;
    assert_eq!(spread_ms("alone").await, expected, "the most so far");
}
