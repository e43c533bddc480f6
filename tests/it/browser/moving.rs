//! The page moves: its dyno stops, and it connects to another one before it closes its connection.

use super::*;
use crate::support::facts::MOVE_EVERY;
use fantoccini::wd::WindowHandle;
use futures_util::future::join_all;

/// Two dynos with one Redis, and a browser that reaches them through a proxy: the first dyno at the beginning.
struct Moving {
    browser: Browser,
    proxy: Proxy,
    dynos: [Dyno; 2],
    redis: Redis,
}

impl Moving {
    async fn start(vars: &[(&str, &str)]) -> Moving {
        let browser = Browser::start().await;
        let redis = Redis::start(&[]).await;
        let vars = [&[TALKATIVE], vars].concat();
        let dyno = async |name| Dyno::start_on(&redis, &[&[("DYNO", name)], &*vars].concat()).await;
        let dynos = [dyno("web.1").await, dyno("web.2").await];
        let proxy = Proxy::to(dynos[0].addr()).await;
        browser.open(&page_at(proxy.addr)).await;
        browser.watch_connections().await;
        Moving {
            browser,
            proxy,
            dynos,
            redis,
        }
    }

    /// The first dyno is asked to stop; new connections lead to the second one, and each of their bytes comes later.
    fn stop_first(&self, latency: Duration) {
        self.proxy.lead_to(self.dynos[1].addr(), latency);
        self.dynos[0].signal(Signal::SIGTERM);
    }

    /// A `move` that cannot succeed has reached the page.
    async fn asked(&self) {
        let tries = "return watched.sockets.length > 1";
        self.browser.until("a second connection", tries).await;
    }

    async fn never_away(&self) {
        assert_eq!(self.browser.ms_without_connection().await, 0.0);
        assert_eq!(self.browser.fact("Reconnects").await, "0");
        let most = self.browser.eval("return watched.most").await;
        assert!(most.as_u64() <= Some(2), "{most} connections at once");
    }
}

#[tokio::test]
async fn nothing_but_the_name_of_the_dyno_changes_and_that_is_not_announced() {
    let mut test = Moving::start(&[]).await;
    let browser = &test.browser;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    browser.send("before").await;
    browser.fill("Message", "a draft").await;
    browser.members_are(&["hanako", "taro"]).await;
    hanako.expect_members(&["hanako", "taro"]).await;
    let lists = hanako.members_frames();
    let forget = "watched.chips.length = watched.announced.length = 0";
    browser.eval(forget).await;

    test.stop_first(Duration::ZERO);
    browser.chip_says("web.2").await;
    browser.fact_becomes("Dyno", "web.2").await;
    browser.fact_becomes("Moves", "1").await;
    exits(&mut test.dynos[0]).await;
    hanako.hears("before").await;
    hanako.say("after").await;
    browser.shows(&["before", "after"]).await;
    sleep(3 * SECOND).await; // a change of the members would be shown by now
    let chips = browser.eval("return watched.chips").await;
    assert_eq!(chips, json!(["Connected · web.2"]));
    let announced = browser.eval("return watched.announced").await;
    assert_eq!(announced, json!([]));
    assert_eq!(browser.notes().await, [""; 0]);
    assert_eq!(browser.alert().await, "");
    browser.members_are(&["hanako", "taro"]).await;
    browser.value_is("Message", "a draft").await;
    hanako.saw_no_change_since(lists);
    browser.expect_empty_console().await;
    test.never_away().await;

    // A move is no reconnect: joins and leaves soon after it are announced.
    let _jiro = test.dynos[1].join("lobby", "jiro").await;
    browser.notes_are(&["jiro joined"]).await;
    hanako.quit().await;
    browser.notes_are(&["jiro joined · hanako left"]).await;
}

#[tokio::test]
async fn messages_that_come_on_both_connections_are_shown_once_and_own_ones_are_sent_once() {
    let test = Moving::start(&[]).await;
    let browser = &test.browser;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    test.stop_first(SECOND / 2); // the welcome comes two seconds after the `move`
    test.asked().await;
    let mut said = vec![];
    for i in 0..30 {
        let text = format!("m{i}");
        if i % 3 == 0 {
            browser.eval(&format!("watched.say('{text}')")).await;
        } else {
            hanako.talk_as(&text, &text).await;
        }
        said.push(text);
        sleep(SECOND / 10).await;
    }
    browser.chip_says("web.2").await;
    browser.own_are("sent").await;
    browser.count_is("[role=log] .message", 30).await;
    let mut texts = browser.texts().await;
    texts.sort_by_key(|text| text[1..].parse::<u32>().ok());
    assert_eq!(texts, said);
    assert_eq!(check::stream(&test.redis, "lobby").len(), 30);
    test.never_away().await;
}

