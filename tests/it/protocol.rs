//! The wire protocol, without and with Redis: what a welcome holds, what happens to a message, who owns a name, and the
//! answer to everything that a page must not send.

use crate::support::broken_frames::{broken_frames, ping_of_length};
use crate::support::client::join_frame;
use crate::support::facts::*;
use crate::support::raw::{CLOSE, End, PING, PONG, TEXT, close_payload, fragment, frame};
use crate::support::{
    Client, Dyno, Id, PATIENCE, Raw, Store, World, check, cid, eventually, token,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

const SECOND: Duration = Duration::from_secs(1);

on_both_stores!(
    // the welcome
    a_welcome_has_every_field_that_a_page_needs,
    the_server_makes_a_token_only_for_a_join_without_one,
    a_newcomer_gets_the_last_fifty_messages,
    a_page_that_reconnects_gets_exactly_the_messages_it_missed,
    an_unknown_last_id_is_a_gap,
    last_0_0_is_a_gap_only_after_trimming,
    a_last_id_older_than_the_trimmed_stream_is_a_gap,
    a_room_full_of_the_longest_messages_can_be_joined,
    reconnecting_without_new_messages_replays_nothing,
    // talks
    everyone_receives_the_same_frame_for_a_talk,
    text_is_trimmed_and_crlf_becomes_lf,
    texts_with_control_characters_are_refused,
    length_is_counted_in_code_points_after_trimming,
    texts_without_a_visible_character_are_empty,
    a_talk_sent_twice_is_shown_once,
    a_resend_of_an_older_talk_is_acknowledged_to_its_sender_only,
    equal_cids_of_two_members_are_two_talks,
    rooms_are_separate,
    talks_above_the_rate_limit_get_slow_down,
    twenty_refused_talks_in_a_row_close_the_connection,
    // names and rooms
    invalid_names_and_rooms_are_refused,
    valid_names_of_many_scripts_are_accepted,
    a_name_belongs_to_its_token,
    names_and_rooms_that_fold_alike_are_the_same,
    quit_frees_the_name_at_once,
    a_name_is_free_after_its_last_tab_quits,
    a_name_stays_leased_for_a_while_after_its_connection_ends,
    members_see_who_joins_and_who_leaves,
    a_list_of_members_is_cut_at_its_maximum_but_the_count_is_exact,
    twenty_fast_reloads_are_one_member,
    // frames that a page must not send
    the_third_bad_message_closes_the_connection,
    unknown_fields_are_ignored,
    a_duplicate_key_is_a_bad_message,
    an_array_of_the_fields_is_a_bad_message,
    a_join_with_an_invalid_field_is_a_bad_message,
    binary_messages_are_closed_with_1003,
    a_second_join_and_a_talk_before_the_join_are_closed_with_4400,
    a_connection_that_does_not_join_in_time_is_closed,
    pings_are_answered_before_and_after_the_join,
);

fn id(frame: &Value) -> &str {
    let id = frame["id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {frame}"))
}

/// The frames that a newcomer gets of these.
fn newest(said: &[Value]) -> &[Value] {
    &said[said.len() - NEWCOMER..]
}

// ---- the welcome

