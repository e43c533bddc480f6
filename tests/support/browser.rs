//! A real Chromium: one private browser with its driver for each person, and the page as that person uses it, found by
//! roles and accessible names alone.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator, key::Key};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{bound_to_us, eventually, free_port};

/// How long a page may take for what the server has long done: the machine may be busy with other browsers.
const PATIENCE: Duration = Duration::from_secs(40);
const DRIVER: &str = "chromedriver";

pub struct Browser {
    pub page: Client,
    driver: Child,
    /// The browser's profile.
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill(); // and with it the browser
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Opens an address in a new browser.
    pub async fn open(url: &str) -> Browser {
        let (port, profile) = (free_port(), TempDir::new().expect("a directory"));
        let mut command = Command::new(DRIVER);
        command
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let driver = bound_to_us(&mut command).spawn().unwrap_or_else(|e| {
            panic!("cannot start {DRIVER}: {e}; install chromium and chromium-driver")
        });
        let profile_dir = format!("--user-data-dir={}", profile.path().display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &profile_dir,
        ];
        let wanted = json!({
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(wanted) = wanted else {
            unreachable!("it is an object")
        };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted);
        let address = format!("http://127.0.0.1:{port}");
        let page = eventually("a browser", PATIENCE, async || {
            builder
                .connect(&address)
                .await
                .map_err(|e| format!("{e}: is chromium installed?"))
        })
        .await;
        page.goto(url).await.expect("the page opens");
        Browser {
            page,
            driver,
            _profile: profile,
        }
    }

    pub async fn join(&self, room: &str, name: &str) {
        self.fill("Room", room).await;
        self.fill("Name", name).await;
        self.press("Join").await;
    }

    /// Writes into the field of that name, in place of what is there.
    pub async fn fill(&self, field: &str, text: &str) {
        let field = self.field(field).await;
        field.clear().await.expect("a field that can be written to");
        field
            .send_keys(text)
            .await
            .expect("a field that can be written to");
    }

    pub async fn field(&self, name: &str) -> fantoccini::elements::Element {
        let labelled = format!("//*[@id=//label[normalize-space()='{name}']/@for]");
        let named = format!("//*[self::input or self::textarea][@aria-label='{name}']");
        let either = format!("{labelled} | {named}");
        self.page
            .find(Locator::XPath(&either))
            .await
            .unwrap_or_else(|e| panic!("field {name}: {e}"))
    }

    pub async fn press(&self, name: &str) {
        let button = format!("//button[normalize-space()='{name}' or @aria-label='{name}']");
        let button = self.page.find(Locator::XPath(&button)).await;
        button
            .unwrap_or_else(|e| panic!("button {name}: {e}"))
            .click()
            .await
            .expect("a click");
    }

    /// Writes a message and presses Enter.
    pub async fn say(&self, text: &str) {
        let field = self.field("Message").await;
        field
            .send_keys(text)
            .await
            .expect("a field that can be written to");
        field
            .send_keys(&char::from(Key::Enter).to_string())
            .await
            .expect("Enter");
    }

    /// The text that stands in elements found by a selector, joined by lines.
    pub async fn text(&self, css: &str) -> String {
        let script =
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('\\n')";
        let text = self
            .page
            .execute(script, vec![json!(css)])
            .await
            .expect("a script");
        text.as_str().unwrap_or_default().to_owned()
    }

    pub async fn log(&self) -> String {
        self.text("[role=log]").await
    }

    /// Waits until a text holds another.
    pub async fn shows(&self, css: &str, part: &str) {
        eventually(&format!("{css} shows {part:?}"), PATIENCE, async || {
            let text = self.text(css).await;
            if text.contains(part) {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await
    }

    pub async fn is_connected(&self) {
        self.shows("[role=status]", "Connected").await;
    }

    /// How often a text stands in the log.
    pub async fn times(&self, text: &str) -> usize {
        self.log().await.matches(text).count()
    }
}
