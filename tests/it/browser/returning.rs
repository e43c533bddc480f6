//! A page that is loaded again: without storage, in a duplicated tab, in a tab that the browser restored. Also runs in
//! Firefox: `BROWSER=firefox`.

use super::*;

#[tokio::test]
async fn without_storage_a_reloaded_page_can_have_its_name_again_at_once() {
    let browser = Browser::start_as(Settings::NoStorage, 1).await;
    let world = World::talkative(Store::Redis).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    let page = page_at(world.dyno.addr());
    browser.open(&page).await;
    let blocked =
        "try { return sessionStorage.length + localStorage.length } catch { return 'blocked' }";
    assert_eq!(browser.text(blocked).await, "blocked");
    for text in ["one", "two"] {
        browser.join("lobby", "taro").await;
        browser.send(text).await;
        browser.members_are(&["hanako", "taro"]).await;
        hanako.hears(text).await;
        browser.reload().await;
    }
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn an_old_message_of_a_duplicated_tab_is_not_stored_twice_unasked() {
    let (world, browser) = world_in_browser(Store::Redis, &[TALKATIVE]).await;
    let page = page_at(world.dyno.addr());
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    browser.open_panel().await;
    browser.press("pretend to be offline").await;
    browser.say("typed offline").await;
    let mut kept = browser.tab_storage().await;
    browser.press("pretend to be offline").await;
    browser.own_are("sent").await;
    hanako.hears("typed offline").await;

    // Two minutes later: the server has forgotten the cid, and the newest messages are others. For ten seconds after a room
    // went live, the server would find the message in the room's history.
    sleep(10 * SECOND).await;
    let redis = world.redis.as_ref().expect("asked for");
    let cids: Vec<String> = redis.cmd(&["KEYS", "chat:{lobby}:cid:*"]);
    assert_eq!(cids.len(), 1);
    redis.cmd::<i64>(&["DEL", &cids[0]]);
    for i in 0..60 {
        hanako.say(&format!("later {i}")).await;
    }
    let pending = &mut kept["pending"][0];
    for time in ["at", "since"] {
        pending[time] = json!(pending[time].as_u64().expect("a time") - 120_000);
    }
    browser.second_tab().await;
    browser.open_with_tab_storage(&page, &kept).await;
    browser.connected().await;
    browser.own_are("not confirmed · Retry / Discard").await;
    hanako.say("the end").await;
    browser.log_contains("the end").await;
    assert_eq!(stored(&world, "lobby"), 62, "each message once");
    browser.press("Retry").await;
    browser.own_are("sent").await;
    assert_eq!(stored(&world, "lobby"), 63, "twice, as the person wished");
}

#[tokio::test]
async fn an_old_message_is_sent_where_nothing_was_missed() {
    let (world, browser) = world_in_browser(Store::Redis, &[TALKATIVE]).await;
    let page = page_at(world.dyno.addr());
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    hanako.say("before").await;
    browser.shows(&["before"]).await;
    browser.open_panel().await;
    browser.press("pretend to be offline").await;
    browser.say("one").await;
    browser.later(600 * SECOND).await;
    hanako.say("meanwhile").await;
    browser.press("pretend to be offline").await;
    browser.shows(&["before", "meanwhile", "one"]).await;
    browser.own_are("sent").await;

    browser.press("pretend to be offline").await;
    browser.say("two").await;
    let mut kept = browser.tab_storage().await;
    let since = &mut kept["pending"][0]["since"];
    *since = json!(since.as_u64().expect("a time") - 1_200_000);
    browser.open_with_tab_storage(&page, &kept).await;
    browser.shows(&["before", "meanwhile", "one", "two"]).await;
    browser.own_are("sent").await;
    assert_eq!(browser.notes().await, [""; 0]);
    assert_eq!(stored(&world, "lobby"), 4);
}

#[tokio::test]
async fn a_restored_tab_shows_whether_earlier_messages_are_missing() {
    let (world, browser) = world_in_browser(Store::Redis, &[TALKATIVE]).await;
    let page = page_at(world.dyno.addr());
    // In a room that was empty when the tab was last there, and in one with a message.
    for (room, seen) in [("first", 0), ("second", 1)] {
        let mut hanako = world.dyno.join(room, "hanako").await;
        browser.open_with_tab_storage(&page, &json!({})).await;
        browser.join(room, "taro").await;
        hanako.say_many(seen).await;
        let last = hanako.last();
        let look = async || browser.tab_storage().await["current"]["lastId"].clone();
        becomes("the newest id is kept", &last, look).await; // before the page can know that the tab will end
        let kept = browser.tab_storage().await;
        browser.open(&format!("{page}chat.css")).await;

        hanako.say_many(40).await;
        browser.open_with_tab_storage(&page, &kept).await;
        browser.count_is(".message", seen + 40).await;
        assert_eq!(browser.notes().await, [""; 0], "nothing is missing");
        browser.open(&format!("{page}chat.css")).await;

        hanako.say_many(81).await;
        browser.open_with_tab_storage(&page, &kept).await;
        browser.count_is(".message", 50).await;
        let all = browser.strings("[role=log] :is(.text, .note)").await;
        assert_eq!(all[0], "Earlier messages are not shown.");
    }
}

#[tokio::test]
async fn the_alert_is_written_only_when_its_words_change() {
    let browser = Browser::start().await;
    let mut redis = Redis::start(&[]).await;
    let dyno = Dyno::start_on(&redis, &[TALKATIVE]).await;
    browser.open(&page_at(dyno.addr())).await;
    browser.join("lobby", "taro").await;
    redis.stop().await;
    browser.alert_contains("Redis").await;
    // Changes the banner as a browser does when it translates the page.
    let translate = "const alert = document.querySelector('[role=alert]'), font = document.createElement('font');
        font.append('La messagerie attend Redis.');
        alert.replaceChildren(font);
        window.writes = 0;
        new MutationObserver((changes) => { window.writes += changes.length; })
            .observe(alert, { childList: true, characterData: true, subtree: true })";
    browser.eval(translate).await;
    sleep(2 * SECOND).await;
    assert_eq!(browser.eval("return window.writes").await, 0);
    assert_eq!(browser.alert().await, "La messagerie attend Redis.");
    redis.restart().await;
    becomes("the alert", "", async || browser.alert().await).await;
}
