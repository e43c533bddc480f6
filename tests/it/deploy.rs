//! Rehearses `git push heroku main`: builds HEAD as the buildpack does, and runs the result as the platform does, with
//! the Redis that the platform gives. Changes that are not committed are not part of it.

use crate::support::prelude::*;
use nix::{sys::signal::killpg, unistd::Pid};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The variables that cargo needs. No setting of the program is among them.
const CARGO_VARS: &str = "PATH HOME CARGO_HOME RUSTUP_HOME RUSTUP_TOOLCHAIN";

/// What a command prints on stdout. It must succeed.
fn stdout(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

fn git(args: &[&str]) -> String {
    stdout(Command::new("git").args(args).current_dir(ROOT))
}

// ---- the build

/// The slug's directory: the files of HEAD, and in `target/release` the program that was built from them. The first
/// call builds it.
fn slug() -> &'static Path {
    static SLUG: OnceLock<PathBuf> = OnceLock::new();
    SLUG.get_or_init(|| {
        let slug = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slug");
        export_head(&slug);
        let kept = slug.join("target/release");
        let _ = fs::remove_dir_all(slug.join("target")); // there is none after an export
        let size = |dir| stdout(Command::new("du").args(["-s", "-BkB"]).arg(dir));
        let source = size(&slug);
        fs::create_dir_all(&kept).expect("a directory for the program");
        for program in build(&slug) {
            let name = program.file_name().expect("a program has a name");
            fs::copy(&program, kept.join(name)).expect("a file can be copied");
        }
        println!(
            "measured: source and program of the slug: {source}{}",
            size(&kept)
        );
        slug
    })
}

/// Writes the files of HEAD to a directory, unless they are there already: cargo compiles again what was written again.
fn export_head(dir: &Path) {
    let tree = git(&["rev-parse", "HEAD^{tree}"]);
    let exported = dir.with_extension("tree"); // a file that says what is in the directory
    let known = fs::read_to_string(&exported).unwrap_or_default();
    if known == tree && dir.exists() {
        return;
    }
    let _ = fs::remove_file(&exported); // neither is there the first time
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).expect("a directory for the slug");
    // `m`: the files are as old as this export, not as the commit. Cargo would not compile a commit that is older than
    // the last build.
    let mut export = Command::new("sh");
    export.args(["-c", "git archive HEAD | tar xm -C \"$0\""]);
    stdout(export.arg(dir).current_dir(ROOT));
    fs::write(exported, tree).expect("a file can be written");
}

/// Builds the program in its own directory, and gives the executables. The target directory is not the repository's: cargo
/// would take this program, of HEAD, for the repository's own, and not compile a change that is newer.
fn build(slug: &Path) -> Vec<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slug-target");
    let vars = CARGO_VARS.split(' ');
    let vars = vars.filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut cargo = Command::new("nice"); // other tests run beside it
    cargo.args(["-n", "10", "cargo", "build", "--release"]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.current_dir(slug).env_clear().envs(vars);
    cargo.env("CARGO_TARGET_DIR", target);
    let begun = Instant::now();
    let (mut compiled, mut executables) = (0, vec![]);
    for message in stdout(&mut cargo).lines() {
        let message: Value = serde_json::from_str(message).expect("cargo writes JSON");
        compiled += u32::from(message["fresh"] == false);
        executables.extend(message["executable"].as_str().map(PathBuf::from));
    }
    let took = begun.elapsed();
    println!("measured: the release build took {took:.0?} and compiled {compiled} crates");
    executables
}

// ---- a dyno

/// Runs the Procfile's command with `vars` and the variables that the platform sets, and no others.
async fn start(dyno: &str, vars: &[(&str, &str)]) -> Dyno {
    let procfile = fs::read_to_string(slug().join("Procfile")).expect("a Procfile");
    let command = procfile.strip_prefix("web: ");
    let port = free_port();
    let mut bash = Command::new("bash");
    bash.args(["-c", command.expect("its one process is web")]);
    bash.current_dir(slug()).process_group(0);
    bash.stdin(Stdio::null()).env_clear();
    bash.env("PORT", port.to_string()).env("DYNO", dyno);
    bash.envs(vars.iter().copied());
    let mut web = Dyno::run(bash, port);
    web.listens().await;
    web
}

/// Sends SIGTERM to every process, twice, as the platform may do. The dyno must exit with code 0.
async fn stop(web: &mut Dyno) {
    let group = Pid::from_raw(web.pid() as i32);
    killpg(group, Signal::SIGTERM).expect("the dyno runs");
    let _ = killpg(group, Signal::SIGTERM); // it may have ended by then
    web.exits_with_0(10 * SECOND).await; // the platform kills it after 30 s
}

