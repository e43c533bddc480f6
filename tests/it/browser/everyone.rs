//! Accessibility: keyboards, screen readers, phones, reduced motion.

use super::*;

#[tokio::test]
async fn the_page_works_with_the_keyboard_alone() {
    let (_world, browser) = one_browser().await;
    browser.fill("Room", "").await;
    browser.keys("Room", &format!("lobby{TAB}")).await;
    let focused = "return document.activeElement.labels[0].textContent";
    assert_eq!(browser.text(focused).await, "Name");
    browser.keys("Name", &format!("taro{ENTER}")).await;
    browser.connected().await;
    assert_eq!(browser.text(focused).await, "Message"); // one can write at once
    browser.keys("Message", &format!("hello{ENTER}")).await;
    browser.shows(&["hello"]).await;
    assert_eq!(browser.text(focused).await, "Message", "and go on writing");
}

#[tokio::test]
async fn the_page_fits_a_small_phone_and_has_accessible_names() {
    let (world, browser) = one_browser().await;
    let phone = json!({"width": 320, "height": 568, "deviceScaleFactor": 2, "mobile": true});
    browser
        .devtools("Emulation.setDeviceMetricsOverride", phone)
        .await;
    let fits = "return document.documentElement.scrollWidth <= 320 && document.documentElement.scrollHeight <= 568 &&
        [...document.querySelectorAll('input, textarea')].every((field) => parseFloat(getComputedStyle(field).fontSize) >= 16)";
    assert_eq!(browser.eval(fits).await, true, "the form");
    let mut hanako = world.dyno.join("lobby", &"h".repeat(24)).await;
    hanako.say(&"w".repeat(300)).await;
    browser.join("lobby", "taro").await;
    browser.send("hello").await;
    assert_eq!(browser.eval(fits).await, true, "the conversation");
    browser.find("log", "Messages").await;
    browser.find("list", "Members").await;
    assert_eq!(browser.strings("[aria-current]").await, ["taro"], "you");
    browser.find("button", "Send").await;
    browser.find("button", "Leave").await;
    assert_eq!(browser.strings("[role=status]").await.len(), 1);
    assert_eq!(browser.strings("[role=alert]").await.len(), 1);
    let busy = "return document.querySelector('[role=log]').ariaBusy";
    // The page clears it a moment after the history was drawn.
    becomes("aria-busy", "false", async || browser.text(busy).await).await;
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn a_long_room_name_does_not_displace_the_chip() {
    let (_world, browser) = one_browser().await;
    browser.join(&"room ".repeat(6), "taro").await;
    let one_line = "const chip = document.querySelector('[role=status]').getBoundingClientRect();
        return chip.height < 32 && chip.right < document.querySelector('#actions').getBoundingClientRect().right
            && document.documentElement.scrollWidth <= innerWidth || [chip.height, chip.right]";
    for width in [320, 740, 1280] {
        browser.resize(width, 500).await;
        let line = browser.eval(one_line).await;
        assert_eq!(line, true, "{width} wide");
    }
}

#[tokio::test]
async fn an_on_screen_keyboard_covers_neither_input_nor_newest_message() {
    let (_world, mut hanako, browser) = chat().await;
    for i in 0..40 {
        hanako.talk(&format!("line {i}")).await;
    }
    let keyboard = "Object.defineProperty(visualViewport, 'height', { value: arguments[0], configurable: true });
        visualViewport.dispatchEvent(new Event('resize'))";
    let seen = "const bottom = (css) => document.querySelector(css).getBoundingClientRect().bottom;
        return document.querySelectorAll('.message').length === 40 && bottom('#send') <= arguments[0] && bottom('#send') > arguments[0] - 60
            && bottom('.message:last-child') <= bottom('[role=log]')";
    for height in [340, 500] {
        browser.eval_with(keyboard, json!([height])).await;
        let look = async || browser.eval_with(seen, json!([height])).await;
        let what = "the input and the newest message are in sight";
        becomes(what, &true, look).await;
    }
}

#[tokio::test]
async fn history_is_not_announced_to_screen_readers_and_a_receipt_is_once() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    for i in 0..20 {
        hanako.say(&format!("past {i}")).await;
    }
    // Records each node that is added to the list, and whether `aria-busy` was set.
    let listen = "const log = document.querySelector('[role=log]'); window.heard = [];
        new MutationObserver((changes) => {
            for (const node of changes.flatMap((change) => [...change.addedNodes]))
                heard.push([log.ariaBusy, node.textContent]);
        }).observe(log, { childList: true, subtree: true, characterData: true })";
    browser.eval(listen).await;
    browser.join("lobby", "taro").await;
    browser.count_is(".message", 20).await;
    let calm = "return document.querySelector('[role=log]').ariaBusy === 'false'";
    let busy = "return heard.length >= 20 && heard.every(([busy]) => busy === 'true')";
    assert_eq!(browser.eval(busy).await, true); // the past is filled in under aria-busy
    browser.until("then it is calm", calm).await;
    browser.eval("heard.length = 0").await;
    browser.send("hello").await;
    let heard = browser.eval("return heard.map(([, text]) => text)").await;
    let heard: Vec<String> = serde_json::from_value(heard).expect("texts");
    let with = |part: &str| heard.iter().filter(|text| text.contains(part)).count();
    assert_eq!((with("hello"), with(":")), (1, 1), "one time: {heard:?}");
    assert_eq!(heard.last().expect("the receipt"), "sent");
}

#[tokio::test]
async fn animations_respect_prefers_reduced_motion() {
    let (mut world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    world.dyno.kill().await;
    browser.chip_says("Reconnecting").await;
    let moving = "return getComputedStyle(document.querySelector('[role=status]'), '::before').animationName";
    assert_eq!(browser.text(moving).await, "breathe");
    browser.prefers("prefers-reduced-motion", "reduce").await;
    assert_eq!(browser.text(moving).await, "none");
}
