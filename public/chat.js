// One person in one room: what the page does.
//
// Owns: the line to the server (when to try, when to stop), the list of messages, and whatever is not confirmed yet.
// Leaves to the server: order, ids, names, limits. Leaves to index.html: every name; to chat.css: every look.
// In reading order: memory · the line · what the server says · sending · the list · members · the view · events.

const TRY = 10_000;      // a try is an open socket and a welcome within this time
const SLACK = 10_000;    // a line without any frame for one tick and this much longer is dead
const PROBE = 1_500;     // after waking up: a ping unanswered for so long means the line did not survive
const LIFE = 5_000;      // a line that lived so long after its welcome was a good one
const STEPS = [1, 2, 4, 8, 15];   // seconds to wait; really half to all of it, so that a crowd spreads out
const LATE = 10_000;     // no receipt for so long: "not confirmed yet"
const CID_KEPT = 100_000;   // the server knows a cid for 120 s; to resend it later might double the message
const GRACE = 30_000;    // for so long after a reconnect nobody is said to have left, or to have joined again
const TOGETHER = 300_000;   // messages of one person within this time form one group; so do arrivals
const MOST = 6_000;      // messages kept in the list

const $ = (id) => document.getElementById(id);
const now = () => Date.now();   // the wall clock: the monotonic one stands still while a laptop sleeps
const hex = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
function el(tag, look, ...inside) {   // strings become text nodes: nothing a person wrote is ever read as HTML
  const node = document.createElement(tag);
  if (look) node.className = look;
  node.append(...inside);
  return node;
}
const button = (name, onclick) => Object.assign(el("button", "", name), { type: "button", onclick });

// ---- memory: a drawer that outlives the page, one per browser and one per tab ----------------------------------------

function drawer(store) {
  let box = {};
  try { box = JSON.parse(window[store].getItem("dynochat")) ?? {}; } catch { /* private window: memory must do */ }
  return [box, () => { try { window[store].setItem("dynochat", JSON.stringify(box)); } catch { /* likewise */ } }];
}
const [browser, saveBrowser] = drawer("localStorage");   // token, room, name
const [tab, saveTab] = drawer("sessionStorage");         // here {room, name}, draft, pending [{cid, room, text, at, sent, …}]
// One token for the whole browser: it may own several names, and a second tab with the same name is the same person.
if (!/^[\w-]{16,64}$/.test(browser.token)) browser.token = hex(16);
saveBrowser();
tab.pending ??= [];

// ---- the line: one socket, one beat, and a turn number that makes every older socket mute ----------------------------

// phase: idle (the form) → trying → live → waiting → trying …; stopped when trying again would not help.
const line = { phase: "idle", socket: null, turn: 0, tries: 0, began: 0, due: 0, heard: 0, probe: 0, welcomed: 0, tick: 25_000,
  ticked: 0, rejoin: 0, down: false, refusal: null, why: "", pretend: false, left: false, dyno: "–", boot: "–", reconnects: 0, resumed: 0 };

function connect() {
  hangUp();
  const turn = line.turn, mine = (act) => (event) => { if (turn === line.turn) act(event); };
  Object.assign(line, { phase: "trying", began: now(), due: now() + TRY, heard: now(), rejoin: 0, refusal: null, left: false });
  const socket = line.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.onopen = mine(join);
  socket.onmessage = mine((event) => { line.heard = now(); line.probe = 0; hear(event.data); });
  socket.onclose = mine((event) => lost(event.code));   // onerror says nothing that onclose does not
  show();
}
function join() {
  line.rejoin = 0;
  tell({ kind: "join", room: tab.here.room, user: tab.here.name, token: browser.token, last: list.last });
}
function tell(frame) {
  if (line.socket?.readyState === WebSocket.OPEN) line.socket.send(JSON.stringify(frame));
}
function hangUp() {   // without "quit": for the server this is a person who will be back
  line.turn += 1;
  line.socket?.close();
  line.socket = null;
  Object.assign(line, { probe: 0, down: false });
  outgoing.cid = null;
}

const FOREIGN = "The server did not understand this page. Reload it: a newer one may be waiting.";
const STOPS = { 4400: FOREIGN, 1003: FOREIGN,
  4429: "Too much was sent at once, so the server closed the line. Wait a moment, then press Retry now.",
  1009: "A message was too big for the server. Discard it, then press Retry now." };
