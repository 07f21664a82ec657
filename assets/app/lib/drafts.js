// Keep unsent and unsaved input. A draft survives leaving its screen and the end of a session, but not closing the
// page, which asks first.
import { useCallback, useEffect, useRef, useState } from "./preact.js";

const drafts = new Map();

/**
 * Return the draft of this name, or `initial` if there is none. `update` changes fields on behalf of the user and makes
 * the draft dirty; `setDraft` fills in defaults; `clear` forgets the draft once it is sent, saved or discarded.
 */
export function useDraft(name, initial) {
  const [draft, setDraft] = useState(() => drafts.get(name) || initial);
  const latest = useRef(draft);
  latest.current = draft;
  const update = useCallback(
    (change) => {
      latest.current = { ...latest.current, ...change };
      drafts.set(name, latest.current);
      setDraft(latest.current);
    },
    [name],
  );
  const clear = useCallback(
    (next) => {
      drafts.delete(name);
      setDraft(next);
    },
    [name],
  );
  const dirty = drafts.has(name);
  useEffect(() => {
    if (!dirty) return undefined;
    const confirmLeave = (event) => event.preventDefault();
    addEventListener("beforeunload", confirmLeave);
    return () => removeEventListener("beforeunload", confirmLeave);
  }, [dirty]);
  return { draft, setDraft, dirty, update, clear };
}

/** Clear all drafts, before another account signs in. */
export const clearDrafts = () => drafts.clear();
