// All messages: search, filters, a list that holds as many rows as there are and draws those in view, new mail sliding
// in; beside it the one that is open.
import { html, useState, useEffect, useRef, useMemo, useLayoutEffect, useCallback } from "./lib.js";
import { get, useLoad } from "./api.js";
import { query, to } from "./paths.js";
import { mailCommand } from "./commands.js";
import { go, replace } from "./router.js";
import { useLive } from "./live.js";
import { Icon, Time, Text, Badge, Standing, Empty, Failure, Skeleton, Code, complain } from "./ui.js";
import { plural } from "./format.js";
import Message from "./message.js";

const PAGE = 100;
const ROW = 64;
const OVERSCAN = 8;

/** The rows that filters let through, newest first; more on demand, new ones at the top. */
function useMessages(filters) {
  const key = JSON.stringify(filters);
  const [state, set] = useState({ key, rows: null, error: null, ended: false, fresh: new Set() });
  const live = useRef(state);
  live.current = state;
  const wanted = useRef(key);
  wanted.current = key;
  const busy = useRef(false);
  const ask = (more) => get(query("/api/messages", { ...filters, limit: PAGE, ...more }));
  // No two messages of an account have the same time, so times are cursors. Two questions at once may still answer alike.
  const beyond = (rows, known) => {
    const ids = new Set(known.map((row) => row.id));
    return rows.filter((row) => !ids.has(row.id));
  };

  const first = useCallback(async () => {
    let next;
    try {
      const rows = await ask({});
      next = { rows, error: null, ended: rows.length < PAGE };
    } catch (error) {
      next = { rows: null, error, ended: true };
    }
    if (wanted.current === key) set({ key, fresh: new Set(), ...next });
  }, [key]);

  useEffect(() => {
    first();
  }, [first]);

  const more = useCallback(async () => {
    const { rows, ended, key: shown } = live.current;
    if (busy.current || ended || !rows?.length || shown !== key) return;
    busy.current = true;
    try {
      const next = await ask({ before: rows[rows.length - 1].received_at });
      set((old) =>
        old.key !== key ? old : { ...old, rows: [...old.rows, ...beyond(next, old.rows)], ended: next.length < PAGE },
      );
    } catch (error) {
      complain(error);
    } finally {
      busy.current = false;
    }
  }, [key]);

  /** What came since the newest row. */
  const newer = useCallback(async () => {
    const { rows, key: shown } = live.current;
    if (!rows || shown !== key) return;
    if (!rows.length) return first();
    try {
      const found = await ask({ after: rows[0].received_at });
      if (found.length >= PAGE) return first();
      set((old) => {
        const added = old.key === key && old.rows ? beyond(found, old.rows) : [];
        return added.length
          ? { ...old, rows: [...added, ...old.rows], fresh: new Set(added.map((row) => row.id)) }
          : old;
      });
    } catch {
      /* the next event or tick tries again */
    }
    return undefined;
  }, [key]);

  /** The rows of these ids, as they are now: pages that cover them, of which a burst needs one. */
  const refresh = useCallback(async (ids) => {
    let left = (live.current.rows || []).filter((row) => ids.has(row.id));
    for (let pages = 0; left.length && pages < 5; pages++) {
      const [newest, oldest] = [left[0].received_at, left[left.length - 1].received_at];
      const found = await get(query("/api/messages", { before: newest + 1, after: oldest - 1, limit: 200 })).catch(
        () => [],
      );
      if (!found.length) return;
      const byId = new Map(found.map((row) => [row.id, row]));
      set((old) => (old.rows ? { ...old, rows: old.rows.map((row) => byId.get(row.id) || row) } : old));
      const reached = found[found.length - 1].received_at;
      left = left.filter((row) => row.received_at < reached);
    }
  }, []);

  const remove = useCallback((id) => set((old) => ({ ...old, rows: old.rows?.filter((row) => row.id !== id) })), []);
  return { ...state, loading: state.key !== key || (!state.rows && !state.error), more, newer, refresh, remove, first };
}

const name = (one) => one?.name || one?.address || "";

