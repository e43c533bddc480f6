//! SIGTERM: a dyno asks its pages to move, serves them until they have moved, and then ends. Pages have a connection all
//! the time, and lose nothing.

use crate::support::prelude::*;

/// For the limits of a time: the machine may be busy.
const TOLERANCE: Duration = Duration::from_millis(1_500);
/// No message waits until the next `move` for its acknowledgement, also on a busy machine. The times that are printed
/// say how long they really wait.
const ACK: Duration = Duration::from_secs(3);
/// The platform kills a process this long after its SIGTERM.
const KILL: Duration = Duration::from_secs(30);

pub async fn dynos(redis: &Redis, count: usize) -> Vec<Dyno> {
    join_all((0..count).map(|_| Dyno::start_on(redis, &[TALKATIVE]))).await
}

pub async fn members_on(dyno: &Dyno, who: &str, count: usize) -> Vec<Client> {
    let names = (0..count).map(|i| format!("{who} {i:03}"));
    join_all(names.map(async |name| dyno.join("lobby", &name).await)).await
}

/// The dyno closes every client with 1012, and ends.
async fn closes_at_once(dyno: &mut Dyno, clients: &mut [Client]) {
    for client in clients {
        let within = CLOSES_WITHIN + TOLERANCE;
        client.closed_after_all_within(1012, within).await;
    }
    dyno.exits_with_0(EXITS_WITHIN).await;
}

fn spread(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() - 1] - times[0]
}

/// The crowd lost nothing, every page was connected all the time, and no message waited long.
pub async fn noticed_nothing(crowd: &Crowd, redis: &Redis) {
    crowd.lost_nothing(redis, PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    let mut acks = vec![];
    for page in &crowd.pages {
        let life = page.life();
        let (closes, away) = (&life.closes, &life.away);
        let stayed = closes.is_empty() && away.is_empty();
        assert!(stayed, "{}: {closes:?}, away {away:?}", page.user);
        acks.extend(life.ack_times.iter().copied());
    }
    acks.sort();
    let n = acks.len();
    let [p50, p99, most] = [50, 99, 100].map(|share| acks[(n - 1) * share / 100]);
    println!("measured: {n} messages acknowledged in p50 {p50:?}, p99 {p99:?}, at most {most:?}");
    assert!(most < ACK, "an acknowledgement after {most:?}");
}

pub fn moves(crowd: &Crowd) -> usize {
    crowd.pages.iter().map(|page| page.life().moves.len()).sum()
}

// ---- what the dyno does

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
    let redis = Redis::start(&[]).await;
    let mut dynos = dynos(&redis, 2).await;
    let mut hanako = dynos[0].join("lobby", "hanako").await;
    let mut taro = dynos[1].join("lobby", "taro").await;
    taro.say("before").await;
    taro.expect_members(&["hanako", "taro"]).await;
    let lists = taro.members_frames();
    hanako.hears("before").await;
    dynos[0].signal(Signal::SIGTERM);
    hanako.expect_move().await;
    let mut hanako = hanako.move_to(&dynos[1]).await;
    let moved = Instant::now();
    hanako.welcomed_with(json!({"gap": false, "history": [], "users": ["hanako", "taro"]}));
    dynos[0].exits_with_0(PATIENCE).await;
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
        world.dyno.signal(signal);
        closes_at_once(&mut world.dyno, &mut members).await;
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
    world.dyno.signal(Signal::SIGINT);
    closes_at_once(&mut world.dyno, &mut members).await;
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

// ---- what the pages do

#[tokio::test]
async fn pages_of_a_single_dyno_move_to_its_successor_that_listens_eight_seconds_later() {
    let redis = Redis::start(&[]).await;
    let mut dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let crowd = Crowd::gather(&Router::to(&[dyno.addr()]), "lobby", 30).await;
    dyno.signal(Signal::SIGTERM);
    let restart = async {
        sleep(8 * SECOND).await;
        let successor = dyno.successor().await;
        dyno.exits_with_0(10 * SECOND).await;
        successor
    };
    let (_successor, ()) = tokio::join!(restart, crowd.chat(20, 16 * SECOND));
    noticed_nothing(&crowd, &redis).await;
    assert_eq!(moves(&crowd), 30);
}

#[tokio::test]
async fn a_page_stays_while_the_other_dyno_is_full_and_moves_when_it_has_room() {
    const MOST: usize = 60;
    const OPENED: usize = 100;
    let redis = Redis::start(&[]).await;
    let mut a = Dyno::start_on(&redis, &[]).await;
    let b = Dyno::start_on(&redis, &[("MAX_CONNECTIONS", &MOST.to_string())]).await;
    let mut taro = b.join("lobby", "taro").await;
    let mut others = join_all((0..OPENED).map(|_| b.connect())).await;
    let mut refused = 0;
    for (i, other) in others.iter_mut().enumerate() {
        let join = join_frame("library", &format!("n{i}"), &token(), None);
        other.send(join).await;
        let kinds = ["welcome", "error"];
        let answer = other.expect_any_within(&kinds, PATIENCE).await;
        if answer["kind"] == "error" {
            other.expect_close(1013).await;
            refused += 1;
        }
    }
    assert_eq!(refused, OPENED - (MOST - 1), "taro has one of the places");
    let router = Router::to(&[a.addr()]);
    let page = Page::open(&router, "lobby", "hanako");
    page.welcomed().await;
    router.set(&[b.addr()]);
    a.signal(Signal::SIGTERM);
    sleep(2 * MOVE_EVERY).await;
    page.say("not stranded");
    page.all_sent(PATIENCE).await;
    taro.hears("not stranded").await;
    taro.say("undisturbed").await;
    drop(others);
    let moved = |life: &Life| life.moves.len() == 1;
    page.until("it moves", MOVE_EVERY + PATIENCE, moved).await;
    a.exits_with_0(PATIENCE).await;
    page.say("on the other dyno");
    page.all_sent(PATIENCE).await;
    assert!(page.life().closes.is_empty(), "{}", page.summary());
    check::pages_saw_everything(&redis, &[page]);
}

#[tokio::test]
async fn pages_stay_while_redis_is_down_and_move_when_it_is_back() {
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let mut dynos = dynos(&redis, 2).await;
    let router = Router::to(&[dynos[0].addr()]);
    let crowd = Crowd::gather(&router, "lobby", 40).await;
    router.set(&[dynos[1].addr()]);
    // With nowhere to go, everyone is still on the first dyno when Redis goes away.
    dynos[1].signal(Signal::SIGSTOP);
    dynos[0].signal(Signal::SIGTERM);
    sleep(SECOND).await;
    redis.stop().await;
    dynos[1].signal(Signal::SIGCONT);
    crowd.everyone_talks("while Redis is down").await;
    sleep(6 * SECOND).await;
    redis.restart().await;
    dynos[0].exits_with_0(15 * SECOND).await;
    crowd.lost_nothing(&redis, 2 * PATIENCE).await;
    crowd.saw_nobody_come_or_go();
    for page in &crowd.pages {
        let life = page.life();
        let seen = (life.closes.len(), life.moves.len());
        assert_eq!(seen, (0, 1), "{}: {:?}", page.user, life.closes);
    }
}
