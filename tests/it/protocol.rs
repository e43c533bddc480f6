//! Proves the wire protocol of DESIGN §5, on the bus within the process and on Redis alike: what a welcome covers, what
//! a talk becomes, whose a name is, and the answer to everything a page must not send.

use crate::support::client::{Heard, join_frame};
use crate::support::raw::{
    CLOSE, CONTINUE, PING, PONG, TEXT, claimed_length, close_payload, fragment, frame, odd_frame,
};
use crate::support::{Bus, Client, Dyno, Id, PATIENCE, Raw, World, check, cid, token};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

on_both_buses!(
    // the welcome
    a_welcome_says_everything_a_page_needs,
    a_token_is_made_by_the_server_only_if_the_page_has_none,
    a_newcomer_sees_the_last_fifty_messages,
    a_page_that_comes_back_gets_exactly_what_it_missed,
    an_id_the_log_does_not_know_is_a_gap,
    zero_is_a_gap_only_if_the_log_was_trimmed,
    a_trimmed_log_says_so_to_whoever_was_away_too_long,
    a_room_full_of_the_longest_messages_can_still_be_joined,
    dropping_and_resuming_with_nothing_said_replays_nothing,
    // talking
    a_talk_comes_back_to_everyone_as_one_and_the_same_frame,
    text_is_trimmed_and_its_line_ends_are_made_one,
    control_characters_are_refused,
    length_is_counted_in_code_points_and_nothing_is_empty,
    a_talk_sent_again_is_shown_once,
    a_receipt_that_was_lost_is_given_again_to_its_sender_alone,
    cids_belong_to_a_token,
    rooms_hear_nothing_of_each_other,
    whoever_talks_too_much_is_told_to_slow_down,
    whoever_goes_on_regardless_is_closed,
    // names and rooms
    names_and_rooms_that_are_none_are_refused,
    every_script_makes_names,
    a_name_belongs_to_its_token,
    names_and_rooms_that_fold_alike_are_the_same,
    leaving_frees_the_name_at_once,
    a_name_is_free_only_when_its_last_tab_has_left,
    a_name_that_does_not_come_back_is_gone_within_thirty_seconds,
    everyone_sees_who_comes_and_who_leaves,
    a_long_list_of_members_is_cut_but_the_count_is_exact,
    twenty_fast_reloads_are_one_member,
    // what a page must not send
    the_third_bad_message_closes,
    what_is_unknown_is_ignored_and_of_two_keys_the_last_counts,
    a_join_that_makes_no_sense_is_a_bad_message,
    binary_frames_are_refused,
    joining_twice_or_talking_before_is_not_this_protocol,
    whoever_does_not_join_within_ten_seconds_is_closed,
    pings_are_answered_before_and_after_the_join,
);

async fn say_many(client: &mut Client, texts: impl Iterator<Item = String>) -> Vec<Value> {
    let texts: Vec<String> = texts.collect();
    let mut frames = vec![];
    for chunk in texts.chunks(50) {
        for text in chunk {
            client.talk(text).await;
        }
        for text in chunk {
            frames.push(client.hears(text).await);
        }
    }
    frames
}

fn id(frame: &Value) -> &str {
    frame["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id in {frame}"))
}

fn saw_everything(world: &World, client: &Client) {
    if let Some(redis) = &world.redis {
        check::saw_everything(redis, client);
    }
}

// ---- the welcome

async fn a_welcome_says_everything_a_page_needs(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let token = token();
    let hanako = world.dyno.join_with("lobby", "花子", &token, None).await;
    let welcome = hanako.welcome.as_object().expect("a welcome is an object");
    let keys: BTreeSet<&str> = welcome.keys().map(String::as_str).collect();
    let wanted = "boot count dyno gap history kind last max_message room tick_ms token user users";
    assert_eq!(
        keys.into_iter().collect::<Vec<_>>(),
        wanted.split(' ').collect::<Vec<_>>()
    );
    for (key, value) in [
        ("room", json!("lobby")),
        ("user", json!("花子")),
        ("token", json!(token)),
        ("dyno", json!("local")),
        ("last", json!("0-0")),
        ("gap", json!(false)),
        ("history", json!([])),
        ("users", json!(["花子"])),
        ("count", json!(1)),
        ("tick_ms", json!(25_000)),
        ("max_message", json!(1_000)),
    ] {
        assert_eq!(welcome[key], value, "{key} in {}", hanako.welcome);
    }
    assert!(
        welcome["boot"].as_str().is_some_and(|b| b.len() >= 8),
        "a boot id in {}",
        hanako.welcome
    );

    let named = World::start(bus, &[("DYNO", "web.2")]).await;
    let taro = named.dyno.join("lobby", "太郎").await;
    assert_eq!(taro.welcome["dyno"], "web.2");
    assert_ne!(
        taro.welcome["boot"], hanako.welcome["boot"],
        "each process has its own boot id"
    );
}

async fn a_token_is_made_by_the_server_only_if_the_page_has_none(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.connect().await;
    hanako
        .send(json!({"kind": "join", "room": "lobby", "user": "花子"}))
        .await;
    hanako.joined().await;
    let made = hanako.token.clone();
    let lawful = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(
        (22..=64).contains(&made.len()) && made.chars().all(lawful),
        "128 bits in {made:?}"
    );
    world
        .dyno
        .join_refused("lobby", "花子", &token(), "name_taken")
        .await;
    world.dyno.join_with("lobby", "花子", &made, None).await;
    for given in ["0123456789abcdef".to_string(), "x-_Y".repeat(16)] {
        let client = world
            .dyno
            .join_with("elsewhere", &format!("n{}", given.len()), &given, None)
            .await;
        assert_eq!(
            client.token, given,
            "16 to 64 characters are taken as they are"
        );
    }
}