function Row({ row, at, open, fresh, params, top }) {
  const out = row.direction === "outbound";
  const who = out ? row.to?.map((one) => name(one)).join(", ") || row.to_addr : name(row.from) || row.from_addr;
  const other = out ? row.from_addr : row.to_addr;
  return html`
    <li
      class=${`row ${fresh ? "fresh" : ""}`}
      style=${{ transform: `translateY(${top}px)` }}
      aria-posinset=${at + 1}
      aria-setsize="-1"
    >
      <a
        href=${to("messages", row.id, params)}
        aria-current=${open ? "true" : undefined}
        data-row=${at}
        data-id=${row.id}
      >
        <span class="row-icon" title=${out ? "Sent" : "Received"}>
          <${Icon} name=${out ? "up" : "in"} size="16" />
        </span>
        <span class="row-who">
          <${Text} title=${out ? row.to_addr : row.from_addr}>${who || "(nobody)"}<//>
        </span>
        <span class="row-subject">
          <${Text}>${row.subject || "(no subject)"}<//>
        </span>
        <span class="row-other">
          <span class="visually-hidden">${out ? "from" : "to"}</span>
          <${Text} title=${other}>${other}<//>
        </span>
        ${
          row.spam === "spam" &&
          html`
            <span class="row-spam">
              <${Badge} kind="bad">Spam<//>
            </span>
          `
        }
        <span class="row-state">
          <${Standing} row=${row} />
        </span>
        <${Time} at=${row.received_at} class="row-time" />
      </a>
    </li>
  `;
}

function List({ list, openId, params, inView }) {
  const box = useRef(null);
  const [view, setView] = useState({ top: 0, height: 800 });
  useLayoutEffect(() => {
    const element = box.current;
    // Behind an open message a phone hides the list, whose height is 0 then. It keeps its rows: the focus may come back
    // to one of them before the list is measured again.
    const measure = () => element.clientHeight && setView({ top: element.scrollTop, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
  const { rows } = list;
  const from = Math.max(0, Math.floor(view.top / ROW) - OVERSCAN);
  const until = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW) + OVERSCAN);
  inView.current = () => rows.slice(from, until).map((row) => row.id);
  useEffect(() => {
    if (!list.ended && until > rows.length - 30) list.more();
  }, [until, rows.length, list.ended]);

  // New rows above push nothing away from under the reader's eyes.
  const topId = useRef(rows[0]?.id);
  useLayoutEffect(() => {
    const was = rows.findIndex((row) => row.id === topId.current);
    if (was > 0 && box.current.scrollTop > ROW / 2) box.current.scrollTop += was * ROW;
    topId.current = rows[0]?.id;
  }, [rows]);

  // The row that gets the focus once it is drawn; until then keys count from it.
  const coming = useRef(-1);
  const focusRow = useCallback(
    (at) => {
      const element = box.current;
      const clamped = Math.max(0, Math.min(rows.length - 1, at));
      const top = clamped * ROW;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (top + ROW > element.scrollTop + element.clientHeight)
        element.scrollTop = top + ROW - element.clientHeight;
      coming.current = clamped;
      const focus = () => {
        const drawn = coming.current === clamped && element.querySelector(`[data-row="${clamped}"]`);
        if (drawn) {
          coming.current = -1;
          drawn.focus({ preventScroll: true });
        }
        return drawn;
      };
      if (!focus())
        requestAnimationFrame(() =>
          requestAnimationFrame(() => {
            if (!focus() && coming.current === clamped) coming.current = -1;
          }),
        );
      return rows[clamped];
    },
    [rows],
  );

  // A message that an address led to is in view.
  useLayoutEffect(() => {
    const at = rows.findIndex((row) => row.id === openId);
    const element = box.current;
    if (at * ROW + ROW > element.scrollTop + element.clientHeight)
      element.scrollTop = at * ROW - element.clientHeight / 2;
  }, []);

  useEffect(() => {
    const down = (event) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        event.target.closest("input, textarea, select, dialog, [role=tablist]")
      )
        return;
      const step = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      const inList = box.current.contains(document.activeElement);
      // Arrows also move menus and scroll texts; they are the list's where nothing else would take them.
      const idle = document.activeElement.matches("body, main, h1, h2");
      if (!step || (event.key.startsWith("Arrow") && !inList && !idle)) return;
      event.preventDefault();
      const focused = coming.current >= 0 ? coming.current : document.activeElement?.dataset?.row;
      const open = rows.findIndex((row) => row.id === openId);
      const at =
        (inList || coming.current >= 0) && focused !== undefined
          ? Number(focused) + step
          : open >= 0
            ? open + step
            : step > 0
              ? 0
              : rows.length - 1;
      const row = focusRow(at);
      if (openId && row) replace(to("messages", row.id, params));
    };
    addEventListener("keydown", down);
    return () => removeEventListener("keydown", down);
  }, [rows, openId, focusRow]);

  return html`
    <div class="list" ref=${box} data-list tabindex="-1">
      <ul
        style=${{ height: `${rows.length * ROW + (list.ended ? 0 : ROW)}px` }}
        aria-label="Messages"
        aria-busy=${list.ended ? "false" : "true"}
      >
        ${rows.slice(from, until).map(
          (row, at) => html`
            <${Row}
              key=${row.id}
              row=${row}
              at=${from + at}
              top=${(from + at) * ROW}
              open=${row.id === openId}
              fresh=${list.fresh.has(row.id)}
              params=${params}
            />
          `,
        )}
      </ul>
    </div>
  `;
}

