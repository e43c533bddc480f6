//! How messages of others are shown, and that hostile text stays text.

use super::*;

#[tokio::test]
async fn hostile_texts_are_escaped_and_only_web_links_become_links() {
    let (_world, mut hanako, browser) = chat().await;
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
    assert_eq!(browser.eval(script).await, json!([null, 0, true]));

    hanako.say("see https://example.com/a?b=1&c=(d), or (http://example.org/x). 次はhttps://example.net/道です").await;
    let script = "return [...document.querySelectorAll('[role=log] a')].map((a) => [a.href, a.rel, a.textContent === a.href])";
    browser.count_is("[role=log] a", 3).await;
    let rel = "noopener noreferrer nofollow";
    assert_eq!(
        browser.eval(script).await,
        json!([
            ["https://example.com/a?b=1&c=(d)", rel, true],
            ["http://example.org/x", rel, true],
            ["https://example.net/", rel, true],
        ])
    );
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn messages_are_grouped_and_days_divided() {
    let browser = Browser::start().await;
    let redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = dyno.join("elsewhere", "hanako").await;
    let said = hanako.say("same words").await;
    type Entry = (String, Vec<String>);
    let entries: Vec<Entry> = redis.cmd(&["XRANGE", &stream_key("elsewhere"), "-", "+"]);
    let fields = &entries[0].1;
    let Id(now, _) = Id::of(&said, "id");
    const HOUR: u64 = 3_600_000;
    // The day before yesterday, a second later, yesterday, almost seven minutes later.
    for (hours_ago, plus) in [(49, 0), (49, 1_000), (25, 0), (25, 400_000)] {
        let id = format!("{}-0", now - hours_ago * HOUR + plus);
        let key = stream_key("lobby");
        let mut add = vec!["XADD", &key, &id];
        add.extend(fields.iter().map(String::as_str));
        redis.cmd::<String>(&add);
    }
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    browser.send("today").await;
    let follows: Vec<bool> = browser.messages().await.iter().map(|m| m.follows).collect();
    assert_eq!(follows, [false, true, false, false, false]); // by person, day and minutes
    let days = browser.strings(".day").await;
    assert_eq!(days.len(), 3, "one above each day: {days:?}");
    let script = "return [...document.querySelectorAll('[role=log] time')].every((t) =>
        Math.abs(new Date(t.dateTime) - Date.now()) < 50 * 3600e3 && t.title.includes(new Date(t.dateTime).getFullYear()))";
    assert_eq!(browser.eval(script).await, true); // the full date is there, too
    assert_eq!(browser.notes().await, [""; 0], "history is no news");
}