async fn a_newcomer_sees_the_last_fifty_messages(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let said = say_many(&mut hanako, (1..=60).map(|i| format!("m{i}"))).await;
    let taro = world.dyno.join("lobby", "太郎").await;
    assert_eq!(
        taro.welcome["history"],
        json!(said[10..]),
        "the very frames that were said"
    );
    assert_eq!(taro.welcome["gap"], false);
    assert_eq!(taro.welcome["last"], said[59]["id"]);
    saw_everything(&world, &hanako);
    saw_everything(&world, &taro);
}

async fn a_page_that_comes_back_gets_exactly_what_it_missed(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    hanako.say("before").await;
    taro.hears("before").await;
    let (token, last) = taro.vanish().await;
    let missed = say_many(&mut hanako, (1..=200).map(|i| format!("missed {i}"))).await;

    let mut taro = world
        .dyno
        .join_with("lobby", "太郎", &token, Some(&last))
        .await;
    assert_eq!(
        taro.welcome["history"],
        json!(missed),
        "all of it, however much more than fifty"
    );
    assert_eq!(taro.welcome["gap"], false);
    assert_eq!(taro.welcome["last"], missed[199]["id"]);
    hanako.say("after").await;
    taro.hears("after").await;
    saw_everything(&world, &taro);
}

async fn an_id_the_log_does_not_know_is_a_gap(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let said = say_many(&mut hanako, (1..=60).map(|i| format!("m{i}"))).await;
    let taro = world
        .dyno
        .join_with("lobby", "太郎", &token(), Some("1-1"))
        .await;
    assert_eq!(taro.welcome["gap"], true);
    assert_eq!(taro.welcome["history"], json!(said[10..]));
    let ahead = world
        .dyno
        .join_with("lobby", "次郎", &token(), Some("99999999999999-0"))
        .await;
    assert_eq!(ahead.welcome["gap"], true, "the log knows no such id");
    assert_eq!(
        ahead.welcome["last"], said[59]["id"],
        "the new baseline, even if lower"
    );
}

async fn zero_is_a_gap_only_if_the_log_was_trimmed(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world
        .dyno
        .join_with("lobby", "花子", &token(), Some("0-0"))
        .await;
    assert_eq!(
        (&hanako.welcome["gap"], &hanako.welcome["last"]),
        (&json!(false), &json!("0-0"))
    );
    let said = say_many(&mut hanako, (1..=60).map(|i| format!("m{i}"))).await;
    let taro = world
        .dyno
        .join_with("lobby", "太郎", &token(), Some("0-0"))
        .await;
    assert_eq!(
        taro.welcome["history"],
        json!(said),
        "everything since the room was empty"
    );
    assert_eq!(taro.welcome["gap"], false);
}

async fn a_trimmed_log_says_so_to_whoever_was_away_too_long(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let said = say_many(&mut hanako, (1..=1_500).map(|i| format!("m{i}"))).await;
    for last in [id(&said[0]), "0-0"] {
        let late = world
            .dyno
            .join_with("lobby", "太郎", &token_of("太郎"), Some(last))
            .await;
        assert_eq!(late.welcome["gap"], true, "away since {last}");
        assert_eq!(late.welcome["history"], json!(said[1_450..]));
    }
    let in_time = world
        .dyno
        .join_with("lobby", "太郎", &token_of("太郎"), Some(id(&said[999])))
        .await;
    assert_eq!(in_time.welcome["gap"], false);
    assert_eq!(in_time.welcome["history"], json!(said[1_000..]));
    let newcomer = world.dyno.join("lobby", "次郎").await;
    assert_eq!(
        newcomer.welcome["gap"], false,
        "who was never here misses nothing"
    );
    assert_eq!(newcomer.welcome["history"], json!(said[1_450..]));
    saw_everything(&world, &hanako);
}

/// A token that stays the same within a test.
fn token_of(name: &str) -> String {
    name.bytes().map(|b| format!("{b:02x}")).collect::<String>() + "0123456789abcdef"
}

async fn a_room_full_of_the_longest_messages_can_still_be_joined(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let text = |i: usize| format!("{i:03}{}", "😀".repeat(997));
    let mut said = vec![];
    for i in 0..120 {
        said.push(hanako.say(&text(i)).await);
    }
    let mut taro = world.dyno.join("lobby", "太郎").await;
    let history = taro.welcome["history"]
        .as_array()
        .expect("a history")
        .clone();
    assert!(
        (10..=50).contains(&history.len()),
        "{} of the longest messages",
        history.len()
    );
    assert_eq!(
        history,
        said[120 - history.len()..],
        "the newest of them, without a hole"
    );
    let token = taro.token.clone();
    taro.say("ここにいる").await;
    hanako.hears("ここにいる").await;
    taro.quit().await;
    let back = world
        .dyno
        .join_with("lobby", "太郎", &token, Some(id(&said[114])))
        .await;
    assert_eq!(back.welcome["gap"], false);
    assert_eq!(back.history().len(), 6, "five long ones and the short one");
    back.quit().await;
    saw_everything(&world, &hanako);
}

async fn dropping_and_resuming_with_nothing_said_replays_nothing(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    for round in 0..2 {
        for _ in 0..5 {
            let (token, last) = hanako.vanish().await;
            hanako = world
                .dyno
                .join_with("lobby", "花子", &token, Some(&last))
                .await;
            assert_eq!(hanako.history(), [] as [&str; 0], "round {round}");
            assert_eq!(hanako.welcome["gap"], false, "round {round}, from {last}");
        }
        hanako.say("and again").await; // first with an empty room, then with one message seen
    }
}

// ---- talking

