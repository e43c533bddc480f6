//! Tests of the page in a real browser, against real dynos and a real Redis. All of them run in Chromium; `story` also
//! runs in Firefox and WebKit, `returning` and `japanese` in Firefox: `tests/run --browsers all`.
//!
//! A test that needs time to pass moves the page's clock forward. To show that something does not happen, a test waits
//! for a later event. The other members of a room are plain sockets.

mod connection;
mod cost;
mod driver;
mod everyone;
mod japanese;
mod joining;
mod moving;
mod page;
mod reading;
mod returning;
mod single_file;
mod story;
mod talking;
mod tools;

use crate::support::prelude::*;
use driver::{Browser, Kind, Settings};
use fantoccini::key::Key;
use std::fmt::Debug;
use std::net::SocketAddr;

/// How long a test waits for what a page should show soon. Long, because the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

/// Records what the page's connections do, if it runs before the page connects.
const WATCH: &str = include_str!("browser/watch.js");

/// A dyno without a rate limit on talks, and a browser that shows its page.
async fn world_and_page(store: Store) -> (World, Browser) {
    let page = Browser::start(Settings::Usual).await;
    let world = World::talkative(store).await;
    page.open(world.dyno.addr(), "/").await;
    (world, page)
}

/// The same, and hanako is in the lobby; then taro joins with the browser.
async fn hanako_and_taro(store: Store) -> (World, Client, Browser) {
    let (world, page) = world_and_page(store).await;
    let hanako = world.dyno.join("lobby", "hanako").await;
    page.join("lobby", "taro").await;
    (world, hanako, page)
}

/// The same with a proxy between the browser and the dyno, whose connections can fall silent.
async fn hanako_and_taro_behind_proxy() -> (World, Proxy, Client, Browser) {
    let page = Browser::start(Settings::Usual).await;
    let world = World::talkative(Store::Redis).await;
    let proxy = Proxy::to(world.dyno.addr()).await;
    let hanako = world.dyno.join("lobby", "hanako").await;
    page.open(proxy.addr, "/").await;
    page.join("lobby", "taro").await;
    (world, proxy, hanako, page)
}

/// How many messages the stream of the lobby holds.
fn stored(world: &World) -> usize {
    let redis = world.redis.as_ref().expect("this world has a Redis");
    check::stream(redis, "lobby").len()
}

/// Waits until what `look` sees satisfies `wanted`, and gives it back. Looks less and less often, because each look keeps
/// a browser and its driver busy.
async fn settles<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let mut pause = Duration::from_millis(10);
    let probe = async || {
        let seen = look().await;
        if wanted(&seen) {
            return Ok(seen);
        }
        sleep(pause).await;
        pause = (2 * pause).min(Duration::from_millis(160));
        Err(seen)
    };
    eventually(what, SOON, probe).await
}

#[tokio::test]
async fn nothing_of_a_test_is_left_for_the_next_one_in_the_same_chromium() {
    let (world, page) = world_and_page(Store::Memory).await;
    let addr = world.dyno.addr();
    let next_hour = page.eval("return Date.now() + 3600e3").await;
    let state = format!("[localStorage.trace ?? null, sessionStorage.trace ?? null, document.cookie, navigator.onLine, innerWidth,
        matchMedia('(prefers-color-scheme: dark)').matches, Date.now() > {next_hour}]");
    let fresh: Vec<Value> = page.get(&state).await;
    let tabs = async || page.client.windows().await.expect("a list of tabs").len();
    let tabs_at_first = tabs().await;
    page.join("lobby", "taro").await;
    page.new_tab().await;
    page.open(addr, "/").await;
    page.join("lobby", "hanako").await;
    let traces =
        "localStorage.trace = sessionStorage.trace = 1; document.cookie = 'a=b; max-age=3600'";
    page.eval(traces).await;
    page.later(3_601 * SECOND).await;
    page.prefers("prefers-color-scheme", "dark").await;
    page.resize(500, 500).await;
    page.set_offline(true).await;
    let used: Vec<Value> = page.get(&state).await;
    for (i, (before, after)) in fresh.iter().zip(&used).enumerate() {
        assert_ne!(before, after, "item {i} was changed: {used:?}");
    }

    page.clean().await;
    page.open(addr, "/").await;
    page.is(&state, fresh).await;
    page.value_is("Name", "").await;
    assert_eq!(tabs().await, tabs_at_first);
}
