//! Proves what a person sees: the page in a real Chromium, against real dynos and a real Redis.
//!
//! Time that would have to pass is given to the page's clock instead; what must stay away is ruled out by something
//! that comes after it. Others in the room are plain sockets.

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use support::browser::{ENTER, SHIFT_ENTER, SOON, TAB};
use support::proxy::{Flow, Proxy};
use support::{Browser, Bus, Dyno, PATIENCE, Redis, TALKATIVE, World, check, eventually, token};

const SECOND: Duration = Duration::from_secs(1);

fn page_at(addr: SocketAddr) -> String {
    format!("http://{addr}/")
}

/// A dyno with nothing behind it, and a browser that shows its page.
async fn one_browser() -> (World, Browser) {
    world_in_browser(Bus::Alone, &[TALKATIVE]).await
}

async fn world_in_browser(bus: Bus, vars: &[(&str, &str)]) -> (World, Browser) {
    let browser = Browser::start().await;
    let world = World::start(bus, vars).await;
    browser.open(&page_at(world.dyno.addr())).await;
    (world, browser)
}

/// A browser whose line to the dyno can fall silent.
async fn browser_behind_proxy() -> (World, Proxy, Browser) {
    let browser = Browser::start().await;
    let world = World::talkative(Bus::Redis).await;
    let proxy = Proxy::to(world.dyno.addr()).await;
    browser.open(&page_at(proxy.addr)).await;
    (world, proxy, browser)
}

fn log_of(world: &World, room: &str) -> usize {
    check::stream(world.redis.as_ref().expect("this world has a Redis"), room).len()
}

/// Leaves the console as it should be.
async fn nothing_to_complain_about(browser: &Browser) {
    assert_eq!(browser.console().await, [""; 0], "the console stays empty");
}

async fn open_panel(browser: &Browser) {
    browser
        .eval("document.querySelector('summary').click()", json!([]))
        .await;
    browser
        .until(
            "the panel is open",
            "return document.querySelector('details').open",
        )
        .await;
}

/// A fact of the learners' panel.
async fn fact(browser: &Browser, name: &str) -> String {
    let script =
        "return [...document.querySelectorAll('dt')].find((dt) => dt.textContent === arguments[0])
        .nextElementSibling.textContent";
    let fact = browser.eval(script, json!([name])).await;
    fact.as_str().expect("a text").to_string()
}

async fn fact_becomes(browser: &Browser, name: &str, value: &str) {
    eventually(&format!("{name} is {value}"), SOON, async || {
        let now = fact(browser, name).await;
        if now == value { Ok(()) } else { Err(now) }
    })
    .await;
}

// ---- the story

#[tokio::test]
async fn two_tabs_on_two_dynos_talk_and_see_everything_once() {
    let (hanako, taro) = Browser::start_two().await;
    let redis = Redis::start(&[]).await;
    let a = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", "web.1")]).await;
    let b = Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", "web.2")]).await;
    hanako.open(&page_at(a.addr())).await;
    taro.open(&page_at(b.addr())).await;
    hanako.join("Lobby", "花子").await;
    taro.join("lobby", "太郎").await;
    assert_eq!(hanako.chip().await, "Connected · web.1");
    assert_eq!(taro.chip().await, "Connected · web.2");
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
    let said = taro.said().await;
    assert_eq!(said[0].who, "花子");
    assert_eq!(said[1].who, "太郎");
    assert_eq!(said[0].state, "", "only own messages have a state");
    assert_eq!(said[1].state, "sent");
    assert!(
        said[0].time.len() == 5 && said[0].time.as_bytes()[2] == b':',
        "{:?}",
        said[0].time
    );
    assert_eq!(hanako.notes().await, ["太郎 joined"]);
    nothing_to_complain_about(&hanako).await;
    nothing_to_complain_about(&taro).await;
}

/// Whatever ends a dyno: its tabs are back on the next one as if nothing had happened.
async fn tabs_survive(end: Signal) {
    let (hanako, taro) = Browser::start_two().await;
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
        hanako.said().await.last().expect("it is shown").state,
        "sending"
    );
    dyno.restart().await;
    for browser in [&hanako, &taro] {
        browser.connected().await;
        browser.own_are("sent").await;
    }
    eventually(
        "both show everything once, in one order",
        SOON,
        async || {
            let (a, b) = (hanako.texts().await, taro.texts().await);
            if a == b && a.len() == 4 {
                Ok(())
            } else {
                Err((a, b))
            }
        },
    )
    .await;
    assert_eq!(hanako.texts().await[..2], ["before", "meanwhile"]);
    assert_eq!(
        check::stream(&redis, "lobby").len(),
        4,
        "nothing is in the log twice"
    );
    hanako.members_are(&["hanako", "jiro", "taro"]).await;
    jiro.say("the end").await; // whatever there is to tell of the return has been told before this
    hanako
        .until(
            "the end",
            "return document.querySelector('[role=log]').textContent.includes('the end')",
        )
        .await;
    hanako.notes_are(&["taro joined", "jiro joined"]).await;
    taro.notes_are(&["jiro joined"]).await; // nobody left, nobody joined
}

