//! The connection: lost, closed, retried, stopped; and what the learners' panel does to it.

use super::*;

#[tokio::test]
async fn the_chip_counts_down_and_retry_now_reconnects_at_once() {
    let (mut world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    world.dyno.kill().await;
    // The waits grow; the chip counts down only those that are long enough.
    let seconds = async || {
        let left = async || {
            let chip = browser.chip().await;
            let left = chip.strip_prefix("Reconnecting in ");
            let left = left.and_then(|left| left.strip_suffix(" s · Retry now"));
            left.and_then(|n| n.parse::<u32>().ok()).ok_or(chip)
        };
        let left = settles("a countdown", left, Result::is_ok).await;
        left.expect("it is shown")
    };
    settles_within(2 * SOON, "a longer wait", seconds, |left| *left >= 3).await;
    let from = seconds().await;
    settles("it counts down", seconds, |left| *left < from).await;
    world.dyno.restart().await;
    // The button is gone while the page tries by itself, which may happen at any moment.
    let retry = async || {
        browser.eval("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Retry now')?.click()").await;
        browser.chip().await
    };
    let connected = |chip: &String| chip.starts_with("Connected");
    settles("Retry now reconnects", retry, connected).await;
}

#[tokio::test]
async fn the_panel_can_drop_the_connection_and_simulate_offline() {
    let (_world, mut hanako, browser) = chat().await;
    browser.open_panel().await;
    assert_eq!(browser.fact("Dyno").await, "local");
    assert_eq!(browser.fact("Boot id").await, hanako.welcome["boot"]);
    let age = async || {
        let age = browser.fact("Last tick").await;
        let seconds = age.strip_suffix(" s ago");
        seconds.and_then(|s| s.parse::<u64>().ok()).ok_or(age)
    };
    browser.dispatch("online").await; // the page asks the server for a tick
    let young = settles("a tick", age, Result::is_ok).await;
    let _ = settles("it grows older", age, |age| age.is_ok() && *age > young).await;
    browser.press("pretend to be offline").await;
    assert_eq!(browser.chip().await, "Offline");
    for text in ["a", "b", "c"] {
        hanako.say(text).await;
    }
    browser.later(60 * SECOND).await; // time alone does not end it
    browser.dispatch("online").await;
    browser.say("from offline").await;
    assert_eq!(browser.chip().await, "Offline");
    assert_eq!(browser.texts().await, ["from offline"]);
    browser.press("pretend to be offline").await;
    browser.shows(&["a", "b", "c", "from offline"]).await;
    browser.own_are("sent").await;
    browser.fact_becomes("Reconnects", "1").await;
    assert_eq!(browser.fact("Resumed messages").await, "3");
    let last = Id::of(&hanako.expect_kind("talk").await, "id").to_string();
    browser.fact_becomes("Last id", &last).await;
    browser.press("drop my connection").await;
    browser.fact_becomes("Reconnects", "2").await;
    browser.shows(&["a", "b", "c", "from offline"]).await;
    assert_eq!(browser.notes().await, [""; 0]); // nobody saw anybody leave or join
}

#[tokio::test]
async fn offline_is_shown_and_online_connects_at_once() {
    let (_world, mut hanako, browser) = chat().await;
    browser.set_offline(true).await;
    browser.chip_says("Offline").await;
    hanako.say("meanwhile").await;
    browser.say("typed offline").await;
    browser.own_are("sending").await;
    browser.set_offline(false).await;
    browser.shows(&["meanwhile", "typed offline"]).await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn the_page_reconnects_after_sleep() {
    let (_world, proxy, browser) = browser_behind_proxy().await;
    browser.join("lobby", "taro").await;
    browser.open_panel().await;
    proxy.set(Flow::Swallow); // the connection dies during the sleep, without a Close
    browser.later(600 * SECOND).await;
    proxy.set(Flow::Through); // the old connection stays dead
    browser.fact_becomes("Reconnects", "1").await;
    browser.connected().await;

    // After a short sleep, or on another network, the page checks the connection.
    proxy.set(Flow::Swallow);
    browser.dispatch("online").await;
    sleep(SECOND).await; // until the proxy has swallowed the question
    proxy.set(Flow::Through);
    browser.fact_becomes("Reconnects", "2").await;
    browser.send("awake").await;

    // A clock that is set back must not lengthen the wait.
    let script = "const now = Date.now; Date.now = () => now() - 7200000";
    browser.eval(script).await;
    browser.press("drop my connection").await;
    browser.fact_becomes("Reconnects", "3").await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_replaced() {
    let (world, proxy, browser) = browser_behind_proxy().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    proxy.set(Flow::Swallow);
    hanako.say("into the silence").await;
    let (chip, lost) = (async || browser.chip().await, "Reconnecting");
    settles_within(50 * SECOND, "it is noticed", chip, |c| c.starts_with(lost)).await;
    proxy.set(Flow::Through);
    browser.shows(&["into the silence"]).await;
}

#[tokio::test]
async fn a_final_close_code_stops_reconnecting_and_shows_why() {
    let (_world, browser) = world_in_browser(Store::Memory, &[]).await; // with the limit on talking
    // Gives the test the page's socket, to send what the page never sends.
    let script = "const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (data) { window.line = this; send.call(this, data); }";
    browser.eval(script).await;
    browser.join("lobby", "taro").await;
    let stops = async |script: &str, word: &str| {
        browser.eval(script).await;
        browser.chip_says("Stopped").await;
        let why = browser.alert().await;
        assert!(why.contains(word), "it says what to do: {why:?}");
        browser.later(60 * SECOND).await;
        browser.dispatch("online").await;
        assert_eq!(browser.chip().await, "Stopped · Retry now");
        browser.press("Retry now").await;
        browser.connected().await;
        assert_eq!(browser.alert().await, "");
    };
    let nonsense = "for (let i = 0; i < 3; i += 1) line.send('nonsense')";
    stops(nonsense, "reload").await; // 4400
    stops("line.send('x'.repeat(10000))", "too big").await; // 1009
    stops("line.send(new Uint8Array(4))", "reload").await; // 1003
    let flood = "for (let i = 0; i < 60; i += 1) line.send(JSON.stringify({ kind: 'talk', message: 'x', cid: `flood${i}` }))";
    stops(flood, "too many messages").await; // 4429
    browser.say("all well again").await;
}

#[tokio::test]
async fn a_full_dyno_is_retried_with_a_longer_wait() {
    let browser = Browser::start().await;
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "1")]).await;
    browser.open(&page_at(dyno.addr())).await;
    let hanako = dyno.join("lobby", "hanako").await;
    browser.ask_to_join("lobby", "taro").await;
    browser.chip_says("Reconnecting in ").await;
    let chip = browser.chip().await;
    let left = chip.split(' ').nth(2).and_then(|n| n.parse().ok());
    let left: u32 = left.unwrap_or_else(|| panic!("{chip}"));
    assert!((3..=8).contains(&left), "{chip}"); // half to all of eight seconds
    hanako.quit().await;
    browser.connected().await;
}

