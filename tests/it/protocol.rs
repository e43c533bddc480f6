//! The wire protocol, without and with Redis: what a welcome holds, what happens to a message, who owns a name, and the
//! answer to everything that a page must not send.

use crate::support::broken_frames::{bad_messages, ping_of_length};
use crate::support::check::becomes;
use crate::support::prelude::*;
use crate::support::raw::{CLOSE, End, TEXT, close_payload, frame};
use std::time::{Duration, Instant, SystemTime};
use tokio_tungstenite::tungstenite::Message;

on_both_stores!(
    // the welcome
    a_welcome_has_every_field_that_a_page_needs,
    the_server_makes_a_token_only_for_a_join_without_one,
    a_welcome_has_every_message_after_the_last_id_or_a_gap,
    a_room_full_of_the_longest_messages_can_be_joined,
    // talks
    everyone_receives_the_same_frame_for_a_talk,
    texts_are_trimmed_and_checked,
    a_talk_sent_again_is_shown_once_and_acknowledged_to_its_sender_only,
    rooms_are_separate,
    talks_above_the_rate_limit_get_slow_down,
    twenty_refused_talks_in_a_row_close_the_connection,
    // names and rooms
    invalid_names_and_rooms_are_refused,
    names_of_many_scripts_are_valid_and_those_that_fold_alike_are_the_same,
    a_name_stays_leased_for_a_while_after_its_connection_ends,
    members_see_who_joins_and_whose_last_tab_leaves,
    a_list_of_members_is_cut_at_its_maximum_but_the_count_is_exact,
    // frames that a page must not send
    the_third_bad_message_closes_the_connection,
    a_second_join_a_late_join_and_a_talk_before_the_join_end_the_connection_with_4400,
    unusual_frames_are_accepted_and_pings_answered_before_and_after_the_join,
);

fn id(frame: &Value) -> &str {
    let id = frame["id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {frame}"))
}

// ---- the welcome

async fn a_welcome_has_every_field_that_a_page_needs(store: Store) {
    let world = World::start(store, &[]).await;
    let token = token();
    let hanako = world.resume("花子", &token, None).await;
    let mut welcome = hanako.welcome.clone();
    let boot = welcome["boot"].take();
    assert!(boot.as_str().is_some_and(|id| id.len() >= 8), "{boot}");
    let expected = json!({
        "kind": "welcome",
        "room": "lobby",
        "user": "花子",
        "token": token,
        "dyno": "local",
        "boot": null,
        "last": "0-0",
        "gap": false,
        "history": [],
        "users": ["花子"],
        "count": 1,
        "tick_ms": HEARTBEAT.as_millis() as u64,
        "max_message": MAX_MESSAGE,
        "spread_ms": *SPREAD_MS.start(),
    });
    assert_eq!(welcome, expected, "these fields and no others");
}

async fn the_server_makes_a_token_only_for_a_join_without_one(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.dyno.connect().await;
    let join = json!({"kind": "join", "room": "lobby", "user": "花子"});
    hanako.send(join).await;
    hanako.joined().await;
    let made = hanako.token.clone();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // 22 characters of base64 carry 128 bits.
    assert!((22..=*TOKEN.end()).contains(&made.len()), "{made:?}");
    assert!(made.chars().all(allowed), "{made:?}");
    world.name_is_taken("花子").await;
    world.resume("花子", &made, None).await;
    let longest = "x-_Y".repeat(TOKEN.end() / 4);
    for given in ["0123456789abcdef", &longest] {
        let user = format!("n{}", given.len());
        let client = world.resume(&user, given, None).await;
        assert_eq!(client.token, given, "{} characters", given.len());
    }
}

