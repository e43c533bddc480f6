// The connection to the server: when to try, when a try or a connection counts as dead, when to stop trying.
//
// It does not touch the document. chat.js passes to `start` what has to happen, and calls `check` every 250 ms.

import { now } from "./common.js";

const TRY_MS = 10_000;          // a try succeeds if the socket opens and the welcome comes within this time
const SLACK_MS = 10_000;        // a connection is dead after a heartbeat and this time without any frame
const PING_MS = 1_500;          // after waking up: a ping without an answer for this long means a dead connection
const GOOD_MS = 5_000;          // a connection that lasted this long after its welcome resets the back-off
const SPREAD_MS = 3_000;        // the first retry comes after a random time up to this, or up to what the welcome said
const RETRY_SECONDS = [1, 2, 4, 8, 15];   // the next ones after a random time between half of this and all of it
const STEP_WHEN_FULL = 4;       // after Close 1013 (the dyno is full), begin with 8 s

export const connection = {
  // idle: the form is shown → trying → live → waiting → trying …; stopped: another try would not help.
  phase: "idle",
  socket: null,
  failedTries: 0,
  triedAt: 0,
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
  refusal: null,    // the newest error frame
  whyStopped: "",
  pretendOffline: false,
  dyno: "–",
  boot: "–",
  reconnects: 0,
};

// joinFrame() gives the frame to join with; received(frame) gets each frame; closed(code) is called for each socket that is
// given up, with its close code if it has one; refused(error) when the name or room was refused; changed() on any change.
let handlers;
export function start(all) {
  handlers = all;
}

export function connect() {
  closeSocket();
  Object.assign(connection, { phase: "trying", triedAt: now(), giveUpAt: now() + TRY_MS, heardAt: now(), rejoinAt: 0, refusal: null });
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  connection.socket = socket;
  const ifCurrent = (act) => (event) => {
    if (connection.socket === socket) act(event);
  };
  socket.onopen = ifCurrent(join);
  socket.onmessage = ifCurrent((event) => receive(event.data));
  socket.onclose = ifCurrent((event) => ended(event.code));   // onerror says nothing that onclose does not
  handlers.changed();
}

function join() {
  connection.rejoinAt = 0;
  send(handlers.joinFrame());
}

export function send(frame) {
  if (connection.socket?.readyState === WebSocket.OPEN) connection.socket.send(JSON.stringify(frame));
}

// Without "quit": for the server, this person will be back.
function closeSocket(code) {
  const { socket, phase, welcomedAt } = connection;
  if (phase === "live" && now() - welcomedAt > GOOD_MS) connection.failedTries = 0;
  Object.assign(connection, { socket: null, pingedAt: 0, redisDown: false });
  socket?.close();
  handlers.closed(code);
}

// ---- frames. Kinds and fields that are not known here belong to newer pages. -----------------------------------------

function receive(data) {
  Object.assign(connection, { heardAt: now(), pingedAt: 0 });
  let frame;
  try {
    frame = JSON.parse(data);
  } catch {
    return;
  }
  if (frame?.kind === "welcome") welcomed(frame);
  if (frame?.kind === "tick") connection.tickAt = now();
  if (frame?.kind === "status") redisStatus(frame);
  if (frame?.kind === "error") joinRefused(frame);
  if (frame) handlers.received(frame);
}

function welcomed({ dyno, boot, tick_ms: tickMs, spread_ms: spreadMs }) {
  if (connection.welcomedAt) connection.reconnects += 1;
  Object.assign(connection, { phase: "live", welcomedAt: now(), redisDown: false, dyno, boot });
  if (tickMs > 0) connection.tickMs = tickMs;
  connection.spreadMs = spreadMs >= 0 ? Number(spreadMs) : SPREAD_MS;
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

// ---- the end of a connection -----------------------------------------------------------------------------------------

const NOT_UNDERSTOOD = "The server did not understand this page. Reload it: a newer one may be waiting.";
const STOPS = {
  4400: NOT_UNDERSTOOD,
  1003: NOT_UNDERSTOOD,
  4429: "Too much was sent at once, so the server closed the line. Wait a moment, then press Retry now.",
  1009: "A message was too big for the server. Discard it, then press Retry now.",
};
export const isFinal = (code) => code in STOPS;

// The only place that decides what follows the end of a connection, whoever ended it.
function ended(code) {
  const { refusal } = connection;
  closeSocket(code);
  if (code === 4409) return handlers.refused(refusal ?? {});
  if (isFinal(code)) {
    Object.assign(connection, { phase: "stopped", whyStopped: STOPS[code] });
  } else {
    if (code === 1013) connection.failedTries = Math.max(connection.failedTries, STEP_WHEN_FULL);
    const delay = retryDelay(connection.failedTries);
    Object.assign(connection, { phase: "waiting", retryAt: now() + delay, failedTries: connection.failedTries + 1 });
    setTimeout(check, delay + 1);   // the ticker of chat.js is too coarse for a wait of 40 ms
  }
  handlers.changed();
}

function retryDelay(failedTries) {
  if (failedTries === 0) return Math.random() * connection.spreadMs;
  const longest = RETRY_SECONDS[Math.min(failedTries, RETRY_SECONDS.length) - 1] * 1000;
  return longest * (0.5 + Math.random() / 2);
}

// As if the network had failed.
export function drop() {
  if (connection.socket) ended(1006);
}

// Closes the connection for good; the next step is the person's. With quit, others see at once that the person left.
export function stop({ quit }) {
  if (quit) send({ kind: "quit" });
  closeSocket();
  Object.assign(connection, { phase: "idle", failedTries: 0, welcomedAt: 0 });
}

// Closes the connection while the page is hidden; `wake` opens the next one.
export function pause() {
  closeSocket();
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
  if (connection.rejoinAt && time > connection.rejoinAt) join();
}