const STATES = [
  ["", "Any state"],
  ["received", "Received"],
  ["dropped", "Dropped"],
  ["scheduled", "Scheduled"],
  ["queued", "Queued"],
  ["deferred", "Deferred"],
  ["sent", "Sent"],
  ["bounced", "Bounced"],
  ["failed", "Failed"],
  ["canceled", "Canceled"],
];

/** Midnight after a day, here. */
const nextDay = (day) => {
  const [year, month, date] = day.split("-").map(Number);
  return date ? new Date(year, month - 1, date + 1).getTime() : "";
};

function FirstMail({ domains }) {
  const verified = domains.data?.find((domain) => domain.mx_verified);
  const server = useLoad("/api/server");
  if (domains.data && !verified)
    return html`
      <${Empty} icon="messages" title="No mail yet">
        <p>Mail comes in once a domain's MX record points here.</p>
        <a class="button primary" href=${to("domains")}>
          <${Icon} name="plus" />
          Add a domain
        </a>
      <//>
    `;
  return html`
    <${Empty} icon="messages" title="No mail yet">
      <p>Send one to any address at <strong>${verified?.domain}</strong>. It shows here as it arrives.</p>
      <${Code} label="with curl">${mailCommand(verified?.domain || "your.domain", server.data)}<//>
      <p>or <a href=${to("send")}>send one from here</a>.</p>
    <//>
  `;
}

