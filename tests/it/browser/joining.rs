//! The form, names and links; tabs of one person.

use super::*;

#[tokio::test]
async fn a_rejected_name_or_room_shows_an_error_at_its_field_and_keeps_the_text() {
    let (world, page) = world_and_page(Store::Memory).await;
    let _hanako = world.dyno.join("lobby", "hanako").await;
    let taken = "Someone in this room already has this name.";
    for (room, name, field, other, why) in [
        ("lobby", "Ｈａｎａｋｏ", "Name", "Room", taken), // the same name once folded
        ("lobby", "<img src=x onerror=alert(1)>", "Name", "Room", ""),
        ("!!!", "taro", "Room", "Name", ""),
        ("", "taro", "Room", "Name", ""),
        ("lobby", "", "Name", "Room", ""),
    ] {
        page.ask_to_join(room, name).await;
        let look = format!("[field('{field}').ariaInvalid === 'true' && description('{field}'), description('{other}'),
            field('Room').value, field('Name').value, document.activeElement.labels?.[0]?.textContent]");
        let what = format!("{name:?} in {room:?} is refused");
        let look = async || page.get::<Value>(&look).await;
        let seen = settles(&what, look, |seen| seen[0] != false && seen[0] != "").await;
        let error = seen[0].as_str().expect("a sentence");
        assert!(why.is_empty() || error == why, "{what}: {error}");
        let rest = ["", room, name, field]; // only this field has an error, and it has the focus
        assert_eq!(seen.as_array().expect("a list")[1..], rest, "{what}");
    }

    // The server explains what the page does not know.
    let newer = "A newer reason.";
    let unknown = json!({"code": "new_code", "message": newer});
    page.alter("error", unknown).await;
    page.ask_to_join("lobby", "hanako").await;
    page.becomes("description('Name')", newer).await;
    page.join("lobby", "taro").await;
    page.members_are(&["hanako", "taro"]).await;
    page.expect_empty_console().await;
}

#[tokio::test]
async fn a_room_link_fills_in_the_room_and_the_address_is_a_room_link() {
    let (world, page) = world_and_page(Store::Memory).await;
    let addr = world.dyno.addr();
    page.open(addr, "/?room=%E8%8C%B6%E3%81%AE%E9%96%93").await;
    page.value_is("Room", "茶の間").await;
    page.fill("Name", "taro").await;
    page.press("Join").await;
    page.connected().await;
    page.is("document.title", "茶の間").await;
    page.open(addr, "/").await; // the tab remembers the room
    page.connected().await;
    let search = "decodeURIComponent(location.search)";
    page.is(search, "?room=茶の間").await;
    page.press("Copy link").await;
    page.find("button", "Copied").await;
    page.keys("Message", &(Key::Control + "v")).await;
    let pasted = "field('Message').value === location.href";
    page.becomes(pasted, true).await;
    page.open(addr, "/?room=elsewhere").await;
    page.value_is("Room", "elsewhere").await; // a link wins over the tab's memory
    page.value_is("Name", "taro").await;
}

#[tokio::test]
async fn a_name_taken_during_an_absence_returns_to_the_form_and_keeps_the_message() {
    let (world, page) = world_and_page(Store::Redis).await;
    page.join("lobby", "taro").await;
    page.open_panel().await;
    page.press("pretend to be offline").await;
    page.say("still mine").await;
    let redis = world.redis.as_ref().expect("asked for");
    redis.cmd::<i64>(&["DEL", &names_key("lobby"), &owners_key("lobby")]); // as after a long absence
    let mut hanako = world.dyno.join("lobby", "taro").await;
    page.press("pretend to be offline").await;
    page.find("button", "Join").await;
    page.is("field('Name').ariaInvalid", "true").await;
    page.value_is("Name", "taro").await;
    page.join("lobby", "jiro").await;
    hanako.hears("still mine").await;
    page.own_are("sent").await;
}

#[tokio::test]
async fn tabs_with_one_name_share_a_member_and_tabs_with_two_names_are_two() {
    let (world, page) = world_and_page(Store::Memory).await;
    let addr = world.dyno.addr();
    page.join("lobby", "taro").await;
    world.dyno.name_is_taken("lobby", "taro").await;
    page.send("still me").await;
    let (first, second) = (page.tab().await, page.new_tab().await);
    page.open(addr, "/").await;
    page.join("lobby", "hanako").await;
    page.members_are(&["hanako", "taro"]).await;
    page.send("hello").await;
    let third = page.new_tab().await;
    page.open(addr, "/").await;
    page.join("lobby", "taro").await; // the same person again
    page.send("taro, from another tab").await;
    page.members_are(&["hanako", "taro"]).await;
    page.switch(&first).await;
    page.shows(&["still me", "hello", "taro, from another tab"])
        .await;
    page.is("texts('.state')[2]", "sent").await; // an own message, wherever it was typed
    page.switch(&third).await;
    page.press("Leave").await;
    page.switch(&second).await;
    page.send("taro?").await;
    page.members_are(&["hanako", "taro"]).await; // the other tab of taro is still in the room
}
