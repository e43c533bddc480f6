// The page: its two screens (form and chat), the chip, the banner, the members, the panel, and all events.
//
// connection.js decides when the page is connected, outgoing.js when a message is sent, messages.js what the list shows.
// This module joins them. Markup and ids are in index.html, styles in chat.css, all words in words.js.

import { $, browser, button, element, now, saveBrowser, saveTab, setText, tab, tokenIsKept } from "./common.js";
import { check, connect, connection, drop, pause, start, stop, wake } from "./connection.js";
import { addNote, addPresence, addTalk, clear, list, showUnread } from "./messages.js";
import * as outgoing from "./outgoing.js";
import { format, parts, sentenceOf, translate, words } from "./words.js";

const LIST_MS = 2_000;     // a dyno's list of members is younger than this
const QUIET_MS = 30_000;   // for this long after a reconnect, nobody is announced as having left, or as having joined again
const NEWCOMER = 50;       // a newcomer gets this many messages, or all if the room has fewer

let left = false;               // the person pressed Leave
let resumedMessages = 0;        // came with a welcome after a reconnect
const inRoom = () => !$("chat").hidden;

// ---- frames ----------------------------------------------------------------------------------------------------------

const onFrame = {
  __proto__: null,
  welcome(frame, moved) {
    const first = list.lastId === null, before = list.ids.size, talks = frame.history ?? [];
    const { lastId } = tab.current;   // first: of the page before a reload
    const gap = first ? frame.last !== lastId && !talks.some(({ id }) => id === lastId) : frame.gap;
    if (first) openRoom(frame.room);
    outgoing.joined(frame.max_message);
    tab.current = { room: frame.room, name: frame.user, lastId: frame.last };
    Object.assign(browser, { room: frame.room, name: frame.user });
    saveTab();
    saveBrowser();
    history.replaceState(null, "", linkTo(frame.room));   // the address is now the one to share, and survives a reload
    if (gap && !first) addNote("gap", words.gap);
    if (gap && first && lastId && (lastId !== "0-0" || talks.length >= NEWCOMER)) {
      addNote("gap", words.earlier);
    }
    if (moved) {
      for (const talk of talks) showTalk(talk, true);
      if (gap) list.lastId = frame.last;   // otherwise the first connection may have brought newer messages
      movedMembers(frame);
    } else {
      $("log").ariaBusy = "true";   // a screen reader need not read the past aloud; it looks only after the page is drawn
      for (const talk of talks) showTalk(talk, !first);
      setTimeout(() => { $("log").ariaBusy = "false"; }, 300);
      list.lastId = frame.last ?? list.lastId;   // the server's word, even if it is lower than ours
      if (!first) resumedMessages += list.ids.size - before;
      joinedMembers(frame, !first);
    }
    if (gap) outgoing.joinedWithGap();
    outgoing.sendNext();
    show();
    showLength();
  },
  talk(frame) {
    showTalk(frame, true);
    outgoing.sendNext();   // an acknowledgement lets the next message be sent
  },
  members: ({ users, count }) => showMembers(users ?? [], count),
  status({ redis }) {
    if (redis !== "down") outgoing.redisIsUp();
    show();
  },
  error: outgoing.refuse,
};

function showTalk(talk, isNews) {
  const mine = outgoing.acknowledge(talk.cid);
  addTalk(talk, { own: Boolean(mine) || talk.user === tab.current.name, pendingNode: mine?.node, isNews });
}

// ---- members: the whole list each time; who joined and left is the difference ----------------------------------------

// known: members from before the newest reconnect. They reconnect, too, and are not announced as joined again.
const members = { users: [], known: new Set(), quietUntil: 0, timer: 0 };

function joinedMembers({ users = [], count }, resumed) {
  if (resumed) Object.assign(members, { known: new Set([...members.users, ...users]), quietUntil: now() + QUIET_MS });
  members.users = users;   // changes during an absence are not announced
  showMembers(users, count);
}
// The other dyno's list may be older than the one shown. In that case the dyno sends a newer list soon.
function movedMembers({ users = [], count }) {
  clearTimeout(members.timer);
  members.timer = setTimeout(showMembers, LIST_MS, users, count);
}
function showMembers(users, count = users.length) {
  clearTimeout(members.timer);
  const quiet = now() < members.quietUntil, partial = count > users.length;
  const joined = users.filter((user) => !members.users.includes(user) && !(quiet && members.known.has(user)));
  const gone = quiet ? [] : members.users.filter((user) => !users.includes(user));
  if (!partial && joined.length + gone.length) addPresence(joined, gone);
  members.users = users;
  $("count").textContent = count;
  const items = users.map((user) => {
    const item = element("li", "", element("bdi", "", user));
    if (user === tab.current.name) item.ariaCurrent = "true";
    return item;
  });
  $("members").replaceChildren(...items, ...(partial ? [element("li", "", format(words.andMore, { n: count - users.length }))] : []));
}