async fn a_talk_comes_back_to_everyone_as_one_and_the_same_frame(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    let extra = json!({"kind": "talk", "message": "こんにちは", "cid": "3f2a9c0d11e04b57", "user": "太郎", "id": "9-9", "x": 1});
    hanako.send(extra).await;
    let own = hanako.hears("こんにちは").await;
    assert_eq!(taro.hears("こんにちは").await, own);
    let expected = json!({"kind": "talk", "id": own["id"], "user": "花子", "message": "こんにちは", "cid": "3f2a9c0d11e04b57"});
    assert_eq!(own, expected, "these fields and no others");
    let (ms, _) = id(&own).split_once('-').expect("an id is ms-seq");
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock after 1970")
        .as_millis() as i64;
    let age = now - ms.parse::<i64>().expect("an id begins with its time");
    assert!(
        (-2_000..60_000).contains(&age),
        "the id is the message's time: {age} ms ago"
    );

    // The same second, and a language of each kind: never an order other than the one of the ids.
    for text in [
        "<b>&amp;</b>",
        "עברית \u{202e}abc",
        "a\tb\nc",
        "\\ \" \u{2028} /",
        "👩‍👩‍👧‍👦",
    ] {
        taro.say(text).await;
        hanako.hears(text).await;
    }
    saw_everything(&world, &hanako);
    saw_everything(&world, &taro);
}

async fn text_is_trimmed_and_its_line_ends_are_made_one(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    for (sent, shown) in [
        ("  a  b\t", "a  b"),
        ("\r\none\r\ntwo\r\n\r\n", "one\ntwo"),
        ("\u{3000}全角\u{3000}", "全角"),
        ("\n\n a\n\n b \n", "a\n\n b"),
        ("a\r\n\r\nb", "a\n\nb"),
    ] {
        hanako.talk(sent).await;
        hanako.hears(shown).await;
    }
}

async fn control_characters_are_refused(bus: Bus) {
    let world = World::start(bus, &[]).await;
    for bad in [
        "a\0b",
        "\u{1b}[31mred",
        "a\u{7f}b",
        "a\u{85}b",
        "a\rb",
        "a\u{8}",
        "\0",
    ] {
        let mut hanako = world
            .dyno
            .join_with("lobby", "花子", &token_of("花子"), None)
            .await;
        let cid = hanako.talk(bad).await;
        let error = hanako.expect_error("bad_message").await;
        assert_eq!(error["cid"], json!(cid), "{bad:?}");
        hanako.settle().await; // the connection lives on
    }
}

async fn length_is_counted_in_code_points_and_nothing_is_empty(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    for text in [
        "😀".repeat(1_000),
        "a".repeat(1_000),
        "あ".repeat(1_000),
        "a".repeat(900),
    ] {
        hanako.say(&text).await;
    }
    hanako.talk(&format!("  {}\r\n ", "😀".repeat(1_000))).await;
    hanako.hears(&"😀".repeat(1_000)).await; // counted after trimming
    for text in [
        "😀".repeat(1_001),
        "a".repeat(1_001),
        "e\u{301}".repeat(501),
    ] {
        let cid = hanako.talk(&text).await;
        assert_eq!(hanako.expect_error("too_long").await["cid"], json!(cid));
    }
    for text in ["", " ", "\t\r\n \u{3000}"] {
        let cid = hanako.talk(text).await;
        assert_eq!(
            hanako.expect_error("empty").await["cid"],
            json!(cid),
            "{text:?}"
        );
    }
    hanako.say("and the connection lives on").await;
}

async fn a_talk_sent_again_is_shown_once(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    hanako.talk_as("once", "c1").await;
    hanako.talk_as("once", "c1").await;
    hanako.hears("once").await;
    hanako.talk_as("once", "c1").await;
    hanako
        .talk_as("another text under the same cid", "c1")
        .await;
    hanako.say("end").await; // fails if anything comes before it
    taro.hears("once").await;
    taro.hears("end").await;

    // Cut after the talk and before its receipt: the log has it, the resend adds nothing.
    let (token, last) = hanako.vanish().await;
    let mut cut = world
        .dyno
        .join_with("lobby", "花子", &token, Some(&last))
        .await;
    cut.talk_as("cut", "c2").await;
    taro.hears("cut").await;
    drop(cut);
    let mut back = world
        .dyno
        .join_with("lobby", "花子", &token, Some(&last))
        .await;
    assert_eq!(
        back.history(),
        ["cut"],
        "the receipt comes with the welcome"
    );
    back.talk_as("cut", "c2").await;
    back.say("end 2").await;
    taro.hears("end 2").await;
    saw_everything(&world, &taro);
}

async fn a_receipt_that_was_lost_is_given_again_to_its_sender_alone(bus: Bus) {
    let world = World::talkative(bus).await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let token = hanako.token.clone();
    hanako.talk_as("precious", "c1").await;
    let said = hanako.hears("precious").await;
    let after = hanako.say("after").await;
    drop(hanako);

    // Resumed from beyond it: the welcome does not cover the talk, so the resend brings it.
    for last in [id(&said), id(&after)] {
        let mut back = world
            .dyno
            .join_with("lobby", "花子", &token, Some(last))
            .await;
        back.talk_as("precious", "c1").await;
        assert_eq!(
            back.hears("precious").await,
            said,
            "the same frame, resumed from {last}"
        );
    }
    // In the history of a newcomer: covered.
    let mut tab = world.dyno.join_with("lobby", "花子", &token, None).await;
    tab.talk_as("precious", "c1").await;
    tab.settle().await;
    // Pushed out of a newcomer's history: not covered.
    say_many(&mut tab, (0..60).map(|i| format!("m{i}"))).await;
    let mut late = world.dyno.join_with("lobby", "花子", &token, None).await;
    assert!(!late.history().contains(&"precious".to_string()));
    late.talk_as("precious", "c1").await;
    assert_eq!(late.hears("precious").await, said);
    // Said on this very connection, after its welcome: its echo was the receipt.
    late.talk_as("fresh", "c2").await;
    late.hears("fresh").await;
    late.talk_as("fresh", "c2").await;
    late.say("end").await;

    for text in ["precious", "after"]
        .map(String::from)
        .into_iter()
        .chain((0..60).map(|i| format!("m{i}")))
    {
        taro.hears(&text).await;
    }
    taro.hears("fresh").await;
    taro.hears("end").await;
    saw_everything(&world, &taro);
}

