//! Starts browsers and gives each test one with empty storage: Chromium, or the one that `BROWSER` names.
//!
//! Each browser has a WebDriver of its own, to which the crate fantoccini speaks. Chromium is used by one test after
//! another: each test has a user context (cookies, storage, cache, permissions) that is made for it and removed after
//! it, with all its tabs and what was emulated in them. Firefox and WebKit start again for each test.

use crate::support::{PATIENCE, bound_to_us, free_port, heavy};
use fantoccini::error::CmdError;
use fantoccini::wd::{WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder};
use futures_util::{SinkExt, StreamExt};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime;
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
    fn wanted() -> Kind {
        match std::env::var("BROWSER").as_deref() {
            Ok("firefox") => Kind::Firefox,
            Ok("webkit") => Kind::WebKit,
            Ok("chromium") | Err(_) => Kind::Chromium,
            other => panic!("BROWSER is chromium, firefox or webkit, not {other:?}"),
        }
    }

    /// The program that drives it, and what has to be installed.
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

    fn capabilities(self, profile: &Path, settings: Settings) -> Value {
        let blocks = settings == Settings::NoStorage;
        let languages = match settings {
            Settings::Japanese => "ja,en-US",
            _ => "en-GB,en",
        };
        match self {
            Kind::Chromium => json!({
                "browserName": "chrome",
                "webSocketUrl": true, // also speak WebDriver BiDi, which has user contexts
                "goog:chromeOptions": {"prefs": {
                    "profile.default_content_setting_values.cookies": if blocks { 2 } else { 1 },
                    "intl.accept_languages": languages,
                }, "args": [
                    // Chromium ends with chromedriver, even if that is killed: the pipe between them breaks.
                    "--remote-debugging-pipe", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                    "--disable-sync", "--no-first-run", "--lang=en-GB", "--window-size=1000,700",
                    format!("--user-data-dir={}", profile.display()),
                ]},
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
        }
    }
}

/// Keeps Chromiums between tests. Its thread lives as long as the program: drivers are bound to the thread that started
/// them (see [`bound_to_us`]), and fantoccini's tasks to the runtime, which for a test would end with the test.
struct Pool {
    runtime: runtime::Handle,
    idle: Mutex<Vec<Driver>>,
}

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut builder = runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        sender
            .send(runtime.handle().clone())
            .expect("it is awaited");
        runtime.block_on(std::future::pending::<()>());
    });
    // SAFETY: the handler may be called in any thread, and does not unwind.
    unsafe { nix::libc::atexit(end_idle_browsers) };
    Pool {
        runtime: receiver.recv().expect("the thread started"),
        idle: Mutex::default(),
    }
});

/// Runs when the program exits; statics are not dropped then.
extern "C" fn end_idle_browsers() {
    let idle = POOL.idle.lock().map(|mut idle| std::mem::take(&mut *idle));
    let mut idle = idle.unwrap_or_default();
    for driver in &mut idle {
        let _ = driver.process.kill();
    }
    drop(idle);
}

/// A driver, its browser, and the user context of the test that uses it.
struct Driver {
    kind: Kind,
    client: Client,
    port: u16,
    process: Child,
    profile: TempDir,
    context: Option<Value>,
}

