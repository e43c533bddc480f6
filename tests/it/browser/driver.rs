//! Starts browsers: Chromium, or the one that `BROWSER` names. Each has a profile and a WebDriver of its own, to which the
//! crate fantoccini speaks. Chromium is used by one test after another, and emptied in between: its start takes a second
//! of processor time. The others end with the test.

use super::SOON;
use crate::support::server::Server;
use crate::support::{free_port, heavy};
use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::SemaphorePermit;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::http::Method;
use url::{ParseError, Url};

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

    fn driver(self) -> &'static str {
        match self {
            Kind::Chromium => "chromedriver",
            Kind::Firefox => "geckodriver",
            Kind::WebKit => "WebKitWebDriver",
        }
    }

    fn capabilities(self, settings: Settings) -> Capabilities {
        let blocks = settings == Settings::NoStorage;
        let languages = match settings {
            Settings::Japanese => "ja,en-US",
            _ => "en-GB,en",
        };
        let capabilities = match self {
            // Chromium ends with chromedriver, even if that is killed: the pipe between them breaks.
            Kind::Chromium => json!({
                "browserName": "chrome",
                "goog:chromeOptions": {
                    "args": [
                        "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-quic",
                        "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                        "--disable-sync", "--no-first-run", "--lang=en-GB", "--window-size=1000,700",
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

/// Runs as long as the program, on one thread: to that thread the drivers are bound (see `bound_to_us`), and to the runtime
/// the tasks of their clients.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("a runtime")
});

/// Chromiums that a test has used.
static USED: Mutex<Vec<(Client, Server)>> = Mutex::new(vec![]);

/// A browser and its driver: one person.
pub struct Browser {
    pub client: Client,
    pub settings: Settings,
    /// Only `drop` takes it.
    driver: Option<Server>,
    _permit: SemaphorePermit<'static>,
}

impl Browser {
    pub async fn start(settings: Settings) -> Browser {
        Browser::start_with(settings, heavy(1).await).await
    }

    /// Two persons. Takes both permits at once: two tests with one permit each would wait for each other for ever.
    pub async fn start_two(first: Settings) -> (Browser, Browser) {
        let mut permits = heavy(2).await;
        let other = permits.split(1).expect("two permits were taken");
        let first = Browser::start_with(first, permits);
        tokio::join!(first, Browser::start_with(Settings::Usual, other))
    }

    pub async fn start_with(settings: Settings, permit: SemaphorePermit<'static>) -> Browser {
        let usual = settings == Settings::Usual; // settings are read at the start of a browser
        let used = usual.then(|| USED.lock().unwrap().pop()).flatten();
        let is_used = used.is_some();
        let (client, driver) = match used {
            Some(used) => used,
            None => {
                let launch = RUNTIME.spawn(Browser::launch(settings));
                launch.await.expect("the browser starts")
            }
        };
        let browser = Browser {
            client,
            settings,
            driver: Some(driver),
            _permit: permit,
        };
        if is_used {
            browser.clean().await;
        }
        if Kind::wanted() == Kind::Chromium {
            browser.console().await; // lines of the start and of an earlier test
        }
        browser
    }

    /// Must run on [`RUNTIME`].
    async fn launch(settings: Settings) -> (Client, Server) {
        let (kind, program) = (Kind::wanted(), Kind::wanted().driver());
        let (port, dir) = (free_port(), Server::directory());
        let mut command = Command::new(program);
        command.process_group(0).stdin(Stdio::null());
        command.arg(format!("--port={port}"));
        command.env("TMPDIR", dir.path()); // in which it makes the browser's profile
        let driver = Server::run(command, port, dir);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(kind.capabilities(settings));
        let url = format!("http://127.0.0.1:{port}");
        let begun = Instant::now();
        loop {
            match builder.connect(&url).await {
                Ok(client) => return (client, driver),
                Err(e) => assert!(begun.elapsed() < SOON, "{program}: {e}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Closes all tabs, with what was emulated in them, and empties storage, cookies and cache.
    pub async fn clean(&self) {
        let old_tabs = self.client.windows().await.expect("a list of tabs");
        let tab = self.new_tab().await;
        for old in &old_tabs {
            self.switch(old).await;
            let closed = self.client.close_window().await;
            closed.expect("a tab can be closed");
        }
        self.switch(&tab).await;
        let all = json!({"origin": "*", "storageTypes": "all"});
        self.devtools("Storage.clearDataForOrigin", all).await;
        self.devtools("Network.clearBrowserCache", json!({})).await;
    }

    /// Opens another tab of the same person and selects it; gives its handle. In Firefox a window: a tab in the background
    /// runs its timers once a second.
    pub async fn new_tab(&self) -> WindowHandle {
        let as_tab = Kind::wanted() != Kind::Firefox;
        let tab = self.client.new_window(as_tab).await;
        let handle = tab.expect("a tab can be opened").handle;
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
        let command = SessionCommand(path.to_string(), body);
        self.client.issue_cmd(command).await
    }

    /// Sends a command of Chromium's DevTools protocol to the selected tab. What it sets ends with the tab.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({"cmd": command, "params": params});
        let result = self.command("goog/cdp/execute", Some(body)).await;
        result.unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// The lines of the console since the last call: errors, warnings, violations of the content security policy.
    /// Only chromedriver has this command.
    pub async fn console(&self) -> Value {
        let entries = self.command("se/log", Some(json!({"type": "browser"})));
        entries.await.expect("the console can be read")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let mut driver = self.driver.take().expect("dropped once");
        let usual = Kind::wanted() == Kind::Chromium && self.settings == Settings::Usual;
        if usual && !std::thread::panicking() {
            return USED.lock().unwrap().push((self.client.clone(), driver));
        }
        // Together: without its driver, Chromium lives for a moment, and writes to its profile.
        let group = Pid::from_raw(driver.pid() as i32);
        let _ = killpg(group, Signal::SIGKILL);
        let _ = driver.child.wait();
        for _ in 0..100 {
            if std::fs::remove_dir_all(driver.dir.path()).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[derive(Debug)]
struct SessionCommand(String, Option<Value>);

impl WebDriverCompatibleCommand for SessionCommand {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/{}", self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        match &self.1 {
            Some(body) => (Method::POST, Some(body.to_string())),
            None => (Method::GET, None),
        }
    }
}
