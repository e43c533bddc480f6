//! The main use of the page, from joining to leaving. Also runs in Firefox and WebKit: `BROWSER=firefox`, `BROWSER=webkit`.

use super::*;

#[tokio::test]
async fn two_browsers_on_two_dynos_see_every_message_once() {
    let (hanako, taro) = Browser::start_two(Settings::Usual).await;
    see_every_message_once(hanako, taro).await;
}

/// The story of these two browsers, whatever their language is.
pub async fn see_every_message_once(hanako: Browser, taro: Browser) {
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", "web.1")]).await;
    let b = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", "web.2")]).await;
    hanako.open(&page_at(a.addr())).await;
    taro.open(&page_at(b.addr())).await;
    hanako.join("Lobby", "花子").await;
    taro.join("lobby", "太郎").await;
    for (browser, chip) in [(&hanako, "Connected · web.1"), (&taro, "Connected · web.2")] {
        assert_eq!(browser.chip().await, browser.word(chip).await);
    }
    assert_eq!(hanako.title().await, "lobby", "rooms are folded");
    hanako.members_are(&["太郎", "花子"]).await;
    taro.members_are(&["太郎", "花子"]).await;

    let script = ["おはよう", "good morning", "元気?", "yes, and you?"];
    for (i, line) in script.iter().enumerate() {
        let speaker = if i % 2 == 0 { &hanako } else { &taro };
        speaker.say(line).await;
        hanako.shows(&script[..=i]).await;
        taro.shows(&script[..=i]).await;
    }
    hanako.own_are("sent").await;
    let said = taro.messages().await;
    assert_eq!(said[0].user, "花子");
    assert_eq!(said[1].user, "太郎");
    assert_eq!(said[0].state, "", "only own messages have a state");
    assert_eq!(said[1].state, taro.word("sent").await);
    assert!(
        said[0].time.len() == 5 && said[0].time.as_bytes()[2] == b':',
        "{:?}",
        said[0].time
    );
    let joined = hanako.word("太郎 joined").await;
    assert_eq!(hanako.notes().await, [joined]);
    hanako.expect_empty_console().await;
    taro.expect_empty_console().await;
}

/// After the dyno was ended and started again, its tabs reconnect and nobody is seen to leave or join.
async fn tabs_survive(end: Signal) {
    let (hanako, taro) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let mut dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let other = Dyno::start_on(&redis, &[TALKATIVE]).await;
    for (browser, name) in [(&hanako, "hanako"), (&taro, "taro")] {
        browser.open(&page_at(dyno.addr())).await;
        browser.join("lobby", name).await;
    }
    hanako.members_are(&["hanako", "taro"]).await;
    hanako.say("before").await;
    taro.shows(&["before"]).await;
    let mut jiro = other.join("lobby", "jiro").await;
    hanako.notes_are(&["taro joined", "jiro joined"]).await;
    taro.notes_are(&["jiro joined"]).await;

    dyno.signal(end);
    dyno.exit(PATIENCE).await;
    hanako.chip_says("Reconnecting").await;
    taro.chip_says("Reconnecting").await;
    jiro.say("meanwhile").await;
    hanako.say("hanako while away").await;
    taro.say("taro while away").await;
    assert_eq!(
        hanako.messages().await.last().expect("it is shown").state,
        "sending"
    );
    dyno.restart().await;
    for browser in [&hanako, &taro] {
        browser.connected().await;
        browser.own_are("sent").await;
    }
    let both = async || (hanako.texts().await, taro.texts().await);
    settles("both show everything once, in one order", both, |(a, b)| {
        a == b && a.len() == 4
    })
    .await;
    assert_eq!(hanako.texts().await[..2], ["before", "meanwhile"]);
    assert_eq!(check::stream(&redis, "lobby").len(), 4); // nothing is in the log twice
    hanako.members_are(&["hanako", "jiro", "taro"]).await;
    jiro.say("the end").await; // comes after any note about the return
    hanako.log_contains("the end").await;
    taro.log_contains("the end").await;
    hanako.notes_are(&["taro joined", "jiro joined"]).await;
    taro.notes_are(&["jiro joined"]).await; // nobody left, nobody joined
}

#[tokio::test]
async fn tabs_reconnect_after_sigkill_and_restart() {
    tabs_survive(Signal::SIGKILL).await;
}

#[tokio::test]
async fn tabs_reconnect_after_sigint_and_restart() {
    tabs_survive(Signal::SIGINT).await;
}

