//! The form, names and links; tabs of one person.

use super::*;

#[tokio::test]
async fn a_refused_name_or_room_says_why_beside_its_field_and_keeps_the_text() {
    let (world, browser) = one_browser().await;
    let _hanako = world.dyno.join("lobby", "hanako").await;
    let refuse = async |room: &str, name: &str, field: &str, other: &str| {
        browser.fill("Room", room).await;
        browser.fill("Name", name).await;
        browser.press("Join").await;
        eventually(
            &format!("{name:?} in {room:?} is refused"),
            SOON,
            async || {
                let invalid = browser.field(field, "ariaInvalid").await;
                if invalid == "true" && !browser.description(field).await.is_empty() {
                    Ok(())
                } else {
                    Err(invalid)
                }
            },
        )
        .await;
        assert_eq!(
            browser.description(other).await,
            "",
            "only the field at fault has an error"
        );
        assert_eq!(browser.field("Room", "value").await, room);
        assert_eq!(browser.field("Name", "value").await, name);
        let script = "return document.activeElement.labels?.[0]?.textContent";
        assert_eq!(
            browser.text(script).await,
            field,
            "the cursor is where the mistake is"
        );
    };
    refuse("lobby", "Ｈａｎａｋｏ", "Name", "Room").await; // the same name once folded
    refuse("lobby", "<img src=x onerror=alert(1)>", "Name", "Room").await;
    refuse("!!!", "taro", "Room", "Name").await;
    refuse("", "taro", "Room", "Name").await;
    refuse("lobby", "", "Name", "Room").await;
    browser.join("lobby", "taro").await;
    browser.members_are(&["hanako", "taro"]).await;
    nothing_to_complain_about(&browser).await;
}

#[tokio::test]
async fn a_link_to_a_room_fills_in_the_room_and_the_address_becomes_one() {
    let (world, browser) = one_browser().await;
    browser
        .open(&format!(
            "{}?room=%E8%8C%B6%E3%81%AE%E9%96%93",
            page_at(world.dyno.addr())
        ))
        .await;
    assert_eq!(browser.field("Room", "value").await, "茶の間");
    browser.fill("Name", "taro").await;
    browser.press("Join").await;
    browser.connected().await;
    assert_eq!(browser.title().await, "茶の間");
    browser.open(&page_at(world.dyno.addr())).await; // the tab remembers where it was
    browser.connected().await;
    let address = browser
        .text("return decodeURIComponent(location.search)")
        .await;
    assert_eq!(address, "?room=茶の間");
    browser.press("Copy link").await;
    browser.find("button", "Copied").await;
    browser.keys("Message", "").await;
    browser.chord(CONTROL, "v").await;
    let link = browser.field("Message", "value").await;
    let whole = "return location.href";
    assert_eq!(link, browser.text(whole).await, "the address is the link");
    browser
        .open(&format!("{}?room=elsewhere", page_at(world.dyno.addr())))
        .await;
    assert_eq!(
        browser.field("Room", "value").await,
        "elsewhere",
        "a link wins over the tab's memory"
    );
    assert_eq!(browser.field("Name", "value").await, "taro");
}

#[tokio::test]
async fn a_name_lost_during_an_absence_leads_back_to_the_form_and_loses_no_message() {
    let (world, browser) = world_in_browser(Bus::Redis, &[TALKATIVE]).await;
    browser.join("lobby", "taro").await;
    open_panel(&browser).await;
    browser.press("pretend to be offline").await;
    browser.say("still mine").await;
    let redis = world.redis.as_ref().expect("asked for");
    redis.cmd::<i64>(&["DEL", "chat:{lobby}:names", "chat:{lobby}:owners"]); // as after a long absence
    let mut hanako = world.dyno.join("lobby", "taro").await;
    browser.press("pretend to be offline").await;
    eventually("back at the form", SOON, async || {
        if browser.has("button", "Join").await {
            Ok(())
        } else {
            Err(browser.chip().await)
        }
    })
    .await;
    assert_eq!(browser.field("Name", "ariaInvalid").await, "true");
    assert_eq!(browser.field("Name", "value").await, "taro");
    browser.join("lobby", "jiro").await;
    hanako.hears("still mine").await;
    browser.own_are("sent").await;
}

#[tokio::test]
async fn tabs_of_one_browser_are_one_person_or_as_many_as_they_have_names() {
    let (world, browser) = one_browser().await;
    let url = page_at(world.dyno.addr());
    browser.join("lobby", "taro").await;
    let (first, second) = browser.second_tab().await;
    browser.open(&url).await;
    browser.join("lobby", "hanako").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.say("hello").await;
    browser.own_are("sent").await;
    let (_, third) = browser.second_tab().await;
    browser.open(&url).await;
    browser.join("lobby", "taro").await; // the same person again
    browser.say("taro, from another tab").await;
    browser.own_are("sent").await;
    browser.members_are(&["hanako", "taro"]).await;
    browser.switch(&first).await;
    browser.shows(&["hello", "taro, from another tab"]).await;
    assert_eq!(
        browser.said().await[1].state,
        "sent",
        "an own message, wherever it was typed"
    );
    browser.switch(&third).await;
    browser.press("Leave").await;
    browser.switch(&second).await;
    browser.say("taro?").await;
    browser.own_are("sent").await;
    browser.members_are(&["hanako", "taro"]).await; // who leaves one of two tabs is still here
}

#[tokio::test]
async fn a_name_that_another_tab_took_over_is_told_apart_by_its_token() {
    let (world, browser) = one_browser().await;
    browser.join("lobby", "taro").await;
    world
        .dyno
        .join_refused("lobby", "taro", &token(), "name_taken")
        .await;
    browser.say("still me").await;
    browser.own_are("sent").await;
}
