// Call the public API with the session's token, and cache its data for the next visit of a screen. Every request but
// the event stream is made here.
import { useCallback, useEffect, useRef, useState } from "./preact.js";

const STORAGE_KEY = "mailkite.session";
let onSessionEnd = () => {};

/** Error of the API; its message is the server's sentence. */
class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.field = body.field || "";
  }
}

export const session = {
  get token() {
    return localStorage.getItem(STORAGE_KEY);
  },
  set token(value) {
    value ? localStorage.setItem(STORAGE_KEY, value) : localStorage.removeItem(STORAGE_KEY);
  },
  /** Register the callback for a session that the server no longer knows. */
  onEnd(callback) {
    onSessionEnd = callback;
  },
  end: () => onSessionEnd(),
};

export const authHeaders = () => (session.token ? { authorization: `Bearer ${session.token}` } : {});

/** Send a request; return the parsed body or throw an ApiError. */
export async function api(method, path, body, options = {}) {
  let response;
  const { token } = session;
  // apiPath returns an empty path for values that are no valid ids.
  if (!path.startsWith("/")) throw new ApiError(404, { error: "not found", code: "not_found" });
  try {
    response = await fetch(path, {
      method,
      headers: {
        ...authHeaders(),
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
    // Ignore a session that a sign-in or a changed password has replaced meanwhile.
    if (error.status === 401 && token && token === session.token && !options.public) onSessionEnd();
    throw error;
  }
  return parsed;
}

export const get = (path, options) => api("GET", path, undefined, options);
export const post = (path, body, options) => api("POST", path, body, options);
export const put = (path, body) => api("PUT", path, body);
export const patch = (path, body) => api("PATCH", path, body);
export const del = (path) => api("DELETE", path);

const cache = new Map();

/**
 * Load data while the component is mounted. Data cached under the same name is returned at once and revalidated, so
 * that going back is instant. With `null` as name nothing is loaded.
 */
export function useResource(name, load = () => get(name)) {
  const [state, setState] = useState(() => ({ name, data: cache.get(name), error: null }));
  const latestRequest = useRef(0);
  const currentLoad = useRef(load);
  currentLoad.current = load;
  const reload = useCallback(async () => {
    if (name === null) return undefined;
    const request = ++latestRequest.current;
    try {
      const data = await currentLoad.current();
      if (request === latestRequest.current) {
        cache.set(name, data);
        setState({ name, data, error: null });
      }
      return data;
    } catch (error) {
      if (request === latestRequest.current && error.name !== "AbortError")
        setState((old) => ({ name, data: old.name === name ? old.data : cache.get(name), error }));
      return undefined;
    }
  }, [name]);
  useEffect(() => {
    reload();
    return () => {
      latestRequest.current++;
    };
  }, [reload]);
  const data = state.name === name ? state.data : cache.get(name);
  return {
    data,
    error: state.name === name ? state.error : null,
    reload,
    loading: data === undefined && !(state.name === name && state.error),
    mutate: (update) =>
      setState((old) => {
        const next = update(old.data);
        cache.set(name, next);
        return { name, data: next, error: null };
      }),
  };
}

/** Clear the cache, before another account signs in. */
export const clearCache = () => cache.clear();