async fn cids_belong_to_a_token(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    hanako.talk_as("hers", "same").await;
    taro.hears("hers").await;
    taro.talk_as("his", "same").await;
    taro.hears("his").await;
    hanako.hears("hers").await;
    hanako.hears("his").await;
}

async fn rooms_hear_nothing_of_each_other(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let mut jiro = world.dyno.join("library", "花子").await; // another token: names belong to rooms
    hanako.say("in the lobby").await;
    jiro.say("in the library").await; // fails if anything comes before it
    hanako.say("in the lobby again").await;
    assert_eq!(
        world.dyno.join("library", "太郎").await.history(),
        ["in the library"]
    );
    assert_eq!(
        hanako.members().0,
        ["花子"],
        "who is in the library does not show in the lobby"
    );
}

async fn whoever_talks_too_much_is_told_to_slow_down(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let cids: Vec<String> = (0..15).map(|_| cid()).collect();
    for cid in &cids {
        hanako.talk_as(cid, cid).await;
    }
    hanako.settle_loosely().await;
    let (said, refused) = hanako.talks_and_refusals();
    assert!(
        (10..=12).contains(&said.len()),
        "a burst of ten goes through: {said:?}"
    );
    assert_eq!(
        said.len() + refused.len(),
        15,
        "every talk is answered: {said:?} {refused:?}"
    );
    let retry = refused
        .iter()
        .map(|e| e["retry_ms"].as_u64().expect("slow_down says when"))
        .max()
        .unwrap_or(0);
    assert!((1..=10_000).contains(&retry), "after a while: {retry} ms");
    assert!(
        refused
            .iter()
            .all(|e| e["code"] == "slow_down" && cids.iter().any(|c| e["cid"] == **c)),
        "{refused:?}"
    );
    sleep(Duration::from_millis(retry)).await;
    let again = refused[0]["cid"].as_str().expect("the talk refused");
    hanako.talk_as(again, again).await; // the same cid, now taken
    hanako.hears(again).await;
}

async fn whoever_goes_on_regardless_is_closed(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    for _ in 0..100 {
        hanako.talk("flood").await;
    }
    let reason = hanako.closed_after_all(4429).await;
    assert!(!reason.is_empty(), "a reason to show");
    let (said, refused) = hanako.talks_and_refusals();
    assert!(
        (19..=20).contains(&refused.len()),
        "the twentieth refusal in a row closes, not number {}",
        refused.len()
    );
    taro.talk("静か").await;
    let mut heard = 0;
    loop {
        match taro.expect_kind("talk").await["message"].as_str() {
            Some("flood") => heard += 1,
            other => break assert_eq!(other, Some("静か")),
        }
    }
    assert!(
        (10..=14).contains(&heard),
        "{heard} talks before the flood was stopped"
    );
    // The one under way when the connection was closed may have no receipt.
    assert!(
        (heard - 1..=heard).contains(&said.len()),
        "{heard} in the room, {} with their receipt",
        said.len()
    );
}

// ---- names and rooms

async fn names_and_rooms_that_are_none_are_refused(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let bad = [
        "",
        "   ",
        "<img onerror=x>",
        "a\u{200b}b",
        "\u{202e}oraT",
        "\u{2066}a",
        "😀😀",
        "a😀",
        "a\nb",
        "a\u{1b}[31m",
        "a\0",
        "---",
        "_._",
        "a/b",
        "a{b}",
        "a:b",
        "a*",
        "\u{feff}a",
        "a\u{ad}b",
        "a\tb",
        "a\"b",
        "\u{301}",
    ];
    let dyno = &world.dyno;
    join_all(bad.iter().map(async |name| {
        dyno.join_refused("lobby", name, &token(), "bad_name").await;
        dyno.join_refused(name, "花子", &token(), "bad_room").await;
    }))
    .await;
    dyno.join_refused("lobby", &"あ".repeat(25), &token(), "bad_name")
        .await;
    dyno.join_refused("lobby", &"x".repeat(2_000), &token(), "bad_name")
        .await;
    dyno.join_refused(&"あ".repeat(33), "花子", &token(), "bad_room")
        .await;
    let mut first = dyno.join(&"あ".repeat(32), &"い".repeat(24)).await;
    assert_eq!(
        first.user.chars().count(),
        24,
        "24 and 32 code points are allowed"
    );
    let hidden = dyno
        .log()
        .lines()
        .filter(|l| l.contains('\u{1b}') || l.contains("oraT") || l.contains("<img"))
        .count();
    assert_eq!(
        hidden,
        0,
        "what a stranger sends does not reach the log as it is:\n{}",
        dyno.log()
    );
    first.say("ok").await;
}

async fn every_script_makes_names(bus: Bus) {
    let world = World::start(bus, &[]).await;
    for (asked, shown) in [
        ("花子", "花子"),
        (" taro yamada ", "taro yamada"),
        ("O.K-_9", "O.K-_9"),
        ("1", "1"),
        ("Ｔａｒｏ", "Ｔａｒｏ"),
        ("José", "José"),
        ("हिन्दी", "हिन्दी"),
        ("עברית", "עברית"),
        ("ﾊﾅｺ", "ﾊﾅｺ"),
        ("１２３４", "１２３４"),
    ] {
        let client = world.dyno.join("lobby", asked).await;
        assert_eq!(client.user, shown);
        client.quit().await;
    }
    let room = world.dyno.join(" Ｌｏｂｂｙ One ", "花子").await;
    assert_eq!(
        room.welcome["room"], "lobby one",
        "the room is shown folded"
    );
}

async fn a_name_belongs_to_its_token(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let hanako = world.dyno.join("lobby", "花子").await;
    world
        .dyno
        .join_refused("lobby", "花子", &token(), "name_taken")
        .await;
    let mut tab = world
        .dyno
        .join_with("lobby", "花子", &hanako.token, None)
        .await;
    assert_eq!(
        (tab.members().0, tab.members().1),
        (vec!["花子".to_string()], 1),
        "two tabs are one member"
    );
    let (token, _) = hanako.vanish().await;
    // The connection is gone, the name is not: only its token brings it back.
    world
        .dyno
        .join_refused("lobby", "花子", &crate::support::token(), "name_taken")
        .await;
    let mut back = world.dyno.join_with("lobby", "花子", &token, None).await;
    back.say("again").await;
    tab.hears("again").await;
    assert_eq!(tab.members_frames(), 0, "nobody was shown as gone or come");
}

