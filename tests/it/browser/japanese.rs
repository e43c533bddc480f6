//! The page in Japanese, and its table of words. Also runs in Firefox: `BROWSER=firefox`.

use super::*;

#[tokio::test]
async fn the_page_is_japanese_where_the_browser_prefers_it() {
    let page = Browser::start(Settings::Japanese).await;
    let world = World::talkative(Store::Memory).await;
    let mut hanako = world.dyno.join("lobby", "花子").await;
    page.open(world.dyno.addr(), "/").await;
    page.becomes("document.documentElement.lang", "ja").await;
    page.is("texts('#join h2')", ["会話に参加する"]).await;
    page.fill("ルーム", "lobby").await;
    let error = "description('名前')";
    for (name, why) in [
        ("", "名前を入力してください。"),
        ("花子", "このルームには同じ名前の人がいます。"),
    ] {
        page.fill("名前", name).await;
        page.press("参加する").await;
        page.becomes(error, why).await;
    }
    page.fill("名前", "太郎").await;
    page.press("参加する").await;
    page.becomes("chip()", "接続済み · local").await;
    page.find("log", "メッセージ一覧").await;
    page.find("list", "メンバー").await;
    let placeholder = "field('メッセージ').placeholder";
    page.is(placeholder, "メッセージを入力").await;
    page.find("button", "リンクをコピー").await;
    page.fill("メッセージ", "こんにちは").await;
    page.press("送信").await;
    page.own_are("送信済み").await;
    hanako.hears("こんにちは").await;
    let day: String = page.get("texts('.day').join()").await;
    for part in ["年", "月", "日", "曜日"] {
        assert!(day.contains(part), "{day}");
    }
    let _jiro = world.dyno.join("lobby", "次郎").await;
    page.notes_are(&["次郎さんが参加しました"]).await;
    hanako.quit().await;
    page.notes_are(&["次郎さんが参加しました · 花子さんが退出しました"])
        .await;
    page.press("退出").await;
    page.becomes("chip()", "退出しました").await;
    page.is("document.title", "dynochat").await;
    page.expect_empty_console().await;
}

#[tokio::test]
async fn english_words_are_not_shown_before_japanese_ones() {
    let page = Browser::start(Settings::Japanese).await;
    let dyno = Dyno::start(&[]).await;
    if Kind::wanted() != Kind::Chromium {
        return; // only Chromium runs a script before those of the page
    }
    let source = "window.seen = new Set();
        requestAnimationFrame(function look() {
            const title = document.querySelector('#join h2');
            if (title?.checkVisibility({ visibilityProperty: true })) seen.add(title.textContent);
            requestAnimationFrame(look);
        })";
    page.before_each_page(source).await;
    page.open(dyno.addr(), "/").await;
    page.drawn().await;
    page.is("[...seen]", ["会話に参加する"]).await;

    // If the script does not come, the English words are shown after a while.
    let block = json!({"urls": ["*/words.js"]});
    page.devtools("Network.enable", json!({})).await;
    page.devtools("Network.setBlockedURLs", block).await;
    page.open(dyno.addr(), "/").await;
    page.becomes("[...seen]", ["Join a conversation"]).await;
}

#[tokio::test]
async fn both_languages_have_the_same_words_and_the_document_has_the_english_ones() {
    let (_world, page) = world_and_page(Store::Memory).await;
    let script = "const wrong = [], source = fetch('/').then((page) => page.text());
        let checked = 0;
        return Promise.all([import('/words.js'), source]).then(([{ all: { en, ja } }, html]) => {
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
            return [wrong, checked, ['name', 'room'].map((what) => [en, ja].map((words) => words[`error_bad_${what}`]))];
        })";
    let result = page.eval(script).await;
    assert_eq!(result[0], json!([]));
    assert!(result[1].as_u64() > Some(30), "it looked: {result}");
    for (i, limit) in [MAX_NAME, MAX_ROOM].iter().enumerate() {
        for sentence in result[2][i].as_array().expect("two languages") {
            let has_limit = sentence.to_string().contains(&limit.to_string());
            assert!(has_limit, "{sentence}");
        }
    }
}