async fn a_welcome_has_every_message_after_the_last_id_or_a_gap(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let taros = token();
    let resume = async |last: Option<&str>, gap: bool, history: &[Value], newest: &str| {
        let user = format!("太郎 {}", last.unwrap_or_default());
        let taro = world.resume(&user, &taros, last).await;
        taro.welcomed_with(json!({"gap": gap, "history": history, "last": newest}));
        world.saw_everything(&taro);
        taro
    };
    for last in [None, Some("0-0")] {
        resume(last, false, &[], "0-0").await;
    }
    let few = hanako.say_many(60).await;
    let (newest, shown) = (id(&few[59]), &few[60 - NEWCOMER..]);
    resume(None, false, shown, newest).await;
    resume(Some("0-0"), false, &few, newest).await;
    resume(Some(newest), false, &[], newest).await;
    resume(Some("1-1"), true, shown, newest).await;
    // The welcome's last id is the new baseline, also when it is lower.
    resume(Some("99999999999999-0"), true, shown, newest).await;

    // The oldest messages are trimmed.
    let many = hanako.say_many(HISTORY + 500).await;
    let (older, kept) = many.split_at(HISTORY);
    let (newest, shown) = (id(&kept[499]), &kept[500 - NEWCOMER..]);
    resume(None, false, shown, newest).await;
    resume(Some("0-0"), true, shown, newest).await;
    resume(Some(id(&older[0])), true, shown, newest).await;
    let last = Some(id(&older[HISTORY - 1]));
    let mut taro = resume(last, false, kept, newest).await;
    hanako.say("after").await;
    taro.hears("after").await;
    world.saw_everything(&hanako);
    world.saw_everything(&taro);
}

async fn a_room_full_of_the_longest_messages_can_be_joined(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let mut said = vec![];
    for i in 0..120 {
        let text = format!("{i:03}{}", "😀".repeat(MAX_MESSAGE - 3));
        said.push(hanako.say(&text).await);
    }
    let mut taro = world.join("太郎").await;
    let shown = taro.history().len();
    assert!((10..=NEWCOMER).contains(&shown), "{shown} messages");
    taro.welcomed_with(json!({"history": said[120 - shown..]}));
    let token = taro.token.clone();
    taro.say("ここにいる").await;
    hanako.hears("ここにいる").await;
    taro.quit().await;
    let last = Some(id(&said[114]));
    let back = world.resume("太郎", &token, last).await;
    back.welcomed_with(json!({"gap": false}));
    assert_eq!(back.history().len(), 6, "five long ones and the short one");
    back.quit().await;
    world.saw_everything(&hanako);
}

// ---- talks

async fn everyone_receives_the_same_frame_for_a_talk(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    let mut taro = world.join("太郎").await;
    let (text, cid) = ("こんにちは", "3f2a9c0d11e04b57");
    let sent =
        json!({"kind": "talk", "message": text, "cid": cid, "user": "太郎", "id": "9-9", "x": 1});
    hanako.send(sent).await;
    let own = hanako.hears(text).await;
    assert_eq!(taro.hears(text).await, own);
    let expected =
        json!({"kind": "talk", "message": text, "cid": cid, "user": "花子", "id": id(&own)});
    assert_eq!(own, expected, "these fields and no others");
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    let age = now.as_millis() as i64 - Id::of(&own, "id").0 as i64;
    assert!((-2_000..60_000).contains(&age), "the id is {age} ms old");

    let html = "<b>&amp;</b>";
    let bidi = "עברית \u{202e}abc";
    for text in [html, bidi, "a\tb\nc", "\\ \" \u{2028} /", "👩‍👩‍👧‍👦"] {
        taro.say(text).await;
        hanako.hears(text).await;
    }
    world.saw_everything(&hanako);
    world.saw_everything(&taro);
}

async fn texts_are_trimmed_and_checked(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let longest = ["😀", "a", "あ"].map(|text| text.repeat(MAX_MESSAGE));
    let padded = format!("  {}\r\n ", longest[0]);
    for (sent, shown) in [
        ("  a  b\t", "a  b"),
        ("\r\none\r\ntwo\r\n\r\n", "one\ntwo"),
        ("\u{3000}全角\u{3000}", "全角"),
        ("\n\n a\n\n b \n", "a\n\n b"),
        ("a\r\n\r\nb", "a\n\nb"),
        (&padded, &longest[0]),
        (&longest[1], &longest[1]),
        (&longest[2], &longest[2]),
    ] {
        hanako.talk(sent).await;
        hanako.hears(shown).await;
    }
    let combined = "e\u{301}".repeat(MAX_MESSAGE / 2 + 1);
    let [emoji, ascii, _] = longest.map(|text| text + "x");
    let control = "a\0b|\u{1b}[31m|a\u{7f}b|a\u{85}b|a\rb|a\u{8}|\0";
    for (code, texts) in [
        ("too_long", vec![&*emoji, &ascii, &combined]),
        ("empty", vec!["", " ", "\t\r\n \u{3000}", "\u{200b}"]),
        ("bad_message", control.split('|').collect()),
    ] {
        for text in texts {
            // A new connection each, because the third bad message closes it.
            let mut hanako = world.resume("花子", &hanako.token, None).await;
            hanako.talk_refused(text, code).await;
            hanako.say("the connection is still open").await;
        }
    }
}

