//! A message from typing to the acknowledgement.

use super::*;

#[tokio::test]
async fn the_limit_counts_code_points_and_cuts_nothing() {
    let (_world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    let smiles = |count: usize| "🙂".repeat(count);
    for (length, counter) in [
        (799, None),
        (801, Some("801 / 1000")),
        (MAX_MESSAGE + 1, Some("1001 / 1000")),
    ] {
        browser.fill("Message", &smiles(length)).await;
        let shown = browser.description("Message").await;
        match counter {
            Some(counter) => assert!(shown.contains(counter), "{length}: {shown:?}"),
            None => assert_eq!(shown, "", "{length} is far from the limit"),
        }
    }
    assert_eq!(browser.field("Message", "ariaInvalid").await, "true");
    browser.keys("Message", ENTER).await;
    assert_eq!(browser.texts().await.len(), 0, "too long is not sent");
    browser.value_is("Message", &smiles(MAX_MESSAGE + 1)).await; // and not cut
    browser.fill("Message", &smiles(MAX_MESSAGE)).await;
    browser.keys("Message", ENTER).await;
    browser.shows(&[&smiles(MAX_MESSAGE)]).await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn messages_over_the_rate_limit_are_sent_later_in_order() {
    let (_world, browser) = world_in_browser(Store::Memory, &[]).await; // with the limit on talking
    browser.join("lobby", "taro").await;
    let all: Vec<String> = (0..16).map(|i| format!("m{i}")).collect();
    for text in &all {
        browser.say(text).await;
    }
    browser.own_are("sent").await;
    assert_eq!(browser.texts().await, all);
}

#[tokio::test]
async fn a_draft_and_unsent_messages_survive_a_reload() {
    let (world, proxy, browser) = browser_behind_proxy().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    proxy.set(Flow::SwallowAnswers); // the first one arrives, but the page cannot know
    browser.say("one").await;
    hanako.hears("one").await;
    browser.say("two").await;
    browser.fill("Message", "half a sent").await;
    browser.own_are("sending").await;
    browser.later(11 * SECOND).await;
    browser.own_are("not confirmed yet").await;
    proxy.set(Flow::Through);
    browser.reload().await;
    browser.own_are("sent").await;
    browser.shows(&["one", "two"]).await;
    browser.value_is("Message", "half a sent").await;
    hanako.hears("two").await;
    assert_eq!(stored(&world, "lobby"), 2, "sent again is not said again");
    for _ in 0..10 {
        browser.reload().await;
    }
    browser.connected().await;
    browser.shows(&["one", "two"]).await;
    browser.members_are(&["hanako", "taro"]).await;
    assert_eq!(browser.notes().await, [""; 0]);
    hanako.say("three").await;
    assert_eq!(hanako.members().0, ["hanako", "taro"], "nobody was away");
}

#[tokio::test]
async fn old_unconfirmed_messages_are_not_resent_without_asking() {
    let (world, proxy, browser) = browser_behind_proxy().await;
    browser.join("lobby", "taro").await;
    proxy.set(Flow::Swallow);
    browser.say("handed over").await;
    browser.say("never left the page").await;
    browser.own_are("sending").await;
    // As if the page had been closed for two minutes, longer than the server remembers a cid, and many messages.
    let script = "addEventListener('pagehide', () => {
        const kept = JSON.parse(sessionStorage.dynochat);
        for (const one of kept.pending) if (one.sentAt) one.since -= 120000;
        kept.current.lastId = '1-1';
        sessionStorage.dynochat = JSON.stringify(kept);
    })";
    browser.eval(script).await;
    proxy.set(Flow::Through);
    browser.reload().await;
    browser.shows(&["never left the page", "handed over"]).await;
    assert_eq!(
        browser.states().await,
        ["sent", "not confirmed · Retry / Discard"]
    );
    browser.press("Retry").await;
    browser.own_are("sent").await;
    assert_eq!(stored(&world, "lobby"), 2);

    // A message that waits at Leave is kept; after the next join the person decides.
    browser.open_panel().await;
    browser.press("pretend to be offline").await;
    browser.say("forget it").await;
    browser.press("Leave").await;
    browser.join("lobby", "taro").await;
    assert_eq!(
        browser.states().await.last().expect("three"),
        "not sent · Retry / Discard"
    );
    browser.press("Discard").await;
    browser.shows(&["never left the page", "handed over"]).await;
    browser.reload().await;
    browser.connected().await;
    browser.shows(&["never left the page", "handed over"]).await;
}

