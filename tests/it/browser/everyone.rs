//! Accessibility: keyboards, screen readers, phones, reduced motion.

use super::*;

#[tokio::test]
async fn the_page_works_with_the_keyboard_alone() {
    let (_world, page) = world_and_page(Store::Memory).await;
    let focused = "document.activeElement.labels[0].textContent";
    page.fill("Room", "").await;
    page.keys("Room", &format!("lobby{TAB}")).await;
    page.is(focused, "Name").await;
    page.keys("Name", &format!("taro{ENTER}")).await;
    page.connected().await;
    page.is(focused, "Message").await; // one can write at once
    page.keys("Message", &format!("hello{ENTER}")).await;
    page.shows(&["hello"]).await;
    page.is(focused, "Message").await; // and go on writing
}

#[tokio::test]
async fn the_page_fits_a_small_phone_and_has_accessible_names() {
    let (world, page) = world_and_page(Store::Memory).await;
    let phone = json!({"width": 320, "height": 568, "deviceScaleFactor": 2, "mobile": true});
    let emulate = "Emulation.setDeviceMetricsOverride";
    page.devtools(emulate, phone).await;
    let fits = "document.documentElement.scrollWidth <= 320 && document.documentElement.scrollHeight <= 568
        && all('input, textarea').every((field) => parseFloat(getComputedStyle(field).fontSize) >= 16)";
    page.is(fits, true).await; // the form
    let room = &*"room ".repeat(6);
    let mut hanako = world.dyno.join(room, &"h".repeat(24)).await;
    hanako.say(&"w".repeat(300)).await;
    page.join(room, "taro").await;
    page.send("hello").await;
    page.is(fits, true).await; // the conversation
    for (role, name) in [
        ("log", "Messages"),
        ("list", "Members"),
        ("button", "Send"),
        ("button", "Leave"),
    ] {
        page.find(role, name).await;
    }
    page.is("texts('[aria-current]')", ["taro"]).await; // you
    page.is("all('[role=status]').length", 1).await;
    page.is("all('[role=alert]').length", 1).await;
    // The page clears it a moment after the history was drawn.
    page.becomes("one('[role=log]').ariaBusy", "false").await;

    // The chip keeps its place beside a long name of a room.
    let chip = "const chip = one('[role=status]').getBoundingClientRect(), { right } = one('#actions').getBoundingClientRect();
        return [chip.height < 32, chip.right < right, document.documentElement.scrollWidth <= innerWidth]";
    for width in [320, 740, 1280] {
        page.resize(width, 500).await;
        assert_eq!(
            page.eval(chip).await,
            json!([true, true, true]),
            "{width} wide"
        );
    }
    page.expect_empty_console().await;
}

#[tokio::test]
async fn an_on_screen_keyboard_covers_neither_input_nor_newest_message() {
    let (_world, mut hanako, page) = hanako_and_taro(Store::Memory).await;
    hanako.say_many(40).await;
    page.shows_messages(40).await;
    for height in [340, 500] {
        let keyboard = format!("Object.defineProperty(visualViewport, 'height', {{ value: {height}, configurable: true }});
            visualViewport.dispatchEvent(new Event('resize'))");
        page.eval(&keyboard).await;
        let bottom = "one('#send').getBoundingClientRect().bottom";
        page.becomes(
            &format!("{bottom} <= {height} && {bottom} > {height} - 60"),
            true,
        )
        .await;
        let newest = "one('.message:last-child').getBoundingClientRect().bottom <= one('[role=log]').getBoundingClientRect().bottom";
        page.becomes(newest, true).await;
    }
}

#[tokio::test]
async fn history_is_not_announced_to_screen_readers_and_a_receipt_is_once() {
    let (world, page) = world_and_page(Store::Memory).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    hanako.say_many(20).await;
    // Records each node that is added to the list, and whether `aria-busy` was set.
    let listen = "const log = one('[role=log]'); window.heard = [];
        new MutationObserver((changes) => {
            for (const node of changes.flatMap((change) => [...change.addedNodes]))
                heard.push([log.ariaBusy, node.textContent]);
        }).observe(log, { childList: true, subtree: true, characterData: true })";
    page.eval(listen).await;
    page.join("lobby", "taro").await;
    page.shows_messages(20).await;
    page.is(
        "heard.length >= 20 && heard.every(([busy]) => busy === 'true')",
        true,
    )
    .await;
    page.becomes("one('[role=log]').ariaBusy", "false").await;
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
    let moving = "getComputedStyle(one('[role=status]'), '::before').animationName";
    page.is(moving, "breathe").await;
    page.prefers("prefers-reduced-motion", "reduce").await;
    page.is(moving, "none").await;
}