// ---- the chip, the banner, the panel ---------------------------------------------------------------------------------

const retryNow = button(words.retryNow, connect);
const countdown = element("span");
countdown.setAttribute("role", "timer");   // a screen reader does not announce a timer, though the chip is a live region
const dynoName = element("span");
dynoName.setAttribute("aria-live", "off");   // nor the name of the dyno, which changes when the page moves
let chipShows = "";

// Its state for chat.css, and its text with the nodes in it.
function chip() {
  const { phase, pretendOffline, welcomedAt } = connection;
  if (phase === "idle") return ["off", left ? words.left : ""];
  if (phase === "live") return ["on", words.connected];
  if (phase === "stopped") return ["off", words.stopped];
  if (pretendOffline || !navigator.onLine) return ["off", words.offline];   // the page still tries: the browser may be wrong
  if (phase === "trying") return ["wait", welcomedAt ? words.reconnecting : words.connecting];
  return ["wait", words.reconnectingIn];
}

function banner() {
  const { phase, stopCode, webSocketBlocked, redisDown } = connection;
  if (phase === "idle") return "";
  if (phase === "stopped") return { 4429: words.tooMany, 1009: words.tooBig }[stopCode] ?? words.notUnderstood;
  if (webSocketBlocked) return words.webSocketBlocked;
  return redisDown ? words.redisDown : "";
}

function show() {
  const { dyno, boot, reconnects, moves, retryAt, tickAt } = connection;
  setText(countdown, format(words.seconds, { n: Math.max(1, Math.ceil((retryAt - now()) / 1000)) }));
  setText(dynoName, dyno);
  const [state, text] = chip();
  if (chipShows !== state + text) {
    chipShows = state + text;
    const focused = document.activeElement === retryNow;
    $("chip").dataset.state = state;
    $("chip").replaceChildren(...parts(text, { wait: countdown, retryNow, dyno: dynoName }));
    if (focused) (retryNow.isConnected ? retryNow : $(inRoom() ? "message" : "name")).focus();
  }
  setText($("banner"), banner());
  const tick = tickAt ? format(words.secondsAgo, { n: Math.round((now() - tickAt) / 1000) }) : words.noTick;
  const facts = { dyno, boot, last: list.lastId ?? "–", tick, moves, reconnects, resumed: resumedMessages };
  for (const [id, fact] of Object.entries(facts)) setText($(id), fact);
}

// ---- the two screens -------------------------------------------------------------------------------------------------

const linkTo = (room) => `/?room=${encodeURIComponent(room)}`;

function showScreen(name) {
  $("join").hidden = name !== "join";
  $("chat").hidden = $("actions").hidden = name !== "chat";
  $("title").textContent = name === "chat" ? tab.current.room : "dynochat";
  showUnread();
}
function openRoom(room) {   // for the first time in this document
  tab.current.room = room;
  clear();
  Object.assign(members, { users: [], known: new Set(), quietUntil: 0 });
  outgoing.drawAll();
  const fromForm = !inRoom();
  showScreen("chat");
  if (fromForm) $("message").focus();
}
function backToForm() {
  clearTimeout(members.timer);
  list.lastId = null;
  $("room").value = tab.current.room;
  $("name").value = tab.current.name;
  delete tab.current;
  saveTab();
  showScreen("join");
  show();
}
function leave() {
  stop({ quit: true });
  outgoing.left();
  left = true;
  backToForm();
  $("room").focus();
}
function joinRefused(error) {
  stop({ quit: false });
  backToForm();
  showProblem(error.code === "bad_room" ? "room" : "name", sentenceOf(error));
}
function showProblem(field, why) {
  for (const one of ["room", "name"]) {
    $(one).ariaInvalid = String(one === field);
    $(`${one}-error`).textContent = one === field ? why : "";
  }
  if (field) $(field).focus();
}

// ---- writing ---------------------------------------------------------------------------------------------------------

