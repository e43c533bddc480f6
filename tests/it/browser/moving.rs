//! The page moves: its dyno stops, and it connects to another one before it closes its connection. See also
//! `story::tabs_move_on_sigterm_and_nobody_notices`.

use super::*;
use serde::Deserialize;

impl Browser {
    /// At no time did the page lack a connection that was welcomed.
    pub async fn was_never_away(&self) {
        self.is("watched.away", 0).await;
        self.is("fact('Reconnects')", "0").await;
        self.is("watched.most <= 2", true).await; // connections at once
    }
}

/// Two dynos with one Redis, and a browser that reaches them through a proxy: the first dyno at the beginning.
struct Moving {
    page: Browser,
    proxy: Proxy,
    dynos: [Dyno; 2],
    redis: Redis,
}

impl Moving {
    async fn start(vars: &[(&str, &str)]) -> Moving {
        let page = Browser::start(Settings::Usual).await;
        let redis = Redis::start(&["--appendonly", "yes"]).await;
        let vars = [&[TALKATIVE], vars].concat();
        let dyno = async |name| Dyno::start_on(&redis, &[&[("DYNO", name)], &*vars].concat()).await;
        let dynos = [dyno("web.1").await, dyno("web.2").await];
        let proxy = Proxy::to(dynos[0].addr()).await;
        page.open(proxy.addr, "/").await;
        page.eval(WATCH).await;
        Moving {
            page,
            proxy,
            dynos,
            redis,
        }
    }

    /// taro joins the lobby. Then the first dyno is asked to stop, and taro to move; new connections lead to the second
    /// dyno, and each of their bytes comes later. Ends when the page has begun a second connection.
    async fn begin(&self, latency: Duration) {
        self.page.join("lobby", "taro").await;
        self.proxy.lead_to(self.dynos[1].addr(), latency);
        self.dynos[0].signal(Signal::SIGTERM);
        let tries = "watched.sockets.length > 1";
        self.page.becomes(tries, true).await;
    }

    fn stored(&self) -> usize {
        check::stream(&self.redis, "lobby").len()
    }
}

#[tokio::test]
async fn messages_that_come_on_both_connections_are_shown_once_and_own_ones_are_sent_once() {
    let test = Moving::start(&[]).await;
    let page = &test.page;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    test.begin(SECOND / 2).await; // the welcome comes two seconds after the `move`
    let said: Vec<String> = (0..30).map(|i| format!("m{i}")).collect();
    for (i, text) in said.iter().enumerate() {
        match i % 3 {
            0 => _ = page.eval(&format!("watched.say('{text}')")).await,
            _ => hanako.talk_as(text, text).await,
        }
        sleep(SECOND / 10).await;
    }
    page.chip_says("web.2").await;
    page.own_are("sent").await;
    page.shows_messages(30).await;
    let mut texts: Vec<String> = page.get("texts('.message .text')").await;
    texts.sort_by_key(|text| text[1..].parse::<u32>().ok());
    assert_eq!(texts, said);
    assert_eq!(test.stored(), 30);
    page.was_never_away().await;
}

#[tokio::test]
async fn a_message_without_an_answer_is_sent_again_with_the_welcome_of_the_second_connection() {
    let test = Moving::start(&[]).await;
    let page = &test.page;
    test.begin(SECOND / 2).await;
    page.eval("watched.sockets[0].send = () => {}").await; // lost on the way
    page.eval("watched.say('kept')").await;
    page.own_are("sent").await;
    let waited: f64 = page.get("watched.acks[0]").await;
    assert!(waited < 8_000.0, "{waited} ms: by a later resend");
    assert_eq!(test.stored(), 1);
    page.was_never_away().await;
}

#[tokio::test]
async fn the_page_moves_without_timers_as_in_a_background_tab() {
    let page = Browser::start(Settings::Usual).await;
    // A browser runs the timers of a tab in the background once a minute. Here they never run.
    let no_timers = "window.setTimeout = window.setInterval = () => 0";
    page.before_each_page(no_timers).await;
    let redis = Redis::start(&[]).await;
    let mut first = Dyno::start_on(&redis, &[("DYNO", "web.1")]).await;
    page.open(first.addr(), "/").await;
    page.eval(WATCH).await;
    page.join("lobby", "taro").await;
    first.signal(Signal::SIGTERM);
    sleep(MOVE_EVERY + SECOND).await; // two tries fail
    let _next = first.successor().await;
    first.exits_with_0(MOVE_EVERY + 2 * SECOND).await;
    page.becomes("fact('Moves')", "1").await;
    page.is("watched.away", 0).await;
}

