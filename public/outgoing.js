// Own messages that are not acknowledged yet: kept across reloads, sent one at a time, shown with their state.
//
// A pending message: cid, room, text, at (written), since (when the person last asked to send it), sentAt (first sent, 0:
// not yet), problem ("": none, "failed", "unsure"), why (a sentence).

import { $, button, element, now, randomHex, saveTab, tab } from "./common.js";
import { connection, isFinal, send } from "./connection.js";
import { addPending, list } from "./messages.js";
import { sentenceOf, words } from "./words.js";

const LATE_MS = 10_000;       // without an answer for this long: "not confirmed yet", and the message is sent again
const CID_KEPT_MS = 100_000;  // the server knows a cid for 120 s; after that, sending again may store the message twice

// One message is in flight at a time, so that the order survives every refusal.
let inFlight = null;   // the cid that waits for its answer
let inFlightSince = 0;
let holdUntil = 0;     // the server asked to wait until then
export let maxLength = 1000;

const nodes = new Map();   // cid → its node in the list
const pendingHere = () => tab.pending.filter((message) => message.room === tab.current?.room);

// Control characters and lone surrogates are invisible, and the server would refuse them.
export const clean = (text) => (text.toWellFormed?.() ?? text).replace(/[^\P{Cc}\n\t]/gu, "").trim();
export const codePoints = (text) => [...text].length;   // the server's unit

export function write(text) {
  const message = { cid: randomHex(8), room: tab.current.room, text, at: now(), since: now(), sentAt: 0, problem: "" };
  tab.pending.push(message);
  draw(message);
  list.atEnd = true;
  sendNext();
}

export function sendNext() {
  if (inFlight && now() - inFlightSince > LATE_MS) inFlight = null;   // no answer: the same cid may go again
  if (connection.phase !== "live" || inFlight || now() <= holdUntil) return;
  const message = pendingHere().find((one) => !one.problem);
  if (!message) return;
  inFlight = message.cid;
  inFlightSince = now();
  message.sentAt ||= now();
  saveTab();   // before sending: after a crash it must be known that the server may have the message
  send({ kind: "talk", message: message.text, cid: message.cid });
}

// ---- what can happen to a message ------------------------------------------------------------------------------------

// Forgets the message with this cid, if it is one of this tab, and gives its node.
export function acknowledge(cid) {
  const message = tab.pending.find((one) => one.cid === cid);
  if (!message) return null;
  const node = nodes.get(cid);
  forget(message);
  return { node };
}

export function refuse(error) {
  const { code, cid, retry_ms: retryMs } = error;
  const message = tab.pending.find((one) => one.cid === cid);
  if (code === "busy" || code === "slow_down") {
    if (connection.phase === "live") holdUntil = now() + (retryMs || 2000);
    if (message && code === "slow_down") message.sentAt = 0;   // surely not stored; after "busy" it may be
    if (message) inFlight = null;
  } else if (message && code !== "name_taken") {   // a lost name is no fault of the message
    setProblem(message, "failed", sentenceOf(error, { max: maxLength }));
  }
}

export function joined(max) {
  maxLength = max || maxLength;
  holdUntil = 0;
}

export function redisIsUp() {
  holdUntil = Math.min(holdUntil, now() + Math.random() * 1000);   // random: all pages hear of it at once
}

export function connectionClosed(code) {
  const message = tab.pending.find((one) => one.cid === inFlight);
  inFlight = null;
  // After 4429 it was one message of many. After the others it is most likely the cause: do not send it again unasked.
  if (message && isFinal(code) && code !== 4429) setProblem(message, "failed");
}

// If the history has no gap and does not contain the message, it was not stored: it is sent. With a gap that is unknown,
// and the server may have forgotten the cid: the person decides. A message that this tab never sent may be stored, too:
// a duplicated tab has the same one.
export function joinedWithGap() {
  for (const message of pendingHere()) {
    if (!message.problem && now() - message.since > CID_KEPT_MS) setProblem(message, "unsure");
  }
}

export function left() {   // kept for a return, but no longer sent unasked
  for (const message of pendingHere()) message.problem ||= message.sentAt ? "unsure" : "failed";
}

function setProblem(message, problem, why = "") {
  if (inFlight === message.cid) inFlight = null;
  Object.assign(message, { problem, why });
  saveTab();
  showState(message);
}

function forget(message) {
  if (inFlight === message.cid) inFlight = null;
  tab.pending = tab.pending.filter((one) => one !== message);
  saveTab();
  nodes.delete(message.cid);
}

// ---- in the list -----------------------------------------------------------------------------------------------------

// Draws all messages of this room that are pending. The list is empty.
export function drawAll() {
  nodes.clear();
  for (const message of pendingHere()) draw(message);
}

function draw(message) {
  nodes.set(message.cid, addPending(tab.current.name, message.text, message.at));
  showState(message);
  saveTab();
}

export function showStates() {
  for (const message of pendingHere()) showState(message);
}

function showState(message) {
  const node = nodes.get(message.cid), state = message.problem || (now() - message.since > LATE_MS ? "late" : "sending");
  if (!node || node.dataset.state === state) return;
  node.dataset.state = state;
  const retry = () => {
    Object.assign(message, { problem: "", why: "", since: now() });
    showState(message);
    sendNext();
    $("message").focus();
  };
  const discard = () => {
    forget(message);
    node.remove();
    $("message").focus();
  };
  const choice = message.problem ? [" · ", button(words.retry, retry), " / ", button(words.discard, discard)] : [];
  node.querySelector(".state").replaceChildren(words[state], ...choice, ...(message.why ? [element("small", "", message.why)] : []));
}
