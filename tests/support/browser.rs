//! A real browser, and what a person does with the page in it: Chromium, or whichever `BROWSER` names.
//!
//! It is driven over WebDriver, a handful of JSON requests that are written out here: a library for them would bring
//! fifty crates. What a person uses is found as a screen reader finds it, by role and accessible name.

use super::{PATIENCE, bound_to_us, eventually, free_port};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a test waits for what a page should show soon. A browser on a busy machine takes its time.
pub const SOON: Duration = Duration::from_secs(30);

/// So many browsers run at a time, for each of them wants a processor. They begin in turn.
static SEATS: Semaphore = Semaphore::const_new(4);

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf"; // the standard's name for a reference to an element
pub const ENTER: &str = "\u{E007}";
pub const TAB: &str = "\u{E004}";
pub const SHIFT: &str = "\u{E008}";
pub const CONTROL: &str = "\u{E009}";

/// What a page is tested in; each kind has its driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Chromium,
    Firefox,
    WebKit,
}

impl Kind {
    fn wanted() -> Kind {
        match std::env::var("BROWSER").as_deref() {
            Ok("firefox") => Kind::Firefox,
            Ok("webkit") => Kind::WebKit,
            Ok("chromium") | Err(_) => Kind::Chromium,
            other => panic!("BROWSER is chromium, firefox or webkit, not {other:?}"),
        }
    }

    /// The program that drives it, and where both come from.
    fn driver(self) -> (&'static str, &'static str) {
        match self {
            Kind::Chromium => (
                "chromedriver",
                "the Debian packages chromium and chromium-driver",
            ),
            Kind::Firefox => (
                "geckodriver",
                "the Debian package firefox-esr, and cargo install geckodriver",
            ),
            Kind::WebKit => (
                "WebKitWebDriver",
                "the Debian package webkit2gtk-driver; it needs a display, such as xvfb-run gives",
            ),
        }
    }

    fn capabilities(self, profile: &Path) -> Value {
        match self {
            Kind::Chromium => {
                // By a pipe, Chromium ends when chromedriver does, even if that is killed.
                let args = [
                    "--headless",
                    "--remote-debugging-pipe",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-quic",
                    "--disable-dev-shm-usage",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                    "--no-first-run",
                    "--lang=en-GB",
                    "--window-size=1000,700",
                    &format!("--user-data-dir={}", profile.display()),
                ];
                json!({
                    "browserName": "chrome",
                    "goog:chromeOptions": {"args": args},
                    "goog:loggingPrefs": {"browser": "ALL"},
                })
            }
            Kind::Firefox => json!({
                "browserName": "firefox",
                "moz:firefoxOptions": {"args": ["-headless", "--width=1000", "--height=700"]},
            }),
            // Debian keeps it where no PATH leads, beside the library whose version is part of the name.
            Kind::WebKit => {
                let library = "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser";
                json!({
                    "browserName": "MiniBrowser",
                    "webkitgtk:browserOptions": {"binary": library, "args": ["--automation"]},
                })
            }
        }
    }
}

/// One browser with a profile of its own: one person. Ends with the test.
pub struct Browser {
    pub kind: Kind,
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
    _seat: SemaphorePermit<'static>,
}

/// A message as the page shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub who: String,
    pub text: String,
    pub time: String,
    /// What stands beside an own message: sending, sent, not sent · Retry / Discard …
    pub state: String,
    /// In one group with the message before it.
    pub follows: bool,
}

impl Browser {
    pub async fn start() -> Browser {
        let seat = SEATS.acquire().await.expect("never closed");
        Browser::launch(seat).await
    }

    /// Two at once; one by one, two tests could each hold what the other waits for.
    pub async fn start_two() -> (Browser, Browser) {
        let mut seats = SEATS.acquire_many(2).await.expect("never closed");
        let other = seats.split(1).expect("two seats were taken");
        tokio::join!(Browser::launch(seats), Browser::launch(other))
    }

