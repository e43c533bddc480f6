//! The connection: lost, closed, retried, stopped; and what the learners' panel does to it.

use super::*;

/// The browser says that the network is back: the page asks the server for a tick, or connects.
const ONLINE: &str = "dispatchEvent(new Event('online'))";

#[tokio::test]
async fn the_panel_can_drop_the_connection_and_simulate_offline() {
    let (_world, mut hanako, page) = hanako_and_taro(Store::Memory).await;
    page.open_panel().await;
    page.is("fact('Dyno')", "local").await;
    page.is("fact('Boot id')", &hanako.welcome["boot"]).await;
    page.eval(ONLINE).await;
    let tick = "fact('Last tick').replace(/\\d+/, 'some')";
    page.becomes(tick, "some s ago").await;
    let young: u64 = page.get("parseInt(fact('Last tick'))").await;
    let older = format!("parseInt(fact('Last tick')) > {young}");
    page.becomes(&older, true).await;
    page.press("pretend to be offline").await;
    page.is("chip()", "Offline").await;
    for text in ["a", "b", "c"] {
        hanako.say(text).await;
    }
    page.later(60 * SECOND).await; // time alone does not end it
    page.eval(ONLINE).await;
    page.say("from offline").await;
    page.is("chip()", "Offline").await;
    page.is("texts('.text')", ["from offline"]).await;
    page.press("pretend to be offline").await;
    page.shows(&["a", "b", "c", "from offline"]).await;
    page.own_are("sent").await;
    page.becomes("fact('Reconnects')", "1").await;
    page.is("fact('Resumed messages')", "3").await;
    let last = hanako.expect_kind("talk").await["id"].clone();
    page.becomes("fact('Last id')", last).await;
    page.press("drop my connection").await;
    page.becomes("fact('Reconnects')", "2").await;
    page.shows(&["a", "b", "c", "from offline"]).await;
    page.is("texts('.note')", [""; 0]).await; // nobody saw anybody leave or join

    // The same where the browser is offline, and then online.
    page.set_offline(true).await;
    page.chip_says("Offline").await;
    hanako.say("meanwhile").await;
    page.say("typed offline").await;
    page.is("texts('.state').at(-1)", "sending").await;
    page.set_offline(false).await;
    let all = ["a", "b", "c", "from offline", "meanwhile", "typed offline"];
    page.shows(&all).await;
    page.own_are("sent").await;
}

#[tokio::test]
async fn the_page_reconnects_after_silence_and_after_sleep() {
    let (_world, proxy, mut hanako, page) = hanako_and_taro_behind_proxy().await;
    page.open_panel().await;
    proxy.set(Flow::Swallow);
    hanako.say("into the silence").await;
    sleep(20 * SECOND).await; // the silence is noticed after 35 s
    page.chip_says("Reconnecting").await;
    proxy.set(Flow::Through);
    page.shows(&["into the silence"]).await;
    page.becomes("fact('Reconnects')", "1").await;

    proxy.set(Flow::Swallow); // the connection dies during the sleep, without a Close
    page.later(600 * SECOND).await;
    proxy.set(Flow::Through); // the old connection stays dead
    page.becomes("fact('Reconnects')", "2").await;
    page.connected().await;

    // After a short sleep, or on another network, the page checks the connection.
    proxy.set(Flow::Swallow);
    page.eval(ONLINE).await;
    sleep(SECOND).await; // until the proxy has swallowed the question
    proxy.set(Flow::Through);
    page.becomes("fact('Reconnects')", "3").await;
    page.send("awake").await;

    // A clock that is set back must not lengthen the wait.
    let script = "const now = Date.now; Date.now = () => now() - 7200000";
    page.eval(script).await;
    page.press("drop my connection").await;
    page.becomes("fact('Reconnects')", "4").await;
}