#[tokio::test]
async fn a_killed_dyno_started_again_has_its_tabs_back() {
    tabs_survive(Signal::SIGKILL).await;
}

#[tokio::test]
async fn a_dyno_stopped_and_started_again_has_its_tabs_back() {
    tabs_survive(Signal::SIGTERM).await;
}

// ---- joining and leaving

#[tokio::test]
async fn a_refused_name_or_room_says_why_beside_its_field_and_keeps_the_text() {
    let (world, browser) = one_browser().await;
    let _hanako = world.dyno.join("lobby", "hanako").await;
    let refuse = async |room: &str, name: &str, field: &str, other: &str| {
        browser.fill("Room", room).await;
        browser.fill("Name", name).await;
        browser.press("Join").await;
        eventually(
            &format!("{name:?} in {room:?} is refused"),
            SOON,
            async || {
                let invalid = browser.field(field, "ariaInvalid").await;
                if invalid == "true" && !browser.description(field).await.is_empty() {
                    Ok(())
                } else {
                    Err(invalid)
                }
            },
        )
        .await;
        assert_eq!(
            browser.description(other).await,
            "",
            "only the field at fault has an error"
        );
        assert_eq!(browser.field("Room", "value").await, room);
        assert_eq!(browser.field("Name", "value").await, name);
        let script = "return document.activeElement.labels?.[0]?.textContent";
        assert_eq!(
            browser.text(script).await,
            field,
            "the cursor is where the mistake is"
        );
    };
    refuse("lobby", "Ｈａｎａｋｏ", "Name", "Room").await; // the same name once folded
    refuse("lobby", "<img src=x onerror=alert(1)>", "Name", "Room").await;
    refuse("!!!", "taro", "Room", "Name").await;
    refuse("", "taro", "Room", "Name").await;
    refuse("lobby", "", "Name", "Room").await;
    browser.join("lobby", "taro").await;
    browser.members_are(&["hanako", "taro"]).await;
    nothing_to_complain_about(&browser).await;
}

#[tokio::test]
async fn leaving_is_at_once_and_final_and_the_form_remembers() {
    let (world, browser) = world_in_browser(Bus::Redis, &[TALKATIVE]).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    browser.say("bye").await;
    browser.own_are("sent").await;
    browser.press("Leave").await;
    assert_eq!(browser.chip().await, "Left");
    assert_eq!(browser.title().await, "dynochat");
    assert_eq!(browser.field("Room", "value").await, "lobby");
    assert_eq!(browser.field("Name", "value").await, "taro");
    assert!(!browser.has("button", "Leave").await);
    hanako.expect_members_within(&["hanako"], SOON).await; // within the lease: it said goodbye
    browser.later(60 * SECOND).await;
    let events = "for (const name of ['online', 'pageshow']) dispatchEvent(new Event(name));
        document.dispatchEvent(new Event('visibilitychange'));";
    browser.eval(events, json!([])).await;
    hanako.say("gone?").await;
    assert_eq!(
        browser.chip().await,
        "Left",
        "nothing brings it back but the person"
    );
    assert_eq!(hanako.members().0, ["hanako"]);
    browser.reload().await;
    assert!(
        browser.has("button", "Join").await,
        "a reload does not go back in either"
    );
    assert_eq!(
        browser.field("Name", "value").await,
        "taro",
        "remembered by the browser"
    );
    browser.press("Join").await;
    browser.shows(&["bye", "gone?"]).await;
}