async fn a_talk_sent_again_is_shown_once_and_acknowledged_to_its_sender_only(store: Store) {
    let world = World::talkative(store).await;
    let mut taro = world.join("太郎").await;
    let mut hanako = world.join("花子").await;
    let token = hanako.token.clone();
    hanako.talk_as("precious", "c1").await;
    let said = hanako.hears("precious").await;
    let after = hanako.say("after").await;
    drop(hanako);

    // These resume from the talk or a later one: the welcome does not hold it, so the resend is answered with it.
    for last in [id(&said), id(&after)] {
        let mut back = world.resume("花子", &token, Some(last)).await;
        back.talk_as("precious", "c1").await;
        assert_eq!(back.hears("precious").await, said, "from {last}");
    }
    // A newcomer's history holds it: the resend is not answered.
    let mut tab = world.resume("花子", &token, None).await;
    tab.talk_as("precious", "c1").await;
    tab.settle().await;
    // It is older than a newcomer's history: the resend is answered.
    tab.say_many(60).await;
    let mut late = world.resume("花子", &token, None).await;
    assert!(!late.history().contains(&"precious".to_string()));
    late.talk_as("another text", "c1").await; // the answer is what was stored
    assert_eq!(late.hears("precious").await, said);
    // Its echo comes on this connection: the resend is not answered.
    late.talk_as("new", "c2").await;
    late.talk_as("new", "c2").await;
    late.hears("new").await;
    late.talk_as("new", "c2").await;
    late.talk_as("another text", "c2").await;
    late.say("end").await; // fails if another talk comes before it

    taro.hears_all(&["precious", "after"]).await;
    for i in 1..=60 {
        taro.hears(&format!("m{i}")).await;
    }
    taro.hears_all(&["new", "end"]).await;
    // Equal cids of two members are two talks.
    taro.talk_as("his", "c2").await;
    taro.hears("his").await;
    late.hears("his").await;
    world.saw_everything(&taro);
}

async fn rooms_are_separate(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    let mut other = world.dyno.join("library", "花子").await; // another token: names belong to rooms
    hanako.say("in the lobby").await;
    other.say("in the library").await; // fails if another talk comes before it
    hanako.say("in the lobby again").await;
    let taro = world.dyno.join("library", "太郎").await;
    assert_eq!(taro.history(), ["in the library"]);
    assert_eq!(hanako.members().0, ["花子"]);
}

