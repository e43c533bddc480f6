//! The form, names and links; tabs of one person.

use super::*;

#[tokio::test]
async fn a_rejected_name_or_room_shows_an_error_at_its_field_and_keeps_the_text() {
    let (world, browser) = one_browser().await;
    let _hanako = world.dyno.join("lobby", "hanako").await;
    let refuse = async |room: &str, name: &str, field: &str, other: &str| {
        browser.ask_to_join(room, name).await;
        let what = format!("{name:?} in {room:?} is refused");
        let why = async || browser.description(field).await;
        settles(&what, why, |why| !why.is_empty()).await;
        let invalid = browser.field(field, "ariaInvalid").await;
        let others = browser.description(other).await;
        assert_eq!((invalid, &*others), (json!("true"), ""), "{what}");
        browser.value_is("Room", room).await;
        browser.value_is("Name", name).await;
        let script = "return document.activeElement.labels?.[0]?.textContent";
        assert_eq!(browser.text(script).await, field, "focus: {what}");
    };
    refuse("lobby", "Ｈａｎａｋｏ", "Name", "Room").await; // the same name once folded
    refuse("lobby", "<img src=x onerror=alert(1)>", "Name", "Room").await;
    refuse("!!!", "taro", "Room", "Name").await;
    refuse("", "taro", "Room", "Name").await;
    refuse("lobby", "", "Name", "Room").await;
    browser.join("lobby", "taro").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.expect_empty_console().await;
}

#[tokio::test]
async fn an_error_is_explained_by_the_page_and_an_unknown_one_by_the_server() {
    let (world, browser) = one_browser().await;
    let _hanako = world.dyno.join("lobby", "hanako").await;
    let why = async || browser.description("Name").await;
    browser.ask_to_join("lobby", "hanako").await;
    let words = "Someone in this room already has this name.";
    becomes("the page's words", words, why).await;
    let words = "A newer reason.";
    for (field, value) in [("code", "new_code"), ("message", words)] {
        browser.set_in_frames("error", field, json!(value)).await;
    }
    browser.press("Join").await;
    becomes("the server's", words, why).await;
}

#[tokio::test]
async fn a_room_link_fills_in_the_room_and_the_address_is_a_room_link() {
    let (world, browser) = one_browser().await;
    let page = page_at(world.dyno.addr());
    let link = format!("{page}?room=%E8%8C%B6%E3%81%AE%E9%96%93");
    browser.open(&link).await;
    browser.value_is("Room", "茶の間").await;
    browser.fill("Name", "taro").await;
    browser.press("Join").await;
    browser.connected().await;
    assert_eq!(browser.title().await, "茶の間");
    browser.open(&page).await; // the tab remembers the room
    browser.connected().await;
    let search = "return decodeURIComponent(location.search)";
    assert_eq!(browser.text(search).await, "?room=茶の間");
    browser.press("Copy link").await;
    browser.find("button", "Copied").await;
    browser.keys("Message", "").await;
    browser.chord(CONTROL, "v").await;
    let link = browser.field("Message", "value").await;
    let whole = "return location.href";
    assert_eq!(link, browser.text(whole).await, "the address is the link");
    browser.open(&format!("{page}?room=elsewhere")).await;
    browser.value_is("Room", "elsewhere").await; // a link wins over the tab's memory
    browser.value_is("Name", "taro").await;
}

#[tokio::test]
async fn a_name_taken_during_an_absence_returns_to_the_form_and_keeps_the_message() {
    let (world, browser) = world_in_browser(Store::Redis, &[TALKATIVE]).await;
    browser.join("lobby", "taro").await;
    browser.open_panel().await;
    browser.press("pretend to be offline").await;
    browser.say("still mine").await;
    let redis = world.redis.as_ref().expect("asked for");
    redis.cmd::<i64>(&["DEL", &names_key("lobby"), &owners_key("lobby")]); // as after a long absence
    let mut hanako = world.dyno.join("lobby", "taro").await;
    browser.press("pretend to be offline").await;
    browser.find("button", "Join").await;
    assert_eq!(browser.field("Name", "ariaInvalid").await, "true");
    browser.value_is("Name", "taro").await;
    browser.join("lobby", "jiro").await;
    hanako.hears("still mine").await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn tabs_with_one_name_share_a_member_and_tabs_with_two_names_are_two() {
    let (world, browser) = one_browser().await;
    let url = page_at(world.dyno.addr());
    browser.join("lobby", "taro").await;
    let (dyno, other) = (&world.dyno, token());
    dyno.join_refused("lobby", "taro", &other, "name_taken")
        .await;
    let (first, second) = browser.second_tab().await;
    browser.open(&url).await;
    browser.join("lobby", "hanako").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.send("hello").await;
    let (_, third) = browser.second_tab().await;
    browser.open(&url).await;
    browser.join("lobby", "taro").await; // the same person again
    browser.send("taro, from another tab").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.switch(&first).await;
    browser.shows(&["hello", "taro, from another tab"]).await;
    assert_eq!(browser.messages().await[1].state, "sent"); // an own message, wherever it was typed
    browser.switch(&third).await;
    browser.press("Leave").await;
    browser.switch(&second).await;
    browser.send("taro?").await;
    browser.members_are(&["hanako", "taro"]).await; // the other tab of taro is still in the room
}
