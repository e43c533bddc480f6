//! The cost of the page: bytes and requests at the first visit and the next, and time when the list is long.

use super::*;
use std::ops::Range;

#[tokio::test]
async fn the_first_visit_is_eight_small_requests_and_a_reload_is_eight_304() {
    let (_world, page) = world_and_page(Store::Memory).await;
    // Each request over the network, and the bytes of its answer.
    let wire = "['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))
        .filter((e) => !e.name.startsWith('data:')).map((e) => [new URL(e.name).pathname, e.transferSize]).sort()";
    let first: Vec<(String, u64)> = page.get(wire).await;
    let paths: Vec<_> = first.iter().map(|e| e.0.as_str()).collect();
    let files =
        "/ /chat.css /chat.js /common.js /connection.js /messages.js /outgoing.js /words.js";
    assert_eq!(paths.join(" "), files);
    page.reload().await;
    let next: Vec<(String, u64)> = page.get(wire).await;
    assert_eq!(next.len(), 8);
    let [first, next] = [first, next].map(|entries| entries.iter().map(|e| e.1).sum::<u64>());
    println!("measured: first visit {first} bytes in eight requests, the next {next}");
    assert!(first <= 80 * 1024, "{first}");
    assert!(next <= 5 * 1024, "only heads: {next}");
}

/// Milliseconds until what was typed, and where was scrolled to, is on the screen: the median and the longest.
async fn times(page: &Browser) -> [f64; 4] {
    let script = "const log = $('[role=log]'), box = $('textarea');
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
        return measure(() => document.execCommand('insertText', false, 'w')).then(async (typing) => {
            const scrolling = await measure(() => { log.scrollTop -= 200; });
            log.scrollTop = log.scrollHeight;
            return [...typing, ...scrolling];
        })";
    serde_json::from_value(page.eval(script).await).expect("four times")
}

#[tokio::test]
async fn typing_and_scrolling_stay_fast_with_five_thousand_messages() {
    let (world, page) = world_and_page(Store::Memory).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    // Asking for roles would make Chromium keep its tree for screen readers, and that is not what is measured here.
    let join = "$('#room').value = 'lobby'; $('#name').value = 'taro'; $('form').requestSubmit()";
    page.eval(join).await;
    page.connected().await;
    // Waits for the page after each fifty, so that a slow machine only takes longer.
    let mut fill = async |range: Range<usize>| {
        for begin in range.step_by(50) {
            let few = "with a few words more, ";
            let text = |i: usize| format!("Message {i}, {}the end", few.repeat(i % 12));
            let texts: Vec<_> = (begin..begin + 50).map(text).collect();
            for text in &texts {
                hanako.talk(text).await;
            }
            for text in &texts {
                hanako.hears(text).await;
            }
            page.shows_messages(begin + 50).await;
        }
        times(&page).await
    };
    let few = fill(0..50).await;
    let many = fill(50..5_000).await;
    println!(
        "measured: typing and scrolling, median and longest of 60 in ms: with 50 {few:.1?}, with 5,000 {many:.1?}"
    );
    for (what, few, many) in [("typing", few[0], many[0]), ("scrolling", few[2], many[2])] {
        let fast = many < 3.0 * few + 17.0;
        assert!(fast, "{what}: {few} ms, then {many} ms");
    }
}