#[tokio::test]
async fn a_final_close_code_stops_reconnecting_and_shows_why() {
    let page = Browser::start(Settings::Usual).await;
    let dyno = Dyno::start(&[]).await; // with the limit on talking
    page.open(dyno.addr(), "/").await;
    page.eval(WATCH).await;
    page.join("lobby", "taro").await;
    // Sends with the page's socket what the page never sends.
    let nonsense = "for (let i = 0; i < 3; i += 1) line.send('nonsense')";
    let flood = "for (let i = 0; i < 60; i += 1) line.send(JSON.stringify({ kind: 'talk', message: 'x', cid: `flood${i}` }))";
    for (code, script, words) in [
        (4400, nonsense, "reload"),
        (1009, "line.send('x'.repeat(10000))", "too big"),
        (1003, "line.send(new Uint8Array(4))", "reload"),
        (4429, flood, "too many messages"),
    ] {
        let script = format!("const line = watched.sockets.at(-1); {script}");
        page.eval(&script).await;
        page.chip_says("Stopped").await;
        let why: String = page.get("banner()").await;
        assert!(why.contains(words), "{code} says what to do: {why:?}");
        page.later(60 * SECOND).await;
        page.eval(ONLINE).await;
        page.is("chip()", "Stopped · Retry now").await;
        page.press("Retry now").await;
        page.connected().await;
        page.is("banner()", "").await;
    }
    page.say("all well again").await;
}

#[tokio::test]
async fn a_full_dyno_is_retried_with_a_longer_wait() {
    let page = Browser::start(Settings::Usual).await;
    let dyno = Dyno::start(&[("MAX_CONNECTIONS", "1")]).await;
    page.open(dyno.addr(), "/").await;
    let hanako = dyno.join("lobby", "hanako").await;
    page.ask_to_join("lobby", "taro").await;
    page.chip_says("Reconnecting in ").await;
    let left: u32 = page.get("parseInt(chip().match(/\\d+/))").await;
    assert!((3..=8).contains(&left), "half to all of 8 s: {left}");
    hanako.quit().await;
    page.connected().await;
}

/// Stops the page's clock, and makes each random wait the longest one.
async fn stop_clock(page: &Browser) {
    let script = "window.clock = Date.now(); Date.now = () => clock; Math.random = () => 0.999";
    page.eval(script).await;
}

/// Moves the clock on, and waits until the page's timer has seen that: if it saw the jump only after a loss, it would
/// take it for sleep and try at once.
async fn pass(page: &Browser, seconds: u64) {
    let wait = "clock += arguments[0] * 1000; return new Promise((go) => setTimeout(go, 600))";
    page.eval_with(wait, json!([seconds])).await;
}

async fn waits(page: &Browser, seconds: u64) {
    let chip = format!("Reconnecting in {seconds} s · Retry now");
    page.becomes("chip()", chip).await;
}

/// These are the page's next waits.
async fn waits_in_turn(page: &Browser, seconds: &[u64]) {
    for seconds in seconds {
        waits(page, *seconds).await;
        pass(page, *seconds).await;
    }
}

#[tokio::test]
async fn the_back_off_grows_until_retry_now_and_is_reset_after_a_stable_connection() {
    let (mut world, page) = world_and_page(Store::Memory).await;
    stop_clock(&page).await;
    page.alter("welcome", json!({"spread_ms": 3000})).await;
    page.join("lobby", "taro").await;
    pass(&page, 6).await;
    world.dyno.kill().await;
    waits_in_turn(&page, &[3, 1, 2, 4, 8, 15, 15]).await;
    page.is("banner()", "").await; // the server is away, and not only for WebSockets
    world.dyno.restart().await;
    waits_in_turn(&page, &[15]).await;
    page.connected().await;
    world.dyno.kill().await; // at once: the connection was not stable
    waits(&page, 15).await;
    world.dyno.restart().await;
    pass(&page, 3).await;
    waits(&page, 12).await;
    page.press("Retry now").await;
    page.connected().await;
    pass(&page, 6).await;
    world.dyno.kill().await;
    waits_in_turn(&page, &[3, 1, 2]).await;
    world.dyno.restart().await;
    waits_in_turn(&page, &[4]).await;
    page.connected().await;
    pass(&page, 6).await;
    world.dyno.signal(Signal::SIGSTOP); // does not answer the page after its sleep
    pass(&page, 60).await;
    page.is("chip()", "Reconnecting…").await; // the page gave the stable connection up
    world.dyno.kill().await;
    waits(&page, 3).await;
}