async fn talks_above_the_rate_limit_get_slow_down(store: Store) {
    const TALKS: usize = TALK_BURST + 15;
    let world = World::start(store, &[]).await;
    let (mut hanako, start) = (world.join("花子").await, Instant::now());
    let cids: Vec<String> = (0..TALKS).map(|_| cid()).collect();
    for cid in &cids {
        hanako.talk_as(cid, cid).await;
    }
    let (mut answers, kinds) = (vec![], ["talk", "error"]);
    for _ in 0..TALKS {
        answers.push(hanako.expect_any_within(&kinds, PATIENCE).await);
    }
    let is_talk = |answer: &Value| answer["kind"] == "talk";
    let (said, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(is_talk);
    let most = burst_after(start);
    assert!((TALK_BURST..=most).contains(&said.len()), "{said:?}");
    let mut longest = 0;
    for error in &refused {
        assert_eq!(error["code"], "slow_down", "{error}");
        assert!(cids.iter().any(|cid| error["cid"] == **cid), "{error}");
        let retry_ms = error["retry_ms"].as_u64();
        longest = longest.max(retry_ms.expect("slow_down has a retry_ms"));
    }
    assert!((1..=10_000).contains(&longest), "{longest} ms");
    sleep(Duration::from_millis(longest)).await;
    let again = refused[0]["cid"].as_str().expect("the refused talk");
    hanako.talk_as(again, again).await;
    hanako.hears(again).await;
}

async fn twenty_refused_talks_in_a_row_close_the_connection(store: Store) {
    let world = World::start(store, &[]).await;
    let mut taro = world.join("太郎").await;
    let (mut hanako, start) = (world.join("花子").await, Instant::now());
    let mut cids = vec![];
    for _ in 0..100 {
        cids.push(hanako.talk("flood").await);
    }
    let reason = hanako.closed_after_all(4429).await;
    assert!(!reason.is_empty(), "a page can show the reason");
    let most = burst_after(start);
    let (said, refused) = (hanako.frames("talk"), hanako.frames("error"));
    let is_refused = |cid: &String| refused.iter().any(|error| error["cid"] == **cid);
    let runs = cids.split(|cid| !is_refused(cid)).map(<[String]>::len);
    let longest = runs.max().unwrap_or(0);
    // The Close may take the place of the last error.
    let in_a_row = TALK_REFUSALS - 1..=TALK_REFUSALS;
    assert!(in_a_row.contains(&longest), "{longest} refused in a row");
    taro.talk("静か").await;
    let mut heard: Vec<Value> = vec![];
    while heard.last().is_none_or(|last| last["message"] != "静か") {
        heard.push(taro.expect_kind("talk").await);
    }
    let flood = heard.len() - 1;
    assert!((TALK_BURST..=most).contains(&flood), "{flood} of {most}");
    // Acknowledgements that the Close overtook come with the next welcome.
    assert!(heard.starts_with(&said), "{said:?}");
    let back = hanako.reconnect(&world.dyno).await;
    back.welcomed_with(json!({"history": heard[said.len()..]}));
}

/// The most talks that the rate limit allows after a join at `start`.
fn burst_after(start: Instant) -> usize {
    TALK_BURST + (start.elapsed().as_secs_f64() * TALK_REFILL).ceil() as usize
}

// ---- names and rooms

async fn invalid_names_and_rooms_are_refused(store: Store) {
    let world = World::start(store, &[]).await;
    let dyno = &world.dyno;
    let (longest, longest_room) = ("い".repeat(MAX_NAME), "あ".repeat(MAX_ROOM));
    let (long, long_room) = (longest.clone() + "い", longest_room.clone() + "あ");
    let very_long = "x".repeat(2_000);
    let mut refused = vec![
        ("lobby", &*long, "bad_name"),
        ("lobby", &*very_long, "bad_name"),
        (&*long_room, "花子", "bad_room"),
    ];
    // One of each kind. The tests of `src/protocol/name.rs` have the others.
    for bad in "|\u{202e}oraT|a\u{1b}[31m|a\nb|a{b}|<img onerror=x>|---|a😀".split('|') {
        refused.extend([("lobby", bad, "bad_name"), (bad, "花子", "bad_room")]);
    }
    for (room, user, code) in refused {
        dyno.join_refused(room, user, &token(), code).await;
    }
    // What a client sends is not logged as it is.
    let log = dyno.log();
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!log.contains(control), "{log}");
    for bad in ["oraT", "<img"] {
        assert!(!log.contains(bad), "{bad:?} in the log:\n{log}");
    }
    let mut first = dyno.join(&longest_room, &longest).await;
    assert_eq!(first.user, longest);
    first.say("ok").await;
}

