//! A person's actions on the page, and what a person sees. Fields and buttons are found as a screen reader finds them: by
//! role and accessible name.

use super::*;
use fantoccini::elements::{Element, ElementRef};
use fantoccini::error::CmdError;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::HashMap;
use std::error::Error;
use std::panic::Location;

impl Browser {
    pub async fn open(&self, addr: SocketAddr, path: &str) {
        let url = format!("http://{addr}{path}");
        self.client.goto(&url).await.expect("the page loads");
    }

    pub async fn reload(&self) {
        self.client.refresh().await.expect("the page loads");
    }

    // ---- scripts

    async fn try_eval(&self, script: &str, args: Value) -> Result<Value, CmdError> {
        let run = format!("return (function () {{ {script}\n }}).apply(null, arguments)");
        let script = [include_str!("names.js"), &run].concat();
        let args = args.as_array().expect("a list of arguments").clone();
        self.client.execute(&script, args).await
    }

    /// Runs `script`, a function body, in the page. A promise that it returns is awaited.
    pub async fn eval(&self, script: &str) -> Value {
        self.eval_with(script, json!([])).await
    }

    /// The same with `arguments`.
    pub async fn eval_with(&self, script: &str, args: Value) -> Value {
        let result = self.try_eval(script, args).await;
        result.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// The value of an expression.
    pub async fn get<T: DeserializeOwned>(&self, expression: &str) -> T {
        let value = self.eval(&format!("return {expression}")).await;
        serde_json::from_value(value).unwrap_or_else(|e| panic!("{expression}: {e}"))
    }

    /// An expression has this value now. A failure shows the line of the test.
    #[track_caller]
    pub fn is(&self, expression: &str, value: impl Serialize) -> impl Future<Output = ()> {
        let (line, value) = (Location::caller(), json!(value));
        async move {
            let seen: Value = self.get(expression).await;
            assert_eq!(seen, value, "{expression}, {line}");
        }
    }

    /// Waits until an expression has this value.
    #[track_caller]
    pub fn becomes(&self, expression: &str, value: impl Serialize) -> impl Future<Output = ()> {
        let (line, value) = (Location::caller(), json!(value));
        async move {
            let what = format!("{expression} becomes {value}, {line}");
            let look = async || self.get::<Value>(expression).await;
            settles(&what, look, |seen| *seen == value).await;
        }
    }

    /// Waits until a text has these words in it, in the browser's language.
    pub async fn has(&self, expression: &str, words: &str) {
        let words = &*self.word(words).await;
        let what = format!("{expression} has {words:?} in it");
        let look = async || self.get::<String>(expression).await;
        settles(&what, look, |seen| seen.contains(words)).await;
    }

    /// Translates these English words of the page, with at most one number in them, into the browser's language.
    pub async fn word(&self, english: &str) -> String {
        if self.settings != Settings::Japanese {
            return english.to_string();
        }
        let script = "const [english] = arguments;
            const fill = (words) => words.replace(/{\\w+}/, english.match(/\\d+/) ?? '');
            return import('/words.js').then(({ all: { en, ja } }) => {
                const key = Object.keys(en).find((key) => fill(en[key]) === english);
                return key ? fill(ja[key]) : english;
            })";
        let japanese = self.eval_with(script, json!([english])).await;
        japanese.as_str().expect("words").to_string()
    }

    // ---- what a screen reader finds

    /// The one visible element with this role and accessible name, or the names that are there instead.
    pub async fn seek(&self, role: &str, name: &str) -> Result<Element, Box<dyn Error>> {
        let css = match role {
            "textbox" => "input, textarea",
            "button" => "button",
            "list" => "ul, ol",
            _ => &format!("[role={role}]"),
        };
        let visible = "return $$(arguments[0]).filter((one) =>
            one.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && one.getClientRects().length > 0)";
        let visible = self.try_eval(visible, json!([css])).await?;
        let visible: Vec<HashMap<String, String>> = serde_json::from_value(visible)?;
        let (mut found, mut seen) = (vec![], vec![]);
        for id in visible.into_iter().flat_map(HashMap::into_values) {
            let computed = |what| format!("element/{id}/computed{what}");
            let label = self.command(&computed("label"), None).await?;
            if label == name && self.command(&computed("role"), None).await? == role {
                let id = ElementRef::from(id);
                found.push(Element::from_element_id(self.client.clone(), id));
            }
            seen.push(label);
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            count => Err(format!("{count} of {seen:?}").into()),
        }
    }

    pub async fn find(&self, role: &str, name: &str) -> Element {
        let name = &self.word(name).await;
        let what = format!("one {role} {name:?}");
        let found = settles(&what, async || self.seek(role, name).await, Result::is_ok).await;
        found.expect("it was found")
    }

    pub async fn press(&self, button: &str) {
        let button = self.find("button", button).await;
        button.click().await.expect("a button can be clicked");
    }

    /// Types into a field, key by key, after the text that is there. A modifier is held while the next keys are pressed.
    pub async fn keys(&self, field: &str, text: &str) {
        let field = self.find("textbox", field).await;
        field.send_keys(text).await.expect("a field takes keys");
    }

