// The list of messages and notes: order, groups, days, links, scrolling, unread messages.
//
// A message without an id is not acknowledged yet. It stands at the end of the list; outgoing.js draws it.

import { $, button, element, now, setText, tab } from "./common.js";
import { format, locale, parts, words } from "./words.js";

const GROUP_MS = 300_000;    // messages of one person within this time form one group; so do notes about members
const MAX_SHOWN = 6_000;     // messages kept in the list
const FOLDED_LINES = 15;     // the height of a folded message in chat.css
const NEAR_END_PX = 48;      // nearer to the end than this counts as at the end

const log = $("log"), items = $("items");

// Ids are comparable only within one stream. lastId is the newest id that this page has, null before its first welcome.
export const list = { lastId: null, ids: new Set(), unread: 0, atEnd: true, scrollTop: 0 };

const TIME = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(locale, { weekday: "long", year: "numeric", month: "long", day: "numeric" });
const FULL = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });

export function clear() {
  Object.assign(list, { ids: new Set(), unread: 0, atEnd: true });
  items.replaceChildren();
}

// ---- messages --------------------------------------------------------------------------------------------------------

function compareIds(a, b) {   // ms-seq, two integers; as strings 10 would come before 9
  const [aMs, aSeq] = a.split("-"), [bMs, bSeq] = b.split("-");
  return aMs - bMs || aSeq - bSeq;
}

// Shows a message of the stream, once. `pendingNode` showed it until now, if it is an own one; `isNews`: it may be unread.
export function addTalk({ id, user, message: text }, { own, pendingNode, isNews }) {
  if (typeof id !== "string" || typeof text !== "string" || list.ids.has(id)) return;
  list.ids.add(id);
  if (list.lastId === null || compareIds(id, list.lastId) > 0) list.lastId = id;
  const at = Math.min(parseInt(id, 10) || 0, 8.64e15), node = pendingNode ?? createMessage(user, text, at, own);
  node.talk = { id, at, user };
  setTime(node.querySelector("time"), at);
  if (own) {
    node.dataset.state = "sent";
    setText(node.querySelector(".state"), words.sent);
  }
  insert(node);
  if (isNews && !own && (document.hidden || !list.atEnd)) list.unread += 1;
  if (items.childElementCount > MAX_SHOWN * (list.atEnd ? 1.1 : 2)) removeOldest();
  showUnread();
}

export function addPending(user, text, at) {
  const node = createMessage(user, text, at, true);
  node.talk = { id: null, at, user };
  items.append(node);
  updateGroup(node);
  return node;
}

function createMessage(user, text, at, own) {
  const body = Object.assign(element("p", "text", ...withLinks(text)), { dir: "auto" });
  const node = element("div", own ? "message own" : "message", element("p", "who", element("bdi", "", user)), body,
    element("p", "meta", setTime(element("time"), at), " ", element("span", "state")));
  if (mayBeTall(text)) fold(node, body);
  return node;
}

function setTime(node, at) {
  setText(node, TIME.format(at));
  return Object.assign(node, { dateTime: new Date(at).toISOString(), title: FULL.format(at) });
}

// ---- folding: a tall message shows its beginning, and a button that opens it ------------------------------------------

// On a narrow page a line has 13 characters or more.
const mayBeTall = (text) => text.length > FOLDED_LINES * 13 || text.split("\n").length > FOLDED_LINES;

function fold(node, body) {
  const isOpen = () => !node.classList.contains("folded");
  const setOpen = (open) => {
    node.classList.toggle("folded", !open);
    toggle.ariaExpanded = String(open);
    setText(toggle, open ? words.showLess : words.showAll);
  };
  const toggle = button("", () => {
    if (!isOpen()) list.atEnd = false;   // the person goes on reading where the message was cut off
    setOpen(!isOpen());
    if (!isOpen()) toggle.scrollIntoView({ block: "nearest" });
  });
  setOpen(false);
  node.append(element("p", "fold", toggle));
  body.addEventListener("focusin", () => setOpen(true));   // a link may be in the part that is cut off
  textSizes.observe(body);
}

// Only the browser knows how tall a text is, and that changes with the width of the page.
const textSizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const node = target.parentNode;
    if (node?.classList.contains("folded")) node.classList.toggle("tall", target.scrollHeight > target.clientHeight + 1);
  }
});

// ---- order and groups ------------------------------------------------------------------------------------------------

// Puts a stored message before the first one with a higher id, and before all that are not stored yet.
function insert(node) {
  let next = null;
  for (let other = items.lastElementChild; other; other = other.previousElementSibling) {
    if (other === node) continue;
    if (other.talk && (!other.talk.id || compareIds(other.talk.id, node.talk.id) > 0)) next = other;
    else if (other.talk || other.classList.contains("gap")) break;   // ids before a gap may belong to another stream
  }
  if (!node.parentNode || node.nextElementSibling !== next) items.insertBefore(node, next);   // an acknowledgement rarely moves a message
  updateGroup(node);
  updateGroup(node.nextElementSibling);
}

