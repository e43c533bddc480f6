//! Starts browsers and gives each test one with empty storage: Chromium, or the one that `BROWSER` names.
//!
//! Each browser has a WebDriver of its own, to which the crate fantoccini speaks. Chromium is used by one test after
//! another: each test has a user context (cookies, storage, cache, permissions) that is made for it and removed after
//! it, with all its tabs and what was emulated in them. Firefox and WebKit start again for each test.

use crate::support::{PATIENCE, bound_to_us, free_port, heavy};
use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder};
use futures_util::{SinkExt, StreamExt};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::SemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::{Message, http::Method};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Chromium,
    Firefox,
    WebKit,
}

/// The settings of a browser that differ from the usual ones.
#[derive(Clone, Copy, PartialEq)]
pub enum Settings {
    Usual,
    /// Cookies and storage are blocked.
    NoStorage,
    /// Its person reads Japanese.
    Japanese,
}

impl Kind {
    pub fn wanted() -> Kind {
        match std::env::var("BROWSER").as_deref() {
            Ok("firefox") => Kind::Firefox,
            Ok("webkit") => Kind::WebKit,
            Ok("chromium") | Err(_) => Kind::Chromium,
            other => panic!("BROWSER is chromium, firefox or webkit, not {other:?}"),
        }
    }

    /// The program that drives it, and what has to be installed.
    fn driver(self) -> [&'static str; 2] {
        let packages = match self {
            Kind::Chromium => "chromedriver: the Debian packages chromium and chromium-driver",
            Kind::Firefox => {
                "geckodriver: the Debian package firefox-esr, and cargo install geckodriver"
            }
            Kind::WebKit => {
                "WebKitWebDriver: the Debian package webkit2gtk-driver, and a display as of xvfb-run"
            }
        };
        let (program, needs) = packages.split_once(": ").expect("both");
        [program, needs]
    }

    fn capabilities(self, profile: &Path, settings: Settings) -> Capabilities {
        let blocks = settings == Settings::NoStorage;
        let languages = match settings {
            Settings::Japanese => "ja,en-US",
            _ => "en-GB,en",
        };
        let capabilities = match self {
            // Chromium ends with chromedriver, even if that is killed: the pipe between them breaks.
            Kind::Chromium => json!({
                "browserName": "chrome",
                "webSocketUrl": true, // also speak WebDriver BiDi, which has user contexts
                "goog:chromeOptions": {
                    "args": [
                        "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-quic",
                        "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                        "--disable-sync", "--no-first-run", "--lang=en-GB", "--window-size=1000,700",
                        format!("--user-data-dir={}", profile.display()),
                    ],
                    "prefs": {
                        "profile.default_content_setting_values.cookies": if blocks { 2 } else { 1 },
                        "intl.accept_languages": languages,
                    },
                },
                "goog:loggingPrefs": {"browser": "ALL"},
            }),
            Kind::Firefox => json!({
                "browserName": "firefox",
                "moz:firefoxOptions": {
                    "args": ["-headless", "--width=1000", "--height=700"],
                    "prefs": {
                        "network.cookie.cookieBehavior": if blocks { 2 } else { 0 },
                        "intl.accept_languages": languages,
                    },
                },
            }),
            // Debian installs it beside its library, and not on the PATH.
            Kind::WebKit => json!({
                "browserName": "MiniBrowser",
                "webkitgtk:browserOptions": {
                    "binary": "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser",
                    "args": ["--automation"],
                },
            }),
        };
        serde_json::from_value(capabilities).expect("an object")
    }
}

/// Runs as long as the program, on one thread: drivers are bound to the thread that started them (see [`bound_to_us`]),
/// and fantoccini's tasks to the runtime, which for a test would end with the test.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // SAFETY: the handler may be called in any thread, and does not unwind.
    unsafe { nix::libc::atexit(end_idle_browsers) };
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("a runtime")
});