#[tokio::test]
async fn tabs_move_on_sigterm_and_nobody_notices() {
    let (hanako, taro) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let dyno = async |name| Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", name)]).await;
    let (mut old, new) = (dyno("web.1").await, dyno("web.2").await);
    let proxy = Proxy::to(old.addr()).await;
    for (browser, name) in [(&hanako, "hanako"), (&taro, "taro")] {
        browser.open(&page_at(proxy.addr)).await;
        browser.watch_connections().await;
        browser.join("lobby", name).await;
        browser.open_panel().await;
    }
    hanako.say("before").await;
    taro.shows(&["before"]).await;
    hanako.notes_are(&["taro joined"]).await;

    proxy.lead_to(new.addr(), Duration::ZERO);
    old.signal(Signal::SIGTERM);
    let status = old.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", old.log());
    for browser in [&hanako, &taro] {
        browser.fact_becomes("Moves", "1").await;
        assert_eq!(browser.chip().await, "Connected · web.2");
        assert_eq!(browser.ms_without_connection().await, 0.0);
        assert_eq!(browser.fact("Reconnects").await, "0");
    }
    taro.say("after").await;
    hanako.shows(&["before", "after"]).await;
    hanako.members_are(&["hanako", "taro"]).await;
    hanako.notes_are(&["taro joined"]).await;
    taro.notes_are(&[]).await;
    hanako.expect_empty_console().await;
}

#[tokio::test]
async fn leave_is_immediate_and_final_and_the_form_is_prefilled() {
    let (world, browser) = world_in_browser(Store::Redis, &[TALKATIVE]).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    browser.send("bye").await;
    browser.press("Leave").await;
    assert_eq!(browser.chip().await, "Left");
    assert_eq!(browser.title().await, "dynochat");
    browser.value_is("Room", "lobby").await;
    browser.value_is("Name", "taro").await;
    assert!(!browser.has("button", "Leave").await);
    hanako.expect_members_within(&["hanako"], SOON).await; // within the lease: it sent `quit`
    browser.later(60 * SECOND).await;
    let events = "for (const name of ['online', 'pageshow']) dispatchEvent(new Event(name));
        document.dispatchEvent(new Event('visibilitychange'));";
    browser.eval(events).await;
    hanako.say("gone?").await;
    assert_eq!(browser.chip().await, "Left"); // nothing brings it back but the person
    assert_eq!(hanako.members().0, ["hanako"]);
    browser.reload().await;
    browser.find("button", "Join").await; // a reload does not go back in either
    browser.value_is("Name", "taro").await; // remembered by the browser
    browser.press("Join").await;
    browser.shows(&["bye", "gone?"]).await;
}

#[tokio::test]
async fn enter_sends_shift_enter_breaks_the_line_and_composing_does_neither() {
    let (_world, browser) = one_browser().await;
    browser.join("lobby", "hanako").await;
    browser.keys("Message", "にほん").await;
    let press = async |init: Value| {
        let script = "const event = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...arguments[0] });
            if (arguments[0].keyCode) Object.defineProperty(event, 'keyCode', { value: arguments[0].keyCode });
            return !document.querySelector('textarea').dispatchEvent(event)";
        browser.eval_with(script, json!([init])).await == true // whether the page took the key for itself
    };
    assert!(!press(json!({"isComposing": true})).await); // Enter picks a word
    assert!(!press(json!({"keyCode": 229})).await, "in Safari, too");
    assert_eq!(browser.texts().await, [""; 0]);
    browser.keys("Message", "ご").await;
    browser.chord(SHIFT, ENTER).await;
    browser.keys("Message", "二行目").await;
    browser.value_is("Message", "にほんご\n二行目").await;
    browser.keys("Message", ENTER).await;
    browser.shows(&["にほんご\n二行目"]).await;
    browser.own_are("sent").await;
    browser.value_is("Message", "").await;
    browser.keys("Message", "  ").await;
    browser.chord(SHIFT, ENTER).await;
    browser.keys("Message", ENTER).await; // nothing to send
    browser.fill("Message", "by button").await;
    browser.press("Send").await;
    browser.shows(&["にほんご\n二行目", "by button"]).await;
}

#[tokio::test]
async fn the_back_button_restores_the_page_and_its_connection() {
    let (world, mut hanako, browser) = chat().await;
    browser.send("one").await;
    browser.fill("Message", "a draft").await;
    browser.eval("window.sameDocument = true").await;
    browser
        .open(&format!("{}healthz", page_at(world.dyno.addr())))
        .await;
    hanako.say("two").await;
    browser.back().await;
    browser.shows(&["one", "two"]).await;
    browser.connected().await;
    let same = browser.eval("return window.sameDocument === true");
    let cached = same.await == true; // Firefox under a driver, and WebKit, load it anew: all the same to the person
    assert!(cached || browser.kind != Kind::Chromium); // from the back/forward cache
    browser.value_is("Message", "a draft").await;
    assert_eq!(browser.notes().await, [""; 0]);
    assert_eq!(hanako.members().0, ["hanako", "taro"]);
}
