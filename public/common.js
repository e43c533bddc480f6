// Helpers for all modules: nodes of the document, the time, random ids, and storage.

export const $ = (id) => document.getElementById(id);

// Strings become text nodes: nothing that a person wrote is ever read as HTML.
export function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}
export const button = (name, onclick) => Object.assign(element("button", "", name), { type: "button", onclick });

// Writes only when the text changes: a screen reader announces every write to a live region. The text that was written is
// kept, because a browser that translates the page changes what is in the node.
const written = new WeakMap();
export function setText(node, text) {
  if (written.get(node) === String(text)) return;
  written.set(node, String(text));
  node.textContent = text;
}

// The wall clock, because the monotonic clock stands still while a laptop sleeps.
export const now = () => Date.now();

export function randomHex(bytes) {
  const values = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(values, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- storage: one object for the browser and one for the tab. Without storage, they live as long as the page. --------

function load(storage) {
  let content = {};
  try {
    content = JSON.parse(window[storage].getItem("dynochat")) ?? {};
  } catch { /* storage is blocked */ }
  const save = () => {
    try {
      window[storage].setItem("dynochat", JSON.stringify(content));
      return true;
    } catch {
      return false;   // storage is blocked or full
    }
  };
  return [content, save];
}
export const [browser, saveBrowser] = load("localStorage");   // token, room, name
// current: {room, name, lastId: the newest id that was shown}; draft; pending: messages without an acknowledgement, see outgoing.js.
export const [tab, saveTab] = load("sessionStorage");
// One token for the whole browser: it may own several names, and a second tab with the same name is the same person.
if (!/^[\w-]{16,64}$/.test(browser.token)) browser.token = randomHex(16);
export const tokenIsKept = saveBrowser();   // if not, the next page of this browser has another token
tab.pending ??= [];