#[tokio::test]
async fn the_back_off_grows_and_is_reset_after_a_stable_connection() {
    let (mut world, browser) = one_browser().await;
    // Stops the clock, and makes each random wait the longest one.
    let script = "window.clock = Date.now(); Date.now = () => clock; Math.random = () => 0.999";
    browser.eval(script).await;
    let spread = json!(3000);
    browser.set_in_frames("welcome", "spread_ms", spread).await;
    // Moves the clock on, and waits until the page's timer has seen that: if it saw the jump only after a loss, it would
    // take it for sleep and try at once.
    let pass = async |seconds: u64| {
        let script =
            "clock += arguments[0] * 1000; return new Promise((done) => setTimeout(done, 600))";
        browser.eval_with(script, json!([seconds])).await;
    };
    let waits = async |seconds: u64| {
        let words = format!("Reconnecting in {seconds} s · Retry now");
        browser.chip_says(&words).await;
    };
    browser.join("lobby", "taro").await;
    pass(6).await;
    world.dyno.kill().await;
    for seconds in [3, 1, 2, 4, 8, 15, 15] {
        waits(seconds).await;
        pass(seconds).await;
    }
    assert_eq!(browser.alert().await, ""); // the server is away, and not only for WebSockets
    world.dyno.restart().await;
    waits(15).await;
    pass(15).await;
    browser.connected().await;
    world.dyno.kill().await; // at once: the connection was not stable
    waits(15).await;
    world.dyno.restart().await;
    pass(15).await;
    browser.connected().await;
    pass(6).await;
    world.dyno.kill().await;
    waits(3).await;
}

#[tokio::test]
async fn a_proxy_that_lets_no_websocket_through_is_explained() {
    let browser = Browser::start().await;
    // Rules of a badly configured proxy. The dyno answers 403, and 426.
    for rule in ["set-header Host internal.example", "del-header Upgrade"] {
        let mut dyno = Dyno::start(&[]).await;
        let proxy = Front::with_rule(rule, dyno.addr()).await;
        browser.open(&page_at(proxy.addr)).await;
        browser.ask_to_join("lobby", "taro").await;
        let why = "WebSocket connections do not get through";
        browser.alert_contains(why).await;
        let alert = async || browser.alert().await;
        assert!(alert().await.contains("log"), "where to look: {rule}");
        dyno.kill().await; // now it is something else
        settles(rule, alert, String::is_empty).await;
        assert!(browser.chip().await.contains("onnecting"), "{rule}");
    }
}

