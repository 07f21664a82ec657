// Messages: search, filters, the list, and the open message beside it.
import { html, useEffect, useMemo, useRef, useState } from "../../lib/preact.js";
import { plural } from "../../lib/format.js";
import { useLiveEvents } from "../../lib/live.js";
import { href } from "../../lib/paths.js";
import { useResource } from "../../lib/api.js";
import { navigate, replaceRoute } from "../../lib/router.js";
import { EmptyState, Icon, LoadError, Skeleton } from "../../ui/index.js";
import { FirstMail } from "./first-mail.js";
import { MessageList } from "./message-list.js";
import { Message } from "./message.js";
import { useMessages } from "./use-messages.js";

const STATUS_OPTIONS = [
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

/** Return the local midnight that ends a day. */
const startOfNextDay = (day) => {
  const [year, month, date] = day.split("-").map(Number);
  return date ? new Date(year, month - 1, date + 1).getTime() : "";
};

export default function Messages({ route }) {
  const openId = route.parts[1];
  const { search = "", direction = "", status = "", domain = "", until = "", focus } = route.params;
  const params = useMemo(
    () => ({ search, direction, status, domain, until }),
    [search, direction, status, domain, until],
  );
  const [searchText, setSearchText] = useState(search);
  const list = useMessages({ search, direction, status, domain, before: startOfNextDay(until) });
  const domains = useResource("/api/domains");
  const searchInput = useRef(null);
  const searchTimer = useRef(0);
  const filtered = search || direction || status || domain || until;
  useEffect(() => {
    setSearchText(search);
  }, [search]);
  // Return the focus to the row of a message that was closed.
  const previousOpenId = useRef(openId);
  useEffect(() => {
    if (!openId) {
      document.title = "Messages · mailkite";
      document
        .querySelector(`[data-list] [data-id="${CSS.escape(previousOpenId.current || "")}"]`)
        ?.focus({ preventScroll: true });
    }
    previousOpenId.current = openId;
  }, [openId]);
  useEffect(() => {
    if (focus) {
      searchInput.current?.focus();
      replaceRoute(href("messages", params));
    }
  }, [focus]);

  const setFilters = (change) => replaceRoute(href("messages", ...(openId ? [openId] : []), { ...params, ...change }));
  const onSearch = (event) => {
    const value = event.target.value;
    setSearchText(value);
    clearTimeout(searchTimer.current);
    searchTimer.current = setTimeout(() => setFilters({ search: value.trim() }), 120);
  };

  const visibleIds = useRef(() => []);
  const changedIds = useRef(new Set());
  const refreshTimer = useRef(0);
  useLiveEvents((event, data) => {
    // Without the stream, or after a gap in it, any visible row may have changed.
    if (event === "tick" || event === "stream.gap") visibleIds.current().forEach((id) => changedIds.current.add(id));
    if (event === "delivery.updated" && data.data?.messageId) changedIds.current.add(data.data.messageId);
    if (event === "email.sent" || event === "email.bounced") changedIds.current.add(data.data?.messageId);
    if (refreshTimer.current) return;
    // Debounced: a burst of mail causes one request.
    refreshTimer.current = setTimeout(
      () => {
        refreshTimer.current = 0;
        const ids = changedIds.current;
        changedIds.current = new Set();
        list.loadNewer();
        if (ids.size) list.refreshRows(ids);
      },
      event === "tick" ? 0 : 150,
    );
  });
  useEffect(
    () => () => {
      clearTimeout(refreshTimer.current);
      clearTimeout(searchTimer.current);
    },
    [],
  );

  useEffect(() => {
    const onKeyDown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
        if (event.target === searchInput.current) {
          if (searchText) {
            setSearchText("");
            setFilters({ search: "" });
          }
          searchInput.current.blur();
        } else if (openId) navigate(href("messages", params));
      }
      if (event.key === "/" && !event.target.closest("input, textarea, select, dialog")) {
        event.preventDefault();
        searchInput.current?.focus();
        searchInput.current?.select();
      }
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [openId, params, searchText]);

  return html`
    <div class=${`messages ${openId ? "has-open" : ""}`}>
      <h1 class="visually-hidden" tabindex="-1">Messages</h1>
      <section class="messages-list" aria-label="Messages">
        <header class="list-head">
          <p class="list-title" aria-hidden="true">Messages</p>
          <div class="search">
            <${Icon} name="search" />
            <input
              ref=${searchInput}
              type="search"
              data-search
              value=${searchText}
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
              onChange=${(event) => setFilters({ direction: event.target.value })}
            >
              ${[
                ["", "In and out"],
                ["inbound", "Received"],
                ["outbound", "Sent"],
              ].map(
                ([key, text]) => html`<option key=${key} value=${key} selected=${key === direction}>${text}</option>`,
              )}
            </select>
            <select
              aria-label="State"
              value=${status}
              onChange=${(event) => setFilters({ status: event.target.value })}
            >
              ${STATUS_OPTIONS.map(
                ([key, text]) => html`<option key=${key} value=${key} selected=${key === status}>${text}</option>`,
              )}
            </select>
            ${
              (domains.data?.length > 1 || domain) &&
              html`
                <select
                  aria-label="Domain"
                  value=${domain}
                  onChange=${(event) => setFilters({ domain: event.target.value })}
                >
                  <option value="" selected=${!domain}>All domains</option>
                  ${(domains.data || []).map(
                    (option) => html`
                      <option key=${option.id} value=${option.domain} selected=${option.domain === domain}>
                        ${option.domain}
                      </option>
                    `,
                  )}
                </select>
              `
            }
            <label class=${`date-filter ${until ? "" : "unset"}`}>
              Up to${" "}
              <input type="date" value=${until} onChange=${(event) => setFilters({ until: event.target.value })} />
            </label>
            ${
              filtered &&
              html`
                <button
                  type="button"
                  class="link"
                  onClick=${() => {
                    setSearchText("");
                    setFilters({ search: "", direction: "", status: "", domain: "", until: "" });
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
            ? html`<${LoadError} error=${list.error} retry=${list.reload} />`
            : list.loading && !list.rows
              ? html`<${Skeleton} lines="8" />`
              : list.rows?.length
                ? html`<${MessageList} list=${list} openId=${openId} params=${params} visibleIds=${visibleIds} />`
                : filtered
                  ? html`
                    <${EmptyState} icon="search" title="No matches">
                      <p>Search looks for a part of sender, recipient or subject.</p>
                    <//>
                  `
                  : html`<${FirstMail} domains=${domains} />`
        }
        <p class="visually-hidden" role="status">
          ${list.rows && filtered ? `${plural(list.rows.length, "message")}${list.complete ? "" : " or more"}` : ""}
        </p>
      </section>
      ${
        openId &&
        html`
          <section class="messages-open" aria-label="Message">
            <${Message}
              key=${openId}
              id=${openId}
              back=${href("messages", params)}
              onDeleted=${(id) => {
                list.remove(id);
                navigate(href("messages", params));
              }}
            />
          </section>
        `
      }
    </div>
  `;
}