// The only place that decides what follows a closed line, whoever closed it.
function lost(code) {
  const flying = tab.pending.find((p) => p.cid === outgoing.cid);
  if (line.phase === "live" && now() - line.welcomed > LIFE) line.tries = 0;
  hangUp();
  if (code === 4409) return refused(line.refusal ?? {});
  if (STOPS[code]) {
    Object.assign(line, { phase: "stopped", why: STOPS[code] });
    if (flying && code !== 4429) fail(flying, "failed");   // most likely the culprit: never send it again unasked
  } else {
    if (code === 1013) line.tries = Math.max(line.tries, 4);   // this dyno is full: begin at the 8 s step
    const step = line.tries && STEPS[Math.min(line.tries, STEPS.length) - 1] * 1000;
    line.tries += 1;
    Object.assign(line, { phase: "waiting", due: now() + (step ? step * (0.5 + Math.random() / 2) : Math.random() * 3000) });
  }
  show();
}
// Something suggests that the world has changed: the network, the tab, the lid of the laptop.
function wake() {
  const { phase, socket } = line;
  if (line.pretend || phase === "idle" || phase === "stopped") return;
  const stale = phase === "trying" && !line.down && Math.abs(now() - line.began) > 2000;
  if (phase === "waiting" || stale || now() - line.heard > line.tick + SLACK) connect();
  else if (socket.readyState === WebSocket.OPEN && !line.probe) {
    line.probe = now();
    tell({ kind: "ping" });
  }
}
// The one timer. All else is a time stamp compared with the clock, so whoever slept finds at once what is overdue.
let beaten = now();
function beat() {
  const t = now(), slept = t - beaten > 5000 || t < beaten;
  beaten = t;
  if (slept) wake();
  else if (line.probe && t - line.probe > PROBE) connect();
  else if (line.socket && t - line.heard > line.tick + SLACK) lost(1006);
  else if (line.phase === "trying" && t > line.due) lost(1006);
  else if (line.phase === "waiting" && t > line.due && !line.pretend) connect();
  if (line.rejoin && t > line.rejoin) join();
  for (const p of ours()) label(p);
  pump();
  show();
}

// ---- what the server says; kinds and fields we do not know are for newer pages ---------------------------------------

const frames = {
  __proto__: null,
  welcome(f) {
    const resumed = list.last !== null, whole = resumed && !f.gap, before = list.ids.size;
    if (!resumed) enter(f.room);
    if (line.welcomed) line.reconnects += 1;
    Object.assign(line, { phase: "live", welcomed: now(), down: false, dyno: f.dyno, boot: f.boot, tick: f.tick_ms || line.tick });
    outgoing.max = f.max_message || outgoing.max;
    outgoing.hold = 0;
    tab.here = { room: f.room, name: f.user };
    Object.assign(browser, tab.here);
    saveTab();
    saveBrowser();
    history.replaceState(null, "", link(f.room));   // the address is now the one to share, and survives a reload
    if (f.gap) note("gap", "some messages may be missing");
    log.ariaBusy = "true";   // a screen reader need not read the past aloud; it looks only after the page is drawn
    for (const talk of f.history ?? []) hearTalk(talk, resumed);
    setTimeout(() => { log.ariaBusy = "false"; }, 300);
    list.last = f.last ?? list.last;   // the server's word, even if it is lower than ours
    if (resumed) line.resumed += list.ids.size - before;
    if (resumed) Object.assign(room, { familiar: new Set([...room.users, ...f.users ?? []]), quiet: now() + GRACE });
    room.users = f.users ?? [];   // whatever changed during an absence is not told
    meet(room.users, f.count);
    // A message that was on its way long ago and is not in a history without holes never arrived: send it again. Without
    // that certainty the server may have it and forgotten its cid, so the person decides.
    if (!whole) for (const p of ours()) if (p.sent && !p.fate && now() - p.sent > CID_KEPT) fail(p, "unsure");
    pump();
    show();
    count();
  },
  talk(f) { hearTalk(f, true); pump(); },   // a receipt makes way for what waits behind it
  members: (f) => meet(f.users ?? [], f.count),
  tick() { line.ticked = now(); },
  status(f) {
    line.down = f.redis === "down";
    const soon = now() + Math.random() * 1000;   // not all at once
    if (line.phase === "trying") line.due = line.down ? Infinity : soon + TRY;   // the server waits too, and keeps ticking
    if (!line.down) {
      if (line.rejoin) line.rejoin = soon;
      outgoing.hold = Math.min(outgoing.hold, soon);
    }
    show();
  },
  error(f) {
    line.refusal = f;
    const p = tab.pending.find((one) => one.cid === f.cid), later = now() + (f.retry_ms || 2000);
    if (f.code === "busy" || f.code === "slow_down") {
      if (line.phase === "trying") Object.assign(line, { rejoin: later, due: line.down ? Infinity : later + TRY });
      else outgoing.hold = later;
      if (p && f.code === "slow_down") p.sent = 0;   // surely not in the log; after "busy" it may be
      if (p) outgoing.cid = null;
    } else if (p && f.code !== "name_taken") fail(p, "failed", f.message);   // a lost name is no fault of the message
  },
};
function hear(data) {
  let frame;
  try { frame = JSON.parse(data); } catch { return; }
  frames[frame?.kind]?.(frame);
}

