// Server-sent events of the account (contract 10), read with fetch: an EventSource can send no credential, and a token
// in the address would be spent by its first use, so that it could not come back by itself.
import { useState, useEffect, useRef } from "./lib.js";
import { headers, session } from "./api.js";

/** The server says something every 15 seconds; a stream that is silent for longer is dead, whatever the network claims. */
const SILENCE = 40_000;
/** A tab that nobody looks at soon gives its connection back: browsers allow six to one server over HTTP/1.1. */
const HIDDEN = 5_000;

const listeners = new Set();
const watchers = new Set();
let state = "off"; // off, connecting, live
let lastId = "";
let again = false; // whether there was a stream before
let running = null;
let hiddenTimer = 0;

function become(next) {
  if (state === next) return;
  state = next;
  watchers.forEach((watcher) => watcher(next));
}

function dispatch(block) {
  let type = "message",
    data = "";
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at === 0) continue;
    const field = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
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
  tell(type, parsed);
}

const tell = (type, data) =>
  listeners.forEach((listener) => {
    try {
      listener(type, data);
    } catch (error) {
      console.error(error);
    }
  });

/** Reads the stream to its end; false when the session is over. */
async function connect(stopped) {
  const one = new AbortController();
  const signal = AbortSignal.any([stopped, one.signal]);
  let silence = setTimeout(() => one.abort(), SILENCE);
  try {
    const token = session.token;
    const response = await fetch("/v1/realtime", {
      headers: { ...headers(), ...(lastId ? { "last-event-id": lastId } : {}) },
      signal,
      cache: "no-store",
    });
    if (response.status === 401) {
      // A new password has made another token meanwhile.
      if (session.token !== token) return true;
      session.end();
      return false;
    }
    if (!response.ok) throw new Error(`stream: ${response.status}`);
    become("live");
    // Between two streams something may have happened that no id to resume after stands for.
    if (again && !lastId) tell("stream.gap", {});
    again = true;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return true;
      clearTimeout(silence);
      silence = setTimeout(() => one.abort(), SILENCE);
      rest += value;
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        dispatch(rest.slice(0, end));
        rest = rest.slice(end + 2);
      }
    }
  } finally {
    clearTimeout(silence);
  }
}

/** Ends a wait before its time. */
let hurry = () => {};

async function run(controller) {
  let wait = 500;
  while (!controller.signal.aborted && session.token) {
    if (state !== "live") become("connecting");
    const began = Date.now();
    try {
      if (!(await connect(controller.signal))) return;
    } catch {
      /* tried again below */
    }
    if (controller.signal.aborted) return;
    become("connecting");
    wait = Date.now() - began > 10000 ? 500 : Math.min(wait * 2, 15000);
    await new Promise((resolve) => {
      hurry = resolve;
      setTimeout(resolve, wait);
    });
  }
}

export function start() {
  if (running) return;
  running = new AbortController();
  run(running);
}

export function stop() {
  running?.abort();
  running = null;
  become("off");
}

/** After another sign-in nothing of the old account's stream counts. */
export const reset = () => {
  stop();
  lastId = "";
  again = false;
};

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(stop, HIDDEN);
  else if (session.token && !running) start();
  else hurry();
});
addEventListener("online", () => hurry());

/** Calls back for each event while the component lives; without a stream, with "tick" every few seconds. */
export function useLive(callback) {
  const current = useRef(callback);
  current.current = callback;
  useEffect(() => {
    const listener = (type, data) => current.current(type, data);
    listeners.add(listener);
    const timer = setInterval(() => {
      if (state !== "live" && !document.hidden) listener("tick", {});
    }, 5000);
    return () => {
      listeners.delete(listener);
      clearInterval(timer);
    };
  }, []);
}

/** Calls back once, a moment after events that `wants` says yes to, however many they are. */
export function useLiveSoon(wants, callback, delay = 400) {
  const timer = useRef(0);
  const current = useRef(callback);
  current.current = callback;
  useLive((type, data) => {
    if (type !== "tick" && type !== "stream.gap" && !wants(type, data)) return;
    if (!timer.current)
      timer.current = setTimeout(() => {
        timer.current = 0;
        current.current();
      }, delay);
  });
  useEffect(() => () => clearTimeout(timer.current), []);
}

export function useLiveState() {
  const [value, set] = useState(state);
  useEffect(() => {
    watchers.add(set);
    set(state);
    return () => watchers.delete(set);
  }, []);
  return value;
}
