//! Proves what a person sees: the page in a real browser, against real dynos and a real Redis. Chromium is asked
//! everything; the story, what the page is for, is told in Firefox and WebKit, too: `tests/run --browsers all`.
//!
//! Time that would have to pass is given to the page's clock instead; what must stay away is ruled out by something
//! that comes after it. Others in the room are plain sockets.

mod cost;
mod everyone;
mod joining;
mod line;
mod picture;
mod reading;
mod story;
mod talking;
mod tools;

use crate::support::browser::{CONTROL, ENTER, Kind, SHIFT, SOON, TAB};
use crate::support::proxy::{Flow, Proxy};
use crate::support::{
    Browser, Bus, Dyno, PATIENCE, Redis, TALKATIVE, World, check, eventually, token,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn page_at(addr: SocketAddr) -> String {
    format!("http://{addr}/")
}

/// A dyno with nothing behind it, and a browser that shows its page.
async fn one_browser() -> (World, Browser) {
    world_in_browser(Bus::Alone, &[TALKATIVE]).await
}

async fn world_in_browser(bus: Bus, vars: &[(&str, &str)]) -> (World, Browser) {
    let browser = Browser::start().await;
    let world = World::start(bus, vars).await;
    browser.open(&page_at(world.dyno.addr())).await;
    (world, browser)
}

/// A browser whose line to the dyno can fall silent.
async fn browser_behind_proxy() -> (World, Proxy, Browser) {
    let browser = Browser::start().await;
    let world = World::talkative(Bus::Redis).await;
    let proxy = Proxy::to(world.dyno.addr()).await;
    browser.open(&page_at(proxy.addr)).await;
    (world, proxy, browser)
}

fn log_of(world: &World, room: &str) -> usize {
    check::stream(world.redis.as_ref().expect("this world has a Redis"), room).len()
}

/// Leaves the console as it should be, where it can be read.
async fn nothing_to_complain_about(browser: &Browser) {
    if browser.kind != Kind::Chromium {
        return;
    }
    assert_eq!(browser.console().await, [""; 0], "the console stays empty");
}

async fn open_panel(browser: &Browser) {
    browser
        .eval("document.querySelector('summary').click()", json!([]))
        .await;
    browser
        .until(
            "the panel is open",
            "return document.querySelector('details').open",
        )
        .await;
}

/// A fact of the learners' panel.
async fn fact(browser: &Browser, name: &str) -> String {
    let script =
        "return [...document.querySelectorAll('dt')].find((dt) => dt.textContent === arguments[0])
        .nextElementSibling.textContent";
    let fact = browser.eval(script, json!([name])).await;
    fact.as_str().expect("a text").to_string()
}

async fn fact_becomes(browser: &Browser, name: &str, value: &str) {
    eventually(&format!("{name} is {value}"), SOON, async || {
        let now = fact(browser, name).await;
        if now == value { Ok(()) } else { Err(now) }
    })
    .await;
}
