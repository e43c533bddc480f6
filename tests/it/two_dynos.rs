//! Tests of the demo in the README, `bin/two-dynos`: two dynos are one chat, a dyno that ends is started again, and
//! Ctrl-C ends what the script started and nothing else.

use crate::support::dyno::program;
use crate::support::prelude::*;
use nix::{sys::signal::killpg, unistd::Pid};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{io::Write, ops::Range, thread};
use tokio::net::TcpStream;

/// The numbers of the script's ports, counted from `PORT`: the router, two dynos, and Redis if the script starts it.
const PORTS: Range<u16> = 0..4;

/// `bin/two-dynos` with the program under test, not started yet.
fn script(port: u16) -> Command {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bin/two-dynos"));
    script.env("PORT", port.to_string());
    script.env("DYNOCHAT_BIN", program());
    script
}

/// The first of four free ports in a row.
fn four_free_ports() -> u16 {
    loop {
        let ports = PORTS.map(|_| free_port()).collect::<Vec<_>>();
        if ports.is_sorted_by(|one, next| one + 1 == *next) {
            return ports[0];
        }
    }
}

/// The script as a process whose port is that of the router.
struct Demo(Dyno);

impl Demo {
    /// Starts the script and waits until both dynos have their Redis.
    async fn start(redis_url: &str) -> Demo {
        let port = four_free_ports();
        let mut script = script(port);
        script.env("REDIS_URL", redis_url).stdin(Stdio::piped());
        script.process_group(0); // as a shell does, so that the test can send Ctrl-C to this group alone
        let demo = Demo(Dyno::run(script, port));
        eventually("both dynos have their Redis", 3 * PATIENCE, async || {
            let up = async |dyno| demo.health(dyno).await["redis"] == "up";
            let all = up(1).await && up(2).await && demo.listens(0).await;
            all.then_some(()).ok_or(demo.0.log())
        })
        .await;
        demo
    }

    /// The address with this number in [`PORTS`].
    fn addr(&self, number: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.port + number).into()
    }

    async fn listens(&self, number: u16) -> bool {
        TcpStream::connect(self.addr(number)).await.is_ok()
    }

    /// The JSON of a dyno's `/healthz`; null if the dyno does not answer.
    async fn health(&self, dyno: u16) -> Value {
        let Ok(stream) = TcpStream::connect(self.addr(dyno)).await else {
            return Value::Null;
        };
        let mut raw = Raw::over(stream);
        raw.send(head("GET /healthz", "localhost", &[])).await;
        let answer = String::from_utf8_lossy(&raw.rest(PATIENCE).await.0).into_owned();
        let body = answer.split_once("\r\n\r\n").unwrap_or_default().1;
        serde_json::from_str(body).unwrap_or_default()
    }

    /// Types a line and waits until this dyno runs again as a new process that has its Redis.
    async fn restarts(&mut self, line: &str, dyno: u16) {
        let before = self.health(dyno).await["boot"].clone();
        assert!(before.is_string(), "{before}\n{}", self.0.log());
        let input = self.0.child.stdin.as_mut().expect("stdin is a pipe");
        writeln!(input, "{line}").expect("the script reads its input");
        eventually("the dyno runs again", 2 * PATIENCE, async || {
            let health = self.health(dyno).await;
            let again = health["redis"] == "up" && health["boot"] != before;
            again.then_some(()).ok_or(self.0.log())
        })
        .await;
    }

    /// Sends Ctrl-C and checks that nothing is left.
    async fn end(mut self) {
        killpg(Pid::from_raw(self.0.pid() as i32), Signal::SIGINT).expect("the script runs");
        self.0.exits_with_0(2 * PATIENCE).await;
        for number in PORTS {
            let left = self.listens(number).await;
            assert!(!left, "port {number} is still open\n{}", self.0.log());
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        while self.0.is_running() {
            self.0.signal(Signal::SIGTERM); // it ends what it has started
            thread::sleep(SECOND / 10);
        }
    }
}

#[tokio::test]
async fn demo_is_one_chat_on_two_dynos_and_restarts_them() {
    let mut demo = Demo::start("").await;
    let room = format!("demo {}", fastrand::u32(..)); // the script may use a Redis that others use too
    let mut hanako = Client::connect(demo.addr(1)).await;
    hanako.join(&room, "花子", &token(), None).await;
    assert_eq!(hanako.welcome["dyno"], "web.1");
    let mut taro = Client::connect(demo.addr(2)).await;
    taro.join(&room, "太郎", &token(), None).await;
    assert_eq!(taro.welcome["dyno"], "web.2");
    hanako.say("across").await;
    taro.hears("across").await;
    let request = head("GET /", "localhost", &["Connection: close"]);
    assert_eq!(http(demo.addr(0), &request).await.status, 200);

    let other = demo.health(2).await["boot"].clone();
    let leave = async {
        hanako.expect_move().await;
        drop(hanako); // the dyno waits for its pages to move
    };
    tokio::join!(demo.restarts("1", 1), leave);
    let still = &demo.health(2).await["boot"];
    assert_eq!(*still, other, "the other dyno is not restarted");
    demo.restarts("kill 2", 2).await;
    demo.end().await;
}

#[tokio::test]
async fn running_redis_is_used_and_left_running() {
    let redis = Redis::start(&[]).await;
    let demo = Demo::start(&redis.url()).await;
    assert_eq!(redis.clients().len(), 2, "{:#?}", redis.clients());
    assert!(!demo.listens(3).await, "the script starts no second Redis");
    demo.end().await;
    assert_eq!(redis.cmd::<String>(&["PING"]), "PONG");
}

#[tokio::test]
async fn taken_port_is_named_before_anything_starts() {
    let port = four_free_ports();
    let _other_server = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 2)).expect("a free port");
    let output = script(port).stdin(Stdio::null()).output();
    let output = output.expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&(port + 2).to_string()), "{said}");
}