#[tokio::test]
async fn a_message_without_an_answer_is_sent_again_with_the_welcome_of_the_second_connection() {
    let test = Moving::start(&[]).await;
    let browser = &test.browser;
    browser.join("lobby", "taro").await;
    test.stop_first(SECOND / 2);
    test.asked().await;
    browser.eval("watched.sockets[0].send = () => {}").await; // lost on the way
    browser.eval("watched.say('kept')").await;
    browser.own_are("sent").await;
    let waited = browser.ack_ms().await[0];
    assert!(waited < 8_000.0, "{waited} ms"); // before the time for a resend
    assert_eq!(check::stream(&test.redis, "lobby").len(), 1);
    test.never_away().await;
}

#[tokio::test]
async fn the_page_moves_without_timers_as_in_a_background_tab() {
    let browser = Browser::start().await;
    // A browser runs the timers of a tab in the background once a minute. Here they never run.
    let source = "window.setTimeout = window.setInterval = () => 0";
    let command = "Page.addScriptToEvaluateOnNewDocument";
    browser.devtools(command, json!({"source": source})).await;
    let redis = Redis::start(&[]).await;
    let mut first = Dyno::start_on(&redis, &[("DYNO", "web.1")]).await;
    browser.open(&page_at(first.addr())).await;
    browser.watch_connections().await;
    browser.join("lobby", "taro").await;
    first.signal(Signal::SIGTERM);
    sleep(MOVE_EVERY + SECOND).await; // two tries fail
    let _next = first.successor().await;
    let status = first.exit(MOVE_EVERY + 2 * SECOND).await;
    assert_eq!(status.code(), Some(0));
    browser.fact_becomes("Moves", "1").await;
    assert_eq!(browser.ms_without_connection().await, 0.0);
}

#[tokio::test]
async fn leave_during_a_move_releases_the_name_at_once() {
    let mut test = Moving::start(&[]).await;
    let browser = &test.browser;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    hanako.expect_members(&["hanako", "taro"]).await;
    test.stop_first(SECOND);
    test.asked().await;
    // The upgrade takes two seconds, then the join is on its way for one more.
    let open = "return watched.sockets[1].readyState === 1";
    browser.until("the second one is open", open).await;
    browser.press("Leave").await;
    let left = Instant::now();
    assert_eq!(browser.chip().await, "Left");
    // The join arrives after the name was released, and claims it again; then the second `quit` arrives.
    sleep((3 * SECOND).saturating_sub(left.elapsed())).await;
    hanako.expect_members(&["hanako"]).await;
    check::names_are(&test.redis, "lobby", &["hanako"]).await;
    let _other = test.dynos[1].join("lobby", "taro").await;
    exits(&mut test.dynos[0]).await;
    assert_eq!(browser.chip().await, "Left");
}

