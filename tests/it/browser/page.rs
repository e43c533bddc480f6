//! A person's actions on the page, and the parts that a person sees. Fields and buttons are found as a screen reader finds them: by
//! role and accessible name.

use super::*;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::elements::{Element, ElementRef};
use fantoccini::wd::WindowHandle;
use serde::Deserialize;
use tokio_tungstenite::tungstenite::http::Method;

/// A message as the page shows it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Shown {
    pub user: String,
    pub text: String,
    pub time: String,
    /// The text beside an own message: sending, sent, not sent · Retry / Discard …
    pub state: String,
    /// In one group with the message before it.
    pub follows: bool,
}

impl Browser {
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
    }

    pub async fn reload(&self) {
        self.client.refresh().await.expect("the page loads");
    }

    pub async fn back(&self) {
        self.client.back().await.expect("the page before loads");
    }

    pub async fn switch(&self, tab: &WindowHandle) {
        let switched = self.client.switch_to_window(tab.clone()).await;
        switched.expect("the tab is there");
    }

    /// Runs `script`, a function body, in the page.
    pub async fn eval(&self, script: &str) -> Value {
        self.eval_with(script, json!([])).await
    }

    /// The same with `arguments`.
    pub async fn eval_with(&self, script: &str, args: Value) -> Value {
        let args = args.as_array().expect("a list of arguments").clone();
        let result = self.client.execute(script, args).await;
        result.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Runs `script`, which calls its last argument when it is done.
    pub async fn eval_async(&self, script: &str) -> Value {
        let result = self.client.execute_async(script, vec![]).await;
        result.expect("the script ends")
    }

    pub async fn text(&self, script: &str) -> String {
        let value = self.eval(script).await;
        value.as_str().unwrap_or_default().to_string()
    }

    /// The texts of all elements that match.
    pub async fn strings(&self, css: &str) -> Vec<String> {
        let script =
            "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)";
        let texts = self.eval_with(script, json!([css])).await;
        serde_json::from_value(texts).expect("a list of texts")
    }

    /// Translates these English words of the page into the browser's language.
    pub async fn word(&self, english: &str) -> String {
        if !self.is_japanese {
            return english.to_string();
        }
        let script = "const [english, done] = arguments;
            import('/words.js').then(({ all: { en, ja } }) => {
                for (const [key, words] of Object.entries(en)) {
                    const names = [...words.matchAll(/{(\\w+)}/g)].map(([, name]) => name);
                    const pattern = words.replace(/[.?+*()|]/g, '\\\\$&').replace(/{\\w+}/g, '(.*)');
                    const found = english.match(`^${pattern}$`);
                    if (found) return done(ja[key].replace(/{(\\w+)}/g, (_, name) => found[1 + names.indexOf(name)]));
                }
                done(english);
            })";
        let japanese = self.client.execute_async(script, vec![json!(english)]);
        let japanese = japanese.await.expect("the page has a table of words");
        japanese.as_str().expect("words").to_string()
    }

    // ---- what a screen reader finds

    /// The one visible element with this role and accessible name, or the names that are there instead.
    async fn seek(&self, role: &str, name: &str) -> Result<Element, String> {
        let css = match role {
            "textbox" => "input, textarea".to_string(),
            "button" => "button".to_string(),
            "list" => "ul, ol".to_string(),
            _ => format!("[role={role}]"),
        };
        let visible = "return [...document.querySelectorAll(arguments[0])].filter((one) =>
            one.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && one.getClientRects().length > 0)";
        let visible = self.client.execute(visible, vec![json!(css)]).await;
        let visible = visible.map_err(|e| e.to_string())?;
        let (mut found, mut seen) = (vec![], vec![]);
        for element in visible.as_array().into_iter().flatten() {
            let id = element.as_object().and_then(|one| one.values().next());
            let id = id.and_then(Value::as_str).expect("a reference");
            let computed = async |what: &str| {
                let path = format!("element/{id}/computed{what}");
                let value = self.command(Method::GET, &path, Value::Null).await;
                value.map_err(|e| e.to_string())
            };
            let label = computed("label").await?;
            if label == name && computed("role").await? == role {
                let id = ElementRef::from(id.to_string());
                found.push(Element::from_element_id(self.client.clone(), id));
            }
            seen.push(label);
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            count => Err(format!("{count} of {seen:?}")),
        }
    }

    pub async fn find(&self, role: &str, name: &str) -> Element {
        let name = &self.word(name).await;
        let what = format!("one {role} {name:?}");
        let found = settles(&what, async || self.seek(role, name).await, Result::is_ok).await;
        found.expect("it was found")
    }

    pub async fn has(&self, role: &str, name: &str) -> bool {
        self.seek(role, &self.word(name).await).await.is_ok()
    }

    pub async fn press(&self, button: &str) {
        let button = self.find("button", button).await;
        button.click().await.expect("a button can be clicked");
    }

    /// Types into a field, key by key, after the text that is there.
    pub async fn keys(&self, field: &str, text: &str) {
        let field = self.find("textbox", field).await;
        field.send_keys(text).await.expect("a field takes keys");
    }

    /// Presses `key` while `modifier` is held, wherever the cursor is.
    pub async fn chord(&self, modifier: &str, key: &str) {
        let [modifier, key] = [modifier, key].map(|key| key.chars().next().expect("a key"));
        let keyboard = KeyActions::new("keyboard".into())
            .then(KeyAction::Down { value: modifier })
            .then(KeyAction::Down { value: key })
            .then(KeyAction::Up { value: key })
            .then(KeyAction::Up { value: modifier });
        let pressed = self.client.perform_actions(keyboard).await;
        pressed.expect("keys can be pressed");
    }

    /// Runs `script` on a field, with it and `more` as arguments.
    async fn on_field(&self, field: &str, script: &str, more: &str) -> Value {
        let field = self.find("textbox", field).await;
        self.eval_with(script, json!([field, more])).await
    }

    /// Replaces the text of a field; also with characters that no key has.
    pub async fn fill(&self, field: &str, text: &str) {
        let script = "arguments[0].select();
            document.execCommand(arguments[1] ? 'insertText' : 'delete', false, arguments[1]);";
        self.on_field(field, script, text).await;
    }

    /// A property of a field's DOM node.
    pub async fn field(&self, field: &str, property: &str) -> Value {
        let script = "return arguments[0][arguments[1]]";
        self.on_field(field, script, property).await
    }

    pub async fn value_is(&self, field: &str, text: &str) {
        assert_eq!(self.field(field, "value").await, text, "{field}");
    }

    /// The text that describes a field: an error, a counter.
    pub async fn description(&self, field: &str) -> String {
        let script = "const id = arguments[0].getAttribute('aria-describedby');
            return document.getElementById(id).textContent";
        let text = self.on_field(field, script, "").await;
        text.as_str().expect("a text").to_string()
    }

    // ---- the page

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
        self.keys("Message", ENTER).await;
    }

    /// Says something and waits until every own message is sent.
    pub async fn send(&self, text: &str) {
        self.say(text).await;
        self.own_are("sent").await;
    }

    /// The label that shows the state of the connection.
    pub async fn chip(&self) -> String {
        let chip = "return document.querySelector('[role=status]').textContent";
        self.text(chip).await
    }

    pub async fn alert(&self) -> String {
        let alert = "return document.querySelector('[role=alert]').textContent";
        self.text(alert).await
    }

    pub async fn title(&self) -> String {
        self.client.title().await.expect("a title")
    }

    pub async fn messages(&self) -> Vec<Shown> {
        let script = "return [...document.querySelectorAll('[role=log] .message')].map((m) => {
            const of = (css) => m.querySelector(css).textContent;
            return [of('.who'), of('.text'), of('time'), of('.state'), m.classList.contains('follows')];
        })";
        let messages = serde_json::from_value(self.eval(script).await);
        messages.expect("four texts and a flag each") // a list makes a struct, too
    }

    pub async fn texts(&self) -> Vec<String> {
        self.messages().await.into_iter().map(|m| m.text).collect()
    }

    pub async fn states(&self) -> Vec<String> {
        self.messages().await.into_iter().map(|m| m.state).collect()
    }

    /// The small lines between messages: who joined and left, what may be missing.
    pub async fn notes(&self) -> Vec<String> {
        self.strings("[role=log] .note").await
    }

    pub async fn members(&self) -> Vec<String> {
        let list = self.find("list", "Members").await;
        let script = "return [...arguments[0].children].map((one) => one.textContent)";
        let names = self.eval_with(script, json!([list])).await;
        serde_json::from_value(names).expect("a list of names")
    }

    /// Opens the panel for learners.
    pub async fn open_panel(&self) {
        self.eval("document.querySelector('summary').click()").await;
        let open = "return document.querySelector('details').open";
        self.until("the panel is open", open).await;
    }

    /// A fact in the panel.
    pub async fn fact(&self, name: &str) -> String {
        let script = "return [...document.querySelectorAll('dt')].find((dt) => dt.textContent === arguments[0])
            .nextElementSibling.textContent";
        let fact = self.eval_with(script, json!([name])).await;
        fact.as_str().expect("a text").to_string()
    }

    // ---- what the page shows after a while

    /// Waits until the script returns true; until then it may return what it sees instead.
    pub async fn until(&self, what: &str, script: &str) {
        let look = async || match self.eval(script).await {
            Value::Bool(true) => None,
            other => Some((other, self.texts().await)),
        };
        settles(what, look, Option::is_none).await;
    }

    pub async fn connected(&self) {
        self.chip_says("Connected · ").await;
    }

    pub async fn chip_says(&self, words: &str) {
        let words = &*self.word(words).await;
        let what = format!("the chip says {words:?}");
        settles(&what, async || self.chip().await, |c| c.contains(words)).await;
    }

    pub async fn alert_contains(&self, words: &str) {
        let what = format!("the alert contains {words:?}");
        let alert = async || self.alert().await;
        settles(&what, alert, |alert| alert.contains(words)).await;
    }

    pub async fn title_becomes(&self, title: &str) {
        becomes("the title", title, async || self.title().await).await;
    }

    /// Waits until so many elements match.
    pub async fn count_is(&self, css: &str, count: usize) {
        let script = "return document.querySelectorAll(arguments[0]).length";
        let look = async || self.eval_with(script, json!([css])).await;
        becomes(css, &count, look).await;
    }

    /// Waits until the log of messages and notes contains this text.
    pub async fn log_contains(&self, text: &str) {
        let text = &*self.word(text).await;
        let what = format!("the log contains {text:?}");
        let script = "return document.querySelector('[role=log]').innerText";
        let log = async || self.text(script).await;
        settles(&what, log, |log| log.contains(text)).await;
    }

    /// Waits until the page shows exactly these texts, in this order.
    pub async fn shows(&self, texts: &[&str]) {
        becomes("the messages", texts, async || self.texts().await).await;
    }

    /// Waits until there is an own message, and all of them have this state.
    pub async fn own_are(&self, state: &str) {
        let state = &*self.word(state).await;
        let what = format!("own messages are {state:?}");
        let all = |states: &Vec<String>| {
            let mut own = states.iter().filter(|s| !s.is_empty()).peekable();
            own.peek().is_some() && own.all(|s| s == state)
        };
        settles(&what, async || self.states().await, all).await;
    }

    pub async fn notes_are(&self, notes: &[&str]) {
        becomes("the notes", notes, async || self.notes().await).await;
    }

    pub async fn members_are(&self, names: &[&str]) {
        becomes("the members", names, async || self.members().await).await;
    }

    pub async fn fact_becomes(&self, name: &str, value: &str) {
        becomes(name, value, async || self.fact(name).await).await;
    }

    /// The console is empty, where it can be read.
    pub async fn expect_empty_console(&self) {
        if self.kind == Kind::Chromium {
            assert_eq!(self.console().await, [""; 0], "the console stays empty");
        }
    }

    // ---- the page's connections

    /// From now on, records what the page's connections do. To be called before the page connects.
    pub async fn watch_connections(&self) {
        self.eval(include_str!("watch.js")).await;
    }

    /// For how many ms in all the page had no connection that was welcomed.
    pub async fn ms_without_connection(&self) -> f64 {
        let ms = self.eval("return watched.away").await;
        ms.as_f64().expect("a number")
    }

    /// After how many ms each message was acknowledged that the page sent with `watched.say`.
    pub async fn ack_ms(&self) -> Vec<f64> {
        let acks = self.eval("return watched.acks").await;
        serde_json::from_value(acks).expect("a list of numbers")
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

    /// Emulates the size of a screen. Chromium only.
    pub async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Waits until the page was drawn, and so has handled what was scrolled.
    pub async fn drawn(&self) {
        self.eval_async("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            .await;
    }

    /// Moves the page's clock on, as if this much time had passed.
    pub async fn later(&self, by: Duration) {
        // A script of Firefox's driver has a Date of its own.
        let script =
            "const { Date } = window, now = Date.now; Date.now = () => now() + arguments[0]";
        self.eval_with(script, json!([by.as_millis() as u64])).await;
    }

    /// The tab's storage. A duplicated or restored tab gets a copy of it.
    pub async fn tab_storage(&self) -> Value {
        let kept = self.text("return sessionStorage.dynochat").await;
        serde_json::from_str(&kept).expect("JSON")
    }

    /// Opens the page in a tab that keeps this.
    pub async fn open_with_tab_storage(&self, page: &str, kept: &Value) {
        self.open(&format!("{page}chat.css")).await; // the same origin, but not the page
        let script = "sessionStorage.dynochat = arguments[0]";
        self.eval_with(script, json!([kept.to_string()])).await;
        self.open(page).await;
    }

    /// Sets a field of each frame of this kind that the page receives from now on.
    pub async fn set_in_frames(&self, kind: &str, field: &str, value: Value) {
        let script = "const [kind, field, value] = arguments, parse = JSON.parse;
            JSON.parse = (text) => {
                const frame = parse(text);
                if (frame?.kind === kind) frame[field] = value;
                return frame;
            }";
        self.eval_with(script, json!([kind, field, value])).await;
    }

    /// Sends the page an event of the window.
    pub async fn dispatch(&self, event: &str) {
        let script = "dispatchEvent(new Event(arguments[0]))";
        self.eval_with(script, json!([event])).await;
    }
}