#[tokio::test]
async fn a_link_to_a_room_fills_in_the_room_and_the_address_becomes_one() {
    let (world, browser) = one_browser().await;
    browser
        .open(&format!(
            "{}?room=%E8%8C%B6%E3%81%AE%E9%96%93",
            page_at(world.dyno.addr())
        ))
        .await;
    assert_eq!(browser.field("Room", "value").await, "茶の間");
    browser.fill("Name", "taro").await;
    browser.press("Join").await;
    browser.connected().await;
    assert_eq!(browser.title().await, "茶の間");
    browser.open(&page_at(world.dyno.addr())).await; // the tab remembers where it was
    browser.connected().await;
    let address = browser
        .text("return decodeURIComponent(location.search)")
        .await;
    assert_eq!(address, "?room=茶の間");
    assert!(browser.has("button", "Copy link").await);
    browser
        .open(&format!("{}?room=elsewhere", page_at(world.dyno.addr())))
        .await;
    assert_eq!(
        browser.field("Room", "value").await,
        "elsewhere",
        "a link wins over the tab's memory"
    );
    assert_eq!(browser.field("Name", "value").await, "taro");
}

#[tokio::test]
async fn a_name_lost_during_an_absence_leads_back_to_the_form_and_loses_no_message() {
    let (world, browser) = world_in_browser(Bus::Redis, &[TALKATIVE]).await;
    browser.join("lobby", "taro").await;
    open_panel(&browser).await;
    browser.press("pretend to be offline").await;
    browser.say("still mine").await;
    let redis = world.redis.as_ref().expect("asked for");
    redis.cmd::<i64>(&["DEL", "chat:{lobby}:names", "chat:{lobby}:owners"]); // as after a long absence
    let mut hanako = world.dyno.join("lobby", "taro").await;
    browser.press("pretend to be offline").await;
    eventually("back at the form", SOON, async || {
        if browser.has("button", "Join").await {
            Ok(())
        } else {
            Err(browser.chip().await)
        }
    })
    .await;
    assert_eq!(browser.field("Name", "ariaInvalid").await, "true");
    assert_eq!(browser.field("Name", "value").await, "taro");
    browser.join("lobby", "jiro").await;
    hanako.hears("still mine").await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn tabs_of_one_browser_are_one_person_or_as_many_as_they_have_names() {
    let (world, browser) = one_browser().await;
    let url = page_at(world.dyno.addr());
    browser.join("lobby", "taro").await;
    let (first, second) = browser.second_tab().await;
    browser.open(&url).await;
    browser.join("lobby", "hanako").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.say("hello").await;
    browser.own_are("sent").await;
    let (_, third) = browser.second_tab().await;
    browser.open(&url).await;
    browser.join("lobby", "taro").await; // the same person again
    browser.say("taro, from another tab").await;
    browser.own_are("sent").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.switch(&first).await;
    browser.shows(&["hello", "taro, from another tab"]).await;
    assert_eq!(
        browser.said().await[1].state,
        "sent",
        "an own message, wherever it was typed"
    );
    browser.switch(&third).await;
    browser.press("Leave").await;
    browser.switch(&second).await;
    browser.say("taro?").await;
    browser.own_are("sent").await;
    browser.members_are(&["hanako", "taro"]).await; // who leaves one of two tabs is still here
}

// ---- talking

#[tokio::test]
async fn enter_sends_shift_enter_breaks_and_composing_does_neither() {
    let (_world, browser) = one_browser().await;
    browser.join("lobby", "hanako").await;
    browser.keys("Message", "にほん").await;
    let press = async |init: Value| {
        let script = "const event = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...arguments[0] });
            if (arguments[0].keyCode) Object.defineProperty(event, 'keyCode', { value: arguments[0].keyCode });
            return !document.querySelector('textarea').dispatchEvent(event)";
        browser.eval(script, json!([init])).await == true // whether the page took the key for itself
    };
    assert!(
        !press(json!({"isComposing": true})).await,
        "Enter picks a word"
    );
    assert!(!press(json!({"keyCode": 229})).await, "in Safari, too");
    assert_eq!(browser.texts().await, [""; 0]);
    browser
        .keys("Message", &format!("ご{SHIFT_ENTER}二行目"))
        .await;
    assert_eq!(browser.field("Message", "value").await, "にほんご\n二行目");
    browser.keys("Message", ENTER).await;
    browser.shows(&["にほんご\n二行目"]).await;
    browser.own_are("sent").await;
    assert_eq!(browser.field("Message", "value").await, "");
    browser
        .keys("Message", &format!("  {SHIFT_ENTER} {ENTER}"))
        .await; // nothing to send
    browser.fill("Message", "by button").await;
    browser.press("Send").await;
    browser.shows(&["にほんご\n二行目", "by button"]).await;
}

#[tokio::test]
async fn everything_works_by_keyboard_alone() {
    let (_world, browser) = one_browser().await;
    browser.fill("Room", "").await;
    browser.keys("Room", &format!("lobby{TAB}")).await;
    let focused = "return document.activeElement.labels[0].textContent";
    assert_eq!(browser.text(focused).await, "Name");
    browser.keys("Name", &format!("taro{ENTER}")).await;
    browser.connected().await;
    assert_eq!(
        browser.text(focused).await,
        "Message",
        "one can write at once"
    );
    browser.keys("Message", &format!("hello{ENTER}")).await;
    browser.shows(&["hello"]).await;
    assert_eq!(browser.text(focused).await, "Message", "and go on writing");
}

#[tokio::test]
async fn the_limit_counts_what_people_count_and_cuts_nothing() {
    let (_world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    let smiles = |count: usize| "🙂".repeat(count);
    browser.fill("Message", &smiles(799)).await;
    assert_eq!(
        browser.description("Message").await,
        "",
        "far from the limit there is nothing to count"
    );
    browser.fill("Message", &smiles(801)).await;
    assert!(browser.description("Message").await.contains("801 / 1000"));
    browser.fill("Message", &smiles(1001)).await;
    assert!(browser.description("Message").await.contains("1001 / 1000"));
    assert_eq!(browser.field("Message", "ariaInvalid").await, "true");
    browser.keys("Message", ENTER).await;
    assert_eq!(browser.texts().await.len(), 0, "too long is not sent");
    assert_eq!(
        browser.field("Message", "value").await,
        smiles(1001),
        "and not cut"
    );
    browser.fill("Message", &smiles(1000)).await;
    browser.keys("Message", ENTER).await;
    browser.shows(&[&smiles(1000)]).await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn whoever_types_too_fast_loses_neither_words_nor_order() {
    let (_world, browser) = world_in_browser(Bus::Alone, &[]).await; // with the limit on talking
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
    assert_eq!(browser.field("Message", "value").await, "half a sent");
    hanako.hears("two").await;
    assert_eq!(log_of(&world, "lobby"), 2, "sent again is not said again");
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
async fn what_may_have_been_sent_long_ago_is_not_sent_again_unasked() {
    let (world, proxy, browser) = browser_behind_proxy().await;
    browser.join("lobby", "taro").await;
    proxy.set(Flow::Swallow);
    browser.say("handed over").await;
    browser.say("never left the page").await;
    browser.own_are("sending").await;
    // As if the page had been closed for two minutes: longer than the server remembers a cid.
    let script = "addEventListener('pagehide', () => {
        const kept = JSON.parse(sessionStorage.dynochat);
        for (const one of kept.pending) if (one.sent) one.sent -= 120000;
        sessionStorage.dynochat = JSON.stringify(kept);
    })";
    browser.eval(script, json!([])).await;
    proxy.set(Flow::Through);
    browser.reload().await;
    browser.shows(&["never left the page", "handed over"]).await;
    let states = async || {
        browser
            .said()
            .await
            .into_iter()
            .map(|s| s.state)
            .collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["sent", "not confirmed · Retry / Discard"]);
    browser.press("Retry").await;
    browser.own_are("sent").await;
    assert_eq!(log_of(&world, "lobby"), 2);

    // What waits when somebody leaves is kept for a return, and then it is for them to say.
    open_panel(&browser).await;
    browser.press("pretend to be offline").await;
    browser.say("forget it").await;
    browser.press("Leave").await;
    browser.join("lobby", "taro").await;
    assert_eq!(
        states().await.last().expect("three"),
        "not sent · Retry / Discard"
    );
    browser.press("Discard").await;
    browser.shows(&["never left the page", "handed over"]).await;
    browser.reload().await;
    browser.connected().await;
    browser.shows(&["never left the page", "handed over"]).await;
}

#[tokio::test]
async fn while_redis_is_away_the_page_says_so_and_keeps_what_is_typed() {
    let browser = Browser::start().await;
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    browser.say("before").await;
    browser.own_are("sent").await;
    redis.stop().await;
    let banner = "return document.querySelector('[role=alert]').textContent.includes('Redis')";
    browser.until("a banner", banner).await;
    browser.say("one").await;
    browser.say("two").await;
    assert!(
        browser.chip().await.starts_with("Connected"),
        "the line itself is fine"
    );
    assert_eq!(browser.said().await[2].state, "sending");

    let (_, second) = browser.second_tab().await; // whoever comes now waits at the door
    browser.open(&page_at(dyno.addr())).await;
    browser.fill("Room", "lobby").await;
    browser.fill("Name", "taro").await;
    browser.press("Join").await;
    browser.until("a banner at the door", banner).await;
    browser.later(15 * SECOND).await; // longer than a try may take otherwise
    assert_eq!(browser.chip().await, "Connecting…");
    redis.restart().await;
    browser.connected().await;
    browser.switch(&second).await;
    browser.shows(&["before", "one", "two"]).await;
    browser.own_are("sent").await;
    assert_eq!(browser.alert().await, "");
    assert_eq!(check::stream(&redis, "lobby").len(), 3);
}

// ---- reading

#[tokio::test]
async fn hostile_texts_and_names_are_inert() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    let long = "w".repeat(900);
    let evil = [
        "<img src=x onerror=\"window.pwned = 1\">",
        "<script>window.pwned = 1</script>",
        "\u{202E}backwards \u{2066}and isolated",
        "combining Z̷̡͎̪̬͚̤̗̈́̌͋͝A̵̛̲͕̎̀̏L̶͖͐G̷̙̀O",
        "javascript:alert(1) data:text/html,<b>x</b> //example.com https:// http://?",
        &long,
        "{{constructor}} ${alert(1)} \\u003cb\\u003e &lt;b&gt;",
    ];
    for text in evil {
        hanako.say(text).await;
    }
    browser.say(evil[0]).await;
    browser.shows(&[&evil[..], &evil[..1]].concat()).await;
    let script = "return [window.pwned ?? null, document.querySelectorAll('[role=log] :is(img, script, b, a)').length,
        document.documentElement.scrollWidth <= innerWidth]";
    assert_eq!(
        browser.eval(script, json!([])).await,
        json!([null, 0, true])
    );

    hanako.say("see https://example.com/a?b=1&c=(d), or (http://example.org/x). 次はhttps://example.net/道です").await;
    let script = "return [...document.querySelectorAll('[role=log] a')].map((a) => [a.href, a.rel, a.textContent === a.href])";
    browser
        .until(
            "links",
            "return document.querySelectorAll('[role=log] a').length === 3",
        )
        .await;
    let rel = "noopener noreferrer nofollow";
    assert_eq!(
        browser.eval(script, json!([])).await,
        json!([
            ["https://example.com/a?b=1&c=(d)", rel, true],
            ["http://example.org/x", rel, true],
            ["https://example.net/", rel, true],
        ])
    );
    nothing_to_complain_about(&browser).await;
}