#[tokio::test]
async fn a_welcome_from_the_dyno_that_stops_is_a_failed_try() {
    let mut test = Moving::start(&[]).await;
    let browser = &test.browser;
    browser.join("lobby", "taro").await;
    // A proxy had opened the second connection in advance: its welcome has the boot id of the first one.
    let script = "const Real = WebSocket, first = document.getElementById('boot').textContent;
        let count = 0;
        window.WebSocket = class extends Real {
          set onmessage(act) {
            const again = (count += 1) === 1;
            super.onmessage = (event) => act({ data: again ? event.data.replace(/\"boot\":\"[^\"]*\"/, `\"boot\":\"${first}\"`) : event.data });
          }
        }";
    browser.eval(script).await;
    test.stop_first(Duration::ZERO);
    test.asked().await;
    sleep(SECOND).await;
    assert_eq!(browser.chip().await, "Connected · web.1");
    browser.send("still on the first").await;
    browser.chip_says("web.2").await; // with the next `move`
    exits(&mut test.dynos[0]).await;
    browser.send("on the second").await;
    test.never_away().await;
}

#[tokio::test]
async fn a_page_whose_dyno_is_killed_during_a_move_reconnects() {
    let test = Moving::start(&[]).await;
    let browser = &test.browser;
    browser.join("lobby", "taro").await;
    test.stop_first(SECOND);
    test.asked().await;
    test.dynos[0].signal(Signal::SIGKILL);
    browser.chip_says("Reconnecting").await;
    test.proxy.lead_to(test.dynos[1].addr(), Duration::ZERO);
    browser.say("typed meanwhile").await;
    browser.chip_says("web.2").await;
    browser.own_are("sent").await;
    browser.fact_becomes("Reconnects", "1").await;
    assert_eq!(browser.fact("Moves").await, "0");
    assert_eq!(check::stream(&test.redis, "lobby").len(), 1);
}

#[tokio::test]
async fn a_full_dyno_does_not_strand_the_page() {
    let mut test = Moving::start(&[("MAX_CONNECTIONS", "5")]).await;
    let browser = &test.browser;
    let mut hanako = test.dynos[1].join("lobby", "hanako").await;
    let _others = join_all((0..4).map(|_| test.dynos[1].connect())).await;
    browser.join("lobby", "taro").await;
    test.stop_first(Duration::ZERO);
    test.asked().await;
    sleep(MOVE_EVERY).await; // at least one more try
    browser.send("not stranded").await;
    hanako.hears("not stranded").await;
    hanako.quit().await;
    browser.chip_says("web.2").await;
    exits(&mut test.dynos[0]).await;
    let chips = "return watched.chips.filter((chip) => chip.includes('Reconnecting'))";
    assert_eq!(browser.eval(chips).await, json!([]));
    test.never_away().await;
}

#[tokio::test]
async fn the_page_stays_while_redis_is_down_and_moves_when_it_is_back() {
    let mut test = Moving::start(&[]).await;
    let browser = &test.browser;
    browser.join("lobby", "taro").await;
    test.dynos[1].signal(Signal::SIGSTOP); // so that the page is on the first dyno when Redis goes away
    test.stop_first(Duration::ZERO);
    test.asked().await;
    test.redis.stop().await;
    test.dynos[1].signal(Signal::SIGCONT);
    browser.alert_contains("Redis").await;
    browser.say("kept").await;
    sleep(MOVE_EVERY).await;
    assert_eq!(browser.chip().await, "Connected · web.1");
    test.redis.restart().await;
    browser.chip_says("web.2").await;
    browser.own_are("sent").await;
    assert_eq!(browser.alert().await, "");
    test.never_away().await;
}

// ---- figures

const TABS: usize = 14;
const TALK: &str = "const [name, count] = arguments; let n = 0;
    const timer = setInterval(() => {
      watched.say(`${name} says ${n += 1}`);
      if (n === count) clearInterval(timer);
    }, 400)";

/// Dynos behind the router, and tabs of one browser that have joined one room.
struct Tabs {
    browser: Browser,
    tabs: Vec<WindowHandle>,
    dynos: Vec<Dyno>,
    redis: Redis,
    _front: Front,
}

impl Tabs {
    async fn join(dynos: usize) -> Tabs {
        let browser = Browser::start_as(Settings::Usual, 2).await;
        let redis = Redis::start(&[]).await;
        let names = (1..=dynos).map(|n| format!("web.{n}"));
        let start =
            async |name: String| Dyno::start_on(&redis, &[TALKATIVE, ("DYNO", &name)]).await;
        let dynos = join_all(names.map(start)).await;
        let front = Front::before([dynos[0].addr(), dynos[dynos.len() - 1].addr()]).await;
        let mut tabs = vec![];
        for n in 0..TABS {
            if n > 0 {
                browser.second_tab().await;
            }
            browser.open(&page_at(front.addr)).await;
            browser.watch_connections().await;
            browser.join("lobby", &format!("n{n:02}")).await;
            browser.open_panel().await;
            tabs.push(browser.client.window().await.expect("a tab is selected"));
        }
        Tabs {
            browser,
            tabs,
            dynos,
            redis,
            _front: front,
        }
    }

    /// Every tab sends so many messages, one each 400 ms. Meanwhile `fault` happens. Then calls `look` in each tab.
    async fn talk_during<T>(
        &mut self,
        count: usize,
        fault: impl AsyncFnOnce(&mut Dyno) -> T,
        mut look: impl AsyncFnMut(&Browser),
    ) -> T {
        for (n, tab) in self.tabs.iter().enumerate() {
            self.browser.switch(tab).await;
            let talks = json!([format!("n{n:02}"), count]);
            self.browser.eval_with(TALK, talks).await;
        }
        let result = fault(&mut self.dynos[0]).await;
        for tab in &self.tabs {
            self.browser.switch(tab).await;
            let acks = async || self.browser.ack_ms().await.len();
            becomes("acknowledgements", &count, acks).await;
            self.browser.connected().await;
            look(&self.browser).await;
        }
        assert_eq!(check::stream(&self.redis, "lobby").len(), TABS * count);
        result
    }

    /// The same with a restart, which no tab may notice.
    async fn are_not_away_during<T>(
        &mut self,
        what: &str,
        count: usize,
        restart: impl AsyncFnOnce(&mut Dyno) -> T,
    ) {
        let kind = self.browser.kind;
        let (mut acks, mut moves) = (vec![], 0);
        let look = async |browser: &Browser| {
            assert_eq!(browser.ms_without_connection().await, 0.0);
            assert_eq!(browser.fact("Reconnects").await, "0");
            let notes = browser.notes().await.concat();
            assert!(!notes.contains("left"), "{notes}");
            moves += usize::from(browser.fact("Moves").await == "1");
            acks.extend(browser.ack_ms().await);
        };
        let _successor = self.talk_during(count, restart, look).await;
        assert!(moves > 0);
        let (count, acks) = (acks.len(), summary(acks));
        println!(
            "measured: {what}, {kind:?}: {moves} of {TABS} tabs moved, 0 ms without a connection; {count} messages \
             acknowledged after {acks}"
        );
    }
}

/// The median, the 99th percentile and the highest, in ms.
fn summary(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 100];
    let (p50, p99, most) = (at(50), at(99), at(100));
    format!("p50 {p50:.0} ms, p99 {p99:.0} ms, at most {most:.0} ms")
}

async fn exits(dyno: &mut Dyno) {
    let status = dyno.exit(SOON).await;
    assert_eq!(status.code(), Some(0), "{}", dyno.log());
}

#[tokio::test]
async fn fourteen_tabs_have_a_connection_all_the_time_while_one_of_two_dynos_is_restarted() {
    let mut test = Tabs::join(2).await;
    let mut watcher = test.dynos[1].join("lobby", "watcher").await;
    watcher.settle_loosely().await;
    sleep(3 * SECOND).await; // until the list of members is read again
    let lists = watcher.members_frames();
    let restart = async |dyno: &mut Dyno| {
        dyno.signal(Signal::SIGTERM);
        exits(dyno).await;
    };
    let what = "SIGTERM of one of two dynos";
    test.are_not_away_during(what, 20, restart).await;
    assert_eq!(watcher.members_frames(), lists, "nobody left or joined");
}

#[tokio::test]
async fn fourteen_tabs_have_a_connection_all_the_time_while_a_single_dyno_is_replaced() {
    let mut test = Tabs::join(1).await;
    let restart = async |dyno: &mut Dyno| {
        dyno.signal(Signal::SIGTERM);
        sleep(8 * SECOND).await;
        let successor = dyno.successor().await;
        exits(dyno).await;
        successor
    };
    let what = "SIGTERM of a single dyno, its successor 8 s later";
    test.are_not_away_during(what, 40, restart).await;
}

#[tokio::test]
async fn fourteen_tabs_are_back_soon_after_one_of_two_dynos_is_killed() {
    let mut test = Tabs::join(2).await;
    let kind = test.browser.kind;
    let mut away = vec![];
    let look = async |browser: &Browser| {
        if browser.fact("Reconnects").await == "1" {
            away.push(browser.ms_without_connection().await);
        }
    };
    let kill = async |dyno: &mut Dyno| dyno.kill().await;
    test.talk_during(20, kill, look).await;
    let most = away.iter().copied().fold(0.0, f64::max);
    let (count, away) = (away.len(), summary(away));
    println!(
        "measured: SIGKILL, {kind:?}: {count} of {TABS} tabs were without a connection for {away}"
    );
    assert!(most < 2_000.0, "without a connection for {away}");
}