// ---- sending: kept until confirmed, one under way at a time, so that order survives every refusal --------------------

const outgoing = { cid: null, at: 0, hold: 0, max: 1000 };
const nodes = new Map();   // cid → its place in the list
const ours = () => tab.pending.filter((p) => p.room === tab.here?.room);

// What the server would refuse is never sent: control characters and lone surrogates, invisible both.
const tidy = (text) => (text.toWellFormed?.() ?? text).replace(/[^\P{Cc}\n\t]/gu, "").trim();
const points = (text) => [...text].length;   // code points, the server's unit

function write() {
  const box = $("message"), text = tidy(box.value);
  if (!text || points(text) > outgoing.max) return;
  const p = { cid: hex(8), room: tab.here.room, text, at: now(), since: now(), sent: 0, fate: "" };
  tab.pending.push(p);
  box.value = tab.draft = "";
  draw(p);
  list.stuck = true;
  count();
  pump();
}
function pump() {
  if (outgoing.cid && now() - outgoing.at > LATE) outgoing.cid = null;   // no answer at all: the same cid may go again
  const p = line.phase === "live" && !outgoing.cid && now() > outgoing.hold && ours().find((one) => !one.fate);
  if (!p) return;
  Object.assign(outgoing, { cid: p.cid, at: now() });
  p.sent ||= now();
  saveTab();   // first, so that even a crash leaves no doubt about what was handed over
  tell({ kind: "talk", message: p.text, cid: p.cid });
}
function fail(p, fate, why = "") {
  if (outgoing.cid === p.cid) outgoing.cid = null;
  Object.assign(p, { fate, why });
  saveTab();
  label(p);
}
function forget(p) {
  if (outgoing.cid === p.cid) outgoing.cid = null;
  tab.pending = tab.pending.filter((one) => one !== p);
  saveTab();
  nodes.delete(p.cid);
}
function draw(p) {
  const node = message(tab.here.name, p.text, p.at, true);
  node.talk = { id: null, at: p.at, user: tab.here.name };
  nodes.set(p.cid, node);
  said.append(node);
  relate(node);
  label(p);
  saveTab();
}
function label(p) {
  const node = nodes.get(p.cid), state = p.fate || (now() - p.since > LATE ? "late" : "sending");
  if (!node || node.dataset.state === state) return;
  node.dataset.state = state;
  const retry = () => { Object.assign(p, { fate: "", why: "", since: now() }); label(p); pump(); $("message").focus(); };
  const discard = () => { forget(p); node.remove(); $("message").focus(); };
  const words = { sending: "sending", late: "not confirmed yet", unsure: "not confirmed", failed: "not sent" }[state];
  const choice = p.fate ? [" · ", button("Retry", retry), " / ", button("Discard", discard)] : [];
  node.querySelector(".state").replaceChildren(words, ...choice, ...(p.why ? [el("small", "", p.why)] : []));
}

// ---- the list: in id order, each id once; own messages that wait stay at its end -------------------------------------

const log = $("log"), said = $("said");
const list = { last: null, ids: new Set(), unread: 0, stuck: true, top: 0 };
const CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat([], { weekday: "long", year: "numeric", month: "long", day: "numeric" });
const FULL = new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "medium" });