#[tokio::test]
async fn leave_during_a_move_releases_the_name_at_once() {
    let mut test = Moving::start(&[]).await;
    let page = &test.page;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    test.begin(SECOND).await;
    hanako.expect_members(&["hanako", "taro"]).await;
    // The upgrade takes two seconds, then the join is on its way for one more.
    page.becomes("watched.sockets[1].readyState", 1).await;
    page.is("fact('Moves')", "0").await;
    page.press("Leave").await;
    let left = Instant::now();
    page.is("chip()", "Left").await;
    // The join arrives after the name was released, and claims it again; then the second `quit` arrives.
    sleep((3 * SECOND).saturating_sub(left.elapsed())).await;
    hanako.expect_members(&["hanako"]).await;
    check::names_are(&test.redis, "lobby", &["hanako"]).await;
    let _other = test.dynos[1].join("lobby", "taro").await;
    test.dynos[0].exits_with_0(PATIENCE).await;
    page.is("chip()", "Left").await;
}

#[tokio::test]
async fn a_welcome_from_the_dyno_that_stops_is_a_failed_try() {
    let mut test = Moving::start(&[]).await;
    let page = &test.page;
    // A proxy had opened the second connection in advance: its welcome has the boot id of the first one.
    let first = test.dynos[0].health().await["boot"].clone();
    page.alter("welcome", json!({"boot": first})).await;
    test.begin(Duration::ZERO).await;
    sleep(SECOND).await;
    page.is("chip()", "Connected · web.1").await;
    page.send("still on the first").await;
    page.alter("welcome", json!({"boot": "another"})).await;
    page.chip_says("web.2").await; // with the next `move`
    test.dynos[0].exits_with_0(PATIENCE).await;
    page.send("on the second").await;
    page.was_never_away().await;
}

#[tokio::test]
async fn a_page_whose_dyno_is_killed_during_a_move_reconnects() {
    let test = Moving::start(&[]).await;
    let page = &test.page;
    test.begin(SECOND).await;
    test.dynos[0].signal(Signal::SIGKILL);
    page.chip_says("Reconnecting").await;
    test.proxy.lead_to(test.dynos[1].addr(), Duration::ZERO);
    page.say("typed meanwhile").await;
    page.chip_says("web.2").await;
    page.own_are("sent").await;
    page.becomes("fact('Reconnects')", "1").await;
    page.is("fact('Moves')", "0").await;
    assert_eq!(test.stored(), 1);
}

#[tokio::test]
async fn a_full_dyno_does_not_strand_the_page() {
    let mut test = Moving::start(&[("MAX_CONNECTIONS", "5")]).await;
    let page = &test.page;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    let _others = join_all((0..4).map(|_| test.dynos[1].connect())).await;
    test.begin(Duration::ZERO).await;
    sleep(MOVE_EVERY).await; // at least one more try
    page.send("not stranded").await;
    hanako.hears("not stranded").await;
    hanako.quit().await;
    page.chip_says("web.2").await;
    test.dynos[0].exits_with_0(PATIENCE).await;
    let reconnected = "watched.chips.join().includes('Reconnecting')";
    page.is(reconnected, false).await;
    page.was_never_away().await;
}

#[tokio::test]
async fn the_page_stays_while_redis_is_down_and_moves_when_it_is_back() {
    let mut test = Moving::start(&[]).await;
    let page = &test.page;
    test.dynos[1].signal(Signal::SIGSTOP); // so that the page is on the first dyno when Redis goes away
    test.begin(Duration::ZERO).await;
    test.redis.stop().await;
    test.dynos[1].signal(Signal::SIGCONT);
    page.becomes("banner() !== ''", true).await;
    page.say("kept").await;
    sleep(MOVE_EVERY).await;
    page.is("chip()", "Connected · web.1").await;
    test.redis.restart().await;
    page.chip_says("web.2").await;
    page.own_are("sent").await;
    page.is("banner()", "").await;
    page.notes_are(&[]).await; // nobody came or went
    page.was_never_away().await;
}

// ---- figures

const TABS: usize = 14;
const TALK: &str = "const [name, count] = arguments; let n = 0;
    const timer = setInterval(() => {
      watched.say(`${name} says ${n += 1}`);
      if (n === count) clearInterval(timer);
    }, 400)";

/// The record of a tab.
#[derive(Deserialize)]
struct Seen {
    /// Ms without a connection that was welcomed.
    away: f64,
    /// After how many ms each message was acknowledged.
    acks: Vec<f64>,
    reconnects: String,
    moves: String,
    left: bool,
}