async fn names_and_rooms_that_fold_alike_are_the_same(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut taro = world.dyno.join("Lobby", "Ｔａｒｏ").await;
    assert_eq!(
        (taro.room.as_str(), taro.user.as_str()),
        ("lobby", "Ｔａｒｏ")
    );
    for alike in ["taro", "TARO", "ｔＡｒo"] {
        world
            .dyno
            .join_refused("LOBBY", alike, &token(), "name_taken")
            .await;
    }
    let mut tab = world
        .dyno
        .join_with("ｌｏｂｂｙ", "taro", &taro.token, None)
        .await;
    assert_eq!(tab.user, "Ｔａｒｏ", "shown as first claimed");
    tab.talk("hi").await;
    assert_eq!(taro.hears("hi").await["user"], "Ｔａｒｏ");
    let _jose = world.dyno.join("lobby", "Jose\u{301}").await;
    world
        .dyno
        .join_refused("lobby", "JOS\u{c9}", &token(), "name_taken")
        .await;
}

async fn leaving_frees_the_name_at_once(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let taro = world.dyno.join("lobby", "太郎").await;
    for _ in 0..3 {
        let hanako = world.dyno.join("lobby", "花子").await; // a new token each time
        hanako.quit().await;
    }
    world.dyno.connect().await.quit().await; // before the join too
    drop(taro);
}

async fn a_name_is_free_only_when_its_last_tab_has_left(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    let tabs = [world.dyno.join("lobby", "花子").await];
    let token = tabs[0].token.clone();
    let second = world.dyno.join_with("lobby", "花子", &token, None).await;
    second.quit().await;
    world
        .dyno
        .join_refused("lobby", "花子", &crate::support::token(), "name_taken")
        .await;
    taro.expect_members(&["太郎", "花子"]).await;
    let [first] = tabs;
    first.quit().await;
    taro.expect_members(&["太郎"]).await;
    world.dyno.join("lobby", "花子").await;
}

async fn a_name_that_does_not_come_back_is_gone_within_thirty_seconds(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    let hanako = world.dyno.join("lobby", "花子").await;
    taro.expect_members(&["太郎", "花子"]).await;
    let (token, last) = hanako.vanish().await;
    let gone = Instant::now();
    sleep(Duration::from_secs(12)).await;
    world
        .dyno
        .join_refused("lobby", "花子", &crate::support::token(), "name_taken")
        .await;
    assert_eq!(
        taro.members().1,
        2,
        "within the lease nobody is shown as gone"
    );
    // Back in time: the lease starts anew, and nobody saw anything.
    let hanako = world
        .dyno
        .join_with("lobby", "花子", &token, Some(&last))
        .await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        taro.members_frames(),
        1,
        "only that she came, once\n{}",
        taro.transcript()
    );
    drop(hanako);
    let gone_again = Instant::now();
    taro.expect_members_within(&["太郎"], Duration::from_secs(30))
        .await;
    assert!(
        gone_again.elapsed() > Duration::from_secs(10),
        "a lease is longer than {:?}",
        gone_again.elapsed()
    );
    assert!(gone.elapsed() > Duration::from_secs(24));
    world.dyno.join("lobby", "花子").await; // somebody else may have it
    if let Some(redis) = &world.redis {
        check::names_are(redis, "lobby", &["太郎", "花子"]).await;
    }
}

async fn everyone_sees_who_comes_and_who_leaves(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut taro = world.dyno.join("lobby", "taro").await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    assert_eq!(
        hanako.members(),
        (vec!["hanako".into(), "taro".into()], 2),
        "in the welcome already, sorted"
    );
    let soon = Duration::from_secs(3); // names are read at most once a second
    taro.expect_members_within(&["hanako", "taro"], soon).await;
    let jiro = world.dyno.join("lobby", "jiro").await;
    taro.expect_members_within(&["hanako", "jiro", "taro"], soon)
        .await;
    hanako
        .expect_members_within(&["hanako", "jiro", "taro"], soon)
        .await;
    if let Some(redis) = &world.redis {
        check::names_are(redis, "lobby", &["hanako", "jiro", "taro"]).await;
    }
    jiro.quit().await;
    taro.expect_members_within(&["hanako", "taro"], soon).await;
    hanako
        .expect_members_within(&["hanako", "taro"], soon)
        .await;
    let frames = taro.members_frames();
    sleep(Duration::from_secs(7)).await;
    assert_eq!(
        taro.members_frames(),
        frames,
        "a list is sent only when it differs from the last one"
    );
}

async fn a_long_list_of_members_is_cut_but_the_count_is_exact(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut clients = vec![];
    for i in 0..205 {
        clients.push(world.dyno.join("lobby", &format!("n{i:03}")).await);
    }
    let last = clients.last().expect("the last to come");
    let (users, count) = last.members();
    assert_eq!((users.len(), count), (200, 205));
    let all: BTreeSet<String> = (0..205).map(|i| format!("n{i:03}")).collect();
    assert!(
        users.is_sorted() && users.iter().all(|u| all.contains(u)),
        "{users:?}"
    );
    crate::support::eventually("everyone is told the count", PATIENCE, async || {
        let (users, count) = clients[0].members();
        if (users.len(), count) == (200, 205) {
            Ok(())
        } else {
            Err((users.len(), count))
        }
    })
    .await;
    let frames = clients[0].members_frames();
    assert!(
        frames <= 60,
        "205 joins are told together, not one by one: {frames} lists"
    );
}

