// Read the account's server-sent events (contract 10) with fetch: an EventSource cannot send credentials, and a token
// in the URL would be spent by its first use, so it could not reconnect.
import { useEffect, useRef, useState } from "./preact.js";
import { authHeaders, session } from "./api.js";

/** The server sends a comment every 15 seconds; a stream that is silent for longer is dead. */
const SILENCE_TIMEOUT = 40_000;

/** A hidden tab closes its stream: browsers allow six connections to one server over HTTP/1.1. */
const HIDDEN_TIMEOUT = 5_000;

const listeners = new Set();
const stateListeners = new Set();
let connectionState = "off";
let lastId = "";
let reconnecting = false;
let activeStream = null;
let hiddenTimer = 0;

function setConnectionState(next) {
  if (connectionState === next) return;
  connectionState = next;
  stateListeners.forEach((listener) => listener(next));
}

function dispatchEventBlock(block) {
  let type = "message",
    data = "";
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") type = value;
    else if (field === "data") data += (data && "\n") + value;
    else if (field === "id") lastId = value;
  }
  if (!data) return;
  let parsed;
  try {
    parsed = JSON.parse(data);
  } catch {
    return;
  }
  emit(type, parsed);
}

const emit = (type, data) =>
  listeners.forEach((listener) => {
    try {
      listener(type, data);
    } catch (error) {
      console.error(error);
    }
  });

/** Read the stream to its end; return false if the session is over. */
async function connect(stopSignal) {
  const silenceController = new AbortController();
  const signal = AbortSignal.any([stopSignal, silenceController.signal]);
  let silenceTimer = setTimeout(() => silenceController.abort(), SILENCE_TIMEOUT);
  try {
    const token = session.token;
    const response = await fetch("/v1/realtime", {
      headers: { ...authHeaders(), ...(lastId ? { "last-event-id": lastId } : {}) },
      signal,
      cache: "no-store",
    });
    if (response.status === 401) {
      // A changed password has replaced the token meanwhile.
      if (session.token !== token) return true;
      session.end();
      return false;
    }
    if (!response.ok) throw new Error(`stream: ${response.status}`);
    setConnectionState("live");
    // Without an id to resume after, events between the two streams are lost.
    if (reconnecting && !lastId) emit("stream.gap", {});
    reconnecting = true;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return true;
      clearTimeout(silenceTimer);
      silenceTimer = setTimeout(() => silenceController.abort(), SILENCE_TIMEOUT);
      buffer += value;
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        dispatchEventBlock(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
      }
    }
  } finally {
    clearTimeout(silenceTimer);
  }
}

/** End the wait before the next connection now. */
let retryNow = () => {};

async function run(controller) {
  let delay = 500;
  while (!controller.signal.aborted && session.token) {
    if (connectionState !== "live") setConnectionState("connecting");
    const startedAt = Date.now();
    try {
      if (!(await connect(controller.signal))) return;
    } catch {
      /* Retried below. */
    }
    if (controller.signal.aborted) return;
    setConnectionState("connecting");
    delay = Date.now() - startedAt > 10000 ? 500 : Math.min(delay * 2, 15000);
    await new Promise((resolve) => {
      retryNow = resolve;
      setTimeout(resolve, delay);
    });
  }
}

export function start() {
  if (activeStream) return;
  activeStream = new AbortController();
  run(activeStream);
}

export function stop() {
  activeStream?.abort();
  activeStream = null;
  setConnectionState("off");
}

/** Stop, and forget the stream of the account that was signed in before. */
export const reset = () => {
  stop();
  lastId = "";
  reconnecting = false;
};

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(stop, HIDDEN_TIMEOUT);
  else if (session.token && !activeStream) start();
  else retryNow();
});

addEventListener("online", () => retryNow());

/** Call back for each event while the component is mounted; without a stream, with "tick" every few seconds. */
export function useLiveEvents(callback) {
  const current = useRef(callback);
  current.current = callback;
  useEffect(() => {
    const listener = (type, data) => current.current(type, data);
    listeners.add(listener);
    const timer = setInterval(() => {
      if (connectionState !== "live" && !document.hidden) listener("tick", {});
    }, 5000);
    return () => {
      listeners.delete(listener);
      clearInterval(timer);
    };
  }, []);
}

/** Call back once, `delay` ms after the first of any number of events that match. */
export function useLiveRefresh(matches, callback, delay = 400) {
  const timer = useRef(0);
  const current = useRef(callback);
  current.current = callback;
  useLiveEvents((type, data) => {
    if (type !== "tick" && type !== "stream.gap" && !matches(type, data)) return;
    if (!timer.current)
      timer.current = setTimeout(() => {
        timer.current = 0;
        current.current();
      }, delay);
  });
  useEffect(() => () => clearTimeout(timer.current), []);
}

export function useConnectionState() {
  const [value, setValue] = useState(connectionState);
  useEffect(() => {
    stateListeners.add(setValue);
    setValue(connectionState);
    return () => stateListeners.delete(setValue);
  }, []);
  return value;
}