function removeOldest() {
  for (const old of [...items.children].slice(0, -MAX_SHOWN)) {
    list.ids.delete(old.talk?.id);
    old.remove();
  }
  updateGroup(items.firstElementChild);
  if (list.atEnd) scrollToEnd();   // at once: the shorter list would look as if the person had scrolled up
}

// A message shows the date when it is the first of a day, and its author when it is the first of a group.
function updateGroup(node) {
  if (!node?.talk) return;
  const before = node.previousElementSibling, day = DAY.format(node.talk.at);
  let earlier = before;
  while (earlier && !earlier.talk) earlier = earlier.previousElementSibling;
  const newDay = !earlier || DAY.format(earlier.talk.at) !== day;
  node.classList.toggle("follows", !newDay && before === earlier && before.talk.user === node.talk.user
    && Math.abs(node.talk.at - before.talk.at) < GROUP_MS);
  const divider = node.querySelector(".day");
  if (newDay && !divider) node.prepend(element("p", "day", day));
  if (!newDay) divider?.remove();
}

// ASCII only: in Japanese no space follows an address, and look-alike letters cannot pose as a known host.
function withLinks(text) {
  const pieces = [];
  let from = 0;
  for (const found of text.matchAll(/https?:\/\/[\w\-.~:/?#[\]@!$&'()*+,;=%]+/gi)) {
    let url = found[0];
    while (/[.,;:!?'*\]]$/.test(url) || (url.endsWith(")") && !url.includes("("))) url = url.slice(0, -1);
    try {
      new URL(url);
    } catch {
      continue;
    }
    const link = Object.assign(element("a", "", url), { href: url, target: "_blank", rel: "noopener noreferrer nofollow" });
    pieces.push(text.slice(from, found.index), link);
    from = found.index + url.length;
  }
  return [...pieces, text.slice(from)];
}

// ---- notes -----------------------------------------------------------------------------------------------------------

// Puts a note after all stored messages.
export function addNote(className, ...children) {
  const node = element("p", `note ${className}`, ...children);
  const pending = [...items.children].find((item) => item.talk && !item.talk.id);
  items.insertBefore(node, pending ?? null);
  updateGroup(pending);
  return node;
}

// Says who joined and left. Adds to the note before, if that is young and still the last item.
export function addPresence(joined, left) {
  let note = items.lastElementChild;
  while (note?.talk && !note.talk.id) note = note.previousElementSibling;
  if (!note?.joined || now() - note.at > GROUP_MS) {
    note = Object.assign(addNote("presence"), { at: now(), joined: new Set(), left: new Set() });
  }
  for (const user of joined) note.left.delete(user) || note.joined.add(user);   // to leave and to join cancel each other
  for (const user of left) note.joined.delete(user) || note.left.add(user);
  const joins = presence("joined", [...note.joined]), leaves = presence("left", [...note.left]);
  note.replaceChildren(...joins, joins.length && leaves.length ? " · " : "", ...leaves);
  if (!note.textContent) note.remove();
}

function presence(verb, users) {
  if (!users.length) return [];
  const [a, b] = users.map((user) => element("bdi", "", user)), size = ["One", "Two"][users.length - 1] ?? "More";
  return parts(words[verb + size], { a, b, n: users.length - 1 });
}

// ---- scrolling and unread messages -----------------------------------------------------------------------------------

export function showUnread() {
  const inRoom = !$("chat").hidden;
  if (!document.hidden && list.atEnd) list.unread = 0;
  document.title = inRoom ? (list.unread ? `(${list.unread}) ` : "") + tab.current.room : "dynochat";
  $("newer").hidden = !list.unread || list.atEnd;
  setText($("newer"), format(words.newMessages, { n: list.unread }));
}

export function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
  list.scrollTop = log.scrollTop;
  showUnread();
}

// The list stays at its end unless the person scrolled up: only a move upwards counts, not a list that grows.
log.onscroll = () => {
  if (log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX) list.atEnd = true;
  else if (log.scrollTop < list.scrollTop) list.atEnd = false;
  list.scrollTop = log.scrollTop;
  showUnread();
};
const resized = new ResizeObserver(() => {
  if (list.atEnd) scrollToEnd();
});
resized.observe(items);
resized.observe(log);   // an on-screen keyboard changes its height

$("newer").onclick = () => {
  list.atEnd = true;
  scrollToEnd();
  $("message").focus();
};