async fn twenty_fast_reloads_are_one_member(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut taro = world.dyno.join("lobby", "太郎").await;
    let hanako = world.dyno.join("lobby", "花子").await;
    taro.expect_members(&["太郎", "花子"]).await;
    let mut tab = hanako;
    for _ in 0..20 {
        let (token, _) = tab.vanish().await;
        tab = world.dyno.join_with("lobby", "花子", &token, None).await;
        assert_eq!(tab.members().0, ["太郎", "花子"]);
    }
    tab.say("still me").await;
    taro.hears("still me").await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        taro.members_frames(),
        1,
        "nobody left or joined\n{}",
        taro.transcript()
    );
}

// ---- what a page must not send

async fn the_third_bad_message_closes(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let talk = |fields: Value| {
        let mut frame = json!({"kind": "talk", "message": "a", "cid": "c"});
        for (key, value) in fields.as_object().expect("fields") {
            frame[key] = value.clone();
        }
        frame.to_string()
    };
    let bad = [
        "hello".to_string(),
        "".into(),
        "[]".into(),
        "null".into(),
        "5".into(),
        "\"talk\"".into(),
        "[".repeat(200),
        format!(
            "{{\"kind\":\"ping\",\"x\":{}{}}}",
            "[".repeat(200),
            "]".repeat(200)
        ),
        "{\"kind\":\"ping\"".into(),
        "{\"kind\":\"ping\"} x".into(),
        "{\"kind\":NaN}".into(),
        "{\"kind\":\"talk\",\"message\":\"\\ud800\",\"cid\":\"c\"}".into(),
        " ".repeat(8_192),
        "{}".into(),
        json!({"kind": "shout"}).to_string(),
        json!({"kind": 5}).to_string(),
        json!({"kind": null}).to_string(),
        json!({"kind": "talk", "message": "no cid"}).to_string(),
        json!({"kind": "talk", "cid": "c"}).to_string(),
        talk(json!({"message": 5})),
        talk(json!({"message": null})),
        talk(json!({"message": ["a"]})),
        talk(json!({"cid": null})),
        talk(json!({"cid": 5})),
        talk(json!({"cid": ""})),
        talk(json!({"cid": "x".repeat(65)})),
        talk(json!({"cid": "a b"})),
        talk(json!({"cid": "ä"})),
    ];
    let dyno = &world.dyno;
    join_all(bad.iter().enumerate().map(async |(i, bad)| {
        let mut client = dyno.join("lobby", &format!("n{i}")).await;
        for _ in 0..3 {
            client.send_text(bad).await;
        }
        let shown: String = bad.chars().take(60).collect();
        for n in 1..=3 {
            let error = client.expect_kind("error").await;
            assert_eq!(
                error["code"], "bad_message",
                "time {n} for {shown}: {error}"
            );
        }
        client.expect_close(4400).await;
    }))
    .await;
    let mut patient = dyno.join("lobby", "花子").await;
    for _ in 0..2 {
        patient.send_text("hello").await;
        patient.expect_error("bad_message").await;
    }
    patient.say("two are forgiven").await;
}

async fn what_is_unknown_is_ignored_and_of_two_keys_the_last_counts(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.connect().await;
    let token = token();
    let join = format!(
        "{{\"kind\":\"quit\",\"user\":5,\"room\":\"lobby\",\"future\":{{\"a\":[1,2]}},\"user\":\"花子\",\"token\":\"{token}\",\"kind\":\"join\"}}"
    );
    hanako.send_text(&join).await;
    hanako.joined().await;
    hanako
        .send_text("{\"kind\":\"talk\",\"message\":\"first\",\"cid\":\"c1\",\"message\":\"last\"}")
        .await;
    hanako.hears("last").await;
    hanako.send_text(" \n\t{ \"cid\" : \"c2\" , \"message\" : \"\\u82b1\\ud83d\\ude00\" , \"kind\" : \"talk\" } \n").await;
    hanako.hears("花😀").await;
}

async fn a_join_that_makes_no_sense_is_a_bad_message(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut bad = vec![];
    for (key, values) in [
        (
            "token",
            vec![
                json!(5),
                json!("short"),
                json!("x".repeat(15)),
                json!("x".repeat(65)),
                json!("0123456789abcde "),
            ],
        ),
        (
            "last",
            vec![
                json!(5),
                json!(""),
                json!("abc"),
                json!("1-"),
                json!("-1"),
                json!("1-x"),
                json!("1"),
                json!("99999999999999999999999-0"),
            ],
        ),
        ("room", vec![json!(5), json!(null)]),
        ("user", vec![json!(5), json!(null), json!(["花子"])]),
    ] {
        for value in values {
            let mut join = join_frame("lobby", "花子", &token(), None);
            join[key] = value;
            bad.push(join);
        }
    }
    let mut without_user = join_frame("lobby", "花子", &token(), None);
    without_user
        .as_object_mut()
        .expect("an object")
        .remove("user");
    bad.push(without_user);
    let dyno = &world.dyno;
    join_all(bad.iter().map(async |bad| {
        let mut client = dyno.connect().await;
        for _ in 0..3 {
            client.send(bad.clone()).await;
        }
        for _ in 0..3 {
            let error = client.expect_kind("error").await;
            assert_eq!(error["code"], "bad_message", "for {bad}");
        }
        client.expect_close(4400).await;
    }))
    .await;
    // A mistake can be mended on the same connection.
    let mut client = dyno.connect().await;
    client.send(bad[0].clone()).await;
    client.expect_error("bad_message").await;
    client.join("lobby", "花子", &token(), None).await;
}

async fn binary_frames_are_refused(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    hanako
        .send_message(Message::binary(&b"{\"kind\":\"ping\"}"[..]))
        .await;
    hanako.expect_close(1003).await;
    let mut stranger = world.dyno.connect().await;
    stranger.send_message(Message::binary(&b""[..])).await;
    stranger.expect_close(1003).await;
}

