// The public API, with the session's token. Everything the dashboard does goes through here.
import { useState, useEffect, useRef, useCallback } from "./lib.js";

const KEY = "mailkite.session";
let ended = () => {};

/** An error of the API; its message is the server's sentence. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.field = body.field || "";
  }
}

export const session = {
  get token() {
    return localStorage.getItem(KEY);
  },
  set token(value) {
    value ? localStorage.setItem(KEY, value) : localStorage.removeItem(KEY);
  },
  /** Called when the server no longer knows the session. */
  onEnd(callback) {
    ended = callback;
  },
  end: () => ended(),
};

export const headers = () => (session.token ? { authorization: `Bearer ${session.token}` } : {});

/** A request; the parsed answer, or an ApiError. */
export async function api(method, path, body, options = {}) {
  let response;
  const { token } = session;
  // What apiPath makes of a part that is no id of anything.
  if (!path.startsWith("/")) throw new ApiError(404, { error: "not found", code: "not_found" });
  try {
    response = await fetch(path, {
      method,
      headers: {
        ...headers(),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...options.headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: options.signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { error: "The server does not answer. Is it running?", code: "unreachable" });
  }
  if (options.raw && response.ok) return response;
  const text = await response.text();
  let parsed = null;
  try {
    parsed = text ? JSON.parse(text) : null;
  } catch {
    parsed = { error: `the server answered ${response.status} without JSON` };
  }
  if (!response.ok) {
    const error = new ApiError(response.status, parsed || {});
    // Not that of a session which a sign-in or a new password has replaced meanwhile.
    if (error.status === 401 && token && token === session.token && !options.public) ended();
    throw error;
  }
  return parsed;
}

export const get = (path, options) => api("GET", path, undefined, options);
export const post = (path, body, options) => api("POST", path, body, options);
export const put = (path, body) => api("PUT", path, body);
export const patch = (path, body) => api("PATCH", path, body);
export const del = (path) => api("DELETE", path);

const kept = new Map();

/**
 * Loads something for a screen. What was loaded under the same name before is shown at once while it is asked for again,
 * so going back is instant. `null` as name loads nothing.
 */
export function useLoad(name, load = () => get(name)) {
  const [state, set] = useState(() => ({ name, data: kept.get(name), error: null }));
  const latest = useRef(0);
  const current = useRef(load);
  current.current = load;
  const reload = useCallback(async () => {
    if (name === null) return undefined;
    const turn = ++latest.current;
    try {
      const data = await current.current();
      if (turn === latest.current) {
        kept.set(name, data);
        set({ name, data, error: null });
      }
      return data;
    } catch (error) {
      if (turn === latest.current && error.name !== "AbortError")
        set((old) => ({ name, data: old.name === name ? old.data : kept.get(name), error }));
      return undefined;
    }
  }, [name]);
  useEffect(() => {
    reload();
    return () => {
      latest.current++;
    };
  }, [reload]);
  const data = state.name === name ? state.data : kept.get(name);
  return {
    data,
    error: state.name === name ? state.error : null,
    reload,
    loading: data === undefined && !(state.name === name && state.error),
    mutate: (change) =>
      set((old) => {
        const next = change(old.data);
        kept.set(name, next);
        return { name, data: next, error: null };
      }),
  };
}

/** Forgets what was loaded, when somebody else signs in. */
export const forget = () => kept.clear();
