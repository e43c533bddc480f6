//! What the page costs: bytes and requests at the first visit and the next, and time when the list is long.

use super::*;

const KIB: u64 = 1024;

#[tokio::test]
async fn the_first_visit_is_eight_small_requests_and_a_reload_is_eight_304() {
    let (_world, browser) = one_browser().await;
    // What was asked for over the network, and how many bytes came.
    let wire = async || {
        let script = "return ['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))
            .filter((e) => !e.name.startsWith('data:'))
            .map((e) => [new URL(e.name).pathname, e.transferSize])";
        let entries = browser.eval(script).await;
        serde_json::from_value::<Vec<(String, u64)>>(entries).expect("entries")
    };
    let total = |entries: &[(String, u64)]| entries.iter().map(|e| e.1).sum::<u64>();
    let first = wire().await;
    let mut paths: Vec<_> = first.iter().map(|e| e.0.as_str()).collect();
    paths.sort();
    let modules = [
        "/common.js",
        "/connection.js",
        "/messages.js",
        "/outgoing.js",
        "/words.js",
    ];
    assert_eq!(
        paths,
        [&["/", "/chat.css", "/chat.js"][..], &modules].concat()
    );
    assert!(total(&first) <= 80 * KIB, "{first:?}");
    browser.reload().await;
    let next = wire().await;
    assert_eq!(next.len(), 8);
    assert!(total(&next) <= 5 * KIB, "only heads: {next:?}");
    println!(
        "measured: first visit {} bytes in eight requests, the next {}",
        total(&first),
        total(&next)
    );
}

/// Milliseconds until what was typed, and where was scrolled to, is on the screen: the median and the longest.
async fn times(browser: &Browser) -> [f64; 4] {
    let script = "const done = arguments[0];
        const log = document.querySelector('[role=log]'), box = document.querySelector('textarea');
        const drawn = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
        const measure = async (act) => {
            const times = [];
            for (let i = 0; i < 60; i += 1) {
                await drawn();
                const from = performance.now();
                act();
                await drawn();
                times.push(performance.now() - from);
            }
            times.sort((a, b) => a - b);
            return [times[30], times[59]];
        };
        box.focus();
        measure(() => document.execCommand('insertText', false, 'w')).then(async (typing) => {
            const scrolling = await measure(() => { log.scrollTop -= 200; });
            log.scrollTop = log.scrollHeight;
            done([...typing, ...scrolling]);
        })";
    serde_json::from_value(browser.eval_async(script).await).expect("four times")
}

#[tokio::test]
async fn typing_and_scrolling_stay_fast_with_five_thousand_messages() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    // Asking for roles would make Chromium keep its tree for screen readers, and that is not what is measured here.
    let join = "for (const [id, text] of [['room', 'lobby'], ['name', 'taro']]) document.getElementById(id).value = text;
        document.querySelector('form').requestSubmit()";
    browser.eval(join).await;
    browser.connected().await;
    let mut said = 0;
    let text = |i: usize| {
        format!(
            "Message {i}, {}the end",
            "with a few words more, ".repeat(i % 12)
        )
    };
    let shown = async |count: usize| {
        browser.count_is(".message", count).await;
    };
    // Waits for the page after each fifty, so that a slow machine only takes longer.
    let mut fill = async |count: usize| {
        for begin in (said..count).step_by(50) {
            for i in begin..begin + 50 {
                hanako.talk(&text(i)).await;
            }
            for i in begin..begin + 50 {
                hanako.hears(&text(i)).await;
            }
            shown(begin + 50).await;
        }
        said = count;
        times(&browser).await
    };
    let few = fill(50).await;
    let many = fill(5_000).await;
    println!(
        "measured: typing and scrolling, median and longest of 60 in ms: with 50 {few:.1?}, with 5,000 {many:.1?}"
    );
    for (what, few, many) in [("typing", few[0], many[0]), ("scrolling", few[2], many[2])] {
        assert!(
            many < 3.0 * few + 17.0,
            "{what}: {few} ms with 50 messages, {many} ms with 5,000"
        );
    }
}