async fn joining_twice_or_talking_before_is_not_this_protocol(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    hanako
        .send(join_frame("lobby", "花子", &hanako.token.clone(), None))
        .await;
    hanako.expect_close_after_error(4400).await;
    let mut eager = world.dyno.connect().await;
    eager.talk("too early").await;
    eager.expect_close_after_error(4400).await;
    let newcomer = world.dyno.join("lobby", "太郎").await;
    assert_eq!(newcomer.history(), [] as [&str; 0], "nothing was said");
}

async fn whoever_does_not_join_within_ten_seconds_is_closed(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let start = Instant::now();
    let mut silent = world.dyno.connect().await;
    let mut pinging = world.dyno.connect().await;
    for _ in 0..4 {
        pinging.settle().await; // a ping is no join
        sleep(Duration::from_secs(2)).await;
    }
    silent.expect_close_after_error(4400).await;
    pinging.expect_close_after_error(4400).await;
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(14)).contains(&took),
        "closed after {took:?}"
    );
}

async fn pings_are_answered_before_and_after_the_join(bus: Bus) {
    let world = World::start(bus, &[]).await;
    let mut hanako = world.dyno.connect().await;
    hanako.settle().await;
    hanako
        .send_message(Message::Ping(Bytes::from_static(b"before")))
        .await;
    hanako.expect_pong(b"before").await;
    hanako.join("lobby", "花子", &token(), None).await;
    hanako.settle().await;
    hanako
        .send_message(Message::Ping(Bytes::from_static(b"")))
        .await;
    hanako.expect_pong(b"").await;
    hanako
        .send_message(Message::Ping(Bytes::from(vec![7; 125])))
        .await;
    hanako.expect_pong(&[7; 125]).await;
    hanako
        .send_message(Message::Pong(Bytes::from_static(b"unasked")))
        .await;
    hanako.say("after").await;
}

// ---- frames: the bus has no part in these

/// What a connection that sends these bytes is closed with, when more bytes follow behind; somebody else in the room
/// notices nothing.
async fn closed_with(dyno: &Dyno, bytes: &[u8], joined: bool) -> u16 {
    let name = format!("n{}", fastrand::u32(..));
    let mut raw = match joined {
        true => Raw::joined(dyno, "lobby", &name).await,
        false => Raw::websocket(dyno).await,
    };
    raw.send(bytes).await;
    raw.send(frame(TEXT, "x".repeat(4_000)).repeat(4)).await; // unread bytes must not turn the Close into a reset
    raw.closed(PATIENCE).await.0
}

#[tokio::test]
async fn frames_and_messages_over_the_limit_are_too_big() {
    let dyno = Dyno::start(&[]).await;
    let padded = |length: usize| {
        let ping = |pad: usize| format!("{{\"kind\":\"ping\",\"x\":\"{}\"}}", "x".repeat(pad));
        let text = ping(length - ping(0).len());
        assert_eq!(text.len(), length);
        text
    };
    let mut fits = dyno.join("lobby", "花子").await;
    fits.send_text(&padded(8_192)).await;
    fits.expect_kind("tick").await;
    for joined in [false, true] {
        assert_eq!(
            closed_with(&dyno, &frame(TEXT, padded(8_193)), joined).await,
            1009
        );
        assert_eq!(
            closed_with(&dyno, &frame(TEXT, padded(100_000)), joined).await,
            1009
        );
        for claim in [8_193, 65_536, 1 << 31, 1 << 40, (1 << 63) - 1] {
            assert_eq!(
                closed_with(&dyno, &claimed_length(claim), joined).await,
                1009,
                "a claim of {claim} bytes"
            );
        }
        let parts = [
            fragment("x".repeat(5_000), true, false),
            fragment("x".repeat(5_000), false, true),
        ]
        .concat();
        assert_eq!(
            closed_with(&dyno, &parts, joined).await,
            1009,
            "two fragments"
        );
        let crumbs: Vec<u8> = (0..10_000)
            .flat_map(|i| fragment("x", i == 0, false))
            .collect();
        assert_eq!(
            closed_with(&dyno, &crumbs, joined).await,
            1009,
            "ten thousand fragments"
        );
    }
    fits.say("この接続だけ").await;
}

#[tokio::test]
async fn what_breaks_the_websocket_protocol_is_closed_with_1002() {
    let dyno = Dyno::start(&[]).await;
    let witness = dyno.join("lobby", "花子").await;
    let ok = "{\"kind\":\"ping\"}";
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("unmasked", odd_frame(TEXT, ok, |h| h.mask = None)),
        ("rsv1", odd_frame(TEXT, ok, |h| h.rsv1 = true)),
        ("rsv2", odd_frame(TEXT, ok, |h| h.rsv2 = true)),
        ("rsv3", odd_frame(TEXT, ok, |h| h.rsv3 = true)),
        ("rsv1 on a Ping", odd_frame(PING, "", |h| h.rsv1 = true)),
        ("opcode 3", frame(OpCode::Data(Data::Reserved(3)), ok)),
        (
            "opcode 11",
            frame(OpCode::Control(Control::Reserved(11)), ""),
        ),
        (
            "a Ping in fragments",
            odd_frame(PING, "", |h| h.is_final = false),
        ),
        (
            "a Close in fragments",
            odd_frame(CLOSE, close_payload(1000, b""), |h| h.is_final = false),
        ),
        ("a Ping of 126 bytes", frame(PING, vec![0; 126])),
        ("a continuation of nothing", frame(CONTINUE, ok)),
        (
            "a message within a message",
            [fragment("{", true, false), frame(TEXT, ok)].concat(),
        ),
        ("a Close with one byte", frame(CLOSE, [3])),
        ("Close 999", frame(CLOSE, close_payload(999, b""))),
        ("Close 1005", frame(CLOSE, close_payload(1005, b""))),
        ("Close 1006", frame(CLOSE, close_payload(1006, b""))),
        ("Close 2999", frame(CLOSE, close_payload(2999, b""))),
        ("Close 65535", frame(CLOSE, close_payload(65535, b""))),
    ];
    for joined in [false, true] {
        for (what, bytes) in &bad {
            assert_eq!(
                closed_with(&dyno, bytes, joined).await,
                1002,
                "{what}, joined: {joined}"
            );
        }
    }
    assert_eq!(
        witness.count_heard(|h| matches!(h, Heard::Close(..) | Heard::Eof | Heard::Broken(_))),
        0
    );
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let dyno = Dyno::start(&[]).await;
    for joined in [false, true] {
        let bad: [Vec<u8>; 5] = [
            frame(TEXT, b"\xff\xfe"),
            frame(TEXT, b"{\"kind\":\"ping\",\"x\":\"\xc3\x28\"}"),
            frame(TEXT, b"\xed\xa0\x80"), // a surrogate
            frame(TEXT, b"{\"kind\":\"ping\"}\xe8\x8a"),
            [
                fragment(b"{\"kind\":\"ping\",\"x\":\"\xe8", true, false),
                fragment(b"\x41\"}", false, true),
            ]
            .concat(),
        ];
        for bytes in bad {
            assert_eq!(
                closed_with(&dyno, &bytes, joined).await,
                1007,
                "joined: {joined}"
            );
        }
    }
    let reason = frame(CLOSE, close_payload(1000, b"\xff"));
    let code = closed_with(&dyno, &reason, true).await;
    assert!(
        [1002, 1007].contains(&code),
        "a Close whose reason is no text: {code}"
    );
}