/// Tabs of one browser join one room, through the router before these dynos. Each tab sends `count` messages, one each
/// 400 ms, and meanwhile `fault` happens. Gives what each tab has seen.
async fn fourteen_tabs(
    dynos: usize,
    count: usize,
    fault: impl AsyncFnOnce(&mut Vec<Dyno>),
) -> Vec<Seen> {
    let page = Browser::start_with(Settings::Usual, heavy(2).await).await; // its tabs keep a processor busy
    let redis = Redis::start(&[]).await;
    let names = (1..=dynos).map(|n| format!("web.{n}"));
    let start = async |name: String| Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", &name)]).await;
    let mut dynos = join_all(names.map(start)).await;
    let front = Front::before([dynos[0].addr(), dynos[dynos.len() - 1].addr()]).await;
    let mut tabs = vec![];
    for n in 0..TABS {
        tabs.push(page.new_tab().await);
        page.open(front.addr(), "/").await;
        page.eval(WATCH).await;
        page.join("lobby", &format!("n{n:02}")).await;
        page.open_panel().await;
    }
    for (n, tab) in tabs.iter().enumerate() {
        page.switch(tab).await;
        page.eval_with(TALK, json!([format!("n{n:02}"), count]))
            .await;
    }
    fault(&mut dynos).await;
    let mut seen = vec![];
    for tab in &tabs {
        page.switch(tab).await;
        page.becomes("watched.acks.length", count).await;
        page.connected().await;
        let state = "({ away: watched.away, acks: watched.acks, left: texts('.note').join().includes('left'),
            reconnects: fact('Reconnects'), moves: fact('Moves') })";
        seen.push(page.get(state).await);
    }
    assert_eq!(check::stream(&redis, "lobby").len(), TABS * count);
    seen
}

/// The tabs have noticed nothing of a restart, and some of them have moved.
fn noticed_nothing(what: &str, tabs: &[Seen]) {
    for tab in tabs {
        let seen = (tab.away, &*tab.reconnects, tab.left);
        assert_eq!(seen, (0.0, "0", false));
    }
    let moves = tabs.iter().filter(|tab| tab.moves == "1").count();
    assert!(moves > 0);
    let acks: Vec<f64> = tabs.iter().flat_map(|tab| tab.acks.clone()).collect();
    let (kind, count, acks) = (Kind::wanted(), acks.len(), summary(acks));
    println!(
        "measured: {what}, {kind:?}: {moves} of {TABS} tabs moved, 0 ms without a connection; {count} messages \
         acknowledged after {acks}"
    );
}

/// The median, the 99th percentile and the highest, in ms.
fn summary(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let [p50, p99, most] = [50, 99, 100].map(|share| values[(values.len() - 1) * share / 100]);
    format!("p50 {p50:.0} ms, p99 {p99:.0} ms, at most {most:.0} ms")
}

#[tokio::test]
async fn fourteen_tabs_have_a_connection_all_the_time_while_one_of_two_dynos_is_restarted() {
    let restart = async |dynos: &mut Vec<Dyno>| {
        dynos[0].signal(Signal::SIGTERM);
        dynos[0].exits_with_0(SOON).await;
    };
    let tabs = fourteen_tabs(2, 30, restart).await;
    noticed_nothing("SIGTERM of one of two dynos", &tabs);
}

#[tokio::test]
async fn fourteen_tabs_have_a_connection_all_the_time_while_a_single_dyno_is_replaced() {
    let replace = async |dynos: &mut Vec<Dyno>| {
        dynos[0].signal(Signal::SIGTERM);
        sleep(8 * SECOND).await;
        dynos.push(dynos[0].successor().await);
        dynos[0].exits_with_0(SOON).await;
    };
    let tabs = fourteen_tabs(1, 40, replace).await;
    let what = "SIGTERM of a single dyno, its successor 8 s later";
    noticed_nothing(what, &tabs);
}

#[tokio::test]
async fn fourteen_tabs_are_back_soon_after_one_of_two_dynos_is_killed() {
    let kill = async |dynos: &mut Vec<Dyno>| dynos[0].kill().await;
    let mut tabs = fourteen_tabs(2, 20, kill).await;
    tabs.retain(|tab| tab.reconnects == "1");
    let away: Vec<f64> = tabs.iter().map(|tab| tab.away).collect();
    let soon = away.iter().all(|away| *away < 2_000.0);
    let (kind, count, away) = (Kind::wanted(), away.len(), summary(away));
    println!("measured: SIGKILL, {kind:?}: {count} of {TABS} tabs had no connection for {away}");
    assert!(soon, "without a connection for {away}");
}
