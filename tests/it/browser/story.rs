//! The main use of the page, from joining to leaving. Also runs in Firefox and WebKit: `BROWSER=firefox`, `BROWSER=webkit`.

use super::*;

/// Takes the picture in the README again: `SCREENSHOT=docs/screenshot.png tests/run browser::story::two`. Without
/// SCREENSHOT, no file is written.
#[tokio::test]
async fn two_browsers_on_two_dynos_see_every_message_once_also_after_an_absence() {
    let (taro, hanako) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let mut dynos = vec![];
    for (page, dyno, room, name) in [
        (&taro, "web.2", "Lobby", "Taro"),
        (&hanako, "web.1", "lobby", "花子"),
    ] {
        if Kind::wanted() == Kind::Chromium {
            page.resize(1280, 800).await;
        }
        dynos.push(Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", dyno)]).await);
        page.open(dynos[dynos.len() - 1].addr(), "/").await;
        page.join(room, name).await;
        page.is("chip()", format!("Connected · {dyno}")).await;
        page.is("document.title", "lobby").await; // rooms are folded
    }
    let talk = [
        "おはよう! Which dyno are you on?",
        "web.2, says the chip. And you?",
        "web.1. One room, two processes, and a Redis between us.",
        "I pretend to be offline for a moment. Please go on talking!",
        "Are you still in the list of members? Yes: nobody saw you leave.",
        "Two messages for you to catch up with 🎉",
        "Back again, and both are here. The panel counts them, on the right.",
    ];
    let speakers = [&hanako, &taro, &hanako, &taro, &hanako, &hanako, &taro];
    taro.open_panel().await;
    for (i, (page, text)) in speakers.into_iter().zip(talk).enumerate() {
        if i == 4 || i == 6 {
            taro.press("pretend to be offline").await; // and after two messages no longer
        }
        page.connected().await;
        page.send(text).await;
    }
    for (page, states, notes) in [
        (&taro, ["", "sent"], &["花子 joined"][..]),
        (&hanako, ["sent", ""], &[]),
    ] {
        page.shows(&talk).await;
        page.members_are(&["Taro", "花子"]).await;
        page.is("texts('.who').slice(0, 2)", ["花子", "Taro"]).await;
        page.is("texts('.state').slice(0, 2)", states).await; // only own messages have a state
        page.is("/^..:..$/.test(texts('time')[0])", true).await;
        page.notes_are(notes).await;
        page.expect_empty_console().await;
    }
    taro.is("fact('Resumed messages')", "2").await;

    if Kind::wanted() == Kind::Chromium {
        taro.keys("Message", "").await;
        taro.drawn().await;
        let png = taro.client.screenshot().await.expect("a picture");
        if let Some(path) = std::env::var_os("SCREENSHOT") {
            std::fs::write(path, &png).expect("the picture's file can be written");
        }
        assert_eq!(png[16..24], [0, 0, 5, 0, 0, 0, 3, 32], "1280 by 800");
        assert!(png.len() < 200_000, "{} bytes", png.len());
    }
}

#[tokio::test]
async fn tabs_reconnect_after_sigkill_or_sigint_and_restart_and_nobody_notices() {
    let (hanako, taro) = Browser::start_two(Settings::Usual).await;
    for end in [Signal::SIGKILL, Signal::SIGINT] {
        println!("{end}"); // shown if this test fails
        let redis = Redis::start(&[]).await;
        let mut dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
        let other = Dyno::start_on(&redis, &[TALKATIVE]).await;
        for (page, name) in [(&hanako, "hanako"), (&taro, "taro")] {
            page.open(dyno.addr(), "/").await;
            page.join("lobby", name).await;
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
        hanako.is("texts('.state').at(-1)", "sending").await;
        dyno.restart().await;
        for page in [&hanako, &taro] {
            page.connected().await;
            page.own_are("sent").await;
            page.shows_messages(4).await;
        }
        let all: Vec<String> = hanako.get("texts('.message .text')").await;
        assert_eq!(all[..2], ["before", "meanwhile"]);
        taro.shows(&all).await; // everything once, in one order
        assert_eq!(check::stream(&redis, "lobby").len(), 4, "stored once");
        hanako.members_are(&["hanako", "jiro", "taro"]).await;
        jiro.say("the end").await; // comes after any note about the return
        hanako.log_contains("the end").await;
        taro.log_contains("the end").await;
        hanako.notes_are(&["taro joined", "jiro joined"]).await;
        taro.notes_are(&["jiro joined"]).await; // nobody left, nobody joined
    }
}

#[tokio::test]
async fn tabs_move_on_sigterm_and_nobody_notices() {
    let (page, taro) = Browser::start_two(Settings::Usual).await;
    let redis = Redis::start(&[]).await;
    let dyno = async |name| Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", name)]).await;
    let (mut old, new) = (dyno("web.1").await, dyno("web.2").await);
    let proxy = Proxy::to(old.addr()).await;
    let mut hanako = new.join("lobby", "hanako").await;
    for (page, name) in [(&page, "jiro"), (&taro, "taro")] {
        page.open(proxy.addr, "/").await;
        page.eval(WATCH).await;
        page.join("lobby", name).await;
        page.open_panel().await;
    }
    let everyone = ["hanako", "jiro", "taro"];
    page.send("before").await;
    page.fill("Message", "a draft").await;
    page.notes_are(&["taro joined"]).await;
    hanako.expect_members(&everyone).await;
    let lists = hanako.members_frames();
    for page in [&page, &taro] {
        page.shows(&["before"]).await;
        page.members_are(&everyone).await;
        let forget = "watched.chips.length = watched.announced.length = 0";
        page.eval(forget).await;
    }

    proxy.lead_to(new.addr(), Duration::ZERO);
    old.signal(Signal::SIGTERM);
    old.exits_with_0(PATIENCE).await;
    hanako.hears("before").await;
    hanako.say("after").await;
    sleep(3 * SECOND).await; // a change of the members would be shown by now
    for (page, notes) in [(&page, &["taro joined"][..]), (&taro, &[])] {
        page.becomes("fact('Moves')", "1").await;
        page.is("fact('Dyno')", "web.2").await;
        page.shows(&["before", "after"]).await;
        page.is("watched.chips", ["Connected · web.2"]).await;
        page.is("watched.announced", [""; 0]).await;
        page.is("banner()", "").await;
        page.is("texts('.note')", notes).await;
        page.members_are(&everyone).await;
        page.was_never_away().await;
        page.expect_empty_console().await;
    }
    page.value_is("Message", "a draft").await;
    hanako.saw_no_change_since(lists);
    taro.send("from web.2").await;
    page.shows(&["before", "after", "from web.2"]).await;
    hanako.hears("from web.2").await;

    // A move is no reconnect: joins and leaves soon after it are announced.
    let _saburo = new.join("lobby", "saburo").await;
    taro.notes_are(&["saburo joined"]).await;
    hanako.quit().await;
    taro.notes_are(&["saburo joined · hanako left"]).await;
}

#[tokio::test]
async fn leave_is_immediate_and_final_and_the_form_is_prefilled() {
    let (_world, mut hanako, page) = hanako_and_taro(Store::Redis).await;
    page.send("bye").await;
    page.press("Leave").await;
    page.is("chip()", "Left").await;
    page.is("document.title", "dynochat").await;
    page.value_is("Room", "lobby").await;
    page.value_is("Name", "taro").await;
    assert!(page.seek("button", "Leave").await.is_err());
    hanako.expect_members_within(&["hanako"], SOON).await; // within the lease: it sent `quit`
    page.later(60 * SECOND).await;
    let events = "for (const name of ['online', 'pageshow']) dispatchEvent(new Event(name));
        document.dispatchEvent(new Event('visibilitychange'));";
    page.eval(events).await;
    hanako.say("gone?").await;
    page.is("chip()", "Left").await; // nothing brings it back but the person
    assert_eq!(hanako.members().0, ["hanako"]);
    page.reload().await;
    page.find("button", "Join").await; // a reload does not go back in either
    page.value_is("Name", "taro").await; // remembered by the browser
    page.press("Join").await;
    page.shows(&["bye", "gone?"]).await;
}

#[tokio::test]
async fn enter_joins_and_sends_shift_enter_breaks_the_line_and_composing_does_neither() {
    let (_world, page) = world_and_page(Store::Memory).await;
    let focused = "document.activeElement.labels[0].textContent";
    page.fill("Room", "").await;
    page.keys("Room", &("lobby" + &Key::Tab)).await;
    page.is(focused, "Name").await;
    page.keys("Name", &("hanako" + &Key::Enter)).await;
    page.connected().await;
    page.is(focused, "Message").await; // one can write at once
    page.keys("Message", "にほん").await;
    // Enter picks a word; in Safari, too. The page must not take the key for itself.
    for init in [json!({"isComposing": true}), json!({"keyCode": 229})] {
        let script = "const [init] = arguments, { keyCode } = init;
            const event = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...init });
            if (keyCode) Object.defineProperty(event, 'keyCode', { value: keyCode });
            return $('textarea').dispatchEvent(event)";
        let left = page.eval_with(script, json!([init])).await;
        assert_eq!(left, true, "{init}");
    }
    page.is("count('.message')", 0).await;
    let shift_enter = format!("{}{}", Key::Shift, Key::Enter);
    page.keys("Message", &format!("ご{shift_enter}")).await;
    page.keys("Message", "二行目").await;
    page.value_is("Message", "にほんご\n二行目").await;
    page.keys("Message", &Key::Enter).await;
    page.shows(&["にほんご\n二行目"]).await;
    page.own_are("sent").await;
    page.value_is("Message", "").await;
    page.is(focused, "Message").await; // and go on writing
    page.keys("Message", &format!("  {shift_enter}")).await;
    page.keys("Message", &Key::Enter).await; // nothing to send
    page.fill("Message", "by button").await;
    page.press("Send").await;
    page.shows(&["にほんご\n二行目", "by button"]).await;
}

#[tokio::test]
async fn the_back_button_restores_the_page_and_its_connection() {
    let (world, mut hanako, page) = hanako_and_taro(Store::Memory).await;
    page.send("one").await;
    page.fill("Message", "a draft").await;
    page.eval("window.sameDocument = true").await;
    page.open(world.dyno.addr(), "/healthz").await;
    hanako.say("two").await;
    page.client.back().await.expect("the page before loads");
    page.shows(&["one", "two"]).await;
    page.connected().await;
    // Firefox under a driver, and WebKit, load the page again. The person sees no difference.
    let cached: bool = page.get("window.sameDocument === true").await;
    assert!(cached || Kind::wanted() != Kind::Chromium, "not cached");
    page.value_is("Message", "a draft").await;
    page.is("texts('.note')", [""; 0]).await;
    assert_eq!(hanako.members().0, ["hanako", "taro"]);
}