#[tokio::test]
async fn a_message_may_come_in_pieces_with_a_ping_in_between() {
    let dyno = Dyno::start(&[]).await;
    let mut raw = Raw::joined(&dyno, "lobby", "花子").await;
    let talk = json!({"kind": "talk", "message": "花と月", "cid": "c1"}).to_string();
    let (start, rest) = talk
        .as_bytes()
        .split_at(talk.find('花').expect("it is there") + 1); // within a character
    let (middle, end) = rest.split_at(5);
    raw.send(fragment(start, true, false)).await;
    raw.send(frame(PING, "between")).await;
    raw.send(fragment("", false, false)).await;
    raw.send(fragment(middle, false, false)).await;
    raw.send(fragment(end, false, true)).await;
    let (opcode, payload) = raw.frame(PATIENCE).await.expect("a frame");
    assert_eq!(
        (opcode, payload.as_slice()),
        (PONG, &b"between"[..]),
        "a Pong does not wait for the message's end"
    );
    assert_eq!(raw.json().await["message"], "花と月");
}

#[tokio::test]
async fn a_close_is_echoed_and_then_the_connection_ends() {
    let dyno = Dyno::start(&[]).await;
    for joined in [false, true] {
        for code in [1000, 1001, 3000, 4999] {
            let bytes = frame(CLOSE, close_payload(code, "さようなら".as_bytes()));
            assert_eq!(
                closed_with(&dyno, &bytes, joined).await,
                code,
                "joined: {joined}"
            );
        }
        let empty = closed_with(&dyno, &frame(CLOSE, ""), joined).await;
        assert!(
            [1000, 1005].contains(&empty),
            "an empty Close is answered with {empty}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_just_ends_leaves_nothing_behind() {
    let dyno = Dyno::start(&[]).await;
    dyno.join("lobby", "花子").await.quit().await;
    let base = check::Base::of(&dyno).await;
    for i in 0..50 {
        let mut raw = Raw::joined(&dyno, "lobby", &format!("n{i}")).await;
        if i % 2 == 0 {
            raw.finish().await;
            let (_, end) = raw.rest(PATIENCE).await;
            assert_eq!(
                end,
                crate::support::raw::End::Eof,
                "a FIN is answered with a FIN"
            );
        }
    }
    base.is_back(&dyno, PATIENCE, 2_000).await;
}

#[tokio::test]
async fn a_flood_of_pings_pongs_or_empty_frames_is_stopped() {
    let dyno = Dyno::start(&[]).await;
    let mut witness = dyno.join("lobby", "花子").await;
    let no_end = [
        fragment("", true, false),
        fragment("", false, false).repeat(10_000),
    ]
    .concat();
    let floods: [(&str, Vec<u8>, &[u16]); 3] = [
        ("Pings", frame(PING, "x").repeat(10_000), &[4429]),
        ("Pongs", frame(PONG, "x").repeat(10_000), &[4429]),
        ("empty fragments", no_end, &[4429, 1009]), // a flood, or a message too big to ever end
    ];
    for (what, bytes, allowed) in floods {
        let mut raw = Raw::joined(&dyno, "lobby", what).await;
        raw.send(bytes).await;
        let (code, _) = raw.closed(PATIENCE).await;
        assert!(allowed.contains(&code), "ten thousand {what}: {code}");
    }
    for _ in 0..3 {
        witness
            .send_message(Message::Ping(Bytes::from_static(b"polite")))
            .await;
        witness.expect_pong(b"polite").await;
    }
    witness.say("unaffected").await;
}

// ---- only within one process

#[tokio::test]
async fn a_process_alone_forgets_the_oldest_of_a_thousand_empty_rooms() {
    let world = World::talkative(Bus::Alone).await;
    for i in 0..1_010 {
        let mut client = world.dyno.join(&format!("room {i}"), "花子").await;
        client.say("kept?").await;
        client.quit().await;
    }
    sleep(Duration::from_secs(7)).await; // empty rooms are swept on the renewal beat
    let history = async |i: usize| {
        world
            .dyno
            .join(&format!("room {i}"), "太郎")
            .await
            .history()
    };
    assert_eq!(
        history(1_009).await,
        ["kept?"],
        "the newest empty room is kept"
    );
    assert_eq!(history(100).await, ["kept?"]);
    assert_eq!(
        history(0).await,
        [] as [&str; 0],
        "the oldest one is forgotten"
    );
}

#[tokio::test]
async fn ids_rise_however_fast_one_talks() {
    let world = World::talkative(Bus::Alone).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    let said = say_many(&mut hanako, (0..500).map(|i| format!("m{i}"))).await;
    let ids: Vec<Id> = said.iter().map(|f| Id::of(f, "id")).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}