async fn a_welcome_has_every_field_that_a_page_needs(store: Store) {
    let world = World::start(store, &[]).await;
    let token = token();
    let hanako = world.resume("花子", &token, None).await;
    let welcome = hanako.welcome.as_object().expect("an object");
    let fields: BTreeSet<&str> = welcome.keys().map(String::as_str).collect();
    let expected = "boot count dyno gap history kind last max_message room spread_ms tick_ms token user \
         users";
    assert_eq!(fields, expected.split(' ').collect());
    hanako.welcomed_with(json!({
        "room": "lobby",
        "user": "花子",
        "token": token,
        "dyno": "local",
        "last": "0-0",
        "gap": false,
        "history": [],
        "users": ["花子"],
        "count": 1,
        "tick_ms": HEARTBEAT.as_millis() as u64,
        "max_message": MAX_MESSAGE,
        "spread_ms": *SPREAD_MS.start(),
    }));
    let boot = |client: &Client| client.welcome["boot"].as_str().map(str::to_string);
    assert!(boot(&hanako).is_some_and(|b| b.len() >= 8), "{welcome:?}");

    let named = World::start(store, &[("DYNO", "web.2")]).await;
    let taro = named.join("太郎").await;
    taro.welcomed_with(json!({"dyno": "web.2"}));
    assert_ne!(boot(&taro), boot(&hanako), "each process has a boot id");
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

async fn a_newcomer_gets_the_last_fifty_messages(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let said = hanako.say_many(60).await;
    let taro = world.join("太郎").await;
    let last = id(&said[59]);
    taro.welcomed_with(json!({"history": newest(&said), "gap": false, "last": last}));
    world.saw_everything(&hanako);
    world.saw_everything(&taro);
}

async fn a_page_that_reconnects_gets_exactly_the_messages_it_missed(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let mut taro = world.join("太郎").await;
    hanako.say("before").await;
    taro.hears("before").await;
    let (token, last) = taro.vanish().await;
    let missed = hanako.say_many(200).await;

    let mut taro = world.resume("太郎", &token, Some(&last)).await;
    let newest = id(&missed[199]);
    taro.welcomed_with(json!({"history": missed, "gap": false, "last": newest}));
    hanako.say("after").await;
    taro.hears("after").await;
    world.saw_everything(&taro);
}

async fn an_unknown_last_id_is_a_gap(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let said = hanako.say_many(60).await;
    let taro = world.resume("太郎", &token(), Some("1-1")).await;
    taro.welcomed_with(json!({"gap": true, "history": newest(&said)}));
    // The welcome's last id is the new baseline, also when it is lower.
    let ahead = Some("99999999999999-0");
    let jiro = world.resume("次郎", &token(), ahead).await;
    jiro.welcomed_with(json!({"gap": true, "last": id(&said[59])}));
}

async fn last_0_0_is_a_gap_only_after_trimming(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.resume("花子", &token(), Some("0-0")).await;
    hanako.welcomed_with(json!({"gap": false, "last": "0-0"}));
    let said = hanako.say_many(60).await;
    let taro = world.resume("太郎", &token(), Some("0-0")).await;
    taro.welcomed_with(json!({"gap": false, "history": said}));
}

async fn a_last_id_older_than_the_trimmed_stream_is_a_gap(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let said = hanako.say_many(HISTORY + 500).await;
    let taros = token();
    let oldest_kept_minus_one = id(&said[HISTORY - 1]);
    for (last, gap, history) in [
        (id(&said[0]), true, newest(&said)),
        ("0-0", true, newest(&said)),
        (oldest_kept_minus_one, false, &said[HISTORY..]),
    ] {
        let taro = world.resume("太郎", &taros, Some(last)).await;
        taro.welcomed_with(json!({"gap": gap, "history": history}));
    }
    let newcomer = world.join("次郎").await;
    newcomer.welcomed_with(json!({"gap": false, "history": newest(&said)}));
    world.saw_everything(&hanako);
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

async fn reconnecting_without_new_messages_replays_nothing(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    // The first round is in an empty room, the second has seen one message.
    for _ in 0..2 {
        for _ in 0..5 {
            hanako = hanako.reconnect(&world.dyno).await;
            hanako.welcomed_with(json!({"history": [], "gap": false}));
        }
        hanako.say("and again").await;
    }
}

// ---- talks

async fn everyone_receives_the_same_frame_for_a_talk(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    let mut taro = world.join("太郎").await;
    let mut talk = json!({"kind": "talk", "message": "こんにちは", "cid": "3f2a9c0d11e04b57"});
    let mut sent = talk.clone();
    for (key, value) in [
        ("user", json!("太郎")),
        ("id", json!("9-9")),
        ("x", json!(1)),
    ] {
        sent[key] = value; // ignored
    }
    hanako.send(sent).await;
    let own = hanako.hears("こんにちは").await;
    assert_eq!(taro.hears("こんにちは").await, own);
    talk["user"] = json!("花子");
    talk["id"] = own["id"].clone();
    assert_eq!(own, talk, "these fields and no others");
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

async fn text_is_trimmed_and_crlf_becomes_lf(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
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

async fn texts_with_control_characters_are_refused(store: Store) {
    let world = World::start(store, &[]).await;
    let token = token();
    for bad in [
        "a\0b",
        "\u{1b}[31m",
        "a\u{7f}b",
        "a\u{85}b",
        "a\rb",
        "a\u{8}",
        "\0",
    ] {
        // A new connection each, because the third bad message closes it.
        let mut hanako = world.resume("花子", &token, None).await;
        hanako.talk_refused(bad, "bad_message").await;
        hanako.settle().await;
    }
}

async fn length_is_counted_in_code_points_after_trimming(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let most = |text: &str| text.repeat(MAX_MESSAGE);
    for text in [most("😀"), most("a"), most("あ"), "a".repeat(900)] {
        hanako.say(&text).await;
    }
    hanako.talk(&format!("  {}\r\n ", most("😀"))).await;
    hanako.hears(&most("😀")).await;
    for text in [
        most("😀") + "😀",
        most("a") + "a",
        "e\u{301}".repeat(MAX_MESSAGE / 2 + 1),
    ] {
        hanako.talk_refused(&text, "too_long").await;
    }
    for text in ["", " ", "\t\r\n \u{3000}"] {
        hanako.talk_refused(text, "empty").await;
    }
    hanako.say("the connection is still open").await;
}

async fn texts_without_a_visible_character_are_empty(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    for text in [
        "\u{200b}",
        "\u{2060}\u{feff}\u{ad}",
        "\u{3164}",
        "\u{ffa0} \u{115f}\u{1160}",
        "\u{2800}\n\u{2800}",
        "\u{fe0f}\u{e0100}\u{e0067}\u{e007f}",
        "\u{200d}",
        &"\u{200b}".repeat(MAX_MESSAGE + 1),
    ] {
        hanako.talk_refused(text, "empty").await;
    }
    for text in ["👩\u{200d}👩\u{200d}👧", "❤\u{fe0f}", "\u{200b}a\u{200b}"] {
        hanako.say(text).await; // stays as it is
    }
}

async fn a_talk_sent_twice_is_shown_once(store: Store) {
    let world = World::talkative(store).await;
    let mut hanako = world.join("花子").await;
    let mut taro = world.join("太郎").await;
    hanako.talk_as("once", "c1").await;
    hanako.talk_as("once", "c1").await;
    hanako.hears("once").await;
    hanako.talk_as("once", "c1").await;
    hanako.talk_as("another text, the same cid", "c1").await;
    hanako.say("end").await; // fails if another talk comes before it
    taro.hears_all(&["once", "end"]).await;

    // The connection ends after the talk and before its acknowledgement: the resend adds nothing.
    let (token, last) = hanako.vanish().await;
    let mut cut = world.resume("花子", &token, Some(&last)).await;
    cut.talk_as("cut", "c2").await;
    taro.hears("cut").await;
    drop(cut);
    let mut back = world.resume("花子", &token, Some(&last)).await;
    assert_eq!(back.history(), ["cut"], "the welcome acknowledges it");
    back.talk_as("cut", "c2").await;
    back.say("end 2").await;
    taro.hears("end 2").await;
    world.saw_everything(&taro);
}

async fn a_resend_of_an_older_talk_is_acknowledged_to_its_sender_only(store: Store) {
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
    // Its echo came on this connection: the resend is not answered.
    late.talk_as("new", "c2").await;
    late.hears("new").await;
    late.talk_as("new", "c2").await;
    late.say("end").await;

    taro.hears_all(&["precious", "after"]).await;
    for i in 1..=60 {
        taro.hears(&format!("m{i}")).await;
    }
    taro.hears_all(&["new", "end"]).await;
    world.saw_everything(&taro);
}

async fn equal_cids_of_two_members_are_two_talks(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    let mut taro = world.join("太郎").await;
    hanako.talk_as("hers", "same").await;
    taro.hears("hers").await;
    taro.talk_as("his", "same").await;
    taro.hears("his").await;
    hanako.hears_all(&["hers", "his"]).await;
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
    // An ack comes through the room, so the answer to a ping may overtake it.
    let (said, refused) = loop {
        hanako.settle_loosely().await;
        let (said, refused) = hanako.talks_and_refusals();
        if said.len() + refused.len() >= TALKS || start.elapsed() > PATIENCE {
            break (said, refused);
        }
        sleep(Duration::from_secs(1)).await; // pings have a rate limit, too
    };
    let most = burst_after(start);
    assert!((TALK_BURST..=most).contains(&said.len()), "{said:?}");
    assert_eq!(said.len() + refused.len(), TALKS, "{said:?} {refused:?}");
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
    let (said, refused) = hanako.talks_and_refusals();
    let is_refused = |cid: &String| refused.iter().any(|error| error["cid"] == **cid);
    let runs = cids.split(|cid| !is_refused(cid)).map(<[String]>::len);
    let longest = runs.max().unwrap_or(0);
    // The Close may take the place of the last error.
    let in_a_row = TALK_REFUSALS - 1..=TALK_REFUSALS;
    assert!(in_a_row.contains(&longest), "{longest} refused in a row");
    taro.talk("静か").await;
    let mut heard = vec![];
    while heard
        .last()
        .is_none_or(|talk: &Value| talk["message"] != "静か")
    {
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
    let blank = ["", "   "];
    let invisible = [
        "a\u{200b}b",
        "\u{202e}oraT",
        "\u{2066}a",
        "\u{feff}a",
        "a\u{ad}b",
        "a\u{3164}",
        "葛\u{e0100}",
        "a\u{34f}b",
    ];
    let control = ["a\nb", "a\tb", "a\u{1b}[31m", "a\0"];
    let special = [
        "a/b",
        "a{b}",
        "︷a︸",
        "a:b",
        "a*",
        "a\"b",
        "<img onerror=x>",
    ];
    let no_letter = ["---", "_._", "'’・", "😀😀", "a😀", "\u{301}"];
    let bad = [&blank[..], &invisible, &control, &special, &no_letter].concat();
    let (long_name, long_room) = ("あ".repeat(MAX_NAME + 1), "あ".repeat(MAX_ROOM + 1));
    let very_long = "x".repeat(2_000);
    let mut refused = vec![
        ("lobby", &*long_name, "bad_name"),
        ("lobby", &*very_long, "bad_name"),
        (&*long_room, "花子", "bad_room"),
    ];
    for bad in bad {
        refused.extend([("lobby", bad, "bad_name"), (bad, "花子", "bad_room")]);
    }
    join_all(refused.iter().map(async |(room, user, code)| {
        dyno.join_refused(room, user, &token(), code).await;
    }))
    .await;
    // What a client sends is not logged as it is.
    let log = dyno.log();
    for bad in ["\u{1b}", "oraT", "<img"] {
        assert!(!log.contains(bad), "{bad:?} in the log:\n{log}");
    }
    let longest = "い".repeat(MAX_NAME);
    let mut first = dyno.join(&"あ".repeat(MAX_ROOM), &longest).await;
    assert_eq!(first.user, longest);
    first.say("ok").await;
}

async fn valid_names_of_many_scripts_are_accepted(store: Store) {
    let world = World::start(store, &[]).await;
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
        ("山田　太郎", "山田 太郎"),
        ("Ann  \u{a0}Lee", "Ann Lee"),
        ("O'Brien", "O'Brien"),
        ("O’Hara", "O’Hara"),
        ("ジャン・レノ", "ジャン・レノ"),
    ] {
        let client = world.join(asked).await;
        assert_eq!(client.user, shown);
        client.quit().await;
    }
    let client = world.dyno.join(" Ｌｏｂｂｙ One ", "花子").await;
    client.welcomed_with(json!({"room": "lobby one"})); // rooms are shown folded
    for (asked, folded) in [
        ("部屋　　Ａ", "部屋 a"),
        ("O'Brien・Straße", "o'brien・strasse"),
    ] {
        let client = world.dyno.join(asked, "花子").await;
        client.welcomed_with(json!({"room": folded}));
    }
}

async fn a_name_belongs_to_its_token(store: Store) {
    let world = World::start(store, &[]).await;
    let hanako = world.join("花子").await;
    world.name_is_taken("花子").await;
    let mut tab = world.resume("花子", &hanako.token, None).await;
    assert_eq!(tab.members(), (vec!["花子".into()], 1), "two tabs");
    let (token, _) = hanako.vanish().await;
    world.name_is_taken("花子").await; // although its first connection is gone
    let mut back = world.resume("花子", &token, None).await;
    back.say("again").await;
    tab.hears("again").await;
    tab.saw_no_change_since(0);
}

async fn names_and_rooms_that_fold_alike_are_the_same(store: Store) {
    let world = World::start(store, &[]).await;
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
    for (first, alike) in [
        ("Jose\u{301}", "JOS\u{c9}"),
        ("Ann Lee", "ann\u{3000}\u{a0}lee"),
        ("ΦΩΣ", "φως"),
        ("Straße", "STRASSE"),
        ("ｼﾞｬﾝ･ﾚﾉ", "ジャン・レノ"),
    ] {
        let _first = world.join(first).await;
        world.name_is_taken(alike).await;
        let mut one = world.dyno.join(&format!("{first} A"), "花子").await;
        let mut other = world.dyno.join(&format!("{alike}  a"), "太郎").await;
        other.say(first).await;
        one.hears(first).await;
    }
}

async fn quit_frees_the_name_at_once(store: Store) {
    let world = World::start(store, &[]).await;
    let _taro = world.join("太郎").await;
    for _ in 0..3 {
        world.join("花子").await.quit().await; // a new token each time
    }
    world.dyno.connect().await.quit().await; // before the join
}

async fn a_name_is_free_after_its_last_tab_quits(store: Store) {
    let world = World::start(store, &[]).await;
    let mut taro = world.join("太郎").await;
    let first = world.join("花子").await;
    let second = world.resume("花子", &first.token, None).await;
    second.quit().await;
    world.name_is_taken("花子").await;
    taro.expect_members(&["太郎", "花子"]).await;
    first.quit().await;
    taro.expect_members(&["太郎"]).await;
    world.join("花子").await;
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
    // Back in time: the lease starts again, and the others see no change.
    let hanako = world.resume("花子", &token, Some(&last)).await;
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

async fn members_see_who_joins_and_who_leaves(store: Store) {
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
    jiro.quit().await;
    taro.expect_members_within(&two, soon).await;
    hanako.expect_members_within(&two, soon).await;
    let frames = taro.members_frames();
    sleep(RENEWAL + 2 * SECOND).await;
    taro.saw_no_change_since(frames); // a list is sent only when it changed
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
    let expected = (MAX_LIST, MEMBERS as u64);
    let (users, count) = clients[MEMBERS - 1].members();
    assert_eq!((users.len(), count), expected);
    assert!(users.is_sorted(), "{users:?}");
    assert!(users.iter().all(|user| all.contains(user)), "{users:?}");
    eventually("the first client knows the count", PATIENCE, async || {
        let (users, count) = clients[0].members();
        let seen = (users.len(), count);
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
    let frames = clients[0].members_frames();
    assert!(frames <= 60, "{frames} lists for {MEMBERS} joins");
}

async fn twenty_fast_reloads_are_one_member(store: Store) {
    let world = World::start(store, &[]).await;
    let mut taro = world.join("太郎").await;
    let mut hanako = world.join("花子").await;
    taro.expect_members(&["太郎", "花子"]).await;
    for _ in 0..20 {
        let (token, _) = hanako.vanish().await;
        hanako = world.resume("花子", &token, None).await;
        assert_eq!(hanako.members().0, ["太郎", "花子"]);
    }
    hanako.say("still me").await;
    taro.hears("still me").await;
    sleep(2 * SECOND).await;
    taro.saw_no_change_since(1);
}

// ---- frames that a page must not send

/// Copies of a frame, each with one invalid value of one field.
fn with_each(valid: &Value, invalid: &Value) -> Vec<Value> {
    let mut frames = vec![];
    for (field, values) in invalid.as_object().expect("fields") {
        for value in values.as_array().expect("values") {
            let mut frame = valid.clone();
            frame[field] = value.clone();
            frames.push(frame);
        }
    }
    frames
}

async fn the_third_bad_message_closes_the_connection(store: Store) {
    let world = World::start(store, &[]).await;
    let dyno = &world.dyno;
    let brackets = "[".repeat(200) + &"]".repeat(200);
    let no_object = ["hello", "", "[]", "null", "5", "\"talk\"", "{}"];
    let no_json = [
        r#"{"kind":"ping""#,
        r#"{"kind":"ping"} x"#,
        r#"{"kind":NaN}"#,
        r#"{"kind":"talk","message":"\ud800","cid":"c"}"#,
        &"[".repeat(200),
        &format!(r#"{{"kind":"ping","x":{brackets}}}"#),
        &" ".repeat(MAX_FRAME),
    ];
    let no_frame = [
        r#"{"kind":"talk","message":"no cid"}"#,
        r#"{"kind":"talk","cid":"c"}"#,
    ];
    let mut bad = [&no_object[..], &no_json, &no_frame].concat();
    let talk = json!({"kind": "talk", "message": "a", "cid": "c"});
    let too_long = "x".repeat(MAX_CID + 1);
    let invalid = json!({
        "kind": ["shout", 5, null],
        "message": [5, null, ["a"]],
        "cid": [null, 5, "", too_long, "a b", "ä"],
    });
    let frames = with_each(&talk, &invalid);
    let frames: Vec<String> = frames.iter().map(Value::to_string).collect();
    bad.extend(frames.iter().map(String::as_str));
    join_all(bad.iter().enumerate().map(async |(i, bad)| {
        let mut client = dyno.join("lobby", &format!("n{i}")).await;
        for _ in 0..BAD_MESSAGES {
            client.send_text(bad).await;
        }
        let shown: String = bad.chars().take(60).collect();
        client.expect_three_bad_messages(&shown).await;
    }))
    .await;
    let mut patient = world.join("花子").await;
    for _ in 1..BAD_MESSAGES {
        patient.send_text("hello").await;
        patient.expect_error("bad_message").await;
    }
    patient.say("after two bad messages").await;
}

async fn unknown_fields_are_ignored(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.dyno.connect().await;
    let token = token();
    let join =
        r#"{"room":"lobby","future":{"a":[1,2]},"user":"花子","token":"TOKEN","kind":"join"}"#;
    hanako.send_text(&join.replace("TOKEN", &token)).await;
    hanako.joined().await;
    let spaced = " \n\t{ \"cid\" : \"c2\" , \"message\" : \"\\u82b1\\ud83d\\ude00\" , \"kind\" : \"talk\" } \n";
    hanako.send_text(spaced).await;
    hanako.hears("花😀").await;
    hanako
        .send_text(r#"{"kind":"ping","message":5,"room":{}}"#)
        .await;
    hanako.expect_kind("tick").await;
}

async fn a_duplicate_key_is_a_bad_message(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    for duplicate in [
        r#"{"kind":"talk","message":"first","cid":"c1","message":"last"}"#,
        r#"{"kind":"quit","kind":"talk","message":"hello","cid":"c1"}"#,
    ] {
        hanako.send_text(duplicate).await;
        hanako.expect_error("bad_message").await;
    }
    hanako.say("still here").await;
}

async fn an_array_of_the_fields_is_a_bad_message(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    for array in [r#"["talk","hello","c1"]"#, r#" ["quit"]"#] {
        hanako.send_text(array).await;
        hanako.expect_error("bad_message").await;
    }
    hanako.say("still here").await;
}

async fn a_join_with_an_invalid_field_is_a_bad_message(store: Store) {
    let world = World::start(store, &[]).await;
    let dyno = &world.dyno;
    let word = |length: usize| "x".repeat(length);
    let (short, long) = (word(TOKEN.start() - 1), word(TOKEN.end() + 1));
    let invalid = json!({
        "token": [5, "short", short, long, "0123456789abcde "],
        "last": [5, "", "abc", "1-", "-1", "1-x", "1", "99999999999999999999999-0"],
        "room": [5, null],
        "user": [5, null, ["花子"]],
    });
    let valid = join_frame("lobby", "花子", &token(), None);
    let mut bad = with_each(&valid, &invalid);
    bad.push(json!({"kind": "join", "room": "lobby", "token": token(), "last": null}));
    join_all(bad.iter().map(async |bad| {
        let mut client = dyno.connect().await;
        for _ in 0..BAD_MESSAGES {
            client.send(bad.clone()).await;
        }
        client.expect_three_bad_messages(&bad.to_string()).await;
    }))
    .await;
    // A valid join may follow on the same connection.
    let mut client = dyno.connect().await;
    client.send(bad[0].clone()).await;
    client.expect_error("bad_message").await;
    client.join("lobby", "花子", &token(), None).await;
}

async fn binary_messages_are_closed_with_1003(store: Store) {
    let world = World::start(store, &[]).await;
    let mut joined = world.join("花子").await;
    let ping = Message::binary(&b"{\"kind\":\"ping\"}"[..]);
    joined.send_message(ping).await;
    joined.expect_close(1003).await;
    let mut not_joined = world.dyno.connect().await;
    not_joined.send_message(Message::binary(&b""[..])).await;
    not_joined.expect_close(1003).await;
}

async fn a_second_join_and_a_talk_before_the_join_are_closed_with_4400(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.join("花子").await;
    let again = join_frame("lobby", "花子", &hanako.token, None);
    hanako.send(again).await;
    hanako.expect_close_after_error(4400).await;
    let mut eager = world.dyno.connect().await;
    eager.talk("too early").await;
    eager.expect_close_after_error(4400).await;
    let newcomer = world.join("太郎").await;
    newcomer.welcomed_with(json!({"history": []}));
}

async fn a_connection_that_does_not_join_in_time_is_closed(store: Store) {
    let world = World::start(store, &[]).await;
    let start = Instant::now();
    let mut silent = world.dyno.connect().await;
    let mut pinging = world.dyno.connect().await;
    for _ in 0..4 {
        pinging.settle().await; // a ping is not a join
        sleep(JOIN_DEADLINE / 5).await;
    }
    silent.expect_close_after_error(4400).await;
    pinging.expect_close_after_error(4400).await;
    let took = start.elapsed();
    let expected = JOIN_DEADLINE - SECOND..JOIN_DEADLINE + 4 * SECOND;
    assert!(expected.contains(&took), "closed after {took:?}");
}

async fn pings_are_answered_before_and_after_the_join(store: Store) {
    let world = World::start(store, &[]).await;
    let mut hanako = world.dyno.connect().await;
    let ping = |payload: &[u8]| Message::Ping(payload.to_vec().into());
    hanako.settle().await;
    hanako.send_message(ping(b"before")).await;
    hanako.expect_pong(b"before").await;
    hanako.join("lobby", "花子", &token(), None).await;
    hanako.settle().await;
    for payload in [&b""[..], &[7; 125]] {
        hanako.send_message(ping(payload)).await;
        hanako.expect_pong(payload).await;
    }
    let unasked = Message::Pong("unasked".into());
    hanako.send_message(unasked).await;
    hanako.say("after").await;
}

// ---- frames of RFC 6455: the same without and with Redis

/// The code with which the dyno closes a connection that sends these bytes, and more bytes after them.
async fn closed_with(dyno: &Dyno, bytes: &[u8], joined: bool) -> u16 {
    let mut raw = match joined {
        true => Raw::joined(dyno, "lobby", &format!("n{}", fastrand::u32(..))).await,
        false => Raw::websocket(dyno).await,
    };
    raw.send(bytes).await;
    // Unread bytes must not turn the Close into a reset.
    raw.send(frame(TEXT, "x".repeat(4_000)).repeat(4)).await;
    raw.closed(PATIENCE).await.0
}

#[tokio::test]
async fn broken_frames_are_closed_with_their_code_and_nobody_else_is() {
    let dyno = Dyno::start(&[]).await;
    let mut witness = dyno.join("lobby", "花子").await;
    for joined in [false, true] {
        for (what, expected, bytes) in broken_frames() {
            let code = closed_with(&dyno, &bytes, joined).await;
            assert_eq!(code, expected, "{what}, joined: {joined}");
        }
    }
    assert_eq!(witness.count_heard(|heard| heard.is_end()), 0);
    witness.say("this connection is open").await;
}

#[tokio::test]
async fn a_frame_of_the_maximal_length_is_read() {
    let dyno = Dyno::start(&[]).await;
    let mut hanako = dyno.join("lobby", "花子").await;
    hanako.send_text(&ping_of_length(MAX_FRAME)).await;
    hanako.expect_kind("tick").await;
    hanako.say("after").await;
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_a_ping_between_them() {
    let dyno = Dyno::start(&[]).await;
    let mut raw = Raw::joined(&dyno, "lobby", "花子").await;
    let talk = json!({"kind": "talk", "message": "花と月", "cid": "c1"}).to_string();
    let within_a_character = talk.find('花').expect("it is there") + 1;
    let (start, rest) = talk.as_bytes().split_at(within_a_character);
    let (middle, end) = rest.split_at(5);
    raw.send(fragment(start, true, false)).await;
    raw.send(frame(PING, "between")).await;
    raw.send(fragment("", false, false)).await;
    raw.send(fragment(middle, false, false)).await;
    raw.send(fragment(end, false, true)).await;
    let first = raw.frame(PATIENCE).await.expect("a frame");
    assert_eq!(first, (PONG, b"between".to_vec()), "before the message");
    assert_eq!(raw.json().await["message"], "花と月");
}

#[tokio::test]
async fn a_close_is_echoed_and_then_the_connection_ends() {
    let dyno = Dyno::start(&[]).await;
    for joined in [false, true] {
        for code in [1000, 1001, 3000, 4999] {
            let bytes = frame(CLOSE, close_payload(code, "さようなら".as_bytes()));
            let echoed = closed_with(&dyno, &bytes, joined).await;
            assert_eq!(echoed, code, "joined: {joined}");
        }
        let echoed = closed_with(&dyno, &frame(CLOSE, ""), joined).await;
        assert!([1000, 1005].contains(&echoed), "{echoed} for no code");
    }
}

#[tokio::test]
async fn connections_that_end_without_a_close_free_their_resources() {
    let dyno = Dyno::start(&[]).await;
    dyno.join("lobby", "花子").await.quit().await;
    let base = check::Base::of(&dyno).await;
    for i in 0..50 {
        let mut raw = Raw::joined(&dyno, "lobby", &format!("n{i}")).await;
        if i % 2 == 0 {
            raw.finish().await;
            let (_, end) = raw.rest(PATIENCE).await;
            assert_eq!(end, End::Eof, "a FIN is answered with a FIN");
        }
    }
    base.is_back(&dyno, PATIENCE, 2_000).await;
}

#[tokio::test]
async fn a_flood_of_pings_or_pongs_is_closed_with_4429() {
    let dyno = Dyno::start(&[]).await;
    let mut witness = dyno.join("lobby", "花子").await;
    for (what, opcode) in [("Pings", PING), ("Pongs", PONG)] {
        let mut raw = Raw::joined(&dyno, "lobby", what).await;
        raw.send(frame(opcode, "x").repeat(10_000)).await;
        let (code, _) = raw.closed(PATIENCE).await;
        assert_eq!(code, 4429, "10,000 {what}");
    }
    for _ in 0..3 {
        let ping = Message::Ping("polite".into());
        witness.send_message(ping).await;
        witness.expect_pong(b"polite").await;
    }
    witness.say("unaffected").await;
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
    for (room, expected) in [
        (ROOMS - 1, json!(["kept?"])),
        (100, json!(["kept?"])),
        (0, json!([])),
    ] {
        let client = world.dyno.join(&format!("room {room}"), "太郎").await;
        assert_eq!(json!(client.history()), expected, "room {room}");
    }
}

#[tokio::test]
async fn ids_rise_at_any_rate() {
    let world = World::talkative(Store::Memory).await;
    let mut hanako = world.join("花子").await;
    let said = hanako.say_many(500).await;
    let ids: Vec<Id> = said.iter().map(|frame| Id::of(frame, "id")).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}