export default function Messages({ route }) {
  const openId = route.parts[1];
  const { search = "", direction = "", status = "", domain = "", until = "", focus } = route.params;
  const params = useMemo(
    () => ({ search, direction, status, domain, until }),
    [search, direction, status, domain, until],
  );
  const [typed, type] = useState(search);
  const list = useMessages({ search, direction, status, domain, before: nextDay(until) });
  const domains = useLoad("/api/domains");
  const box = useRef(null);
  const timer = useRef(0);
  const filtered = search || direction || status || domain || until;
  useEffect(() => {
    type(search);
  }, [search]);
  // Closed, a message gives the focus back to its row.
  const wasOpen = useRef(openId);
  useEffect(() => {
    if (!openId) {
      document.title = "Messages · mailkite";
      document
        .querySelector(`[data-list] [data-id="${CSS.escape(wasOpen.current || "")}"]`)
        ?.focus({ preventScroll: true });
    }
    wasOpen.current = openId;
  }, [openId]);
  useEffect(() => {
    if (focus) {
      box.current?.focus();
      replace(to("messages", params));
    }
  }, [focus]);

  const apply = (change) => replace(to("messages", ...(openId ? [openId] : []), { ...params, ...change }));
  const onSearch = (event) => {
    const value = event.target.value;
    type(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => apply({ search: value.trim() }), 120);
  };

  const inView = useRef(() => []);
  const touched = useRef(new Set());
  const soon = useRef(0);
  useLive((event, data) => {
    // Without the stream, or after a gap in it, any row in view may stand differently by now.
    if (event === "tick" || event === "stream.gap") inView.current().forEach((id) => touched.current.add(id));
    if (event === "delivery.updated" && data.data?.messageId) touched.current.add(data.data.messageId);
    if (event === "email.sent" || event === "email.bounced") touched.current.add(data.data?.messageId);
    if (soon.current) return;
    // One answer to many events: a burst of mail is one request.
    soon.current = setTimeout(
      () => {
        soon.current = 0;
        const ids = touched.current;
        touched.current = new Set();
        list.newer();
        if (ids.size) list.refresh(ids);
      },
      event === "tick" ? 0 : 150,
    );
  });
  useEffect(
    () => () => {
      clearTimeout(soon.current);
      clearTimeout(timer.current);
    },
    [],
  );

  useEffect(() => {
    const down = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
        if (event.target === box.current) {
          if (typed) {
            type("");
            apply({ search: "" });
          }
          box.current.blur();
        } else if (openId) go(to("messages", params));
      }
      if (event.key === "/" && !event.target.closest("input, textarea, select, dialog")) {
        event.preventDefault();
        box.current?.focus();
        box.current?.select();
      }
    };
    addEventListener("keydown", down);
    return () => removeEventListener("keydown", down);
  }, [openId, params, typed]);

  return html`
    <div class=${`messages ${openId ? "has-open" : ""}`}>
      <h1 class="visually-hidden" tabindex="-1">Messages</h1>
      <section class="messages-list" aria-label="Messages">
        <header class="list-head">
          <p class="list-title" aria-hidden="true">Messages</p>
          <div class="search">
            <${Icon} name="search" />
            <input
              ref=${box}
              type="search"
              data-search
              value=${typed}
              onInput=${onSearch}
              placeholder="Search sender, recipient, subject"
              aria-label="Search sender, recipient, subject"
            />
            <kbd aria-hidden="true">/</kbd>
          </div>
          <div class="filters">
            <select
              aria-label="Direction"
              value=${direction}
              onChange=${(event) => apply({ direction: event.target.value })}
            >
              ${[
                ["", "In and out"],
                ["inbound", "Received"],
                ["outbound", "Sent"],
              ].map(
                ([key, text]) => html`<option key=${key} value=${key} selected=${key === direction}>${text}</option>`,
              )}
            </select>
            <select aria-label="State" value=${status} onChange=${(event) => apply({ status: event.target.value })}>
              ${STATES.map(
                ([key, text]) => html`<option key=${key} value=${key} selected=${key === status}>${text}</option>`,
              )}
            </select>
            ${
              (domains.data?.length > 1 || domain) &&
              html`
                <select
                  aria-label="Domain"
                  value=${domain}
                  onChange=${(event) => apply({ domain: event.target.value })}
                >
                  <option value="" selected=${!domain}>All domains</option>
                  ${(domains.data || []).map(
                    (one) => html`
                      <option key=${one.id} value=${one.domain} selected=${one.domain === domain}>${one.domain}</option>
                    `,
                  )}
                </select>
              `
            }
            <label class=${`up-to ${until ? "" : "unset"}`}>
              Up to${" "}
              <input type="date" value=${until} onChange=${(event) => apply({ until: event.target.value })} />
            </label>
            ${
              filtered &&
              html`
                <button
                  type="button"
                  class="link"
                  onClick=${() => {
                    type("");
                    apply({ search: "", direction: "", status: "", domain: "", until: "" });
                  }}
                >
                  Clear
                </button>
              `
            }
          </div>
        </header>
        ${
          list.error
            ? html`<${Failure} error=${list.error} retry=${list.first} />`
            : list.loading && !list.rows
              ? html`<${Skeleton} lines="8" />`
              : list.rows?.length
                ? html`<${List} list=${list} openId=${openId} params=${params} inView=${inView} />`
                : filtered
                  ? html`
                    <${Empty} icon="search" title="Nothing fits">
                      <p>Search looks for a part of sender, recipient or subject.</p>
                    <//>
                  `
                  : html`<${FirstMail} domains=${domains} />`
        }
        <p class="visually-hidden" role="status">
          ${list.rows && filtered ? `${plural(list.rows.length, "message")}${list.ended ? "" : " or more"}` : ""}
        </p>
      </section>
      ${
        openId &&
        html`
          <section class="messages-open" aria-label="Message">
            <${Message}
              key=${openId}
              id=${openId}
              back=${to("messages", params)}
              onDeleted=${(id) => {
                list.remove(id);
                go(to("messages", params));
              }}
            />
          </section>
        `
      }
    </div>
  `;
}
