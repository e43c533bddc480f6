//! A message from typing to the acknowledgement.

use super::*;

#[tokio::test]
async fn long_messages_are_not_cut_and_those_over_the_rate_limit_are_sent_later_in_order() {
    let page = Browser::start(Settings::Usual).await;
    let dyno = Dyno::start(&[]).await; // with the limit on talking
    page.open(dyno.addr(), "/").await;
    page.join("lobby", "taro").await;
    // The limit counts code points.
    let smiles = |count: usize| "🙂".repeat(count);
    for (length, counter) in [
        (799, ""),
        (801, "801 / 1000"),
        (MAX_MESSAGE + 1, "1001 / 1000"),
    ] {
        page.fill("Message", &smiles(length)).await;
        let shown: String = page.get("description('Message')").await;
        assert!(shown.contains(counter), "{length}: {shown:?}");
        assert_eq!(shown.is_empty(), counter.is_empty(), "{length}: {shown:?}");
    }
    page.is("field('Message').ariaInvalid", "true").await;
    page.keys("Message", &Key::Enter).await;
    page.is("count('.message')", 0).await; // too long is not sent
    page.value_is("Message", &smiles(MAX_MESSAGE + 1)).await; // and not cut
    page.fill("Message", &smiles(MAX_MESSAGE)).await;
    page.keys("Message", &Key::Enter).await;
    page.shows(&[smiles(MAX_MESSAGE)]).await;
    page.own_are("sent").await;

    let mut all = vec![smiles(MAX_MESSAGE)];
    for i in 0..16 {
        all.push(format!("m{i}"));
        page.say(&all[i + 1]).await;
    }
    page.own_are("sent").await;
    page.is("texts('.text')", all).await;
}

#[tokio::test]
async fn a_draft_and_unsent_messages_survive_a_reload() {
    let (world, proxy, mut hanako, page) = hanako_and_taro_behind_proxy().await;
    proxy.set(Flow::SwallowAnswers); // the first one arrives, but the page cannot know
    page.say("one").await;
    hanako.hears("one").await;
    page.say("two").await;
    page.fill("Message", "half a sent").await;
    page.own_are("sending").await;
    page.later(11 * SECOND).await;
    page.own_are("not confirmed yet").await;
    proxy.set(Flow::Through);
    page.reload().await;
    page.own_are("sent").await;
    page.shows(&["one", "two"]).await;
    page.value_is("Message", "half a sent").await;
    hanako.hears("two").await;
    assert_eq!(stored(&world), 2, "sent again is not said again");
    for _ in 0..10 {
        page.reload().await;
    }
    page.connected().await;
    page.shows(&["one", "two"]).await;
    page.members_are(&["hanako", "taro"]).await;
    page.is("texts('.note')", [""; 0]).await;
    hanako.say("three").await;
    assert_eq!(hanako.members().0, ["hanako", "taro"], "nobody was away");
}