#[tokio::test]
async fn messages_are_grouped_and_days_divided() {
    let browser = Browser::start().await;
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = dyno.join("elsewhere", "hanako").await;
    let said = hanako.say("same words").await;
    type Entry = (String, Vec<String>);
    let entries: Vec<Entry> = redis.cmd(&["XRANGE", "chat:{elsewhere}", "-", "+"]);
    let fields = &entries[0].1;
    let now: i64 = said["id"]
        .as_str()
        .expect("an id")
        .split('-')
        .next()
        .expect("ms")
        .parse()
        .expect("a number");
    const HOUR: i64 = 3_600_000;
    for id in [
        now - 49 * HOUR,
        now - 49 * HOUR + 1_000,
        now - 25 * HOUR,
        now - 25 * HOUR + 400_000,
    ] {
        let id = format!("{id}-0");
        let add: Vec<&str> = ["XADD", "chat:{lobby}", &id]
            .into_iter()
            .chain(fields.iter().map(String::as_str))
            .collect();
        redis.cmd::<String>(&add);
    }
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    browser.say("today").await;
    browser.own_are("sent").await;
    let follows: Vec<bool> = browser
        .said()
        .await
        .into_iter()
        .map(|s| s.follows)
        .collect();
    assert_eq!(
        follows,
        [false, true, false, false, false],
        "by person, day and minutes"
    );
    let days = browser.strings(".day").await;
    assert_eq!(days.len(), 3, "one above each day: {days:?}");
    let script = "return [...document.querySelectorAll('[role=log] time')].every((t) =>
        Math.abs(new Date(t.dateTime) - Date.now()) < 50 * 3600e3 && t.title.includes(new Date(t.dateTime).getFullYear()))";
    assert_eq!(
        browser.eval(script, json!([])).await,
        true,
        "the full date is there, too"
    );
    assert_eq!(browser.notes().await, [""; 0], "history is no news");
}