#[tokio::test]
async fn a_tall_message_is_folded_and_a_button_opens_it() {
    let (_world, mut hanako, browser) = chat().await;
    let height = "return [...document.querySelectorAll('.message')].map((m) => m.getBoundingClientRect().height)";
    let heights =
        async || serde_json::from_value::<Vec<f64>>(browser.eval(height).await).expect("heights");
    let tall = format!("first{}last", "\n".repeat(MAX_MESSAGE - 9));
    hanako.say(&tall).await;
    browser.shows(&[&tall]).await;
    browser.find("button", "Show all").await;
    assert!(heights().await[0] < 500.0, "{:?}", heights().await);
    let expanded = "return document.querySelector('[aria-expanded]').ariaExpanded";
    assert_eq!(browser.text(expanded).await, "false");
    let focus = "document.querySelector('[aria-expanded]').focus()";
    browser.eval(focus).await;
    browser.chord(SHIFT, ENTER).await; // with the keyboard
    browser.find("button", "Show less").await;
    assert_eq!(browser.text(expanded).await, "true");
    assert!(heights().await[0] > 20_000.0, "{:?}", heights().await);
    let begins = "return document.querySelector('[role=log]').scrollTop < 100";
    browser
        .until("the person reads on from the beginning", begins)
        .await;
    hanako.say("short").await;
    browser.find("button", "1 new ↓").await;
    browser.press("Show less").await;
    assert!(heights().await[0] < 500.0, "{:?}", heights().await);
    assert_eq!(heights().await.len(), 2);

    let steps = "x\n".repeat(20);
    hanako.say(&format!("{steps}x")).await; // few characters
    browser.count_is(".message:last-child.tall", 1).await;

    // Without line breaks, it depends on the width of the page.
    browser.press("Leave").await;
    browser.join("prose", "taro").await;
    browser.send(&"長い文章。".repeat(MAX_MESSAGE / 5)).await;
    browser.find("button", "Show all").await;
    browser.send(&"短".repeat(300)).await;
    browser.count_is(".message:last-child:not(.tall)", 1).await;
    browser.resize(320, 568).await;
    browser.count_is(".message:last-child.tall", 1).await;
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn scrolled_up_readers_stay_and_see_a_count_of_new_messages() {
    let (_world, mut hanako, browser) = chat().await;
    for i in 0..60 {
        hanako.talk(&format!("line {i}")).await;
    }
    let at_end = "const log = document.querySelector('[role=log]');
        return document.querySelectorAll('.message').length >= 60 && log.scrollHeight - log.scrollTop - log.clientHeight < 2";
    browser.until("the newest is in sight", at_end).await;
    assert_eq!(browser.title().await, "lobby");
    let up = "const log = document.querySelector('[role=log]'); log.scrollTop = 200; return log.scrollTop";
    assert_eq!(browser.eval(up).await, 200);
    browser.drawn().await;
    for text in ["a", "b", "c"] {
        hanako.say(text).await;
    }
    browser.find("button", "3 new ↓").await;
    assert_eq!(browser.title().await, "(3) lobby");
    let scrolled = "return document.querySelector('[role=log]').scrollTop";
    assert_eq!(browser.eval(scrolled).await, 200);
    browser.press("3 new ↓").await;
    browser.until("down again", at_end).await;
    browser.title_becomes("lobby").await;

    let hide =
        "Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event('visibilitychange'))";
    browser.eval_with(hide, json!([true])).await;
    hanako.say("d").await;
    browser.title_becomes("(1) lobby").await;
    browser.eval_with(hide, json!([false])).await;
    browser.title_becomes("lobby").await;
    browser.until("and still at the end", at_end).await;
}

#[tokio::test]
async fn join_leave_notices_are_grouped() {
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
    browser.send("a line between").await;
    browser.members_are(&["saburo", "taro"]).await;
    let _hanako = world.dyno.join("lobby", "花子").await;
    browser.notes_are(&["saburo joined", "花子 joined"]).await;
}

#[tokio::test]
async fn a_gap_in_the_history_is_shown() {
    let (mut world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    browser.send("before").await;
    world.dyno.kill().await; // alone, and so its log is gone
    browser.chip_says("Reconnecting").await;
    world.dyno.restart().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    hanako.say("after").await;
    browser.shows(&["before", "after"]).await;
    assert_eq!(browser.notes().await, ["Some messages may be missing."]);
    let order = browser.strings("[role=log] :is(.text, .note)").await;
    assert_eq!(order, ["before", "Some messages may be missing.", "after"]);
}

#[tokio::test]
async fn bidi_text_is_isolated() {
    let (world, browser) = one_browser().await;
    let mut nadia = world.dyno.join("lobby", "نادية").await;
    browser.join("lobby", "taro").await;
    nadia.say("مرحبا taro").await;
    nadia.say("hello").await;
    browser.shows(&["مرحبا taro", "hello"]).await;
    let script = "const all = (css) => [...document.querySelectorAll(css)];
        return [all('.text').map((p) => p.matches(':dir(rtl)')), all('.who > bdi').length,
            all('[aria-label=Members] bdi').length]";
    let seen = browser.eval(script).await;
    assert_eq!(seen, json!([[true, false], 2, 2]));
}