/// Chromiums between two tests.
static IDLE: Mutex<Vec<Browser>> = Mutex::new(vec![]);

/// Runs when the program exits; statics are not dropped then.
extern "C" fn end_idle_browsers() {
    if let Ok(mut idle) = IDLE.lock() {
        idle.clear();
    }
}

/// A browser, its driver, and the user context of the test that uses it.
pub struct Browser {
    pub kind: Kind,
    pub client: Client,
    /// Names and words are then translated by the page's own table before they are looked for.
    pub is_japanese: bool,
    process: Child,
    profile: TempDir,
    context: Option<Value>,
}

impl Browser {
    pub async fn start() -> Turn {
        Browser::start_as(Settings::Usual).await
    }

    pub async fn start_as(settings: Settings) -> Turn {
        Browser::start_with(settings, heavy(1).await).await
    }

    /// Two persons. Takes both permits at once: two tests with one permit each would wait for each other for ever.
    pub async fn start_two(first: Settings) -> (Turn, Turn) {
        let mut permits = heavy(2).await;
        let other = permits.split(1).expect("two permits were taken");
        let first = Browser::start_with(first, permits);
        tokio::join!(first, Browser::start_with(Settings::Usual, other))
    }

    pub async fn start_with(settings: Settings, permit: SemaphorePermit<'static>) -> Turn {
        let start = RUNTIME.spawn(async move {
            let usual = settings == Settings::Usual; // settings are read at the start
            let idle = if usual {
                IDLE.lock().unwrap().pop()
            } else {
                None
            };
            let mut browser = match idle {
                Some(browser) => browser,
                None => Browser::launch(Kind::wanted(), settings).await,
            };
            browser.begin(usual).await;
            browser
        });
        let browser = Some(start.await.expect("the browser starts"));
        Turn {
            browser,
            _permit: permit,
        }
    }

