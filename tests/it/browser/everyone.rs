//! Accessibility: keyboards, screen readers, phones, reduced motion.

use super::*;

#[tokio::test]
async fn the_page_fits_a_small_phone_and_its_keyboard_and_has_accessible_names() {
    let (world, page) = world_and_page(Store::Memory).await;
    page.resize(320, 568).await;
    let fits = "document.documentElement.scrollWidth <= 320 && document.documentElement.scrollHeight <= 568
        && $$('input, textarea').every((field) => parseFloat(getComputedStyle(field).fontSize) >= 16)";
    page.is(fits, true).await; // the form
    let room = &"room ".repeat(6);
    let mut hanako = world.dyno.join(room, &"h".repeat(24)).await;
    hanako.say(&"w".repeat(300)).await;
    page.join(room, "taro").await;
    page.send("hello").await;
    page.is(fits, true).await; // the conversation
    page.find("log", "Messages").await; // other tests find the fields, the buttons, and the list of members
    page.is("texts('[aria-current]')", ["taro"]).await; // you
    page.is("count('[role=status]')", 1).await;
    page.is("count('[role=alert]')", 1).await;
    // The page clears it a moment after the history was drawn.
    page.becomes("$('[role=log]').ariaBusy", "false").await;

    // The on-screen keyboard covers neither the input nor the newest message.
    hanako.hears("hello").await;
    hanako.say_many(40).await;
    page.shows_messages(42).await;
    for height in [340, 500] {
        let keyboard = "window.height = arguments[0];
            Object.defineProperty(visualViewport, 'height', { value: height, configurable: true });
            window.bottom = (css) => $(css).getBoundingClientRect().bottom;
            visualViewport.dispatchEvent(new Event('resize'))";
        page.eval_with(keyboard, json!([height])).await;
        let in_sight = "bottom('#send') <= height && bottom('#send') > height - 60
            && bottom('.message:last-child') <= bottom('[role=log]')";
        page.becomes(in_sight, true).await;
    }

    // The chip keeps its place beside a long name of a room.
    let keeps = "const chip = $('[role=status]').getBoundingClientRect(), { right } = $('#actions').getBoundingClientRect();
        return chip.height < 32 && chip.right < right && document.documentElement.scrollWidth <= innerWidth || [chip.height, chip.right]";
    for width in [320, 740, 1280] {
        page.resize(width, 500).await;
        assert_eq!(page.eval(keeps).await, true, "{width} wide");
    }
    page.expect_empty_console().await;
}

#[tokio::test]
async fn history_is_not_announced_to_screen_readers_and_a_receipt_is_once() {
    let (world, page) = world_and_page(Store::Memory).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    hanako.say_many(20).await;
    // Records each node that is added to the list, and whether `aria-busy` was set.
    let listen = "const log = $('[role=log]'); window.heard = [];
        new MutationObserver((changes) => {
            for (const node of changes.flatMap((change) => [...change.addedNodes]))
                heard.push([log.ariaBusy, node.textContent]);
        }).observe(log, { childList: true, subtree: true, characterData: true })";
    page.eval(listen).await;
    page.join("lobby", "taro").await;
    page.shows_messages(20).await;
    let busy = "heard.length >= 20 && heard.every(([busy]) => busy === 'true')";
    page.is(busy, true).await;
    page.becomes("$('[role=log]').ariaBusy", "false").await;
    page.eval("heard.length = 0").await;
    page.send("hello").await;
    let heard: Vec<String> = page.get("heard.map(([, text]) => text)").await;
    for (what, part) in [("the text", "hello"), ("the time", ":")] {
        let count = heard.iter().filter(|text| text.contains(part)).count();
        assert_eq!(count, 1, "{what}: {heard:?}");
    }
    assert_eq!(heard.last().expect("the receipt"), "sent");
}

#[tokio::test]
async fn animations_respect_prefers_reduced_motion() {
    let (mut world, page) = world_and_page(Store::Memory).await;
    page.join("lobby", "taro").await;
    world.dyno.kill().await;
    page.chip_says("Reconnecting").await;
    let moving = "getComputedStyle($('[role=status]'), '::before').animationName";
    page.is(moving, "breathe").await;
    page.prefers("prefers-reduced-motion", "reduce").await;
    page.is(moving, "none").await;
}