async fn names_of_many_scripts_are_valid_and_those_that_fold_alike_are_the_same(store: Store) {
    let world = World::start(store, &[]).await;
    let scripts = "花子|Ｔａｒｏ|José|हिन्दी|עברית|ﾊﾅｺ|１２３４|O.K-_9|O’Hara|ジャン・レノ";
    let names = scripts.split('|').map(|name| (name, name));
    for (asked, shown) in names.chain([
        (" taro yamada ", "taro yamada"),
        ("山田　太郎", "山田 太郎"),
        ("Ann  \u{a0}Lee", "Ann Lee"),
    ]) {
        let client = world.join(asked).await;
        assert_eq!(client.user, shown);
        client.quit().await;
    }
    // Rooms are shown folded.
    for (asked, folded) in [
        (" Ｌｏｂｂｙ One ", "lobby one"),
        ("部屋　　Ａ", "部屋 a"),
        ("O'Brien・Straße", "o'brien・strasse"),
    ] {
        let client = world.dyno.join(asked, "花子").await;
        client.welcomed_with(json!({"room": folded}));
    }
    // Names and rooms that fold alike are the same.
    let mut taro = world.dyno.join("Lobby", "Ｔａｒｏ").await;
    taro.welcomed_with(json!({"room": "lobby", "user": "Ｔａｒｏ"}));
    for alike in ["taro", "TARO", "ｔＡｒo"] {
        world.dyno.name_is_taken("LOBBY", alike).await;
    }
    let token = taro.token.clone();
    let dyno = &world.dyno;
    let mut tab = dyno.join_with("ｌｏｂｂｙ", "taro", &token, None).await;
    assert_eq!(tab.user, "Ｔａｒｏ", "shown as first claimed");
    tab.talk("hi").await;
    assert_eq!(taro.hears("hi").await["user"], "Ｔａｒｏ");
    let _strasse = world.join("Straße").await;
    world.name_is_taken("STRASSE").await;
    let mut one = dyno.join("Straße A", "花子").await;
    let mut other = dyno.join("STRASSE　 a", "太郎").await;
    other.say("one room").await;
    one.hears("one room").await;
}

async fn a_name_stays_leased_for_a_while_after_its_connection_ends(store: Store) {
    let world = World::start(store, &[]).await;
    let mut taro = world.join("太郎").await;
    let hanako = world.join("花子").await;
    taro.expect_members(&["太郎", "花子"]).await;
    let (token, last) = hanako.vanish().await;
    sleep(LEASE * 3 / 5).await;
    world.name_is_taken("花子").await;
    assert_eq!(taro.members().1, 2, "shown as gone within the lease");
    // Back in time, and then twenty fast reloads: the lease starts again, and the others see no change.
    let mut hanako = world.resume("花子", &token, Some(&last)).await;
    for _ in 0..20 {
        drop(hanako);
        hanako = world.resume("花子", &token, None).await;
        assert_eq!(hanako.members().0, ["太郎", "花子"]);
    }
    sleep(2 * SECOND).await;
    taro.saw_no_change_since(1);
    drop(hanako);
    let gone_again = Instant::now();
    let within = GONE + 4 * SECOND;
    taro.expect_members_within(&["太郎"], within).await;
    let shown_for = gone_again.elapsed();
    assert!(shown_for > LEASE / 2, "gone after {shown_for:?}");
    world.join("花子").await; // with another token
    world.names_are(&["太郎", "花子"]).await;
}

async fn members_see_who_joins_and_whose_last_tab_leaves(store: Store) {
    let world = World::start(store, &[]).await;
    let (two, three) = (["hanako", "taro"], ["hanako", "jiro", "taro"]);
    let soon = MEMBERS_SHOWN_WITHIN;
    let mut taro = world.join("taro").await;
    let mut hanako = world.join("hanako").await;
    hanako.welcomed_with(json!({"users": two, "count": 2})); // sorted
    taro.expect_members_within(&two, soon).await;
    let jiro = world.join("jiro").await;
    taro.expect_members_within(&three, soon).await;
    hanako.expect_members_within(&three, soon).await;
    world.names_are(&three).await;
    world.name_is_taken("jiro").await;
    let tab = world.resume("jiro", &jiro.token, None).await;
    tab.welcomed_with(json!({"users": three, "count": 3}));
    tab.quit().await;
    world.name_is_taken("jiro").await;
    taro.saw_no_change_since(2);
    jiro.quit().await;
    taro.expect_members_within(&two, soon).await;
    hanako.expect_members_within(&two, soon).await;
    let frames = taro.members_frames();
    sleep(RENEWAL + 2 * SECOND).await;
    taro.saw_no_change_since(frames); // a list is sent only when it changed
    for _ in 0..3 {
        world.join("jiro").await.quit().await; // a new token each time
    }
    world.dyno.connect().await.quit().await; // before the join
}