#[tokio::test]
async fn whoever_reads_older_messages_stays_there_and_is_told_of_new_ones() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    for i in 0..60 {
        hanako.talk(&format!("line {i}")).await;
    }
    let at_end = "const log = document.querySelector('[role=log]');
        return document.querySelectorAll('.message').length >= 60 && log.scrollHeight - log.scrollTop - log.clientHeight < 2";
    browser.until("the newest is in sight", at_end).await;
    assert_eq!(browser.title().await, "lobby");
    let up = "const log = document.querySelector('[role=log]'); log.scrollTop = 200; return log.scrollTop";
    assert_eq!(browser.eval(up, json!([])).await, 200);
    browser.drawn().await;
    for text in ["a", "b", "c"] {
        hanako.say(text).await;
    }
    browser.find("button", "3 new ↓").await;
    assert_eq!(browser.title().await, "(3) lobby");
    assert_eq!(
        browser
            .eval(
                "return document.querySelector('[role=log]').scrollTop",
                json!([])
            )
            .await,
        200
    );
    browser.press("3 new ↓").await;
    browser.until("down again", at_end).await;
    browser
        .until(
            "all read",
            "return document.title === 'lobby' || document.title",
        )
        .await;

    let hide =
        "Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event('visibilitychange'))";
    browser.eval(hide, json!([true])).await;
    hanako.say("d").await;
    browser
        .until(
            "counted while hidden",
            "return document.title === '(1) lobby' || document.title",
        )
        .await;
    browser.eval(hide, json!([false])).await;
    browser
        .until(
            "read",
            "return document.title === 'lobby' || document.title",
        )
        .await;
    browser.until("and still at the end", at_end).await;
}

