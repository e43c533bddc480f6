//! A page that is loaded again: without storage, in a duplicated tab, in a tab that the browser restored. Also runs in
//! Firefox: `BROWSER=firefox`.

use super::*;

/// The tab's storage. A duplicated or restored tab gets a copy of it.
const KEPT: &str = "JSON.parse(sessionStorage.dynochat)";

#[tokio::test]
async fn without_storage_a_reloaded_page_can_have_its_name_again_at_once() {
    let page = Browser::start(Settings::NoStorage).await;
    let world = World::talkative(Store::Redis).await;
    let mut hanako = world.dyno.join("lobby", "hanako").await;
    page.open(world.dyno.addr(), "/").await;
    let blocked =
        "try { return sessionStorage.length + localStorage.length } catch { return 'blocked' }";
    assert_eq!(page.eval(blocked).await, "blocked");
    for text in ["one", "two"] {
        page.join("lobby", "taro").await;
        page.send(text).await;
        page.members_are(&["hanako", "taro"]).await;
        hanako.hears(text).await;
        page.reload().await;
    }
    page.expect_empty_console().await;
}

#[tokio::test]
async fn a_recent_message_of_a_duplicated_tab_is_sent_and_an_old_one_is_not_sent_unasked() {
    let (world, mut hanako, page) = hanako_and_taro(Store::Redis).await;
    page.open_panel().await;
    page.press("pretend to be offline").await;
    page.say("typed offline").await;
    let mut kept: Value = page.get(KEPT).await;
    page.press("pretend to be offline").await;
    page.own_are("sent").await;
    hanako.hears("typed offline").await;

    // Two minutes later: the server has forgotten the cid, and the newest messages are others. For ten seconds after a room
    // went live, the server would find the message in the room's history.
    sleep(10 * SECOND).await;
    let redis = world.redis.as_ref().expect("asked for");
    let cids: Vec<String> = redis.cmd(&["KEYS", "chat:{lobby}:cid:*"]);
    assert_eq!(cids.len(), 1);
    redis.cmd::<i64>(&["DEL", &cids[0]]);
    hanako.say_many(60).await;
    let pending = kept["pending"].as_array_mut().expect("messages");
    let mut recent = pending[0].clone();
    recent["cid"] = json!("recent");
    recent["text"] = json!("recent");
    pending.push(recent);
    for time in ["at", "since"] {
        pending[0][time] = json!(pending[0][time].as_u64().expect("a time") - 120_000);
    }
    page.new_tab().await;
    page.open_with_tab_storage(world.dyno.addr(), &kept).await;
    page.connected().await;
    let states = "texts('.state').slice(-2)";
    page.becomes(states, ["sent", "not confirmed · Retry / Discard"])
        .await;
    hanako.hears("recent").await;
    hanako.say("the end").await;
    page.log_contains("the end").await;
    assert_eq!(stored(&world), 63, "each message once");
    page.press("Retry").await;
    page.own_are("sent").await;
    assert_eq!(stored(&world), 64, "twice, as the person wished");
}

#[tokio::test]
async fn an_old_message_is_sent_where_nothing_was_missed() {
    let (world, mut hanako, page) = hanako_and_taro(Store::Redis).await;
    hanako.say("before").await;
    page.shows(&["before"]).await;
    page.open_panel().await;
    page.press("pretend to be offline").await;
    page.say("one").await;
    page.later(600 * SECOND).await;
    hanako.say("meanwhile").await;
    page.press("pretend to be offline").await;
    page.shows(&["before", "meanwhile", "one"]).await;
    page.own_are("sent").await;

    page.press("pretend to be offline").await;
    page.say("two").await;
    let mut kept: Value = page.get(KEPT).await;
    let since = &mut kept["pending"][0]["since"];
    *since = json!(since.as_u64().expect("a time") - 1_200_000);
    page.open_with_tab_storage(world.dyno.addr(), &kept).await;
    page.shows(&["before", "meanwhile", "one", "two"]).await;
    page.own_are("sent").await;
    page.is("texts('.note')", [""; 0]).await;
    assert_eq!(stored(&world), 4);
}

#[tokio::test]
async fn a_restored_tab_shows_whether_earlier_messages_are_missing() {
    let (world, page) = world_and_page(Store::Redis).await;
    let addr = world.dyno.addr();
    // In a room that was empty when the tab was last there, and in one with a message.
    for (room, seen) in [("first", 0), ("second", 1)] {
        let mut hanako = world.dyno.join(room, "hanako").await;
        page.open_with_tab_storage(addr, &json!({})).await;
        page.join(room, "taro").await;
        hanako.say_many(seen).await;
        // The newest id is kept before the page can know that the tab will end.
        let last = format!("{KEPT}.current.lastId");
        page.becomes(&last, hanako.last()).await;
        let kept: Value = page.get(KEPT).await;
        page.open(addr, "/chat.css").await;

        hanako.say_many(40).await;
        page.open_with_tab_storage(addr, &kept).await;
        page.shows_messages(seen + 40).await;
        page.is("texts('.note')", [""; 0]).await; // nothing is missing
        page.open(addr, "/chat.css").await;

        hanako.say_many(81).await;
        page.open_with_tab_storage(addr, &kept).await;
        page.shows_messages(50).await;
        let first_line = "texts('[role=log] :is(.text, .note)')[0]";
        page.is(first_line, "Earlier messages are not shown.").await;
    }
}