    async fn launch(seat: SemaphorePermit<'static>) -> Browser {
        let kind = Kind::wanted();
        let (program, needs) = kind.driver();
        let profile = TempDir::with_prefix("dynochat-browser-").expect("a temporary directory");
        let port = free_port();
        let driver = bound_to_us(&mut Command::new(program))
            .arg(format!("--port={port}"))
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} could not be started: {e}; it needs {needs}"));
        let mut browser = Browser {
            kind,
            driver,
            port,
            session: String::new(),
            profile,
            _seat: seat,
        };
        eventually(&format!("{program} listens"), PATIENCE, async || {
            browser.request("GET", "/status", Value::Null).await
        })
        .await;
        let wanted =
            json!({"capabilities": {"alwaysMatch": kind.capabilities(browser.profile.path())}});
        let session = browser
            .request("POST", "/session", wanted)
            .await
            .unwrap_or_else(|e| panic!("{kind:?} did not start, it needs {needs}: {e}"));
        browser.session = session["sessionId"].as_str().expect("an id").to_string();
        browser
    }

    async fn request(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        let body = match method {
            "GET" => String::new(),
            _ => body.to_string(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = vec![];
            loop {
                let text = String::from_utf8_lossy(&answer);
                if let Some((head, content)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| {
                        let (name, value) = line.split_once(':')?;
                        name.eq_ignore_ascii_case("content-length")
                            .then(|| value.trim().parse().ok())?
                    });
                    if length.is_some_and(|length: usize| content.len() >= length) {
                        return Ok(content.to_string());
                    }
                }
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
        };
        let content = exchange
            .await
            .map_err(|e: std::io::Error| format!("{path}: no answer: {e}"))?;
        let answer: Value = serde_json::from_str(&content)
            .map_err(|e| format!("{path}: the answer was {content:?}: {e}"))?;
        match &answer["value"] {
            Value::Object(error) if error.contains_key("error") => {
                Err(format!("{path}: {} {}", error["error"], error["message"]))
            }
            value => Ok(value.clone()),
        }
    }

    /// A command of this session.
    pub async fn try_call(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        let path = format!("/session/{}{path}", self.session);
        self.request(method, &path, body).await
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        self.try_call(method, path, body)
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// A command of Chromium's own protocol, for what WebDriver cannot say.
    pub async fn devtools(&self, command: &str, params: Value) {
        self.call(
            "POST",
            "/goog/cdp/execute",
            json!({"cmd": command, "params": params}),
        )
        .await;
    }

    pub async fn open(&self, url: &str) {
        self.call("POST", "/url", json!({"url": url})).await;
    }

    pub async fn reload(&self) {
        self.call("POST", "/refresh", json!({})).await;
    }

    pub async fn back(&self) {
        self.call("POST", "/back", json!({})).await;
    }

    /// A second tab of the same person, which becomes the one in use; gives the handles of the old and the new one.
    pub async fn second_tab(&self) -> (Value, Value) {
        let old = self.call("GET", "/window", json!({})).await;
        let new = self
            .call("POST", "/window/new", json!({"type": "tab"}))
            .await;
        self.switch(&new["handle"]).await;
        (old, new["handle"].clone())
    }

    pub async fn switch(&self, handle: &Value) {
        self.call("POST", "/window", json!({"handle": handle}))
            .await;
    }

    /// Runs `script`, a function body with `arguments`, in the page.
    pub async fn eval(&self, script: &str, args: Value) -> Value {
        let script = json!({"script": script, "args": args});
        self.call("POST", "/execute/sync", script).await
    }

    pub async fn text(&self, script: &str) -> String {
        let value = self.eval(script, json!([])).await;
        value.as_str().unwrap_or_default().to_string()
    }

    /// What the console said since it was asked last: errors, warnings, reports of the content security policy.
    /// Chromium's alone: the other drivers do not tell.
    pub async fn console(&self) -> Vec<String> {
        let entries = self
            .call("POST", "/se/log", json!({"type": "browser"}))
            .await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|e| format!("{} {}", e["level"], e["message"]))
            .collect()
    }

    /// The one thing on the page with this role and accessible name, or what is there instead.
    async fn seek(&self, role: &str, name: &str) -> Result<String, String> {
        let css = match role {
            "textbox" => "input, textarea".to_string(),
            "button" => "button".to_string(),
            "list" => "ul, ol".to_string(),
            _ => format!("[role={role}]"),
        };
        let query = json!({"using": "css selector", "value": css});
        let elements = self.try_call("POST", "/elements", query).await?;
        let (mut found, mut seen) = (vec![], vec![]);
        for element in elements.as_array().into_iter().flatten() {
            let id = element[ELEMENT].as_str().expect("a reference");
            let ask = async |what: &str| {
                self.try_call("GET", &format!("/element/{id}/{what}"), json!({}))
                    .await
            };
            if ask("displayed").await? != true {
                continue;
            }
            let is = (ask("computedrole").await?, ask("computedlabel").await?);
            if is == (json!(role), json!(name)) {
                found.push(id.to_string());
            }
            seen.push(is);
        }
        match &found[..] {
            [one] => Ok(one.clone()),
            _ => Err(format!("{} of {seen:?}", found.len())),
        }
    }

    pub async fn find(&self, role: &str, name: &str) -> String {
        eventually(&format!("one {role} {name:?}"), SOON, async || {
            self.seek(role, name).await
        })
        .await
    }

    pub async fn has(&self, role: &str, name: &str) -> bool {
        self.seek(role, name).await.is_ok()
    }

    pub async fn press(&self, button: &str) {
        let id = self.find("button", button).await;
        self.call("POST", &format!("/element/{id}/click"), json!({}))
            .await;
    }

    /// Types into a field, key by key, after what is there already.
    pub async fn keys(&self, field: &str, text: &str) {
        let id = self.find("textbox", field).await;
        let path = format!("/element/{id}/value");
        self.call("POST", &path, json!({"text": text})).await;
    }

    /// Presses `key` while `modifier` is held, wherever the cursor is.
    pub async fn chord(&self, modifier: &str, key: &str) {
        let press = |kind: &str, value: &str| json!({"type": kind, "value": value});
        let keys = [
            press("keyDown", modifier),
            press("keyDown", key),
            press("keyUp", key),
            press("keyUp", modifier),
        ];
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.call("POST", "/actions", keyboard).await;
    }

    /// Puts a text into a field in place of what was there; for characters that no key has, too.
    pub async fn fill(&self, field: &str, text: &str) {
        let id = self.find("textbox", field).await;
        let script = "arguments[0].select();
            document.execCommand(arguments[1] ? 'insertText' : 'delete', false, arguments[1]);";
        self.eval(script, json!([{ELEMENT: id}, text])).await;
    }

    /// A property of a field, of its DOM node.
    pub async fn field(&self, field: &str, property: &str) -> Value {
        let id = self.find("textbox", field).await;
        let script = "return arguments[0][arguments[1]]";
        self.eval(script, json!([{ELEMENT: id}, property])).await
    }

    /// What stands beside a field about it: an error, a counter.
    pub async fn description(&self, field: &str) -> String {
        let id = self.find("textbox", field).await;
        let script = "const id = arguments[0].getAttribute('aria-describedby');
            return document.getElementById(id).textContent";
        let text = self.eval(script, json!([{ELEMENT: id}])).await;
        text.as_str().expect("a text").to_string()
    }

    /// Waits until the script returns true; until then it may return what it sees instead.
    pub async fn until(&self, what: &str, script: &str) {
        self.until_within(what, SOON, script).await;
    }

    pub async fn until_within(&self, what: &str, within: Duration, script: &str) {
        eventually(what, within, async || {
            match self.eval(script, json!([])).await {
                Value::Bool(true) => Ok(()),
                other => Err(format!("{other}; {:?}", self.said().await)),
            }
        })
        .await;
    }

    // ---- the page

    pub async fn join(&self, room: &str, name: &str) {
        self.fill("Room", room).await;
        self.fill("Name", name).await;
        self.press("Join").await;
        self.connected().await;
    }

    pub async fn say(&self, text: &str) {
        self.fill("Message", text).await;
        self.keys("Message", ENTER).await;
    }

    pub async fn chip(&self) -> String {
        self.text("return document.querySelector('[role=status]').textContent")
            .await
    }

    pub async fn chip_says(&self, words: &str) {
        eventually(&format!("the chip says {words:?}"), SOON, async || {
            let chip = self.chip().await;
            if chip.contains(words) {
                return Ok(());
            }
            Err(chip)
        })
        .await;
    }

    pub async fn connected(&self) {
        self.chip_says("Connected · ").await;
    }

    pub async fn alert(&self) -> String {
        self.text("return document.querySelector('[role=alert]').textContent")
            .await
    }

    pub async fn title(&self) -> String {
        self.text("return document.title").await
    }

    pub async fn said(&self) -> Vec<Said> {
        let script = "return [...document.querySelectorAll('[role=log] .message')].map((m) => {
            const of = (look) => m.querySelector(look).textContent;
            return [of('.who'), of('.text'), of('time'), of('.state'), m.classList.contains('follows')];
        })";
        let shown = self.eval(script, json!([])).await;
        let text = |value: &Value| value.as_str().unwrap_or("?").to_string();
        let said = |m: &Value| Said {
            who: text(&m[0]),
            text: text(&m[1]),
            time: text(&m[2]),
            state: text(&m[3]),
            follows: m[4] == true,
        };
        shown.as_array().into_iter().flatten().map(said).collect()
    }

    pub async fn texts(&self) -> Vec<String> {
        self.said().await.into_iter().map(|s| s.text).collect()
    }

    /// Waits until the page shows exactly these texts, in this order.
    pub async fn shows(&self, texts: &[&str]) {
        eventually(&format!("the page shows {texts:?}"), SOON, async || {
            let shown = self.texts().await;
            if shown == texts {
                return Ok(());
            }
            Err(shown)
        })
        .await;
    }

    /// Waits until every own message has this beside it.
    pub async fn own_are(&self, state: &str) {
        eventually(&format!("own messages are {state:?}"), SOON, async || {
            let own: Vec<_> = self.said().await.into_iter().map(|s| s.state).collect();
            if own.iter().any(|s| s == state) && own.iter().all(|s| s.is_empty() || s == state) {
                return Ok(());
            }
            Err(own)
        })
        .await;
    }

    /// The same where one of them was refused.
    pub async fn own_are_but_one(&self, state: &str) {
        eventually(
            &format!("own messages but one are {state:?}"),
            SOON,
            async || {
                let own: Vec<_> = self.said().await.into_iter().map(|s| s.state).collect();
                if own.iter().filter(|s| *s != state).count() == 1 {
                    return Ok(());
                }
                Err(own)
            },
        )
        .await;
    }

    /// The small lines between messages: who joined and left, what may be missing.
    pub async fn notes(&self) -> Vec<String> {
        self.strings("[role=log] .note").await
    }

    pub async fn notes_are(&self, notes: &[&str]) {
        eventually(&format!("the notes are {notes:?}"), SOON, async || {
            let seen = self.notes().await;
            if seen == notes {
                return Ok(());
            }
            Err(seen)
        })
        .await;
    }

    pub async fn members(&self) -> Vec<String> {
        let id = self.find("list", "Members").await;
        let script = "return [...arguments[0].children].map((one) => one.textContent)";
        let names = self.eval(script, json!([{ELEMENT: id}])).await;
        serde_json::from_value(names).expect("a list of names")
    }

    pub async fn members_are(&self, names: &[&str]) {
        eventually(&format!("the members are {names:?}"), SOON, async || {
            let members = self.members().await;
            if members == names {
                return Ok(());
            }
            Err(members)
        })
        .await;
    }

    pub async fn strings(&self, css: &str) -> Vec<String> {
        let script =
            "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)";
        serde_json::from_value(self.eval(script, json!([css])).await).expect("a list of texts")
    }

    /// Runs `script`, whose last argument is what it calls when it is done.
    pub async fn eval_async(&self, script: &str) -> Value {
        let script = json!({"script": script, "args": []});
        self.call("POST", "/execute/async", script).await
    }

    /// What the system or the person prefers, as Chromium pretends it: `prefers-color-scheme`, `dark`.
    pub async fn prefers(&self, feature: &str, value: &str) {
        let feature = json!({"features": [{"name": feature, "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", feature).await;
    }

    /// Waits until the page has been drawn, and so has noticed where it was scrolled to.
    pub async fn drawn(&self) {
        self.eval_async("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            .await;
    }

    /// What this much time later will be so: the page's clock goes on from there.
    pub async fn later(&self, by: Duration) {
        let script = "const now = Date.now; Date.now = () => now() + arguments[0]";
        self.eval(script, json!([by.as_millis() as u64])).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser, if it is asked to and waited for.
        if let Ok(mut stream) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
            let (port, session) = (self.port, &self.session);
            let head = format!("DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1:{port}");
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.write_all(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            let _ = stream.read(&mut [0; 1024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