function order(a, b) {   // ids are ms-seq, two integers; as strings 10 would come before 9
  const [ams, aseq] = a.split("-"), [bms, bseq] = b.split("-");
  return ams - bms || aseq - bseq;
}
function hearTalk({ id, user, message: text, cid }, fresh) {
  if (typeof id !== "string" || typeof text !== "string" || list.ids.has(id)) return;
  list.ids.add(id);
  if (list.last === null || order(id, list.last) > 0) list.last = id;
  const p = tab.pending.find((one) => one.cid === cid), own = Boolean(p) || user === tab.here.name;
  const at = Math.min(parseInt(id, 10) || 0, 8.64e15), node = (p && nodes.get(cid)) || message(user, text, at, own);
  if (p) forget(p);
  node.talk = { id, at, user };
  clock(node.querySelector("time"), at);
  if (own) {
    node.dataset.state = "sent";
    put(node.querySelector(".state"), "sent");
  }
  place(node);
  if (fresh && !own && (document.hidden || !list.stuck)) list.unread += 1;
  if (said.childElementCount > MOST * (list.stuck ? 1.1 : 2)) trim();
  headline();
}
function place(node) {
  let next = null;
  for (let n = said.lastElementChild; n; n = n.previousElementSibling) {
    if (n === node) continue;
    if (n.talk && (!n.talk.id || order(n.talk.id, node.talk.id) > 0)) next = n;
    else if (n.talk || n.classList.contains("gap")) break;   // ids are comparable only on this side of a gap
  }
  if (!node.parentNode || node.nextElementSibling !== next) said.insertBefore(node, next);   // a receipt rarely moves it
  relate(node);
  relate(node.nextElementSibling);
}
function trim() {
  for (const old of [...said.children].slice(0, -MOST)) {
    list.ids.delete(old.talk?.id);
    old.remove();
  }
  relate(said.firstElementChild);
  if (list.stuck) bottom();   // at once, or the shrinking list looks as if the person had scrolled up
}
// What a message shows of its neighbours: a date when a new day begins, a name when another person speaks.
function relate(node) {
  if (!node?.talk) return;
  const before = node.previousElementSibling, day = DAY.format(node.talk.at);
  let earlier = before;
  while (earlier && !earlier.talk) earlier = earlier.previousElementSibling;
  const opens = !earlier || DAY.format(earlier.talk.at) !== day;
  node.classList.toggle("follows", !opens && before === earlier && before.talk.user === node.talk.user
    && Math.abs(node.talk.at - before.talk.at) < TOGETHER);
  const divider = node.querySelector(".day");
  if (opens && !divider) node.prepend(el("p", "day", day));
  if (!opens) divider?.remove();
}
function message(user, text, at, own) {
  const words = Object.assign(el("p", "text", ...linked(text)), { dir: "auto" });
  return el("div", own ? "message own" : "message", el("p", "who", el("bdi", "", user)), words,
    el("p", "meta", clock(el("time"), at), " ", el("span", "state")));
}
function clock(node, at) {
  put(node, CLOCK.format(at));
  return Object.assign(node, { dateTime: new Date(at).toISOString(), title: FULL.format(at) });
}
// ASCII only: in Japanese no space follows an address, and look-alike letters cannot pose as a known host.
function linked(text) {
  const out = [];
  let from = 0;
  for (const found of text.matchAll(/https?:\/\/[\w\-.~:/?#[\]@!$&'()*+,;=%]+/gi)) {
    let url = found[0];
    while (/[.,;:!?'*\]]$/.test(url) || (url.endsWith(")") && !url.includes("("))) url = url.slice(0, -1);
    try { new URL(url); } catch { continue; }
    out.push(text.slice(from, found.index), Object.assign(el("a", "", url),
      { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }));
    from = found.index + url.length;
  }
  return [...out, text.slice(from)];
}
function note(look, ...inside) {
  const node = el("p", `note ${look}`, ...inside), first = [...nodes.values()].find((n) => n.parentNode);
  said.insertBefore(node, first ?? null);
  relate(first);
  return node;
}

// ---- members: the whole list each time; comings and goings are the difference, told once and small --------------------

// For a while after a reconnect others come back, too: whoever is familiar from before was never away.
const room = { users: [], familiar: new Set(), quiet: 0 };

function meet(users, total = users.length) {
  const quiet = now() < room.quiet, partial = total > users.length;
  const came = users.filter((u) => !room.users.includes(u) && !(quiet && room.familiar.has(u)));
  const went = quiet ? [] : room.users.filter((u) => !users.includes(u));
  if (!partial && came.length + went.length) presence(came, went);
  room.users = users;
  $("count").textContent = total;
  const names = users.map((u) => Object.assign(el("li", "", el("bdi", "", u)), { ariaCurrent: u === tab.here.name ? "true" : null }));
  $("members").replaceChildren(...names, ...(partial ? [el("li", "", `and ${total - users.length} more`)] : []));
}
function presence(came, went) {
  let last = said.lastElementChild;
  while (last?.talk && !last.talk.id) last = last.previousElementSibling;
  if (!last?.came || now() - last.at > TOGETHER) {
    last = Object.assign(note("presence"), { at: now(), came: new Set(), went: new Set() });
  }
  for (const u of came) last.went.delete(u) || last.came.add(u);   // away and back again is no news
  for (const u of went) last.came.delete(u) || last.went.add(u);
  const tale = ([first, second, ...more], verb) => (!first ? [] : [el("bdi", "", first),
    ...(!second ? [] : more.length ? [` and ${more.length + 1} others`] : [" and ", el("bdi", "", second)]), ` ${verb}`]);
  const joined = tale([...last.came], "joined"), left = tale([...last.went], "left");
  last.replaceChildren(...joined, joined.length && left.length ? " · " : "", ...left);
  if (!last.textContent) last.remove();
}

// ---- the view: two screens, one chip, one banner ---------------------------------------------------------------------

const retry = button("Retry now", connect);
const countdown = el("span");
countdown.setAttribute("role", "timer");   // and so not read aloud each second, though it sits in a live region
let looks = "";

function show() {
  const [state, ...parts] = line.phase === "idle" ? ["off", line.left ? "Left" : ""]
    : line.phase === "live" ? ["on", `Connected · ${line.dyno}`]
    : line.phase === "stopped" ? ["off", "Stopped · ", retry]
    : line.pretend || !navigator.onLine ? ["off", "Offline"]   // trying goes on, quietly, where only the browser thinks so
    : line.phase === "trying" ? ["wait", line.welcomed ? "Reconnecting…" : "Connecting…"]
    : ["wait", "Reconnecting in ", countdown, " · ", retry];
  put(countdown, `${Math.max(1, Math.ceil((line.due - now()) / 1000))} s`);
  const next = state + parts.map((part) => (part === countdown ? "" : part.textContent ?? part)).join("");
  if (looks !== next) {
    looks = next;
    const focused = document.activeElement === retry;
    $("chip").dataset.state = state;
    $("chip").replaceChildren(...parts);
    if (focused) (retry.isConnected ? retry : $(chatting() ? "message" : "name")).focus();
  }
  put($("banner"), line.phase === "stopped" ? line.why : !line.down ? ""
    : "Messaging waits for Redis: the server cannot reach it just now. What you write is kept, and sent when it is back.");
  const { dyno, boot, reconnects, resumed } = line, last = list.last ?? "–";
  const tick = line.ticked ? `${Math.round((now() - line.ticked) / 1000)} s ago` : "none yet";
  for (const [id, fact] of Object.entries({ dyno, boot, last, tick, reconnects, resumed })) put($(id), fact);
}
// A live region speaks whenever it is written to, so it is written to only when something has changed.
const put = (node, words) => { if (node.textContent !== String(words)) node.textContent = words; };
const chatting = () => !$("chat").hidden;
const link = (name) => `/?room=${encodeURIComponent(name)}`;
function headline() {
  if (!document.hidden && list.stuck) list.unread = 0;
  document.title = chatting() ? `${list.unread ? `(${list.unread}) ` : ""}${tab.here.room}` : "dynochat";
  $("newer").hidden = !list.unread || list.stuck;
  put($("newer"), `${list.unread} new ↓`);
}
function screen(name) {
  $("join").hidden = name !== "join";
  $("chat").hidden = $("actions").hidden = name !== "chat";
  $("title").textContent = name === "chat" ? tab.here.room : "dynochat";
  headline();
}
function enter(name) {   // a room seen for the first time by this page
  tab.here.room = name;
  Object.assign(list, { ids: new Set(), unread: 0, stuck: true });
  Object.assign(room, { users: [], familiar: new Set(), quiet: 0 });
  nodes.clear();
  said.replaceChildren();
  for (const p of ours()) draw(p);
  const arriving = !chatting();
  screen("chat");
  if (arriving) $("message").focus();
}
function backToForm() {
  Object.assign(line, { phase: "idle", tries: 0, welcomed: 0 });
  list.last = null;
  $("room").value = tab.here.room;
  $("name").value = tab.here.name;
  delete tab.here;
  saveTab();
  screen("join");
  show();
}
function leave() {
  tell({ kind: "quit" });
  hangUp();
  for (const p of ours()) p.fate ||= p.sent ? "unsure" : "failed";   // kept for a return, but no longer sent unasked
  backToForm();
  line.left = true;
  show();
  $("room").focus();
}
function refused({ code, message: why }) {
  backToForm();
  complain(code === "bad_room" ? "room" : "name", why ?? "The server refused this name.");
}
function complain(field, why) {
  for (const one of ["room", "name"]) {
    $(one).ariaInvalid = String(one === field);
    $(`${one}-error`).textContent = one === field ? why : "";
  }
  if (field) $(field).focus();
}
function count() {
  const size = points(tidy($("message").value)), over = size > outgoing.max;
  put($("counter"), size < outgoing.max * 0.8 ? "" : `${size} / ${outgoing.max}${over ? " · too long" : ""}`);
  $("message").ariaInvalid = String(over);
  $("send").disabled = over;
  $("message").rows = Math.min(6, $("message").value.split("\n").length);   // where field-sizing is not known yet
}

// ---- events ----------------------------------------------------------------------------------------------------------

$("join").onsubmit = (event) => {
  event.preventDefault();
  const here = { room: $("room").value.trim(), name: $("name").value.trim() };
  const missing = !here.room ? "room" : !here.name ? "name" : null;
  complain(missing, `Please choose a ${missing}.`);
  if (missing) return;
  tab.here = here;
  list.last = null;
  line.tries = 0;
  pretend(false);
  connect();
};
$("composer").onsubmit = (event) => { event.preventDefault(); write(); $("message").focus(); };
$("message").oninput = () => { tab.draft = $("message").value; saveTab(); count(); };
$("message").onkeydown = (event) => {
  // While an input method composes, Enter picks a word. Safari ends the composition first; there 229 is the only sign.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  write();
};
$("leave").onclick = leave;
$("share").onclick = async () => {
  const url = location.origin + link(tab.here.room);
  try { await navigator.clipboard.writeText(url); } catch { return prompt("Copy this link:", url); }
  $("share").textContent = "Copied";
  setTimeout(() => { $("share").textContent = "Copy link"; }, 2000);
};
$("drop").onclick = () => { if (line.socket) lost(1006); };
$("pretend").onclick = () => pretend(!line.pretend);
function pretend(on) {
  line.pretend = on;
  $("pretend").ariaPressed = String(on);
  if (!on) wake();
  else if (line.socket) lost(1006);
  show();
}
$("newer").onclick = () => { list.stuck = true; bottom(); $("message").focus(); };

// Stuck to the bottom unless the person scrolled up. Only a move upwards unsticks: growth below is no such wish.
function bottom() {
  log.scrollTop = log.scrollHeight;
  list.top = log.scrollTop;
  headline();
}
log.onscroll = () => {
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 48) list.stuck = true;
  else if (log.scrollTop < list.top) list.stuck = false;
  list.top = log.scrollTop;
  headline();
};
const grown = new ResizeObserver(() => { if (list.stuck) bottom(); });
grown.observe(said);
grown.observe(log);   // the on-screen keyboard changes this one

addEventListener("online", wake);
addEventListener("offline", () => { if (line.socket) lost(1006); });   // if the line was fine after all, a try will tell
addEventListener("pageshow", wake);
document.addEventListener("visibilitychange", () => { if (!document.hidden) { wake(); headline(); } });
addEventListener("pagehide", () => {   // an open socket would keep the page out of the back/forward cache
  hangUp();
  if (line.phase !== "idle" && line.phase !== "stopped") Object.assign(line, { phase: "waiting", due: Infinity });
});
// iOS lays its keyboard over the page. What it leaves free is the visual viewport; times the zoom, which covers nothing.
visualViewport?.addEventListener("resize", ({ target: { height, scale } }) => {
  document.body.style.height = `${Math.round(height * scale)}px`;
  scrollTo(0, 0);
});
setInterval(beat, 250);

// A reload goes straight back in, unless the address names another room than the one this tab was in.
const wanted = new URLSearchParams(location.search).get("room");
$("message").value = tab.draft ?? "";
$("room").value = wanted ?? browser.room ?? "lobby";
$("name").value = browser.name ?? "";
if (tab.here && (wanted ?? tab.here.room) === tab.here.room) {
  enter(tab.here.room);
  connect();
} else {
  delete tab.here;
  if (!$("name").value) $("name").focus();
}
count();
show();