#[tokio::test]
async fn the_welcome_says_over_how_long_the_first_retry_is_spread() {
    let (_world, browser) = one_browser().await;
    browser.eval("Math.random = () => 0.999").await;
    let spread = json!(40);
    browser.set_in_frames("welcome", "spread_ms", spread).await;
    browser.join("lobby", "taro").await;
    browser.open_panel().await;
    // Ms from the end of a connection that was stable to the next try, sorted.
    let script = "const done = arguments[0], now = Date.now, Real = WebSocket;
        let skipped = 0, tried = () => {};
        Date.now = () => now() + skipped;
        window.WebSocket = class extends Real { constructor(url) { super(url); tried(); } };
        const pause = (ms) => new Promise((go) => setTimeout(go, ms));
        (async () => {
            const delays = [];
            for (let i = 0; i < 7; i += 1) {
                for (let j = 0; j < 2; j += 1) { skipped += 3000; await pause(300 + 29 * i); }
                const from = performance.now(), next = new Promise((go) => { tried = go; });
                document.getElementById('drop').click();
                await next;
                delays.push(performance.now() - from);
                while (!document.querySelector('[role=status]').textContent.startsWith('Connected')) await pause(20);
            }
            done(delays.sort((a, b) => a - b));
        })()";
    let delays: Vec<f64> = serde_json::from_value(browser.eval_async(script).await).expect("times");
    println!("measured: the first retry, spread over 40 ms, came after {delays:.0?} ms");
    assert!(delays[0] >= 39.0, "not earlier: {delays:?}");
    assert!(delays[3] < 120.0, "and soon after: {delays:?}");

    for (spread, words) in [(json!(9000), " 9 s"), (json!("soon"), " 3 s")] {
        browser.set_in_frames("welcome", "spread_ms", spread).await;
        browser.press("drop my connection").await;
        browser.connected().await;
        browser.later(4 * SECOND).await;
        sleep(SECOND).await;
        browser.later(4 * SECOND).await;
        sleep(SECOND).await;
        browser.press("drop my connection").await;
        browser.chip_says(words).await;
        browser.press("Retry now").await;
        browser.connected().await;
    }
}

#[tokio::test]
async fn a_tick_corrects_over_how_long_the_first_retry_is_spread() {
    let (_world, browser) = one_browser().await;
    browser.eval("Math.random = () => 0.999").await;
    let spread = json!(9000);
    browser.set_in_frames("tick", "spread_ms", spread).await;
    browser.join("lobby", "taro").await;
    browser.open_panel().await;
    browser.dispatch("online").await; // the page asks the server for a tick
    let age = async || browser.fact("Last tick").await;
    settles("a tick", age, |age| age.ends_with("ago")).await;
    browser.press("drop my connection").await;
    browser.chip_says(" 9 s").await;
}

#[tokio::test]
async fn a_stable_connection_resets_the_back_off_however_it_ends() {
    let (mut world, browser) = one_browser().await;
    browser.eval("Math.random = () => 0.999").await;
    let spread = json!(3000);
    browser.set_in_frames("welcome", "spread_ms", spread).await;
    browser.join("lobby", "taro").await;
    world.dyno.kill().await;
    browser.chip_says("Reconnecting in 4 s").await; // the third wait
    world.dyno.restart().await;
    browser.connected().await;
    for _ in 0..2 {
        browser.later(4 * SECOND).await;
        sleep(SECOND).await;
    }
    world.dyno.signal(Signal::SIGSTOP); // does not answer the page after its sleep
    browser.later(60 * SECOND).await;
    sleep(3 * SECOND).await;
    world.dyno.kill().await;
    browser.chip_says("Reconnecting in ").await;
    let chip = browser.chip().await; // the first wait
    assert!(chip.contains(" 3 s") || chip.contains(" 2 s"), "{chip}");
}

#[tokio::test]
async fn many_events_at_once_leave_one_open_socket() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    let script = "const Real = WebSocket; window.sockets = [];
        window.WebSocket = class extends Real { constructor(url) { super(url); sockets.push(this); } }";
    browser.eval(script).await;
    browser.join("lobby", "taro").await;
    browser.open_panel().await;
    let storm =
        "const names = ['online', 'offline', 'pagehide', 'pageshow', 'visibilitychange', 'online'];
        for (let i = 0; i < 120; i += 1) {
            const name = names[Math.floor(Math.random() * names.length)];
            (name === 'visibilitychange' ? document : window).dispatchEvent(new Event(name));
            if (i % 10 === 0) document.getElementById('drop').click();
        }
        dispatchEvent(new Event('pageshow'))";
    for _ in 0..5 {
        browser.eval(storm).await;
    }
    browser.connected().await;
    browser.send("calm").await;
    let open =
        "return sockets.filter((socket) => socket.readyState <= WebSocket.OPEN).length === 1";
    browser.until("one socket is open", open).await;
    let made = browser.eval("return sockets.length").await;
    assert!(made.as_u64() > Some(5), "there was a storm: {made}");
    browser.shows(&["calm"]).await;
    hanako.hears("calm").await;
    assert_eq!(hanako.members().0, ["hanako", "taro"]);
}