    /// Must run on [`RUNTIME`].
    async fn launch(kind: Kind, settings: Settings) -> Browser {
        let [program, needs] = kind.driver();
        let profile = TempDir::with_prefix("dynochat-browser-").expect("a temporary directory");
        let port = free_port();
        let process = bound_to_us(&mut Command::new(program))
            .arg(format!("--port={port}"))
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} could not be started: {e}; it needs {needs}"));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(kind.capabilities(profile.path(), settings));
        let url = format!("http://127.0.0.1:{port}");
        let begun = Instant::now();
        let client = loop {
            match builder.connect(&url).await {
                Ok(client) => break client,
                Err(e) if begun.elapsed() > PATIENCE => panic!("{kind:?}: {e}; it needs {needs}"),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let is_japanese = settings == Settings::Japanese;
        Browser {
            kind,
            client,
            is_japanese,
            process,
            profile,
            context: None,
        }
    }

    /// A command of WebDriver BiDi.
    async fn bidi(&self, method: &str, params: Value) -> Value {
        let session = self.client.capabilities().expect("a session");
        let url = session["webSocketUrl"].as_str().expect("a URL");
        let addr = url.split('/').nth(2).expect("an address");
        let stream = TcpStream::connect(addr).await.expect("the driver listens");
        let (mut socket, _) = client_async(url, stream).await.expect("it speaks BiDi");
        let command = json!({"id": 1, "method": method, "params": params});
        let sent = socket.send(Message::text(command.to_string())).await;
        sent.expect("a command can be sent");
        let mut answer = Value::Null;
        while answer["id"] != 1 {
            let frame = socket.next().await.expect("an answer").expect("an answer");
            answer = serde_json::from_slice(&frame.into_data()).unwrap_or_default();
        }
        assert_eq!(answer["type"], "success", "{method}: {answer}");
        answer["result"].clone()
    }

    /// Begins a test: in Chromium, perhaps with a user context of its own and a tab in it.
    async fn begin(&mut self, with_context: bool) {
        if self.kind != Kind::Chromium {
            return;
        }
        if with_context {
            let user = self.bidi("browser.createUserContext", json!({})).await;
            self.context = Some(user["userContext"].clone());
            self.new_tab().await;
        }
        self.console().await; // lines of the test before this one, and of chromedriver
    }

    /// Ends a test: removes its user context, with all tabs. False if there was none.
    async fn end(&mut self) -> bool {
        let Some(user) = self.context.take() else {
            return false;
        };
        let user = json!({"userContext": user});
        self.bidi("browser.removeUserContext", user).await;
        true
    }

    /// Opens another tab of the same person and selects it; gives its handle. In Firefox a window: a tab in the background
    /// runs its timers once a second.
    pub async fn new_tab(&self) -> WindowHandle {
        let handle = match &self.context {
            // BiDi's "context" is WebDriver's "window handle".
            Some(user) => {
                let tab = json!({"type": "tab", "userContext": user});
                let tab = self.bidi("browsingContext.create", tab).await;
                let handle = tab["context"].as_str().expect("an id").to_string();
                WindowHandle::try_from(handle).expect("a handle")
            }
            None => {
                let tab = self.client.new_window(self.kind != Kind::Firefox).await;
                tab.expect("a tab can be opened").handle
            }
        };
        self.switch(&handle).await;
        handle
    }

    /// The handle of the selected tab.
    pub async fn tab(&self) -> WindowHandle {
        self.client.window().await.expect("a tab is selected")
    }

    pub async fn switch(&self, tab: &WindowHandle) {
        let switched = self.client.switch_to_window(tab.clone()).await;
        switched.expect("the tab is there");
    }

    /// Sends a command that fantoccini does not have: a POST if it has a body.
    pub async fn command(&self, path: &str, body: Option<Value>) -> Result<Value, CmdError> {
        let path = path.to_string();
        self.client.issue_cmd(SessionCommand { path, body }).await
    }

    /// Sends a command of Chromium's DevTools protocol to the selected tab. What it sets ends with the tab.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({"cmd": command, "params": params});
        let result = self.command("goog/cdp/execute", Some(body)).await;
        result.unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// The lines of the console since the last call: errors, warnings, violations of the content security policy.
    /// Only chromedriver has this command.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", Some(json!({"type": "browser"})));
        let entries = entries.await.expect("the console can be read");
        let entries = entries.as_array().expect("a list of entries");
        let line = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        entries.iter().map(line).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Chromium ends a moment after its driver, and until then writes to its profile.
        for _ in 0..100 {
            if std::fs::remove_dir_all(self.profile.path()).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A browser with empty storage, while a test uses it: one person.
pub struct Turn {
    /// Only `drop` takes it.
    browser: Option<Browser>,
    _permit: SemaphorePermit<'static>,
}

impl Deref for Turn {
    type Target = Browser;

    fn deref(&self) -> &Browser {
        self.browser.as_ref().expect("not dropped yet")
    }
}

impl Turn {
    /// Does to this Chromium what is done to it between two tests.
    pub async fn begin_next_test(&mut self) {
        let browser = self.browser.as_mut().expect("not dropped yet");
        assert!(browser.end().await, "it had a user context");
        browser.begin(true).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut browser) = self.browser.take() else {
            return;
        };
        // Waits: at the exit of the program, every browser is idle or ended.
        let (sender, receiver) = mpsc::channel();
        RUNTIME.spawn(async move {
            match timeout(PATIENCE, browser.end()).await {
                Ok(true) => IDLE.lock().unwrap().push(browser),
                Ok(false) => drop(browser.client.clone().close().await),
                Err(_) => drop(browser), // kills a browser that does not answer
            }
            let _ = sender.send(());
        });
        let _ = receiver.recv();
    }
}

#[derive(Debug)]
struct SessionCommand {
    path: String,
    body: Option<Value>,
}

impl WebDriverCompatibleCommand for SessionCommand {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        let method = if self.body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        (method, self.body.as_ref().map(Value::to_string))
    }
}
