//! Proves that the demo of the README, `tests/two-dynos`, is what it says: two dynos, one chat, a dyno that comes back,
//! and a Ctrl-C that ends what was started and nothing else.

use crate::support::dyno::program;
use crate::support::raw::{head, http};
use crate::support::{Client, PATIENCE, Raw, Redis, eventually, free_port, token};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// The router, the dynos, and the Redis where there is none.
const PORTS: u16 = 4;

struct Demo {
    child: Child,
    /// Where a person would type.
    input: ChildStdin,
    port: u16,
    dir: TempDir,
}

impl Demo {
    /// Starts it and waits until both dynos have their Redis.
    async fn start(vars: &[(&str, &str)]) -> Demo {
        let dir = TempDir::with_prefix("dynochat-demo-").expect("a temporary directory");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        let port = four_free_ports();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/two-dynos");
        let mut child = Command::new(script)
            .env("PORT", port.to_string())
            .env("DYNOCHAT_BIN", program())
            .envs(vars.iter().copied())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("one file for both streams"))
            .stderr(log)
            .process_group(0) // as a shell does it, and so a Ctrl-C reaches just this
            .spawn()
            .expect("bash is there");
        let input = child.stdin.take().expect("a pipe");
        let demo = Demo {
            child,
            input,
            port,
            dir,
        };
        eventually("both dynos have their Redis", 3 * PATIENCE, async || {
            let healths = demo.healths().await;
            let up = healths.values().filter(|health| health["redis"] == "up");
            if up.count() == 2 && demo.listens(0).await {
                return Ok(());
            }
            Err(demo.log())
        })
        .await;
        demo
    }

    /// The router's address, from which the others are counted.
    fn addr(&self, number: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + number).into()
    }

    async fn listens(&self, number: u16) -> bool {
        TcpStream::connect(self.addr(number)).await.is_ok()
    }

    /// What the dynos say of themselves; one that is just ending says nothing.
    async fn healths(&self) -> BTreeMap<u16, Value> {
        let mut healths = BTreeMap::new();
        for dyno in [1, 2] {
            if let Ok(stream) = TcpStream::connect(self.addr(dyno)).await {
                let mut raw = Raw::over(stream);
                raw.send(head("GET /healthz", "localhost", &[])).await;
                let (answer, _) = raw.rest(PATIENCE).await;
                let answer = String::from_utf8_lossy(&answer);
                let body = answer.split_once("\r\n\r\n").unwrap_or_default().1;
                healths.extend(serde_json::from_str(body).map(|health| (dyno, health)));
            }
        }
        healths
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("somebody reads what is typed");
    }

    /// Waits until a dyno is another process than before, and has its Redis.
    async fn is_new(&self, dyno: u16, before: &BTreeMap<u16, Value>) -> BTreeMap<u16, Value> {
        eventually("the dyno is back", 2 * PATIENCE, async || {
            let healths = self.healths().await;
            match healths.get(&dyno) {
                Some(health)
                    if health["boot"] != before[&dyno]["boot"] && health["redis"] == "up" =>
                {
                    Ok(healths)
                }
                _ => Err(self.log()),
            }
        })
        .await
    }

    /// A Ctrl-C; nothing of it is left.
    async fn end(mut self) {
        killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it runs");
        let status = eventually("it ends", 2 * PATIENCE, async || {
            let ended = self.child.try_wait().expect("it can be waited for");
            ended.ok_or(self.log())
        })
        .await;
        assert!(status.success(), "{status}\n{}", self.log());
        for number in 0..PORTS {
            assert!(
                !self.listens(number).await,
                "{number} is left\n{}",
                self.log()
            );
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = nix::sys::signal::kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn four_free_ports() -> u16 {
    let mut ports = vec![free_port()];
    while ports.len() < PORTS as usize {
        let port = free_port();
        if port != ports[ports.len() - 1] + 1 {
            ports.clear();
        }
        ports.push(port);
    }
    ports[0]
}

#[tokio::test]
async fn the_demo_is_one_chat_on_two_dynos_and_restarts_them() {
    let mut demo = Demo::start(&[("REDIS_URL", "")]).await;
    let room = format!("demo {}", fastrand::u32(..)); // the Redis may be somebody's
    let mut hanako = Client::connect(demo.addr(1)).await;
    hanako.join(&room, "花子", &token(), None).await;
    let mut taro = Client::connect(demo.addr(2)).await;
    taro.join(&room, "太郎", &token(), None).await;
    assert_eq!(
        [&hanako.welcome["dyno"], &taro.welcome["dyno"]],
        ["web.1", "web.2"]
    );
    hanako.say("across").await;
    taro.hears("across").await;
    let page = http(
        demo.addr(0),
        &head("GET /", "localhost", &["Connection: close"]),
    )
    .await;
    assert_eq!(page.status, 200);

    let before = demo.healths().await;
    demo.type_line("1");
    hanako.expect_close(1012).await;
    let after = demo.is_new(1, &before).await;
    assert_eq!(after[&2]["boot"], before[&2]["boot"], "the other one stays");
    demo.type_line("kill 2");
    demo.is_new(2, &after).await;
    demo.end().await;
}

#[tokio::test]
async fn a_redis_that_was_there_is_used_and_left_alone() {
    let redis = Redis::start(&[]).await;
    let demo = Demo::start(&[("REDIS_URL", &redis.url())]).await;
    assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
    assert!(!demo.listens(3).await, "no second Redis");
    demo.end().await;
    assert_eq!(redis.cmd::<String>(&["PING"]), "PONG");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_before_anything_is_started() {
    let port = four_free_ports();
    let _somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 2)).expect("a free port");
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/two-dynos"))
        .env("PORT", port.to_string())
        .env("DYNOCHAT_BIN", program())
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() && said.contains(&(port + 2).to_string()),
        "{said}"
    );
}
