//! Keyboards, screen readers, phones, dark rooms.

use super::*;

#[tokio::test]
async fn everything_works_by_keyboard_alone() {
    let (_world, browser) = one_browser().await;
    browser.fill("Room", "").await;
    browser.keys("Room", &format!("lobby{TAB}")).await;
    let focused = "return document.activeElement.labels[0].textContent";
    assert_eq!(browser.text(focused).await, "Name");
    browser.keys("Name", &format!("taro{ENTER}")).await;
    browser.connected().await;
    assert_eq!(
        browser.text(focused).await,
        "Message",
        "one can write at once"
    );
    browser.keys("Message", &format!("hello{ENTER}")).await;
    browser.shows(&["hello"]).await;
    assert_eq!(browser.text(focused).await, "Message", "and go on writing");
}

#[tokio::test]
async fn it_fits_a_small_phone_and_names_what_it_shows() {
    let (world, browser) = one_browser().await;
    let phone = json!({"width": 320, "height": 568, "deviceScaleFactor": 2, "mobile": true});
    browser
        .devtools("Emulation.setDeviceMetricsOverride", phone)
        .await;
    let fits = "return document.documentElement.scrollWidth <= 320 && document.documentElement.scrollHeight <= 568 &&
        [...document.querySelectorAll('input, textarea')].every((field) => parseFloat(getComputedStyle(field).fontSize) >= 16)";
    assert_eq!(browser.eval(fits, json!([])).await, true, "the form");
    let mut hanako = world.dyno.join("lobby", &"h".repeat(24)).await;
    hanako.say(&"w".repeat(300)).await;
    browser.join("lobby", "taro").await;
    browser.say("hello").await;
    browser.own_are("sent").await;
    assert_eq!(
        browser.eval(fits, json!([])).await,
        true,
        "the conversation"
    );
    browser.find("log", "Messages").await;
    browser.find("list", "Members").await;
    assert_eq!(browser.strings("[aria-current]").await, ["taro"], "you");
    browser.find("button", "Send").await;
    browser.find("button", "Leave").await;
    assert_eq!(browser.strings("[role=status]").await.len(), 1);
    assert_eq!(browser.strings("[role=alert]").await.len(), 1);
    let busy = "return document.querySelector('[role=log]').ariaBusy";
    assert_eq!(
        browser.text(busy).await,
        "false",
        "the past has been filled in"
    );
    nothing_to_complain_about(&browser).await;
}

#[tokio::test]
async fn a_long_room_name_gives_way_to_the_chip() {
    let (_world, browser) = one_browser().await;
    browser.join(&"room ".repeat(6), "taro").await;
    let one_line = "const chip = document.querySelector('[role=status]').getBoundingClientRect();
        return chip.height < 32 && chip.right < document.querySelector('#actions').getBoundingClientRect().right
            && document.documentElement.scrollWidth <= innerWidth || [chip.height, chip.right]";
    for width in [320, 740, 1280] {
        let size = json!({"width": width, "height": 500, "deviceScaleFactor": 1, "mobile": false});
        browser
            .devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
        let line = browser.eval(one_line, json!([])).await;
        assert_eq!(line, true, "{width} wide");
    }
}

#[tokio::test]
async fn a_keyboard_on_the_screen_covers_nothing() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    for i in 0..40 {
        hanako.talk(&format!("line {i}")).await;
    }
    let keyboard = "Object.defineProperty(visualViewport, 'height', { value: arguments[0], configurable: true });
        visualViewport.dispatchEvent(new Event('resize'))";
    let seen = "const bottom = (css) => document.querySelector(css).getBoundingClientRect().bottom;
        return bottom('#send') <= arguments[0] && bottom('#send') > arguments[0] - 60
            && bottom('.message:last-child') <= bottom('[role=log]')
            && document.querySelectorAll('.message').length === 40";
    for height in [340, 500] {
        browser.eval(keyboard, json!([height])).await;
        eventually("the last words stay in sight", SOON, async || {
            let fits = browser.eval(seen, json!([height])).await;
            if fits == true { Ok(()) } else { Err(fits) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_screen_reader_hears_no_past_and_hears_a_receipt_once() {
    let (world, browser) = one_browser().await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    for i in 0..20 {
        hanako.say(&format!("past {i}")).await;
    }
    // What is added to the log, and whether it was said to be busy then.
    let listen = "const log = document.querySelector('[role=log]'); window.heard = [];
        new MutationObserver((changes) => {
            for (const node of changes.flatMap((change) => [...change.addedNodes]))
                heard.push([log.ariaBusy, node.textContent]);
        }).observe(log, { childList: true, subtree: true, characterData: true })";
    browser.eval(listen, json!([])).await;
    browser.join("lobby", "taro").await;
    browser
        .until(
            "all is there",
            "return document.querySelectorAll('.message').length === 20",
        )
        .await;
    let calm = "return document.querySelector('[role=log]').ariaBusy === 'false'";
    let busy = "return heard.length >= 20 && heard.every(([busy]) => busy === 'true')";
    assert_eq!(
        browser.eval(busy, json!([])).await,
        true,
        "the past is filled in under aria-busy"
    );
    browser.until("then it is calm", calm).await;
    browser.eval("heard.length = 0", json!([])).await;
    browser.say("hello").await;
    browser.own_are("sent").await;
    let heard = browser
        .eval("return heard.map(([, text]) => text)", json!([]))
        .await;
    let heard: Vec<String> = serde_json::from_value(heard).expect("texts");
    assert_eq!(
        heard.iter().filter(|text| text.contains("hello")).count(),
        1,
        "{heard:?}"
    );
    assert_eq!(heard.last().expect("the receipt"), "sent");
    assert_eq!(
        heard.iter().filter(|text| text.contains(':')).count(),
        1,
        "one time: {heard:?}"
    );
}

#[tokio::test]
async fn nothing_moves_where_that_is_not_wanted() {
    let (mut world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    world.dyno.kill().await;
    browser.chip_says("Reconnecting").await;
    let moving = "return getComputedStyle(document.querySelector('[role=status]'), '::before').animationName";
    assert_eq!(browser.text(moving).await, "breathe");
    browser.prefers("prefers-reduced-motion", "reduce").await;
    assert_eq!(browser.text(moving).await, "none");
}
