//! Starts browsers: Chromium, or the one that `BROWSER` names. Each has a profile and a WebDriver of its own, to which the
//! crate fantoccini speaks; they end with the test.

use super::SOON;
use crate::support::{bound_to_us, eventually, free_port, heavy};
use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;
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

/// A browser and its driver: one person.
pub struct Browser {
    pub client: Client,
    pub settings: Settings,
    process: Child,
    profile: TempDir,
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
        let (kind, driver) = (Kind::wanted(), Kind::wanted().driver());
        let profile = TempDir::with_prefix("dynochat-browser-").expect("a temporary directory");
        let port = free_port();
        let process = bound_to_us(&mut Command::new(driver))
            .process_group(0)
            .arg(format!("--port={port}"))
            .env("TMPDIR", profile.path()) // in which it makes the browser's profile
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{driver}: {e}; tests/run installs it"));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(kind.capabilities(settings));
        let url = format!("http://127.0.0.1:{port}");
        let connect = async || builder.connect(&url).await;
        let browser = Browser {
            client: eventually(driver, SOON, connect).await,
            settings,
            process,
            profile,
            _permit: permit,
        };
        if kind == Kind::Chromium {
            browser.console().await; // chromedriver's own lines
        }
        browser
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
        // Together: without its driver, Chromium lives for a moment, and writes to its profile.
        let group = Pid::from_raw(self.process.id() as i32);
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.process.wait();
        for _ in 0..100 {
            if std::fs::remove_dir_all(self.profile.path()).is_ok() {
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