async fn a_list_of_members_is_cut_at_its_maximum_but_the_count_is_exact(store: Store) {
    const MEMBERS: usize = MAX_LIST + 5;
    let _turn = crate::support::heavy(2).await;
    let world = World::start(store, &[]).await;
    let all: Vec<String> = (0..MEMBERS).map(|i| format!("n{i:03}")).collect();
    let mut clients = vec![];
    for name in &all {
        clients.push(world.join(name).await);
    }
    let seen_by = |client: &Client| {
        let (users, count) = client.members();
        assert!(users.is_sorted(), "{users:?}");
        assert!(users.iter().all(|user| all.contains(user)), "{users:?}");
        (users.len(), count)
    };
    let expected = (MAX_LIST, MEMBERS as u64);
    assert_eq!(seen_by(&clients[MEMBERS - 1]), expected);
    let what = "the first client knows the count";
    becomes(what, PATIENCE, expected, async || seen_by(&clients[0])).await;
    let frames = clients[0].members_frames();
    assert!(frames <= 60, "{frames} lists for {MEMBERS} joins");
}

// ---- frames that a page must not send

/// The texts of a frame, each with one invalid value of one field.
fn with_each(valid: &Value, invalid: &Value) -> Vec<String> {
    let mut texts = vec![];
    for (field, values) in invalid.as_object().expect("fields") {
        for value in values.as_array().expect("values") {
            let mut frame = valid.clone();
            frame[field] = value.clone();
            texts.push(frame.to_string());
        }
    }
    texts
}

async fn the_third_bad_message_closes_the_connection(store: Store) {
    let world = World::start(store, &[]).await;
    let dyno = &world.dyno;
    let word = |length: usize| "x".repeat(length);
    let talk = json!({"kind": "talk", "message": "a", "cid": "c"});
    let join = join_frame("lobby", "花子", &token(), None);
    let invalid_talk = json!({
        "kind": ["shout", 5, null, ["talk"]],
        "message": [5, null, ["a"], "\0"],
        "cid": [null, 5, "", word(MAX_CID + 1), "a b", "ä"],
    });
    let invalid_join = json!({
        "token": [5, word(TOKEN.start() - 1), word(TOKEN.end() + 1), "0123456789abcde "],
        "last": [5, "", "abc", "1-", "-1", "1-x", "1", "99999999999999999999999-0"],
        "room": [5, null],
        "user": [5, null, ["花子"]],
    });
    let mut texts = bad_messages();
    texts.extend(with_each(&talk, &invalid_talk));
    let after_join = texts.iter().map(|text| (true, text));
    let joins = with_each(&join, &invalid_join);
    let all = after_join.chain(joins.iter().map(|text| (false, text)));
    join_all(all.enumerate().map(async |(i, (joined, text))| {
        let mut client = dyno.connect().await;
        if joined {
            let room = format!("room {i}"); // a message that is accepted is heard by its sender only
            client.join(&room, "花子", &token(), None).await;
        }
        for _ in 0..BAD_MESSAGES {
            client.send_text(text).await;
        }
        client.user = text.chars().take(200).collect(); // for the failure message
        for _ in 0..BAD_MESSAGES {
            client.expect_error("bad_message").await;
        }
        client.expect_close(4400).await;
    }))
    .await;
    // After two of them, the connection serves on.
    let mut patient = dyno.connect().await;
    patient.send_text(&joins[0]).await;
    patient.expect_error("bad_message").await;
    patient.join("lobby", "花子", &token(), None).await;
    patient.send_text("hello").await;
    patient.expect_error("bad_message").await;
    patient.say("after two bad messages").await;
}

