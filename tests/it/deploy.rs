//! Rehearses `git push heroku main`: what the buildpack makes of HEAD, run as a dyno is run, with the Redis that the
//! platform gives.

use crate::support::raw::{head, http};
use crate::support::{Client, PATIENCE, Redis, bound_to_us, eventually, free_port, token};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::{fs::PermissionsExt, process::CommandExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;

const SECOND: Duration = Duration::from_secs(1);
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

// ---- the build

/// Where a slug lies, built when it is first needed: the pushed files, and beside them what the buildpack keeps of its
/// target directory. That one is kept for the next build, as the platform keeps it.
fn slug() -> &'static Path {
    static SLUG: OnceLock<PathBuf> = OnceLock::new();
    SLUG.get_or_init(|| {
        let slug = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slug");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let _ = fs::remove_dir_all(&slug); // there is none the first time
        fs::create_dir_all(&slug).expect("a directory for the slug");
        succeed(
            Command::new("sh")
                .args(["-c", "git archive HEAD | tar x -C \"$0\""])
                .arg(&slug),
        );
        let source = size(&slug);

        let begun = Instant::now();
        let known = [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
        ]; // no setting of the app
        let known = known
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release"]).current_dir(&slug);
        succeed(
            cargo
                .env_clear()
                .envs(known)
                .env("CARGO_TARGET_DIR", &target),
        );
        let took = begun.elapsed();

        let (built, kept) = (target.join("release"), slug.join("target/release"));
        fs::create_dir_all(&kept).expect("a directory for what was built");
        for entry in fs::read_dir(built).expect("cargo has built something") {
            let entry = entry.expect("a directory can be read");
            let data = entry.metadata().expect("a file has metadata");
            if data.is_file() && data.permissions().mode() & 0o111 != 0 {
                fs::copy(entry.path(), kept.join(entry.file_name())).expect("a file can be copied");
            }
        }
        println!(
            "built in {} s; the slug is {} kB of source and {} kB of program",
            took.as_secs(),
            source / 1000,
            size(&kept) / 1000
        );
        slug
    })
}

fn succeed(command: &mut Command) {
    let command = command.stdin(Stdio::null());
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Bytes of all files in a directory.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory can be read");
    let sizes = entries.map(|entry| {
        let path = entry.expect("a directory can be read").path();
        let data = fs::symlink_metadata(&path).expect("a file has metadata");
        if data.is_dir() {
            size(&path)
        } else {
            data.len()
        }
    });
    sizes.sum()
}

// ---- a dyno of it