function write() {
  const text = outgoing.clean($("message").value);
  if (!text || outgoing.codePoints(text) > outgoing.maxLength) return;
  $("message").value = tab.draft = "";
  outgoing.write(text);
  showLength();
}
function showLength() {
  const length = outgoing.codePoints(outgoing.clean($("message").value)), { maxLength } = outgoing;
  const tooLong = length > maxLength;
  const text = length < maxLength * 0.8 ? "" : tooLong ? words.lengthTooLong : words.length;
  setText($("counter"), format(text, { n: length, max: maxLength }));
  $("message").ariaInvalid = String(tooLong);
  $("send").disabled = tooLong;
  $("message").rows = Math.min(6, $("message").value.split("\n").length);   // for browsers without field-sizing
}

// ---- events ----------------------------------------------------------------------------------------------------------

$("join").onsubmit = (event) => {
  event.preventDefault();
  const room = $("room").value.trim(), name = $("name").value.trim();
  const missing = !room ? "room" : !name ? "name" : null;
  showProblem(missing, missing === "room" ? words.chooseRoom : words.chooseName);
  if (missing) return;
  tab.current = { room, name };
  list.lastId = null;
  left = false;
  stop({ quit: false });
  connection.pretendOffline = false;
  $("pretend").ariaPressed = "false";
  connect();
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  write();
  $("message").focus();
};
$("message").oninput = () => {
  tab.draft = $("message").value;
  saveTab();
  showLength();
};
$("message").onkeydown = (event) => {
  // While an input method composes, Enter picks a word. Safari ends the composition first; there 229 is the only sign.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  write();
};
$("leave").onclick = leave;
$("share").onclick = async () => {
  const url = location.origin + linkTo(tab.current.room);
  try {
    await navigator.clipboard.writeText(url);
  } catch {
    prompt(words.copyThisLink, url);
    return;
  }
  $("share").textContent = words.copied;
  setTimeout(() => { $("share").textContent = words.copyLink; }, 2000);
};
$("drop").onclick = drop;
$("pretend").onclick = () => {
  const offline = !connection.pretendOffline;
  connection.pretendOffline = offline;
  $("pretend").ariaPressed = String(offline);
  if (offline) drop();
  else wake();
  show();
};

addEventListener("online", wake);
addEventListener("offline", drop);   // if the network is fine after all, the next try succeeds
addEventListener("pageshow", wake);
addEventListener("pagehide", () => {   // an open socket would keep the page out of the back/forward cache
  saveLastId();
  pause({ quit: !tokenIsKept });   // otherwise the name would be taken until its lease ends
});
if (!tokenIsKept) {
  addEventListener("beforeunload", () => {   // Firefox closes the socket before pagehide
    pause({ quit: true });
    setTimeout(wake, 3000);   // the page is still there if it was only a download
  });
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  wake();
  showUnread();
});
// iOS lays its keyboard over the page. What is free is the visual viewport, times the zoom: zooming covers nothing.
visualViewport?.addEventListener("resize", ({ target: { height, scale } }) => {
  document.body.style.height = `${Math.round(height * scale)}px`;
  scrollTo(0, 0);
});
// After a reload, or when the browser restores the tab, the page knows from it whether it missed messages.
function saveLastId() {
  if (!tab.current || list.lastId === null || tab.current.lastId === list.lastId) return;
  tab.current.lastId = list.lastId;
  saveTab();
}
setInterval(() => {
  check();
  saveLastId();
  outgoing.showStates();
  outgoing.sendNext();
  show();
}, 250);

// ---- start -----------------------------------------------------------------------------------------------------------

translate();
start({
  joinFrame: () => ({ kind: "join", room: tab.current.room, user: tab.current.name, token: browser.token, last: list.lastId }),
  received: (frame, moved) => onFrame[frame.kind]?.(frame, moved),
  closed: outgoing.connectionClosed,
  refused: joinRefused,
  changed: show,
});

// A reload goes straight back into the room, unless the address names another one.
const wantedRoom = new URLSearchParams(location.search).get("room");
$("message").value = tab.draft ?? "";
$("room").value = wantedRoom ?? browser.room ?? "lobby";
$("name").value = browser.name ?? "";
if (tab.current && (wantedRoom ?? tab.current.room) === tab.current.room) {
  openRoom(tab.current.room);
  connect();
} else {
  delete tab.current;
  if (!$("name").value) $("name").focus();
}
showLength();
show();