async fn a_second_join_a_late_join_and_a_talk_before_the_join_end_the_connection_with_4400(
    store: Store,
) {
    let world = World::start(store, &[]).await;
    let start = Instant::now();
    let mut silent = world.dyno.connect().await;
    let mut pinging = world.dyno.connect().await;
    let mut hanako = world.join("花子").await;
    let again = join_frame("lobby", "花子", &hanako.token, None);
    hanako.send(again).await;
    hanako.closed_after_all(4400).await;
    let mut eager = world.dyno.connect().await;
    eager.talk("too early").await;
    eager.closed_after_all(4400).await;
    let newcomer = world.join("太郎").await;
    newcomer.welcomed_with(json!({"history": []}));

    for _ in 0..4 {
        pinging.settle().await; // a ping is not a join
        sleep(JOIN_DEADLINE / 5).await;
    }
    silent.closed_after_all(4400).await;
    pinging.closed_after_all(4400).await;
    let took = start.elapsed();
    let expected = JOIN_DEADLINE - SECOND..JOIN_DEADLINE + 4 * SECOND;
    assert!(expected.contains(&took), "closed after {took:?}");
}

async fn unusual_frames_are_accepted_and_pings_answered_before_and_after_the_join(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.dyno.connect().await;
    let ping = |payload: &[u8]| Message::Ping(payload.to_vec().into());
    hanako.settle().await;
    hanako.send_message(ping(b"before")).await;
    hanako.expect_pong(b"before").await;
    // Unknown fields, white space, escapes, and the longest frame.
    let join =
        r#"{"room":"lobby","future":{"a":[1,2]},"user":"花子","token":"TOKEN","kind":"join"}"#;
    hanako.send_text(&join.replace("TOKEN", &token())).await;
    hanako.joined().await;
    let spaced = " \n\t{ \"cid\" : \"c2\" , \"message\" : \"\\u82b1\\ud83d\\ude00\" , \"kind\" : \"talk\" } \n";
    hanako.send_text(spaced).await;
    hanako.hears("花😀").await;
    let longest = ping_of_length(MAX_FRAME);
    for ping in [r#"{"kind":"ping","message":5,"room":{}}"#, &longest] {
        hanako.send_text(ping).await;
        hanako.expect_kind("tick").await;
    }
    for payload in [&b""[..], &[7; 125]] {
        hanako.send_message(ping(payload)).await;
        hanako.expect_pong(payload).await;
    }
    hanako.send_message(Message::Pong("unasked".into())).await;
    hanako.say("after").await;
}

// ---- frames of RFC 6455: the same without and with Redis

#[tokio::test]
async fn a_close_is_echoed_and_a_fin_answered_with_a_fin() {
    let dyno = Dyno::start(&[]).await;
    let connect = async |joined| match joined {
        true => Raw::joined(&dyno, "lobby", &cid()).await,
        false => Raw::websocket(&dyno).await,
    };
    for joined in [false, true] {
        for code in [1000, 1001, 3000, 4999] {
            let mut raw = connect(joined).await;
            let close = frame(CLOSE, close_payload(code, "さようなら".as_bytes()));
            // Unread bytes must not turn the Close into a reset.
            let more = frame(TEXT, "x".repeat(4_000)).repeat(4);
            raw.send([close, more].concat()).await;
            assert_eq!(raw.closed(PATIENCE).await.0, code, "joined: {joined}");
        }
        let mut raw = connect(joined).await;
        raw.send(frame(CLOSE, "")).await;
        let (echoed, _) = raw.closed(PATIENCE).await;
        assert!([1000, 1005].contains(&echoed), "{echoed} for no code");
        let mut raw = connect(joined).await;
        raw.finish().await;
        assert_eq!(raw.rest(PATIENCE).await.1, End::Eof, "joined: {joined}");
    }
}

// ---- without Redis only

#[tokio::test]
async fn without_redis_the_oldest_of_a_thousand_empty_rooms_is_dropped() {
    const ROOMS: usize = EMPTY_ROOMS + 10;
    let world = World::talkative(Store::Memory).await;
    for i in 0..ROOMS {
        let mut client = world.dyno.join(&format!("room {i}"), "花子").await;
        client.say("kept?").await;
        client.quit().await;
    }
    sleep(RENEWAL + 2 * SECOND).await;
    for (room, messages) in [(ROOMS - 1, 1), (100, 1), (0, 0)] {
        let client = world.dyno.join(&format!("room {room}"), "太郎").await;
        assert_eq!(client.history(), vec!["kept?"; messages], "room {room}");
    }
}
