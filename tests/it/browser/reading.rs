//! How messages of others are shown, and that hostile text stays text.

use super::*;
use std::time::UNIX_EPOCH;

#[tokio::test]
async fn hostile_texts_are_escaped_and_bidi_text_is_isolated_and_only_web_links_become_links() {
    let (world, mut hanako, page) = hanako_and_taro(Store::Memory).await;
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
    page.say(evil[0]).await;
    page.shows(&[&evil[..], &evil[..1]].concat()).await;
    let state = "[window.pwned ?? null, count('[role=log] :is(img, script, b, a)'), document.documentElement.scrollWidth <= innerWidth]";
    page.is(state, json!([null, 0, true])).await;

    hanako.say("see https://example.com/a?b=1&c=(d), or (http://example.org/x). 次はhttps://example.net/道です").await;
    let rel = "noopener noreferrer nofollow";
    let links = "$$('[role=log] a').map((a) => [a.href, a.rel, a.textContent === a.href])";
    let expected = json!([
        ["https://example.com/a?b=1&c=(d)", rel, true],
        ["http://example.org/x", rel, true],
        ["https://example.net/", rel, true],
    ]);
    page.becomes(links, expected).await;

    let mut nadia = world.dyno.join("lobby", "نادية").await;
    nadia.say("مرحبا taro").await;
    nadia.say("hello").await;
    let newest = "texts('.text').slice(-2)";
    page.becomes(newest, ["مرحبا taro", "hello"]).await;
    let rtl = "$$('.text').slice(-2).map((text) => text.matches(':dir(rtl)'))";
    page.is(rtl, [true, false]).await;
    page.is("count('.who') - count('.who > bdi')", 0).await;
    page.becomes("count('[aria-label=Members] bdi')", 3).await;
    page.expect_empty_console().await;
}

#[tokio::test]
async fn messages_are_grouped_and_days_divided() {
    let (world, page) = world_and_page(Store::Redis).await;
    let redis = world.redis.as_ref().expect("asked for");
    let message = json!({"user": "hanako", "message": "same words", "cid": "c"}).to_string();
    let now = UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    const HOUR: u64 = 3_600_000;
    let noon = now - now % (24 * HOUR) + 12 * HOUR;
    // The day before yesterday, a second later, yesterday, almost seven minutes later.
    for (hours_ago, plus) in [(48, 0), (48, 1_000), (24, 0), (24, 400_000)] {
        let id = format!("{}-0", noon - hours_ago * HOUR + plus);
        redis.cmd::<String>(&["XADD", &stream_key("lobby"), &id, "m", &message]);
    }
    page.join("lobby", "taro").await;
    page.send("today").await;
    // By person, day and minutes.
    let follows = "$$('.message').map((one) => one.classList.contains('follows'))";
    page.is(follows, [false, true, false, false, false]).await;
    page.is("count('.day')", 3).await; // one above each day
    let full_dates = "$$('[role=log] time').every((t) =>
        Math.abs(new Date(t.dateTime) - Date.now()) < 61 * 3600e3 && t.title.includes(new Date(t.dateTime).getFullYear()))";
    page.is(full_dates, true).await;
    page.is("texts('.note')", [""; 0]).await; // history is no news
}

