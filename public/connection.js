// The connection to the server: when to try, when a try or a connection counts as dead, when to stop trying.
//
// It does not touch the document. chat.js passes to `start` what has to happen, and calls `check` every 250 ms.

import { now, randomHex } from "./common.js";

const TRY_MS = 10_000;          // a try succeeds if the socket opens and the welcome comes within this time
const SLACK_MS = 10_000;        // a connection is dead after `tick_ms` and this time without a frame
const PING_MS = 1_500;          // after waking up: a ping without an answer for this long means a dead connection
const GOOD_MS = 5_000;          // a connection that lasted this long after its welcome resets the back-off
const SPREAD_MS = 3_000;        // the first retry comes after a random time up to this, or up to what the server said
const RETRY_SECONDS = [1, 2, 4, 8, 15];   // the next ones after a random time between half of this and all of it
const STEP_WHEN_FULL = 4;       // after Close 1013 (the dyno is full), the next try comes after 4 to 8 s

export const connection = {
  // idle: the form is shown → trying → live → waiting → trying …; stopped: another try would not help.
  phase: "idle",
  socket: null,
  next: null,       // the second socket, during a move
  failedTries: 0,
  triedAt: 0,
  movedAt: 0,       // the newest try to move
  giveUpAt: 0,      // the end of a try
  retryAt: 0,       // the end of a wait
  rejoinAt: 0,      // after "busy": when to send the join again
  heardAt: 0,       // the newest frame
  pingedAt: 0,      // a ping that waits for an answer
  welcomedAt: 0,    // 0: not yet since the form was shown
  tickAt: 0,        // the newest tick
  tickMs: 25_000,
  spreadMs: SPREAD_MS,
  redisDown: false,
  triesSinceOpen: 0,         // since a socket opened
  webSocketBlocked: false,   // no socket opens, although the server answers other requests
  refusal: null,    // the newest error frame
  stopCode: 0,      // the close code after which the page stopped
  pretendOffline: false,
  dyno: "–",
  boot: "–",
  reconnects: 0,
  moves: 0,
};

// joinFrame() gives the frame to join with; received(frame, moved) gets each frame (moved: it is the welcome of a move);
// closed(code) is called when a connection is given up, with its close code if it has one; refused(error) when the name or
// room was refused; changed() on any change.
let handlers;
export function start(all) {
  handlers = all;
}

export function connect() {
  closeSockets();
  Object.assign(connection, { phase: "trying", triedAt: now(), giveUpAt: now() + TRY_MS, heardAt: now(), refusal: null });
  connection.socket = open();
  connection.triesSinceOpen += 1;
  handlers.changed();
}

