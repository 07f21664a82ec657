// Load the rows of the message list: by pages, with new ones at the top.
import { useCallback, useEffect, useRef, useState } from "../../lib/preact.js";
import { get } from "../../lib/api.js";
import { withQuery } from "../../lib/paths.js";
import { toastError } from "../../ui/index.js";

const PAGE_SIZE = 100;

/** Return the rows that match the filters, newest first, with functions to load older and newer ones. */
export function useMessages(filters) {
  const key = JSON.stringify(filters);
  const [state, setState] = useState({ key, rows: null, error: null, complete: false, newIds: new Set() });
  const latest = useRef(state);
  latest.current = state;
  const currentKey = useRef(key);
  currentKey.current = key;
  const loadingMore = useRef(false);
  const fetchPage = (params) => get(withQuery("/api/messages", { ...filters, limit: PAGE_SIZE, ...params }));
  // No two messages of an account have the same time, so times are cursors. Concurrent requests may still overlap.
  const withoutKnown = (rows, known) => {
    const ids = new Set(known.map((row) => row.id));
    return rows.filter((row) => !ids.has(row.id));
  };

  const reload = useCallback(async () => {
    let next;
    try {
      const rows = await fetchPage({});
      next = { rows, error: null, complete: rows.length < PAGE_SIZE };
    } catch (error) {
      next = { rows: null, error, complete: true };
    }
    if (currentKey.current === key) setState({ key, newIds: new Set(), ...next });
  }, [key]);

  useEffect(() => {
    reload();
  }, [reload]);

  const loadMore = useCallback(async () => {
    const { rows, complete, key: shownKey } = latest.current;
    if (loadingMore.current || complete || !rows?.length || shownKey !== key) return;
    loadingMore.current = true;
    try {
      const next = await fetchPage({ before: rows[rows.length - 1].received_at });
      setState((old) =>
        old.key !== key
          ? old
          : { ...old, rows: [...old.rows, ...withoutKnown(next, old.rows)], complete: next.length < PAGE_SIZE },
      );
    } catch (error) {
      toastError(error);
    } finally {
      loadingMore.current = false;
    }
  }, [key]);

  /** Load messages newer than the first row. */
  const loadNewer = useCallback(async () => {
    const { rows, key: shownKey } = latest.current;
    if (!rows || shownKey !== key) return;
    if (!rows.length) return reload();
    try {
      const found = await fetchPage({ after: rows[0].received_at });
      if (found.length >= PAGE_SIZE) return reload();
      setState((old) => {
        const added = old.key === key && old.rows ? withoutKnown(found, old.rows) : [];
        return added.length
          ? { ...old, rows: [...added, ...old.rows], newIds: new Set(added.map((row) => row.id)) }
          : old;
      });
    } catch {
      /* Retried at the next event or tick. */
    }
    return undefined;
  }, [key]);

  /** Reload the rows of these ids by the pages that cover them; for a burst of mail that is one request. */
  const refreshRows = useCallback(async (ids) => {
    let remaining = (latest.current.rows || []).filter((row) => ids.has(row.id));
    for (let pages = 0; remaining.length && pages < 5; pages++) {
      const [newest, oldest] = [remaining[0].received_at, remaining[remaining.length - 1].received_at];
      const found = await get(withQuery("/api/messages", { before: newest + 1, after: oldest - 1, limit: 200 })).catch(
        () => [],
      );
      if (!found.length) return;
      const byId = new Map(found.map((row) => [row.id, row]));
      setState((old) => (old.rows ? { ...old, rows: old.rows.map((row) => byId.get(row.id) || row) } : old));
      const reached = found[found.length - 1].received_at;
      remaining = remaining.filter((row) => row.received_at < reached);
    }
  }, []);

  const remove = useCallback(
    (id) => setState((old) => ({ ...old, rows: old.rows?.filter((row) => row.id !== id) })),
    [],
  );
  return {
    ...state,
    loading: state.key !== key || (!state.rows && !state.error),
    loadMore,
    loadNewer,
    refreshRows,
    remove,
    reload,
  };
}