#[tokio::test]
async fn a_tall_message_is_folded_and_a_button_opens_it() {
    let (_world, mut hanako, page) = hanako_and_taro(Store::Memory).await;
    let height = "$('.message').getBoundingClientRect().height";
    let last_is_tall = "$('.message:last-child').matches('.tall')";
    let tall = format!("first{}last", "\n".repeat(MAX_MESSAGE - 9));
    hanako.say(&tall).await;
    page.shows(&[&tall]).await;
    let all = page.find("button", "Show all").await;
    let expanded = "$('[aria-expanded]').ariaExpanded";
    page.is(&format!("{height} < 500"), true).await;
    page.is(expanded, "false").await;
    let opened = all.send_keys(&Key::Enter).await; // with the keyboard
    opened.expect("a button takes keys");
    page.find("button", "Show less").await;
    page.is(expanded, "true").await;
    page.is(&format!("{height} > 20000"), true).await;
    let begins = "$('[role=log]').scrollTop < 100"; // the person reads on from the beginning
    page.becomes(begins, true).await;
    hanako.say("short").await;
    page.find("button", "1 new ↓").await;
    page.press("Show less").await;
    page.is(&format!("{height} < 500"), true).await;
    page.is("count('.message')", 2).await;

    let steps = "x\n".repeat(20);
    hanako.say(&format!("{steps}x")).await; // few characters
    page.becomes(last_is_tall, true).await;

    // Without line breaks, it depends on the width of the page.
    page.press("Leave").await;
    page.join("prose", "taro").await;
    page.send(&"長い文章。".repeat(MAX_MESSAGE / 5)).await;
    page.find("button", "Show all").await;
    page.send(&"短".repeat(300)).await;
    page.becomes(last_is_tall, false).await;
    page.resize(320, 568).await;
    page.becomes(last_is_tall, true).await;
    page.expect_empty_console().await;
}

#[tokio::test]
async fn scrolled_up_readers_stay_and_see_a_count_of_new_messages() {
    let (_world, mut hanako, page) = hanako_and_taro(Store::Memory).await;
    hanako.say_many(60).await;
    page.shows_messages(60).await;
    let is_at_end = "const log = $('[role=log]'); window.isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 2";
    page.eval(is_at_end).await;
    page.becomes("isAtEnd()", true).await;
    page.is("document.title", "lobby").await;
    page.eval("$('[role=log]').scrollTop = 200").await;
    page.drawn().await;
    for text in ["a", "b", "c"] {
        hanako.say(text).await;
    }
    page.find("button", "3 new ↓").await;
    page.is("document.title", "(3) lobby").await;
    page.is("$('[role=log]').scrollTop", 200).await;
    page.press("3 new ↓").await;
    page.becomes("isAtEnd()", true).await;
    page.becomes("document.title", "lobby").await;

    let hide =
        "Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event('visibilitychange'))";
    page.eval_with(hide, json!([true])).await;
    hanako.say("d").await;
    page.becomes("document.title", "(1) lobby").await;
    page.eval_with(hide, json!([false])).await;
    page.becomes("document.title", "lobby").await;
    page.becomes("isAtEnd()", true).await;
}

#[tokio::test]
async fn join_leave_notices_are_grouped() {
    let (world, page) = world_and_page(Store::Memory).await;
    page.join("lobby", "taro").await;
    let hanako = world.dyno.join("lobby", "花子").await;
    page.notes_are(&["花子 joined"]).await;
    let jiro = world.dyno.join("lobby", "jiro").await;
    page.notes_are(&["花子 and jiro joined"]).await;
    let _saburo = world.dyno.join("lobby", "saburo").await;
    page.notes_are(&["花子 and 2 others joined"]).await;
    jiro.quit().await;
    page.notes_are(&["花子 and saburo joined"]).await; // came and went is no news
    hanako.quit().await;
    page.notes_are(&["saburo joined"]).await;
    page.send("a line between").await;
    page.members_are(&["saburo", "taro"]).await;
    let _hanako = world.dyno.join("lobby", "花子").await;
    page.notes_are(&["saburo joined", "花子 joined"]).await;
}

#[tokio::test]
async fn a_gap_in_the_history_is_shown() {
    let (mut world, page) = world_and_page(Store::Memory).await;
    page.join("lobby", "taro").await;
    page.send("before").await;
    page.open_panel().await;
    page.press("pretend to be offline").await;
    world.dyno.kill().await; // alone, and so its history is gone
    world.dyno.restart().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    hanako.say("after").await;
    page.press("pretend to be offline").await;
    page.shows(&["before", "after"]).await;
    let lines = ["before", "Some messages may be missing.", "after"];
    page.is("texts(':is(.text, .note)')", lines).await;
}