// An event counts only for the current socket or the next one. A socket that was given up is ignored.
function open() {
  // Each try has a path of its own. Firefox delays a WebSocket to a path where one has failed, longer for each failure and
  // for all tabs together. The page has its own back-off.
  const path = `/ws/${randomHex(4)}`;
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`);
  socket.onopen = () => {
    Object.assign(connection, { triesSinceOpen: 0, webSocketBlocked: false });
    join(socket);
  };
  socket.onmessage = ({ data }) => {
    const frame = parse(data);
    if (socket === connection.socket) receive(frame);
    else if (socket === connection.next) receiveNext(frame);
  };
  socket.onclose = ({ code }) => {   // onerror says nothing that onclose does not
    if (socket === connection.socket) ended(code);
    else if (socket === connection.next) connection.next = null;
  };
  return socket;
}

function join(socket) {
  connection.rejoinAt = 0;
  send(handlers.joinFrame(), socket);
}

export function send(frame, socket = connection.socket) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

// Sends no "quit": the server keeps the name for this person.
function closeSockets(code) {
  const { socket, next, phase, welcomedAt } = connection;
  if (phase === "live" && now() - welcomedAt > GOOD_MS) connection.failedTries = 0;
  Object.assign(connection, { socket: null, next: null, pingedAt: 0, rejoinAt: 0, redisDown: false });
  socket?.close();
  next?.close();
  handlers.closed(code);
}

// ---- frames. Kinds and fields that this page does not know belong to newer ones. -----------------------------------

function parse(data) {
  try {
    return JSON.parse(data) ?? {};
  } catch {
    return {};
  }
}

function receive(frame) {
  Object.assign(connection, { heardAt: now(), pingedAt: 0 });
  if (frame.kind === "welcome") {
    if (connection.welcomedAt) connection.reconnects += 1;
    welcomed(frame);
  }
  if (frame.kind === "tick") ticked(frame);
  if (frame.kind === "status") redisStatus(frame);
  if (frame.kind === "error") joinRefused(frame);
  if (frame.kind === "move") move();
  handlers.received(frame, false);
}

function welcomed({ dyno, boot, tick_ms: tickMs, spread_ms: spreadMs }) {
  Object.assign(connection, { phase: "live", welcomedAt: now(), redisDown: false, dyno, boot });
  if (tickMs > 0) connection.tickMs = tickMs;
  connection.spreadMs = spreadMs >= 0 ? Number(spreadMs) : SPREAD_MS;
}

function ticked({ spread_ms: spreadMs }) {
  connection.tickAt = now();
  if (spreadMs >= 0) connection.spreadMs = Number(spreadMs);
}

function redisStatus({ redis }) {
  connection.redisDown = redis === "down";
  const soon = now() + Math.random() * 1000;   // random: all pages hear of it at once
  // The server's deadline for a join does not run while Redis is down.
  if (connection.phase === "trying") connection.giveUpAt = connection.redisDown ? Infinity : soon + TRY_MS;
  if (!connection.redisDown && connection.rejoinAt) connection.rejoinAt = soon;
}

function joinRefused(error) {
  connection.refusal = error;
  if (connection.phase !== "trying" || (error.code !== "busy" && error.code !== "slow_down")) return;
  connection.rejoinAt = now() + (error.retry_ms || 2000);
  connection.giveUpAt = connection.redisDown ? Infinity : connection.rejoinAt + TRY_MS;
}

// ---- moving: this dyno is stopping, so the page connects to another one before it closes this connection --------------

// A try that fails is dropped. The dyno repeats `move`, and that is the retry: the timers of a background tab run once a
// minute, but messages are not delayed.
function move() {
  if (connection.next && now() - connection.movedAt < TRY_MS) return;
  connection.next?.close();
  Object.assign(connection, { next: open(), movedAt: now() });
}

function receiveNext(frame) {
  if (frame.kind !== "welcome" && frame.kind !== "error") return;
  const { socket, next } = connection;
  // A proxy had opened this connection in advance: it leads to the dyno that is stopping.
  const failed = frame.kind === "error" || frame.boot === connection.boot;
  connection.next = null;
  if (failed) return next.close();
  Object.assign(connection, { socket: next, heardAt: now(), pingedAt: 0, failedTries: 0, moves: connection.moves + 1 });
  handlers.closed();
  welcomed(frame);
  handlers.received(frame, true);
  socket.close(1000);
}

// ---- the end of a connection -----------------------------------------------------------------------------------------

// After these close codes another try would not help: a frame that was not understood, a binary frame, too many messages, a
// message that is too big.
const FINAL = [4400, 1003, 4429, 1009];
export const isFinal = (code) => FINAL.includes(code);

// Decides what follows the end of a connection. Every end of a connection comes to this function.
function ended(code) {
  const { refusal } = connection;
  closeSockets(code);
  if (code === 4409) return handlers.refused(refusal ?? {});
  if (isFinal(code)) {
    Object.assign(connection, { phase: "stopped", stopCode: code });
  } else {
    if (code === 1013) connection.failedTries = Math.max(connection.failedTries, STEP_WHEN_FULL);
    const delay = retryDelay(connection.failedTries);
    Object.assign(connection, { phase: "waiting", retryAt: now() + delay, failedTries: connection.failedTries + 1 });
    if (connection.triesSinceOpen >= 2) findOutIfBlocked();
    setTimeout(check, delay + 1);   // the ticker of chat.js is too coarse for a wait of 40 ms
  }
  handlers.changed();
}

// A proxy that does not pass WebSocket connections on, or an origin that is not allowed: no retry helps, but the person
// can report it to the operator of the server.
async function findOutIfBlocked() {
  let answers = false;
  try {
    answers = (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(TRY_MS) })).ok;
  } catch { /* the server does not answer at all */ }
  connection.webSocketBlocked = answers && connection.triesSinceOpen >= 2;
  handlers.changed();
}

function retryDelay(failedTries) {
  if (failedTries === 0) return Math.random() * connection.spreadMs;
  const longest = RETRY_SECONDS[Math.min(failedTries, RETRY_SECONDS.length) - 1] * 1000;
  return longest * (0.5 + Math.random() / 2);
}

// Ends the connection as if the network had failed.
export function drop() {
  if (connection.socket) ended(1006);
}

function sendQuit() {
  for (const socket of [connection.socket, connection.next]) send({ kind: "quit" }, socket);
}

// Closes the connection for good; the next step is the person's. With quit, others see at once that the person left.
export function stop({ quit }) {
  if (quit) sendQuit();
  closeSockets();
  Object.assign(connection, { phase: "idle", failedTries: 0, welcomedAt: 0 });
}

// Closes the connection while the page is hidden; `wake` opens the next one.
export function pause({ quit }) {
  if (quit) sendQuit();
  closeSockets();
  if (connection.phase !== "idle" && connection.phase !== "stopped") Object.assign(connection, { phase: "waiting", retryAt: Infinity });
}

// ---- time ------------------------------------------------------------------------------------------------------------

// Called when the network or the tab came back, and after sleep: checks the connection or opens the next one.
export function wake() {
  const { phase, socket, triedAt, heardAt, tickMs, redisDown, pingedAt } = connection;
  if (connection.pretendOffline || phase === "idle" || phase === "stopped") return;
  const oldTry = phase === "trying" && !redisDown && Math.abs(now() - triedAt) > 2000;
  if (phase === "waiting" || oldTry || now() - heardAt > tickMs + SLACK_MS) {
    connect();
  } else if (socket.readyState === WebSocket.OPEN && !pingedAt) {
    connection.pingedAt = now();
    send({ kind: "ping" });
  }
}

// Every deadline is a time of the wall clock. So what became due during sleep is done right after it.
let checkedAt = now();
export function check() {
  const time = now(), slept = time - checkedAt > 5000 || time < checkedAt;
  checkedAt = time;
  const { phase, pingedAt, heardAt, tickMs } = connection;
  if (slept) wake();
  else if (pingedAt && time - pingedAt > PING_MS) connect();
  else if (connection.socket && time - heardAt > tickMs + SLACK_MS) drop();
  else if (phase === "trying" && time > connection.giveUpAt) drop();
  else if (phase === "waiting" && time >= connection.retryAt && !connection.pretendOffline) connect();
  if (connection.rejoinAt && time > connection.rejoinAt) join(connection.socket);
}