#[tokio::test]
async fn the_page_shows_that_redis_is_down_and_keeps_messages() {
    let browser = Browser::start().await;
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    browser.send("before").await;
    redis.stop().await;
    browser.alert_contains("Redis").await;
    browser.say("one").await;
    browser.say("two").await;
    assert!(browser.chip().await.starts_with("Connected")); // the connection itself is fine
    assert_eq!(browser.messages().await[2].state, "sending");

    let (first, _) = browser.second_tab().await; // a join must wait for Redis
    browser.open(&page_at(dyno.addr())).await;
    browser.ask_to_join("lobby", "taro").await;
    browser.alert_contains("Redis").await; // beside the form
    browser.later(15 * SECOND).await; // longer than a try may take otherwise
    assert_eq!(browser.chip().await, "Connecting…");
    redis.restart().await;
    browser.connected().await;
    for _ in 0..2 {
        browser.shows(&["before", "one", "two"]).await;
        browser.own_are("sent").await;
        assert_eq!(browser.alert().await, "");
        browser.switch(&first).await;
    }
    assert_eq!(check::stream(&redis, "lobby").len(), 3);
}

#[tokio::test]
async fn leave_while_a_join_waits_for_redis_ends_the_join() {
    let browser = Browser::start().await;
    let mut redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[]).await;
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    redis.stop().await;
    browser.alert_contains("Redis").await;
    browser.reload().await; // the page joins again, and is told to wait
    browser.alert_contains("Redis").await;
    sleep(SECOND / 2).await;
    browser.press("Leave").await;
    browser.later(4 * SECOND).await; // the end of the wait
    sleep(SECOND).await;
    assert_eq!(browser.chip().await, "Left");
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn enter_accepts_a_word_of_the_input_method_and_does_not_send() {
    let (_world, browser) = one_browser().await;
    browser.join("lobby", "hanako").await;
    browser.keys("Message", "").await;
    let composition = json!({"text": "にほん", "selectionStart": 3, "selectionEnd": 3});
    browser
        .devtools("Input.imeSetComposition", composition)
        .await;
    for kind in ["rawKeyDown", "keyUp"] {
        let enter =
            json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229});
        browser.devtools("Input.dispatchKeyEvent", enter).await;
    }
    browser.value_is("Message", "にほん").await;
    browser
        .devtools("Input.insertText", json!({"text": "日本"}))
        .await;
    browser.value_is("Message", "日本").await; // picked, not sent
    browser.keys("Message", ENTER).await;
    browser.shows(&["日本"]).await;
}

#[tokio::test]
async fn a_rejected_message_offers_retry_and_discard() {
    let (_world, browser) = one_browser().await;
    let spoil = "const send = WebSocket.prototype.send; window.spoil = true;
        WebSocket.prototype.send = function (data) {
            const frame = JSON.parse(data);
            if (spoil && frame.message) frame.message = ' ';
            send.call(this, JSON.stringify(frame));
        }";
    browser.eval(spoil).await;
    browser.join("lobby", "taro").await;
    for text in ["one", "two"] {
        browser.say(text).await;
        let what = format!("{text} is refused with a sentence");
        let last = async || browser.states().await.pop().unwrap_or_default();
        let refused = "not sent · Retry / Discard";
        let is_refused = |s: &String| s.starts_with(refused) && s.ends_with('.');
        settles(&what, last, is_refused).await;
    }
    browser.eval("window.spoil = false").await;
    browser.say("three").await; // does not wait for them
    browser.shows(&["three", "one", "two"]).await;
    let choose = async |what: &str| {
        let click = "[...document.querySelectorAll('.state button')].find((b) => b.textContent === arguments[0]).click();
            return document.activeElement.id";
        browser.eval_with(click, json!([what])).await
    };
    assert_eq!(choose("Retry").await, "message"); // the cursor returns to where one writes
    let sent = |states: &Vec<String>| states.iter().filter(|s| *s != "sent").count() == 1;
    settles("sent but one", async || browser.states().await, sent).await;
    assert_eq!(choose("Discard").await, "message");
    browser.shows(&["three", "one"]).await;
    browser.own_are("sent").await;
}