// ---- the tests

#[test]
fn slug_holds_one_program_and_the_committed_cargo_lock() {
    let built = fs::read_dir(slug().join("target/release")).expect("a directory can be read");
    let built = built.map(|entry| entry.expect("a file").file_name());
    assert_eq!(built.collect::<Vec<_>>(), ["dynochat"]);
    let lock = fs::read_to_string(slug().join("Cargo.lock")).expect("a Cargo.lock");
    let same = lock == git(&["show", "HEAD:Cargo.lock"]);
    assert!(same, "the build has changed Cargo.lock: commit it");
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).expect(path)
}

#[test]
fn procfile_starts_the_release_build() {
    assert_eq!(read("Procfile"), "web: ./target/release/dynochat\n");
}

fn app_json() -> Value {
    serde_json::from_str(&read("app.json")).expect("app.json is JSON")
}

/// The fields that the schema of app.json allows in the file.
const APP_FIELDS: &str = "name description keywords website repository logo success_url scripts env formation addons \
                          buildpacks environments stack";

#[test]
fn app_json_matches_schema() {
    let app = app_json();
    let fields = |value: &Value, allowed: &str| {
        let fields = value.as_object().expect("an object").clone();
        for name in fields.keys() {
            let known = allowed.split(' ').any(|field| field == name);
            assert!(known, "the schema has no {name}: {value}");
        }
        fields
    };
    fields(&app, APP_FIELDS);
    let config = read("src/config.rs");
    for (name, variable) in app["env"].as_object().expect("variables") {
        let variable = fields(variable, "description value required generator");
        assert!(variable["value"].is_string(), "{name}");
        assert!(variable["description"].is_string(), "{name}");
        let read = config.contains(&format!("read(\"{name}\""));
        assert!(read, "the program does not read {name}");
    }
    for (process, size) in app["formation"].as_object().expect("processes") {
        assert_eq!(process, "web", "the Procfile has no other process");
        assert!(fields(size, "quantity size")["quantity"].is_u64());
    }
    let keywords = app["keywords"].as_array().expect("a list");
    assert!(!keywords.is_empty() && keywords.iter().all(Value::is_string));
    let name = app["name"].as_str().expect("a name");
    assert!(name.starts_with(char::is_alphabetic), "{name}");
    assert_eq!(app["buildpacks"], json!([{"url": "emk/rust"}]));
    // Without the option, a full Redis refuses every message.
    let options = json!({"maxmemory_policy": "volatile-lru"});
    let redis = json!({"plan": "heroku-redis:mini", "options": options});
    assert_eq!(app["addons"], json!([redis]));
}

#[tokio::test]
async fn dyno_serves_with_port_alone_and_stops_on_sigterm() {
    let mut web = start("web.1", &[]).await;
    let request = head("GET /", "chat.example.com", &["X-Forwarded-Proto: https"]);
    assert_eq!(http(web.addr(), &request).await.status, 200);
    let mut hanako = web.join("lobby", "花子").await;
    assert_eq!(hanako.welcome["dyno"], "web.1");
    hanako.say("こんにちは").await;
    stop(&mut web).await;
    hanako.expect_close(1012).await;
}

#[tokio::test]
async fn two_dynos_with_tls_redis_and_settings_of_app_json_are_one_chat() {
    let (redis, url) = Redis::start_with_tls().await;
    let verify = app_json()["env"]["REDIS_TLS_VERIFY"]["value"].clone();
    let verify = verify.as_str().expect("a value");
    let vars = [("REDIS_URL", url.as_str()), ("REDIS_TLS_VERIFY", verify)];
    let mut clients = vec![];
    for (dyno, name) in [("web.1", "花子"), ("web.2", "太郎")] {
        let web = start(dyno, &vars).await;
        web.connected_to_redis(1).await;
        let client = web.join("lobby", name).await;
        assert_eq!(client.welcome["dyno"], dyno);
        clients.push((web, client));
    }
    clients[0].1.say("over TLS").await;
    clients[1].1.hears("over TLS").await;
    check::saw_everything(&redis, &clients[1].1);
    for (mut web, mut client) in clients {
        let leave = async {
            client.expect_move().await;
            drop(client); // the dyno waits for its pages to move
        };
        tokio::join!(stop(&mut web), leave);
    }
}
