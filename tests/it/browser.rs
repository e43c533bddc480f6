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
mod picture;
mod reading;
mod returning;
mod single_file;
mod story;
mod talking;
mod tools;

use crate::support::facts::{MAX_MESSAGE, MAX_NAME, MAX_ROOM, names_key, owners_key, stream_key};
use crate::support::proxy::{Flow, Proxy};
use crate::support::{
    Client, Dyno, Front, Id, PATIENCE, Redis, Store, TALKATIVE, World, check, token,
};
use driver::{Browser, Kind, Settings};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
/// How long a test waits for what a page should show soon. Long, because the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

// Keys, as WebDriver writes them.
const ENTER: &str = "\u{E007}";
const TAB: &str = "\u{E004}";
const SHIFT: &str = "\u{E008}";
const CONTROL: &str = "\u{E009}";

fn page_at(addr: SocketAddr) -> String {
    format!("http://{addr}/")
}

/// A dyno without Redis, and a browser that shows its page.
async fn one_browser() -> (World, Browser) {
    world_in_browser(Store::Memory, &[TALKATIVE]).await
}

/// Two people in the lobby of a dyno without Redis: hanako, and taro in the browser.
async fn chat() -> (World, Client, Browser) {
    let (world, browser) = one_browser().await;
    let hanako = world.dyno.join("lobby", "hanako").await;
    browser.join("lobby", "taro").await;
    (world, hanako, browser)
}

async fn world_in_browser(store: Store, vars: &[(&str, &str)]) -> (World, Browser) {
    let browser = Browser::start().await;
    let world = World::start(store, vars).await;
    browser.open(&page_at(world.dyno.addr())).await;
    (world, browser)
}

/// A browser whose connection to the dyno can fall silent.
async fn browser_behind_proxy() -> (World, Proxy, Browser) {
    let browser = Browser::start().await;
    let world = World::talkative(Store::Redis).await;
    let proxy = Proxy::to(world.dyno.addr()).await;
    browser.open(&page_at(proxy.addr)).await;
    (world, proxy, browser)
}

/// How many messages the stream of a room holds.
fn stored(world: &World, room: &str) -> usize {
    check::stream(world.redis.as_ref().expect("this world has a Redis"), room).len()
}

/// Waits until what `look` sees satisfies `wanted`, and gives it back.
async fn settles<T: Debug>(
    what: &str,
    look: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    settles_within(SOON, what, look, wanted).await
}

/// Looks less and less often, because each look keeps a browser and its driver busy.
async fn settles_within<T: Debug>(
    within: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let seen = look().await;
        if wanted(&seen) {
            return seen;
        }
        assert!(
            start.elapsed() < within,
            "not within {within:?}: {what}; seen instead: {seen:?}"
        );
        sleep(pause).await;
        pause = (2 * pause).min(Duration::from_millis(160));
    }
}

/// Waits until `look` sees exactly this.
async fn becomes<T, W>(what: &str, wanted: &W, look: impl AsyncFnMut() -> T)
where
    T: Debug + PartialEq<W>,
    W: Debug + ?Sized,
{
    let what = format!("{what}: {wanted:?}");
    settles(&what, look, |seen| seen == wanted).await;
}

#[tokio::test]
async fn nothing_of_a_test_is_left_for_the_next_one_in_the_same_chromium() {
    let (world, mut browser) = one_browser().await;
    let page = page_at(world.dyno.addr());
    let state = "return [localStorage.trace ?? null, sessionStorage.trace ?? null, document.cookie, navigator.onLine, innerWidth,
        matchMedia('(prefers-color-scheme: dark)').matches, Date.now() > arguments[0]]";
    let next_hour = browser.eval("return Date.now() + 3600e3").await;
    let look = async |browser: &Browser| {
        let state = browser.eval_with(state, json!([next_hour])).await;
        state.as_array().expect("a list").clone()
    };
    let tabs = async |browser: &Browser| {
        let tabs = browser.client.windows().await;
        tabs.expect("a list of tabs").len()
    };
    let (fresh, tabs_at_first) = (look(&browser).await, tabs(&browser).await);
    browser.join("lobby", "taro").await;
    browser.second_tab().await;
    browser.open(&page).await;
    browser.join("lobby", "hanako").await;
    let traces = "localStorage.trace = sessionStorage.trace = 1; document.cookie = 'a=b; max-age=3600'; console.error('left')";
    browser.eval(traces).await;
    browser.later(3_601 * SECOND).await;
    browser.prefers("prefers-color-scheme", "dark").await;
    browser.resize(500, 500).await;
    browser.set_offline(true).await;
    let used = look(&browser).await;
    for (i, (before, after)) in fresh.iter().zip(&used).enumerate() {
        assert_ne!(before, after, "item {i} was changed: {used:?}");
    }

    browser.begin_next_test().await;
    browser.open(&page).await;
    assert_eq!(look(&browser).await, fresh);
    browser.value_is("Name", "").await;
    browser.expect_empty_console().await;
    assert_eq!(tabs(&browser).await, tabs_at_first);
}