    /// Replaces the text of a field; also with characters that no key has.
    pub async fn fill(&self, field: &str, text: &str) {
        let script = "arguments[0].select();
            document.execCommand(arguments[1] ? 'insertText' : 'delete', false, arguments[1]);";
        let field = self.find("textbox", field).await;
        self.eval_with(script, json!([field, text])).await;
    }

    pub async fn join(&self, room: &str, name: &str) {
        self.ask_to_join(room, name).await;
        self.connected().await;
    }

    pub async fn ask_to_join(&self, room: &str, name: &str) {
        self.fill("Room", room).await;
        self.fill("Name", name).await;
        self.press("Join").await;
    }

    pub async fn say(&self, text: &str) {
        self.fill("Message", text).await;
        self.keys("Message", &Key::Enter).await;
    }

    /// Says something and waits until every own message is sent.
    pub async fn send(&self, text: &str) {
        self.say(text).await;
        self.own_are("sent").await;
    }

    /// Opens the panel for learners.
    pub async fn open_panel(&self) {
        self.eval("$('summary').click()").await;
        self.becomes("$('details').open", true).await;
    }

    // ---- the page

    pub async fn connected(&self) {
        self.chip_says("Connected · ").await;
    }

    /// Waits until the label that shows the state of the connection has these words in it.
    pub async fn chip_says(&self, words: &str) {
        self.has("chip()", words).await;
    }

    /// Waits until the log of messages and notes contains this text.
    pub async fn log_contains(&self, text: &str) {
        self.has("$('[role=log]').innerText", text).await;
    }

    /// Waits until the page shows exactly these texts, in this order.
    pub async fn shows(&self, texts: &[impl Serialize]) {
        self.becomes("texts('.message .text')", texts).await;
    }

    pub async fn shows_messages(&self, count: usize) {
        self.becomes("count('.message')", count).await;
    }

    /// Waits until there is an own message, and all of them have this state: sending, sent, not sent · Retry / Discard …
    pub async fn own_are(&self, state: &str) {
        let states = "[...new Set(texts('.state'))].filter((state) => state)";
        self.becomes(states, [self.word(state).await]).await;
    }

    /// Waits until these are the small lines between messages: who joined and left, what may be missing.
    pub async fn notes_are(&self, notes: &[&str]) {
        self.becomes("texts('.note')", notes).await;
    }

    pub async fn members_are(&self, names: &[&str]) {
        self.find("list", "Members").await;
        self.becomes("texts('#members li')", names).await;
    }

    /// The text of a field, as soon as the page shows it.
    pub async fn value_is(&self, field: &str, text: &str) {
        self.find("textbox", field).await;
        self.is(&format!("field('{field}').value"), text).await;
    }

    /// The console is empty, where it can be read.
    pub async fn expect_empty_console(&self) {
        if Kind::wanted() == Kind::Chromium {
            assert_eq!(self.console().await, json!([]), "the console");
        }
    }

    // ---- what is around the page

    /// Emulates a preference of the system or the person: `prefers-color-scheme`, `dark`. Chromium only.
    pub async fn prefers(&self, feature: &str, value: &str) {
        let feature = json!({"features": [{"name": feature, "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", feature).await;
    }

    /// Emulates a lost network. Chromium only.
    pub async fn set_offline(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        let emulate = "Network.emulateNetworkConditions";
        self.devtools(emulate, conditions).await;
    }

    /// Emulates a screen of this size: a phone if it is narrow. Chromium only.
    pub async fn resize(&self, width: u32, height: u32) {
        let (phone, emulate) = (width < 500, "Emulation.setDeviceMetricsOverride");
        let scale = if phone { 2 } else { 1 };
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone});
        self.devtools(emulate, size).await;
    }

    /// Waits until the page was drawn, and so has handled what was scrolled.
    pub async fn drawn(&self) {
        let frames = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
        self.eval(frames).await;
    }

    /// Runs a script before those of each page that is opened from now on. Chromium only.
    pub async fn before_each_page(&self, source: &str) {
        let command = "Page.addScriptToEvaluateOnNewDocument";
        self.devtools(command, json!({"source": source})).await;
    }

    /// Moves the page's clock on, as if this much time had passed.
    pub async fn later(&self, by: Duration) {
        // A script of Firefox's driver has a Date of its own.
        let by = by.as_millis();
        let script =
            format!("const {{ Date }} = window, now = Date.now; Date.now = () => now() + {by}");
        self.eval(&script).await;
    }

    /// Opens the page in a tab that keeps this in its storage, as a duplicated or restored one does.
    pub async fn open_with_tab_storage(&self, addr: SocketAddr, kept: &Value) {
        self.open(addr, "/chat.css").await; // the same origin, but not the page
        let keep = format!("sessionStorage.dynochat = JSON.stringify({kept})");
        self.eval(&keep).await;
        self.open(addr, "/").await;
    }

    /// Sets these fields in each frame of this kind that the page receives from now on.
    pub async fn alter(&self, kind: &str, fields: Value) {
        let script = "const [kind, fields] = arguments, parse = JSON.parse;
            JSON.parse = (text) => {
                const frame = parse(text);
                return frame?.kind === kind ? Object.assign(frame, fields) : frame;
            }";
        self.eval_with(script, json!([kind, fields])).await;
    }
}
