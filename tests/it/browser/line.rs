//! The line: lost, given up, retried, stopped; and what learners can do to it.

use super::*;

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
    let age = async || {
        let age = fact(&browser, "Last tick").await;
        let seconds = age
            .strip_suffix(" s ago")
            .and_then(|s| s.parse::<u64>().ok());
        seconds.ok_or(age)
    };
    browser
        .eval("dispatchEvent(new Event('online'))", json!([]))
        .await; // the line is asked, and its answer is a tick
    let young = eventually("a tick", SOON, age).await;
    eventually("it grows older", SOON, async || match age().await {
        Ok(old) if old > young => Ok(()),
        other => Err(other),
    })
    .await;
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
    tokio::time::sleep(SECOND).await; // until the question has fallen into the silence
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
async fn waits_grow_step_by_step_and_begin_anew_after_a_good_connection() {
    let (mut world, browser) = one_browser().await;
    // A clock that stands still until it is told, and the longest of each wait.
    let script = "window.clock = Date.now(); Date.now = () => clock; Math.random = () => 0.999";
    browser.eval(script, json!([])).await;
    // Until the page's own timer has seen it: a jump seen only after a loss would look like sleep, and be followed by
    // a try at once.
    let pass = async |seconds: u64| {
        let script =
            "clock += arguments[0] * 1000; return new Promise((done) => setTimeout(done, 600))";
        browser.eval(script, json!([seconds])).await;
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
    world.dyno.restart().await;
    waits(15).await;
    pass(15).await;
    browser.connected().await;
    world.dyno.kill().await; // at once: that was not a good connection
    waits(15).await;
    world.dyno.restart().await;
    pass(15).await;
    browser.connected().await;
    pass(6).await;
    world.dyno.kill().await;
    waits(3).await;
}

#[tokio::test]
async fn there_is_one_socket_whatever_happens_at_once() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    let script = "const Real = WebSocket; window.sockets = [];
        window.WebSocket = class extends Real { constructor(url) { super(url); sockets.push(this); } }";
    browser.eval(script, json!([])).await;
    browser.join("lobby", "taro").await;
    open_panel(&browser).await;
    let storm =
        "const names = ['online', 'offline', 'pagehide', 'pageshow', 'visibilitychange', 'online'];
        for (let i = 0; i < 120; i += 1) {
            const name = names[Math.floor(Math.random() * names.length)];
            (name === 'visibilitychange' ? document : window).dispatchEvent(new Event(name));
            if (i % 10 === 0) document.getElementById('drop').click();
        }
        dispatchEvent(new Event('pageshow'))";
    for _ in 0..5 {
        browser.eval(storm, json!([])).await;
    }
    browser.connected().await;
    browser.say("calm").await;
    browser.own_are("sent").await;
    let open = "return sockets.filter((socket) => socket.readyState <= WebSocket.OPEN).length";
    browser
        .until(
            "one socket is open",
            &open.replace("return ", "return 1 === "),
        )
        .await;
    let made = browser.eval("return sockets.length", json!([])).await;
    assert!(made.as_u64() > Some(5), "there was a storm: {made}");
    browser.shows(&["calm"]).await;
    hanako.hears("calm").await;
    assert_eq!(hanako.members().0, ["hanako", "taro"]);
}
