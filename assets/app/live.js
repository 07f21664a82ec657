// Server-sent events of the account (contract 10), read with fetch: an EventSource can send no credential, and a token
// in the address would be spent by its first use, so that it could not come back by itself.
import { useState, useEffect, useRef } from "./lib.js";
import { headers, session } from "./api.js";

const listeners = new Set();
const watchers = new Set();
let state = "off"; // off, connecting, live
let lastId = "";
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
  listeners.forEach((listener) => {
    try {
      listener(type, parsed);
    } catch (error) {
      console.error(error);
    }
  });
}

async function connect(signal) {
  const response = await fetch("/v1/realtime", {
    headers: { ...headers(), ...(lastId ? { "last-event-id": lastId } : {}) },
    signal,
    cache: "no-store",
  });
  if (response.status === 401) {
    become("off");
    return false;
  }
  if (!response.ok) throw new Error(`stream: ${response.status}`);
  become("live");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      dispatch(rest.slice(0, end));
      rest = rest.slice(end + 2);
    }
  }
}

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
    await new Promise((resolve) => setTimeout(resolve, wait));
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
};

// A tab that nobody looks at gives its connection back: browsers allow few to one server.
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden)
    hiddenTimer = setTimeout(() => {
      stop();
    }, 60000);
  else if (session.token && !running) start();
});

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
