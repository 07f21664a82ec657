// Load data of the API for a screen, and cache it for the next visit.
import { useCallback, useEffect, useRef, useState } from "./preact.js";
import { get } from "./api.js";

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