struct Web {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Web {
    /// The Procfile's command in an environment that holds nothing but what the platform sets and `vars`.
    async fn start(dyno: &str, vars: &[(&str, &str)]) -> Web {
        let dir = TempDir::with_prefix("dynochat-web-").expect("a temporary directory");
        let log = fs::File::create(dir.path().join("log")).expect("a log file");
        let procfile = fs::read_to_string(slug().join("Procfile")).expect("a Procfile");
        let command = procfile
            .strip_prefix("web: ")
            .expect("its one process is web");
        let port = free_port();
        let child = bound_to_us(Command::new("bash").args(["-c", command]))
            .current_dir(slug())
            .env_clear()
            .env("PORT", port.to_string())
            .env("DYNO", dyno)
            .envs(vars.iter().copied())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one file for both streams"))
            .stderr(log)
            .spawn()
            .expect("bash is there");
        let web = Web { child, port, dir };
        eventually(
            "it listens: the platform waits a minute",
            PATIENCE,
            async || {
                TcpStream::connect(web.addr())
                    .await
                    .map(drop)
                    .map_err(|_| web.log())
            },
        )
        .await;
        web
    }

    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// SIGTERM to every process, twice, as the platform may do it.
    async fn stop(&mut self) -> ExitStatus {
        let group = Pid::from_raw(self.child.id() as i32);
        killpg(group, Signal::SIGTERM).expect("it runs");
        let _ = killpg(group, Signal::SIGTERM); // it may have ended by then
        eventually(
            "it ends: the platform kills after 30 s",
            10 * SECOND,
            async || {
                self.child
                    .try_wait()
                    .expect("it can be waited for")
                    .ok_or("still running")
            },
        )
        .await
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
    }
}

// ---- the sentences

#[test]
fn a_slug_holds_what_was_pushed_and_one_program() {
    let built: Vec<_> = fs::read_dir(slug().join("target/release"))
        .expect("cargo has built something")
        .map(|entry| entry.expect("a directory can be read").file_name())
        .collect();
    assert_eq!(built, ["dynochat"]);
    let lock = |dir: &Path| fs::read(dir.join("Cargo.lock")).expect("a Cargo.lock");
    let pushed = Command::new("git")
        .args(["show", "HEAD:Cargo.lock"])
        .current_dir(SOURCE)
        .output()
        .expect("git is there");
    assert!(
        lock(slug()) == pushed.stdout,
        "the build has changed Cargo.lock: commit it"
    );
}

#[test]
fn the_procfile_is_one_line_that_the_platform_can_read() {
    let procfile = fs::read_to_string(Path::new(SOURCE).join("Procfile")).expect("a Procfile");
    assert_eq!(procfile, "web: ./target/release/dynochat\n");
}

fn app_json() -> Value {
    let app = fs::read_to_string(Path::new(SOURCE).join("app.json")).expect("an app.json");
    serde_json::from_str(&app).expect("app.json is JSON")
}

/// The words that the schema of app.json knows for the file, for a variable, for a process: it allows no others.
const KNOWN: [&str; 14] = [
    "name",
    "description",
    "keywords",
    "website",
    "repository",
    "logo",
    "success_url",
    "scripts",
    "env",
    "formation",
    "addons",
    "buildpacks",
    "environments",
    "stack",
];
const KNOWN_OF_A_VARIABLE: [&str; 4] = ["description", "value", "required", "generator"];
const KNOWN_OF_A_PROCESS: [&str; 2] = ["quantity", "size"];

#[test]
fn the_button_finds_in_app_json_what_it_may_find_there() {
    let app = app_json();
    let fields = |value: &Value, known: &[&str]| {
        let fields = value.as_object().expect("an object").clone();
        let unknown: Vec<_> = fields
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?} in {value}");
        fields
    };
    fields(&app, &KNOWN);
    for (name, variable) in app["env"].as_object().expect("variables") {
        let variable = fields(variable, &KNOWN_OF_A_VARIABLE);
        assert!(
            variable["value"].is_string() && variable["description"].is_string(),
            "{name}"
        );
        let config = fs::read_to_string(Path::new(SOURCE).join("src/config.rs")).expect("a source");
        assert!(
            config.contains(&format!("read(\"{name}\"")),
            "{name} is read by nobody"
        );
    }
    for (process, size) in app["formation"].as_object().expect("processes") {
        assert_eq!(process, "web", "what the Procfile names");
        assert!(fields(size, &KNOWN_OF_A_PROCESS)["quantity"].is_u64());
    }
    let words = app["keywords"].as_array().expect("a list");
    assert!(!words.is_empty() && words.iter().all(Value::is_string));
    assert!(
        app["name"]
            .as_str()
            .is_some_and(|name| name.starts_with(char::is_alphabetic))
    );
    assert_eq!(app["buildpacks"], serde_json::json!([{"url": "emk/rust"}]));
    assert_eq!(app["addons"], serde_json::json!(["heroku-redis:mini"]));
}

#[tokio::test]
async fn what_was_pushed_starts_with_a_port_and_nothing_else_talks_and_stops() {
    let mut web = Web::start("web.1", &[]).await;
    let page = http(
        web.addr(),
        &head("GET /", "chat.example.com", &["X-Forwarded-Proto: https"]),
    )
    .await;
    assert_eq!(page.status, 200);
    let mut hanako = Client::connect(web.addr()).await;
    hanako.join("lobby", "花子", &token(), None).await;
    assert_eq!(hanako.welcome["dyno"], "web.1");
    hanako.say("こんにちは").await;
    let status = web.stop().await;
    hanako.expect_close(1012).await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", web.log());
}

#[tokio::test]
async fn with_the_redis_and_the_settings_of_app_json_two_dynos_are_one_chat() {
    let (redis, url) = Redis::start_with_tls().await;
    let app = app_json();
    let verify = app["env"]["REDIS_TLS_VERIFY"]["value"]
        .as_str()
        .expect("a value");
    let vars = [("REDIS_URL", url.as_str()), ("REDIS_TLS_VERIFY", verify)];
    let mut clients = vec![];
    for (dyno, name) in [("web.1", "花子"), ("web.2", "太郎")] {
        let web = Web::start(dyno, &vars).await;
        eventually("it has its Redis", PATIENCE, async || {
            let health = http(web.addr(), &head("GET /healthz", "localhost", &[])).await;
            if health.text().contains(r#""redis":"up""#) {
                Ok(())
            } else {
                Err(web.log())
            }
        })
        .await;
        let mut client = Client::connect(web.addr()).await;
        client.join("lobby", name, &token(), None).await;
        assert_eq!(client.welcome["dyno"], dyno);
        clients.push((web, client));
    }
    clients[0].1.say("over TLS").await;
    clients[1].1.hears("over TLS").await;
    crate::support::check::saw_everything(&redis, &clients[1].1);
    for (web, _) in &mut clients {
        assert_eq!(web.stop().await.code(), Some(0), "{}", web.log());
    }
}