impl Driver {
    /// Must run on the pool's thread.
    async fn start(kind: Kind, settings: Settings) -> Driver {
        let (program, needs) = kind.driver();
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
        let listens = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_err()
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let listens = timeout(PATIENCE, listens).await;
        listens.unwrap_or_else(|_| panic!("{program} does not listen on its port"));
        let Value::Object(wanted) = kind.capabilities(profile.path(), settings) else {
            unreachable!("capabilities are an object")
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = ClientBuilder::new(connector)
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap_or_else(|e| panic!("{kind:?} did not start, it needs {needs}: {e}"));
        Driver {
            kind,
            client,
            port,
            process,
            profile,
            context: None,
        }
    }

    /// A command of WebDriver BiDi.
    async fn bidi(&self, method: &str, params: Value) -> Value {
        let session = self.client.session_id().await.expect("the driver answers");
        let url = format!(
            "ws://127.0.0.1:{}/session/{}",
            self.port,
            session.expect("an id")
        );
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await;
        let (mut socket, _) = client_async(url, stream.expect("the driver listens"))
            .await
            .expect("the driver speaks BiDi");
        let command = json!({"id": 1, "method": method, "params": params});
        let sent = socket.send(Message::text(command.to_string())).await;
        sent.expect("a command can be sent");
        loop {
            let frame = socket.next().await.expect("an answer").expect("an answer");
            let answer: Value = match frame {
                Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
                _ => continue,
            };
            if answer["id"] == 1 {
                assert_eq!(answer["type"], "success", "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// Opens a tab and selects it; gives its handle. With a user context, the tab is in that. In Firefox a window: a tab
    /// in the background runs its timers once a second.
    async fn open_tab(&self) -> WindowHandle {
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
        let switched = self.client.switch_to_window(handle.clone()).await;
        switched.expect("the tab is there");
        handle
    }

    /// Begins a test: in the usual Chromium, with a user context of its own and a tab in it.
    async fn begin(&mut self, settings: Settings) {
        if self.kind != Kind::Chromium {
            return;
        }
        if settings == Settings::Usual {
            let user = self.bidi("browser.createUserContext", json!({})).await;
            self.context = Some(user["userContext"].clone());
            self.open_tab().await;
        }
        let console = self.client.issue_cmd(SessionCommand::console()).await;
        console.expect("what was there before can be dropped");
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
}

impl Drop for Driver {
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

/// A browser with empty storage: one person. Ends with the test.
pub struct Browser {
    pub kind: Kind,
    pub client: Client,
    /// Names and words are then translated by the page's own table before they are looked for.
    pub is_japanese: bool,
    driver: Option<Driver>,
    _turn: SemaphorePermit<'static>,
}

impl Browser {
    pub async fn start() -> Browser {
        Browser::start_as(Settings::Usual, 1).await
    }

    /// `weight`: 2 if its tabs keep a processor busy.
    pub async fn start_as(settings: Settings, weight: u32) -> Browser {
        Browser::start_with(settings, heavy(weight).await).await
    }

    /// Two persons. Takes both permits at once: two tests with one permit each would wait for each other for ever.
    pub async fn start_two(first: Settings) -> (Browser, Browser) {
        let mut turns = heavy(2).await;
        let other = turns.split(1).expect("two permits were taken");
        let first = Browser::start_with(first, turns);
        tokio::join!(first, Browser::start_with(Settings::Usual, other))
    }

    /// Only a browser with the usual settings may have been in use before: it reads its settings at the start.
    async fn start_with(settings: Settings, turn: SemaphorePermit<'static>) -> Browser {
        let kind = Kind::wanted();
        let start = POOL.runtime.spawn(async move {
            let idle = match settings {
                Settings::Usual => POOL.idle.lock().unwrap().pop(),
                _ => None,
            };
            let mut driver = match idle {
                Some(driver) => driver,
                None => Driver::start(kind, settings).await,
            };
            driver.begin(settings).await;
            driver
        });
        let driver = start.await.expect("the browser starts");
        Browser {
            kind,
            client: driver.client.clone(),
            is_japanese: settings == Settings::Japanese,
            driver: Some(driver),
            _turn: turn,
        }
    }

    /// Does to this Chromium what is done to it between two tests.
    pub async fn begin_next_test(&mut self) {
        let driver = self.driver.as_mut().expect("only Drop takes it");
        assert!(driver.end().await, "it had a user context");
        driver.begin(Settings::Usual).await;
    }

    /// Sends a command that fantoccini does not have.
    pub async fn command(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, CmdError> {
        let path = path.to_string();
        let command = SessionCommand { method, path, body };
        self.client.issue_cmd(command).await
    }

    /// Sends a command of Chromium's DevTools protocol to the selected tab. What it sets ends with the tab.
    pub async fn devtools(&self, command: &str, params: Value) {
        let body = json!({"cmd": command, "params": params});
        self.command(Method::POST, "goog/cdp/execute", body)
            .await
            .expect(command);
    }

    /// The lines of the console since the last call: errors, warnings, violations of the content security policy.
    /// Only chromedriver has this command.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.client.issue_cmd(SessionCommand::console()).await;
        let entries = entries.expect("the console can be read");
        let entries = entries.as_array().expect("a list of entries");
        let line = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        entries.iter().map(line).collect()
    }

    /// Opens a second tab of the same person and selects it; gives the handles of the old and the new one.
    pub async fn second_tab(&self) -> (WindowHandle, WindowHandle) {
        let old = self.client.window().await.expect("a tab is selected");
        let driver = self.driver.as_ref().expect("only Drop takes it");
        (old, driver.open_tab().await)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let Some(mut driver) = self.driver.take() else {
            return;
        };
        // Waits: at the exit of the program, every driver is idle or ended.
        let (sender, receiver) = mpsc::channel();
        POOL.runtime.spawn(async move {
            match timeout(PATIENCE, driver.end()).await {
                Ok(true) => POOL.idle.lock().unwrap().push(driver),
                Ok(false) => drop(driver.client.clone().close().await),
                Err(_) => drop(driver), // kills a browser that does not answer
            }
            let _ = sender.send(());
        });
        let _ = receiver.recv();
    }
}

#[derive(Debug)]
struct SessionCommand {
    method: Method,
    path: String,
    body: Value,
}

impl SessionCommand {
    fn console() -> SessionCommand {
        SessionCommand {
            method: Method::POST,
            path: "se/log".into(),
            body: json!({"type": "browser"}),
        }
    }
}

impl WebDriverCompatibleCommand for SessionCommand {
    fn endpoint(
        &self,
        base_url: &url::Url,
        session_id: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        let session = session_id.unwrap_or_default();
        base_url.join(&format!("session/{session}/{}", self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        let body = (self.method == Method::POST).then(|| self.body.to_string());
        (self.method.clone(), body)
    }
}