#[tokio::test]
async fn comings_and_goings_are_told_small_and_together() {
    let (world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    let hanako = world.dyno.join("lobby", "花子").await;
    browser.notes_are(&["花子 joined"]).await;
    let jiro = world.dyno.join("lobby", "jiro").await;
    browser.notes_are(&["花子 and jiro joined"]).await;
    let _saburo = world.dyno.join("lobby", "saburo").await;
    browser.notes_are(&["花子 and 2 others joined"]).await;
    jiro.quit().await;
    browser.notes_are(&["花子 and saburo joined"]).await; // came and went is no news
    hanako.quit().await;
    browser.notes_are(&["saburo joined"]).await;
    browser.say("a line between").await;
    browser.own_are("sent").await;
    browser.members_are(&["saburo", "taro"]).await;
    let _hanako = world.dyno.join("lobby", "花子").await;
    browser.notes_are(&["saburo joined", "花子 joined"]).await;
}

#[tokio::test]
async fn what_may_be_missing_is_said() {
    let (mut world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    browser.say("before").await;
    browser.own_are("sent").await;
    world.dyno.kill().await; // alone, and so its log is gone
    browser.chip_says("Reconnecting").await;
    world.dyno.restart().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    hanako.say("after").await;
    browser.shows(&["before", "after"]).await;
    assert_eq!(browser.notes().await, ["some messages may be missing"]);
    let order = browser.strings("[role=log] :is(.text, .note)").await;
    assert_eq!(order, ["before", "some messages may be missing", "after"]);
}

// ---- being connected

#[tokio::test]
async fn the_chip_counts_down_and_retry_now_tries_at_once() {
    let (mut world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    world.dyno.kill().await;
    // By and by the waits grow; then there is something to count.
    let seconds = async || {
        eventually("a countdown", SOON, async || {
            let chip = browser.chip().await;
            let left = chip
                .strip_prefix("Reconnecting in ")
                .and_then(|c| c.strip_suffix(" s · Retry now"));
            left.and_then(|n| n.parse::<u32>().ok()).ok_or(chip)
        })
        .await
    };
    eventually("a longer wait", 2 * SOON, async || {
        let left = seconds().await;
        if left >= 3 { Ok(()) } else { Err(left) }
    })
    .await;
    let from = seconds().await;
    eventually("it counts down", SOON, async || {
        let left = seconds().await;
        if left < from { Ok(()) } else { Err(left) }
    })
    .await;
    world.dyno.restart().await;
    // A try may begin by itself between two looks; the button is there for all other moments.
    eventually("Retry now brings it back", SOON, async || {
        if browser.has("button", "Retry now").await {
            browser.eval("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Retry now')?.click()", json!([])).await;
        }
        let chip = browser.chip().await;
        if chip.starts_with("Connected") { Ok(()) } else { Err(chip) }
    })
    .await;
}

#[tokio::test]
async fn learners_can_drop_the_line_and_pretend_to_be_offline() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    open_panel(&browser).await;
    assert_eq!(fact(&browser, "Dyno").await, "local");
    assert_eq!(fact(&browser, "Boot id").await, hanako.welcome["boot"]);
    browser.press("pretend to be offline").await;
    assert_eq!(browser.chip().await, "Offline");
    for text in ["a", "b", "c"] {
        hanako.say(text).await;
    }
    browser.later(60 * SECOND).await; // time alone does not end the pretence
    browser
        .eval("dispatchEvent(new Event('online'))", json!([]))
        .await;
    browser.say("from offline").await;
    assert_eq!(browser.chip().await, "Offline");
    assert_eq!(browser.texts().await, ["from offline"]);
    browser.press("pretend to be offline").await;
    browser.shows(&["a", "b", "c", "from offline"]).await;
    browser.own_are("sent").await;
    fact_becomes(&browser, "Reconnects", "1").await;
    assert_eq!(fact(&browser, "Resumed messages").await, "3");
    let last = hanako.expect_kind("talk").await["id"].clone();
    fact_becomes(&browser, "Last id", last.as_str().expect("an id")).await;
    browser.press("drop my connection").await;
    fact_becomes(&browser, "Reconnects", "2").await;
    browser.shows(&["a", "b", "c", "from offline"]).await;
    assert_eq!(
        browser.notes().await,
        [""; 0],
        "nobody saw anybody leave or join"
    );
}

#[tokio::test]
async fn offline_is_shown_and_online_connects_at_once() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    let network = async |offline: bool| {
        let how =
            json!({"network_conditions": {"offline": offline, "latency": 0, "throughput": -1}});
        browser
            .call("POST", "/chromium/network_conditions", how)
            .await;
    };
    network(true).await;
    browser.chip_says("Offline").await;
    hanako.say("meanwhile").await;
    browser.say("typed offline").await;
    assert_eq!(browser.said().await.last().expect("shown").state, "sending");
    network(false).await;
    browser.shows(&["meanwhile", "typed offline"]).await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn a_laptop_that_slept_is_back_when_it_wakes() {
    let (_world, proxy, browser) = browser_behind_proxy().await;
    browser.join("lobby", "taro").await;
    open_panel(&browser).await;
    proxy.set(Flow::Swallow); // the line dies while it sleeps, and nobody says so
    browser.later(600 * SECOND).await;
    proxy.set(Flow::Through); // the old connection stays dead
    fact_becomes(&browser, "Reconnects", "1").await;
    browser.connected().await;

    // A short nap, or another network: the line is asked whether it still lives.
    proxy.set(Flow::Swallow);
    browser
        .eval("dispatchEvent(new Event('online'))", json!([]))
        .await;
    proxy.set(Flow::Through);
    fact_becomes(&browser, "Reconnects", "2").await;
    browser.say("awake").await;
    browser.own_are("sent").await;

    // A clock that goes back is no reason to wait for hours.
    let script = "const now = Date.now; Date.now = () => now() - 7200000";
    browser.eval(script, json!([])).await;
    browser.press("drop my connection").await;
    fact_becomes(&browser, "Reconnects", "3").await;
}

#[tokio::test]
async fn a_line_that_falls_silent_is_given_up_and_replaced() {
    let (world, proxy, browser) = browser_behind_proxy().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    proxy.set(Flow::Swallow);
    hanako.say("into the silence").await;
    browser.until_within("the silence is noticed", Duration::from_secs(50),
        "const chip = document.querySelector('[role=status]').textContent; return chip.startsWith('Reconnecting') || chip").await;
    proxy.set(Flow::Through);
    browser.shows(&["into the silence"]).await;
}

#[tokio::test]
async fn the_back_button_restores_the_page_and_its_line() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    browser.say("one").await;
    browser.own_are("sent").await;
    browser.fill("Message", "a draft").await;
    browser.eval("window.sameDocument = true", json!([])).await;
    browser
        .open(&format!("{}healthz", page_at(world.dyno.addr())))
        .await;
    hanako.say("two").await;
    browser.back().await;
    browser.shows(&["one", "two"]).await;
    browser.connected().await;
    assert_eq!(
        browser
            .eval("return window.sameDocument === true", json!([]))
            .await,
        true,
        "from the back/forward cache"
    );
    assert_eq!(browser.field("Message", "value").await, "a draft");
    assert_eq!(browser.notes().await, [""; 0]);
    assert_eq!(hanako.members().0, ["hanako", "taro"]);
}

#[tokio::test]
async fn a_line_closed_for_a_reason_stays_closed_and_says_why() {
    let (_world, browser) = world_in_browser(Bus::Alone, &[]).await; // with the limit on talking
    // The page's own socket, to say what the page never would.
    let script = "const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (data) { window.line = this; send.call(this, data); }";
    browser.eval(script, json!([])).await;
    browser.join("lobby", "taro").await;
    let stops = async |script: &str, word: &str| {
        browser.eval(script, json!([])).await;
        browser.chip_says("Stopped").await;
        let why = browser.alert().await;
        assert!(why.contains(word), "it says what to do: {why:?}");
        browser.later(60 * SECOND).await;
        browser
            .eval("dispatchEvent(new Event('online'))", json!([]))
            .await;
        assert_eq!(browser.chip().await, "Stopped · Retry now");
        browser.press("Retry now").await;
        browser.connected().await;
        assert_eq!(browser.alert().await, "");
    };
    stops(
        "for (let i = 0; i < 3; i += 1) line.send('nonsense')",
        "Reload",
    )
    .await; // 4400
    stops("line.send('x'.repeat(10000))", "too big").await; // 1009
    stops("line.send(new Uint8Array(4))", "Reload").await; // 1003
    let flood = "for (let i = 0; i < 60; i += 1) line.send(JSON.stringify({ kind: 'talk', message: 'x', cid: `flood${i}` }))";
    stops(flood, "Too much").await; // 4429
    browser.say("all well again").await;
}

#[tokio::test]
async fn a_full_dyno_is_tried_again_after_a_while() {
    let browser = Browser::start().await;
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "1")]).await;
    browser.open(&page_at(dyno.addr())).await;
    let hanako = dyno.join("lobby", "hanako").await;
    browser.fill("Room", "lobby").await;
    browser.fill("Name", "taro").await;
    browser.press("Join").await;
    browser.chip_says("Reconnecting in ").await;
    let chip = browser.chip().await;
    let left: u32 = chip
        .split(' ')
        .nth(2)
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{chip}"));
    assert!(
        (3..=8).contains(&left),
        "half to all of eight seconds: {chip}"
    );
    hanako.quit().await;
    browser.connected().await;
}