#[tokio::test]
async fn the_server_says_over_how_long_the_first_retry_is_spread() {
    let (_world, page) = world_and_page(Store::Memory).await;
    page.eval(WATCH).await;
    page.eval("Math.random = () => 0.999").await;
    page.alter("welcome", json!({"spread_ms": 40})).await;
    page.join("lobby", "taro").await;
    page.open_panel().await;
    // Ms from the end of a connection that was stable to the next try.
    let mut delays: Vec<f64> = vec![];
    for tries in 2..9 {
        page.later(6 * SECOND).await;
        sleep(SECOND + tries * SECOND / 15).await; // until the page has seen that, at any moment of its ticker
        page.eval("window.dropped = performance.now(); $('#drop').click()")
            .await;
        page.becomes("watched.sockets.length", tries).await;
        delays.push(page.get("watched.began - dropped").await);
        page.connected().await;
    }
    delays.sort_by(f64::total_cmp);
    println!("measured: the first retry, spread over 40 ms, came after {delays:.0?} ms");
    assert!(delays[0] >= 39.0, "not earlier: {delays:?}");
    assert!(delays[3] < 120.0, "and soon after: {delays:?}");

    stop_clock(&page).await;
    page.press("drop my connection").await;
    for (kind, said, seconds) in [
        ("welcome", json!(9000), 9),
        ("welcome", json!("soon"), 3),
        ("tick", json!(7000), 7), // corrects the welcome
    ] {
        page.alter(kind, json!({"spread_ms": said})).await;
        page.press("Retry now").await;
        page.connected().await;
        pass(&page, 6).await; // then the page asks the server for a tick
        page.becomes("fact('Last tick')", "0 s ago").await;
        page.press("drop my connection").await;
        waits(&page, seconds).await;
    }
}

#[tokio::test]
async fn blocked_websockets_are_explained() {
    let page = Browser::start(Settings::Usual).await;
    // An origin that is refused behind a proxy: 403. A proxy that does not upgrade: 426.
    for (header, by) in [("Host: 127", "Host: 126"), ("Upgrade: web", "Dropped: web")] {
        println!("{by}"); // shown if this test fails
        let mut dyno = Dyno::start(&[]).await;
        let proxy = Proxy::to(dyno.addr()).await;
        proxy.replace(header, by);
        page.open(proxy.addr, "/").await;
        page.ask_to_join("lobby", "taro").await;
        page.has("banner()", "WebSocket connections do not get through")
            .await;
        page.has("banner()", "log").await;
        dyno.kill().await; // now it is something else
        page.becomes("banner()", "").await;
        page.is("chip().includes('onnecting')", true).await;
    }
}

#[tokio::test]
async fn many_events_at_once_leave_one_open_socket() {
    let (world, page) = world_and_page(Store::Memory).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    page.eval(WATCH).await;
    page.join("lobby", "taro").await;
    page.open_panel().await;
    let storm = "
        const names = ['online', 'offline', 'pagehide', 'pageshow', 'visibilitychange', 'online'];
        for (let i = 0; i < 120; i += 1) {
            const name = names[Math.floor(Math.random() * names.length)];
            (name === 'visibilitychange' ? document : window).dispatchEvent(new Event(name));
            if (i % 10 === 0) $('#drop').click();
        }
        dispatchEvent(new Event('pageshow'))";
    for _ in 0..5 {
        page.eval(storm).await;
    }
    page.connected().await;
    page.send("calm").await;
    let open = "watched.sockets.filter((socket) => socket.readyState <= WebSocket.OPEN).length";
    page.becomes(open, 1).await;
    page.is("watched.sockets.length > 5", true).await; // there was a storm
    page.shows(&["calm"]).await;
    hanako.hears("calm").await;
    assert_eq!(hanako.members().0, ["hanako", "taro"]);
}