#[tokio::test]
async fn the_page_shows_that_redis_is_down_and_keeps_messages_and_leave_ends_a_join_that_waits() {
    let page = Browser::start(Settings::Usual).await;
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    page.open(dyno.addr(), "/").await;
    page.join("lobby", "taro").await;
    page.send("before").await;
    let (first, second) = (page.tab().await, page.new_tab().await);
    page.open(dyno.addr(), "/").await;
    page.join("lobby", "taro").await;
    page.switch(&first).await;
    redis.stop().await;
    let is_down = "banner().includes('Redis')";
    page.becomes(is_down, true).await;
    page.say("one").await;
    page.say("two").await;
    page.is("chip().startsWith('Connected')", true).await; // the connection itself is fine
    page.is("texts('.state')[2]", "sending").await;
    // Changes the banner as a browser does when it translates the page: it is written only when its words change.
    let translate = "const alert = $('[role=alert]');
        alert.innerHTML = '<font>La messagerie attend Redis.</font>';
        window.writes = 0;
        new MutationObserver((changes) => { window.writes += changes.length; })
            .observe(alert, { childList: true, characterData: true, subtree: true })";
    page.eval(translate).await;
    sleep(2 * SECOND).await;
    page.is("writes", 0).await;
    page.is("banner()", "La messagerie attend Redis.").await;

    page.switch(&second).await;
    page.becomes(is_down, true).await;
    page.reload().await; // the page joins again, and is told to wait
    page.becomes(is_down, true).await;
    sleep(SECOND / 2).await;
    page.press("Leave").await;
    page.later(4 * SECOND).await; // the end of the wait
    sleep(SECOND).await;
    page.is("chip()", "Left").await;

    page.ask_to_join("lobby", "taro").await; // must wait for Redis, too
    page.becomes(is_down, true).await; // beside the form
    page.later(15 * SECOND).await; // longer than a try may take otherwise
    page.is("chip()", "Connecting…").await;
    redis.restart().await;
    page.connected().await;
    for _ in 0..2 {
        page.shows(&["before", "one", "two"]).await;
        page.own_are("sent").await;
        page.is("banner()", "").await;
        page.switch(&first).await;
    }
    assert_eq!(check::stream(&redis, "lobby").len(), 3);
    page.expect_empty_console().await;
}

#[tokio::test]
async fn enter_accepts_a_word_of_the_input_method_and_does_not_send() {
    let (_world, page) = world_and_page(Store::Memory).await;
    page.join("lobby", "hanako").await;
    page.keys("Message", "").await;
    let composition = json!({"text": "にほん", "selectionStart": 3, "selectionEnd": 3});
    let compose = "Input.imeSetComposition";
    page.devtools(compose, composition).await;
    for kind in ["rawKeyDown", "keyUp"] {
        let enter =
            json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229});
        page.devtools("Input.dispatchKeyEvent", enter).await;
    }
    page.value_is("Message", "にほん").await;
    let picked = json!({"text": "日本"});
    page.devtools("Input.insertText", picked).await;
    page.value_is("Message", "日本").await; // picked, not sent
    page.keys("Message", &Key::Enter).await;
    page.shows(&["日本"]).await;
}

#[tokio::test]
async fn a_message_that_is_rejected_or_waits_at_leave_offers_retry_and_discard() {
    let (_world, page) = world_and_page(Store::Memory).await;
    let spoil = "const send = WebSocket.prototype.send; window.spoil = true;
        WebSocket.prototype.send = function (data) {
            const frame = JSON.parse(data);
            if (spoil && frame.message) frame.message = ' ';
            send.call(this, JSON.stringify(frame));
        }";
    page.eval(spoil).await;
    page.join("lobby", "taro").await;
    let refused = "texts('.state').filter((state) => /^not sent · Retry \\/ Discard.*\\.$/.test(state)).length";
    for (text, count) in [("one", 1), ("two", 2)] {
        page.say(text).await;
        page.becomes(refused, count).await;
    }
    page.eval("window.spoil = false").await;
    page.say("three").await; // does not wait for them
    page.shows(&["three", "one", "two"]).await;
    // The cursor returns to where one writes.
    let choose = async |what: &str| {
        let button = format!("$$('.state button').find((one) => one.textContent === '{what}')");
        page.eval(&format!("{button}.click()")).await;
        page.is("document.activeElement.id", "message").await;
    };
    choose("Retry").await;
    let not_sent = "texts('.state').filter((state) => state !== 'sent').length";
    page.becomes(not_sent, 1).await;
    choose("Discard").await;
    page.shows(&["three", "one"]).await;
    page.own_are("sent").await;

    // A message that waits at Leave is kept; after the next join the person decides.
    page.open_panel().await;
    page.press("pretend to be offline").await;
    page.say("forget it").await;
    page.press("Leave").await;
    page.join("lobby", "taro").await;
    let newest = "texts('.state').at(-1)";
    page.is(newest, "not sent · Retry / Discard").await;
    page.press("Discard").await;
    page.reload().await;
    page.connected().await;
    page.shows(&["three", "one"]).await;
}