// ---- for everyone

#[tokio::test]
async fn a_private_window_without_storage_can_talk() {
    let browser = Browser::start().await;
    let dyno = Dyno::start(&[TALKATIVE]).await;
    let source = "for (const store of ['localStorage', 'sessionStorage'])
        Object.defineProperty(window, store, { get() { throw new DOMException('no', 'SecurityError'); } })";
    browser
        .devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({"source": source}),
        )
        .await;
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    browser.say("hello").await;
    browser.own_are("sent").await;
    nothing_to_complain_about(&browser).await;
}

#[tokio::test]
async fn it_fits_a_small_phone_and_names_what_it_shows() {
    let (world, browser) = one_browser().await;
    let phone = json!({"width": 320, "height": 568, "deviceScaleFactor": 2, "mobile": true});
    browser
        .devtools("Emulation.setDeviceMetricsOverride", phone)
        .await;
    let fits = "return document.documentElement.scrollWidth <= 320 && document.documentElement.scrollHeight <= 568 &&
        [...document.querySelectorAll('input, textarea')].every((field) => parseFloat(getComputedStyle(field).fontSize) >= 16)";
    assert_eq!(browser.eval(fits, json!([])).await, true, "the form");
    let mut hanako = world.dyno.join("lobby", &"h".repeat(24)).await;
    hanako.say(&"w".repeat(300)).await;
    browser.join("lobby", "taro").await;
    browser.say("hello").await;
    browser.own_are("sent").await;
    assert_eq!(
        browser.eval(fits, json!([])).await,
        true,
        "the conversation"
    );
    browser.find("log", "Messages").await;
    browser.find("list", "Members").await;
    browser.find("button", "Send").await;
    browser.find("button", "Leave").await;
    assert_eq!(browser.strings("[role=status]").await.len(), 1);
    assert_eq!(browser.strings("[role=alert]").await.len(), 1);
    let busy = "return document.querySelector('[role=log]').ariaBusy";
    assert_eq!(
        browser.text(busy).await,
        "false",
        "the past has been filled in"
    );
    nothing_to_complain_about(&browser).await;
}

#[tokio::test]
async fn a_name_that_another_tab_took_over_is_told_apart_by_its_token() {
    let (world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    world
        .dyno
        .join_refused("lobby", "taro", &token(), "name_taken")
        .await;
    browser.say("still me").await;
    browser.own_are("sent").await;
}
