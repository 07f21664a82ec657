// What somebody is writing and has not sent or saved yet. It outlives leaving its screen and the end of a session, not the
// page; closing that asks first.
import { useState, useEffect, useRef, useCallback } from "./lib.js";

const drafts = new Map();

/**
 * The draft of this name, as it was left, else what it begins with. `keep` is for the fields that somebody changes, `set` for what fills
 * itself in; `drop` forgets it, once it is sent, saved or thrown away.
 */
export function useDraft(name, begin) {
  const [draft, set] = useState(() => drafts.get(name) || begin);
  const latest = useRef(draft);
  latest.current = draft;
  const keep = useCallback(
    (change) => {
      latest.current = { ...latest.current, ...change };
      drafts.set(name, latest.current);
      set(latest.current);
    },
    [name],
  );
  const drop = useCallback(
    (next) => {
      drafts.delete(name);
      set(next);
    },
    [name],
  );
  const written = drafts.has(name);
  useEffect(() => {
    if (!written) return undefined;
    const ask = (event) => event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [written]);
  return { draft, set, written, keep, drop };
}

/** When somebody else signs in. */
export const forgetDrafts = () => drafts.clear();
