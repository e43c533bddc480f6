// Runs in the page before it connects. Records the time without a welcomed connection, how many connections there are,
// the texts that a screen reader announces, and how long messages wait for their acknowledgement.

const live = new Set(), open = new Set(), typed = new Map();
let awaySince = null;
const watched = window.watched = { away: 0, most: 0, acks: [], chips: [], announced: [], sockets: [] };

function ended(socket) {
  if (live.delete(socket) && live.size === 0) awaySince = performance.now();
}
function received(socket, { data }) {
  const frame = JSON.parse(data);
  if (frame.kind === "welcome") {
    live.add(socket);
    if (awaySince !== null) watched.away += performance.now() - awaySince;
    awaySince = null;
  }
  for (const talk of frame.kind === "talk" ? [frame] : frame.history ?? []) {
    if (typed.has(talk.message)) watched.acks.push(performance.now() - typed.get(talk.message));
    typed.delete(talk.message);
  }
}
const Real = WebSocket;
window.WebSocket = class extends Real {
  constructor(...args) {
    super(...args);
    watched.sockets.push(this);
    watched.began = performance.now();
    open.add(this);
    watched.most = Math.max(watched.most, open.size);
    this.addEventListener("message", (event) => received(this, event));
    this.addEventListener("close", () => { ended(this); open.delete(this); });
  }
  close(...args) {
    ended(this);
    open.delete(this);
    super.close(...args);
  }
};

watched.say = (text) => {
  const box = document.querySelector("textarea");
  typed.set(text, performance.now());
  box.value = text;
  box.form.requestSubmit();
};

// A change is announced if the nearest element that says how to announce is a live region.
const region = (node) => (node instanceof Element ? node : node.parentElement)?.closest("[aria-live], [role=timer], [role=status], [role=alert]");
const isLive = (node) => ["status", "alert"].includes(region(node)?.getAttribute("role")) && region(node).getAttribute("aria-live") !== "off";
for (const root of document.querySelectorAll("[role=status], [role=alert]")) {
  new MutationObserver((changes) => {
    watched.chips.push(document.querySelector("[role=status]").textContent);
    for (const { target } of changes) if (isLive(target)) watched.announced.push(root.textContent);
  }).observe(root, { childList: true, subtree: true, characterData: true });
}
