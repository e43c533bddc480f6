//! The idea in one file: `examples/single_file.rs` chats across two processes and serves the page. What it loses is
//! measured by the soak: `cargo run --release --example soak -- --program single_file`.

use crate::support::dyno::single_file;
use crate::support::prelude::*;
use std::{fs, path::Path};

async fn two_processes() -> (Redis, Dyno, Dyno) {
    let redis = Redis::start(&[]).await;
    let start =
        async |name| Dyno::start_program_on(single_file(), &redis.url(), &[("DYNO", name)]).await;
    let (a, b) = (start("web.1").await, start("web.2").await);
    (redis, a, b)
}

async fn sees_both(client: &mut Client) {
    eventually("both are members", PATIENCE, async || {
        let (mut users, count) = client.members();
        users.sort();
        let both = count == 2 && users == ["hanako", "taro"];
        both.then_some(()).ok_or(users)
    })
    .await;
}

#[tokio::test]
async fn two_processes_of_the_single_file_chat_through_redis() {
    let (_redis, a, b) = two_processes().await;
    let mut hanako = a.join("lobby", "hanako").await;
    let mut taro = b.join("lobby", "taro").await;
    hanako.welcomed_with(json!({"dyno": "web.1", "gap": false, "history": [], "tick_ms": 25_000}));
    taro.welcomed_with(json!({"dyno": "web.2", "room": "lobby", "user": "taro"}));
    sees_both(&mut hanako).await;
    sees_both(&mut taro).await;
    hanako.say("こんにちは").await; // its echo is the acknowledgement
    taro.hears("こんにちは").await;
    taro.say("hello").await;
    hanako.hears("hello").await;
    a.join("attic", "jiro").await.say("another room").await;
    hanako.settle().await; // no talk came before the answer to the ping

    let (token, last) = taro.vanish().await;
    hanako.expect_members(&["hanako"]).await; // or it could remove him after he has joined again
    let mut taro = a.join_with("lobby", "taro", &token, Some(&last)).await;
    taro.welcomed_with(json!({"dyno": "web.1", "gap": true})); // there is no history
    sees_both(&mut hanako).await;
    taro.say("back").await;
    hanako.hears("back").await;
    taro.quit().await;
    hanako.expect_members(&["hanako"]).await;
    let mut nobody = b.connect().await;
    nobody.talk("not joined").await;
    nobody.expect_close(4400).await;
}

#[tokio::test]
async fn without_redis_the_single_file_sends_the_page_away_to_try_again() {
    let (mut redis, dyno, _) = two_processes().await;
    let mut hanako = dyno.join("lobby", "hanako").await;
    redis.stop().await;
    hanako.expect_close(1012).await;
    let mut taro = dyno.connect().await;
    let join = json!({"kind": "join", "room": "lobby", "user": "taro", "token": token()});
    taro.send(join).await;
    taro.expect_close(1012).await;
    redis.restart().await;
    dyno.connected_to_redis(2).await;
    dyno.join("lobby", "taro").await;
}

#[tokio::test]
async fn the_single_file_serves_the_page() {
    let (_redis, dyno, _) = two_processes().await;
    let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("public");
    let get = async |path: &str| {
        let request = head(&format!("GET {path}"), &dyno.host(), &[]);
        http(dyno.addr(), &request).await
    };
    let mut pages = vec![("/?room=lobby".to_string(), public.join("index.html"))];
    for file in fs::read_dir(&public).expect("a directory") {
        let file = file.expect("a file");
        pages.push((format!("/{}", file.file_name().display()), file.path()));
    }
    for (path, file) in pages {
        let answer = get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body == fs::read(file).expect(&path), "{path}");
    }
    for missing in ["/nothing", "/../Cargo.toml", "//etc/passwd", "/.."] {
        assert_eq!(get(missing).await.status, 404, "{missing}");
    }
}

/// Its only packages are tokio, tokio-tungstenite, redis, serde_json, log and simple_logger, and what they bring along.
/// The files that it names exist.
#[test]
fn the_single_file_uses_six_packages_and_names_files_that_exist() {
    let packages = "std tokio tokio_tungstenite redis serde_json log simple_logger futures_util";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("examples/single_file.rs")).expect("the example");
    for line in source.lines().filter(|line| line.starts_with("use ")) {
        let package = line[4..].split("::").next().expect("a path");
        assert!(packages.split(' ').any(|one| one == package), "{line}");
    }
    let words = source.split(|c: char| !c.is_alphanumeric() && !"/._-".contains(c));
    let mut paths = 0;
    for word in words.filter(|word| word.starts_with("src/") || word.starts_with("docs/")) {
        let path = word.trim_end_matches(['.', '/']);
        assert!(root.join(path).exists(), "{path} does not exist");
        paths += 1;
    }
    assert!(paths > 10, "{paths}");
}
