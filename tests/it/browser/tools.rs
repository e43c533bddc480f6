//! Checks of the page by tools: axe-core in every state, in light and dark; html-validate on its source and on the
//! document in every state. They come from the npm registry: `npm ci --prefix tests/page`.

use super::*;
use std::fs;
use std::process::Command;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page");
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/node_modules");

/// Brings the page into each of its states in turn, and calls `look` in each.
async fn tour(page: &Browser, look: impl AsyncFn(&str)) {
    let mut redis = Redis::start(&[]).await;
    let mut dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    page.open(dyno.addr(), "/").await;
    look("the form").await;
    page.fill("Name", "hanako").await;
    page.press("Join").await;
    page.becomes("$('#name').ariaInvalid", "true").await;
    look("a refused name").await;

    page.join("quiet", "taro").await;
    page.log_contains("There are no messages yet.").await;
    look("an empty room").await;
    page.press("Leave").await;
    look("left").await;

    page.join("lobby", "taro").await;
    let _nadia = dyno.join("lobby", "نادية").await;
    for i in 0..12 {
        hanako.say(&format!("see https://example.com/{i}")).await;
        page.say("مرحبا").await;
    }
    page.own_are("sent").await;
    look("a conversation").await;
    hanako.say(&format!("first{}last", "\n".repeat(500))).await;
    page.find("button", "Show all").await;
    look("a tall message").await;
    page.open_panel().await;
    look("the panel").await;
    page.fill("Message", &"w".repeat(MAX_MESSAGE + 1)).await;
    look("too long").await;
    page.fill("Message", "").await;
    page.eval("$('[role=log]').scrollTop = 0").await;
    page.drawn().await;
    hanako.say("below").await;
    page.find("button", "1 new ↓").await;
    look("scrolled up").await;
    page.press("pretend to be offline").await;
    page.say("typed offline").await;
    look("offline").await;
    page.later(11 * SECOND).await;
    page.log_contains("not confirmed yet").await;
    look("not confirmed yet").await;
    page.press("Leave").await; // a waiting message is then not sent without asking
    page.join("lobby", "taro").await;
    look("not sent").await;
    page.press("Discard").await;

    redis.stop().await;
    page.becomes("banner().includes('Redis')", true).await;
    look("Redis is away").await;
    redis.restart().await; // with nothing in it
    page.connected().await;
    page.becomes("count('.gap')", 1).await;
    look("a gap").await;
    dyno.kill().await;
    page.chip_says("Retry now").await;
    look("reconnecting").await;
    dyno.restart().await;
    let nonsense = "const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function () { for (let i = 0; i < 3; i += 1) send.call(this, 'nonsense'); }";
    page.eval(nonsense).await;
    page.chip_says("Stopped · ").await;
    look("stopped").await;
}

#[tokio::test]
#[ignore = "needs npm ci --prefix tests/page"]
async fn axe_and_html_validate_find_no_error_in_any_state() {
    let axe = fs::read_to_string(format!("{TOOLS}/axe-core/axe.min.js"));
    let axe = axe.expect("axe-core is installed");
    let axe = format!(
        "{axe};
        const flat = (rule) => `${{rule.id}}: ${{rule.nodes.map((n) => n.html).join(' ')}}`;
        return axe.run().then((found) => [found.passes.length, found.violations.map(flat)]);"
    );
    let pages = tempfile::tempdir().expect("a temporary directory");
    for (language, settings) in [("en", Settings::Usual), ("ja", Settings::Japanese)] {
        let page = Browser::start(settings).await;
        tour(&page, async |state| {
            for scheme in ["light", "dark"] {
                page.prefers("prefers-color-scheme", scheme).await;
                let found = page.eval(&axe).await;
                assert_eq!(found[1], json!([]), "{language}, {state}, {scheme}");
                assert!(found[0].as_u64() >= Some(30), "it looked: {found}");
            }
            // The page's script sets a style for on-screen keyboards, which is not part of the markup.
            let script = "const page = document.documentElement.cloneNode(true);
                page.querySelector('body').removeAttribute('style');
                return page.outerHTML";
            let html = page.eval(script).await;
            let html = html.as_str().expect("a text");
            assert!(html.contains(&format!("lang=\"{language}\"")), "{html}");
            let file = pages.path().join(format!("{state}, {language}.html"));
            let html = format!("<!DOCTYPE html>\n{html}\n");
            fs::write(file, html).expect("a file can be written");
        })
        .await;
    }
    let states = fs::read_dir(pages.path()).expect("the states");
    let states: Vec<_> = states.map(|file| file.expect("a file").path()).collect();
    assert_eq!(states.len(), 2 * 16, "{states:?}");

    let said = Command::new(format!("{TOOLS}/.bin/html-validate"))
        .args(["--config", &format!("{PAGE}/htmlvalidate.json")])
        .arg(format!("{PAGE}/../../public/index.html"))
        .args(&states)
        .output()
        .expect("html-validate is installed");
    let errors = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{errors}");
    println!("measured: axe-core, html-validate: 0 errors in 16 states, 2 languages, 2 schemes");
}
