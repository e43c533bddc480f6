//! The page in Japanese, and its table of words. Also runs in Firefox: `BROWSER=firefox`.

use super::*;

#[tokio::test]
async fn a_japanese_and_an_english_page_talk_to_each_other() {
    let (hanako, taro) = Browser::start_two(Settings::Japanese).await;
    story::see_every_message_once(hanako, taro).await;
}

#[tokio::test]
async fn the_page_is_japanese_where_the_browser_prefers_it() {
    let browser = Browser::start_as(Settings::Japanese, 1).await;
    let world = World::start(Store::Memory, &[TALKATIVE]).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    browser.open(&page_at(world.dyno.addr())).await;
    let all = async |css: &str| browser.strings(css).await.concat();
    assert_eq!(
        browser.text("return document.documentElement.lang").await,
        "ja"
    );
    assert_eq!(all("#join h2").await, "会話に参加する");
    browser.fill("ルーム", "lobby").await;
    browser.press("参加する").await;
    assert_eq!(
        browser.description("名前").await,
        "名前を入力してください。"
    );
    browser.fill("名前", "花子").await;
    browser.press("参加する").await;
    let error = async || browser.description("名前").await;
    becomes("the error", "このルームには同じ名前の人がいます。", error).await;
    browser.fill("名前", "太郎").await;
    browser.press("参加する").await;
    let chip = async || browser.chip().await;
    becomes("the chip", "接続済み · local", chip).await;
    browser.find("log", "メッセージ一覧").await;
    browser.find("list", "メンバー").await;
    assert_eq!(
        browser.field("メッセージ", "placeholder").await,
        "メッセージを入力"
    );
    browser.find("button", "リンクをコピー").await;
    browser.fill("メッセージ", "こんにちは").await;
    browser.press("送信").await;
    browser.own_are("送信済み").await;
    hanako.hears("こんにちは").await;
    let day = all(".day").await;
    for part in ["年", "月", "日", "曜日"] {
        assert!(day.contains(part), "{day}");
    }
    hanako.quit().await;
    browser.notes_are(&["花子さんが退出しました"]).await;
    browser.press("退出").await;
    becomes("the chip", "退出しました", chip).await;
    assert_eq!(browser.title().await, "dynochat");
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn english_words_are_not_shown_before_japanese_ones() {
    let browser = Browser::start_as(Settings::Japanese, 1).await;
    let dyno = Dyno::start(&[]).await;
    if browser.kind != Kind::Chromium {
        return; // only Chromium runs a script before those of the page
    }
    let source = "window.seen = new Set();
        requestAnimationFrame(function look() {
            const title = document.querySelector('#join h2');
            if (title?.checkVisibility({ visibilityProperty: true })) seen.add(title.textContent);
            requestAnimationFrame(look);
        })";
    let source = json!({"source": source});
    let command = "Page.addScriptToEvaluateOnNewDocument";
    browser.devtools(command, source).await;
    browser.open(&page_at(dyno.addr())).await;
    browser.drawn().await;
    let seen = browser.eval("return [...seen]").await;
    assert_eq!(seen, json!(["会話に参加する"]));

    // If the script does not come, the English words are shown after a while.
    let block = json!({"urls": ["*/words.js"]});
    browser.devtools("Network.enable", json!({})).await;
    browser.devtools("Network.setBlockedURLs", block).await;
    browser.open(&page_at(dyno.addr())).await;
    let shown = "return JSON.stringify([...seen]) === JSON.stringify(['Join a conversation'])";
    browser.until("the words of the document", shown).await;
}

#[tokio::test]
async fn both_languages_have_the_same_words_and_the_document_has_the_english_ones() {
    let (_world, browser) = one_browser().await;
    let script = "const done = arguments[0], wrong = [];
        let checked = 0;
        Promise.all([import('/words.js'), fetch('/').then((page) => page.text())]).then(([{ all: { en, ja } }, html]) => {
            const values = (words) => (words.match(/{\\w+}/g) ?? []).sort().join();
            for (const key of new Set([...Object.keys(en), ...Object.keys(ja)])) {
                if (![en, ja].every((words) => words[key]?.trim())) wrong.push(`${key}: missing or empty`);
                else if (values(en[key]) !== values(ja[key])) wrong.push(`${key}: other values`);
            }
            const page = new DOMParser().parseFromString(html, 'text/html');
            const check = (data, read) => page.querySelectorAll(`[data-${data}]`).forEach((node) => {
                checked += 1;
                if (read(node) !== en[node.dataset[data]]) wrong.push(node.outerHTML);
            });
            check('text', (node) => node.textContent);
            check('label', (node) => node.getAttribute('aria-label'));
            check('placeholder', (node) => node.placeholder);
            done([wrong, checked, ['name', 'room'].flatMap((what) => [en, ja].map((words) => words[`error_bad_${what}`]))]);
        })";
    let result = browser.eval_async(script).await;
    assert_eq!(result[0], json!([]));
    assert!(result[1].as_u64() > Some(30), "it looked: {result}");
    for (i, limit) in [MAX_NAME, MAX_NAME, MAX_ROOM, MAX_ROOM]
        .into_iter()
        .enumerate()
    {
        let sentence = result[2][i].as_str().expect("a sentence");
        assert!(sentence.contains(&limit.to_string()), "{sentence}");
    }
}
