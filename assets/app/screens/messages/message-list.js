// The message list. It is as tall as all rows, but only those in view are rendered.
import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "../../lib/preact.js";
import { href } from "../../lib/paths.js";
import { replaceRoute } from "../../lib/router.js";
import { Badge, Icon, MessageStatus, RelativeTime, UserText } from "../../ui/index.js";

const ROW_HEIGHT = 64;
const OVERSCAN = 8;
const displayName = (mailbox) => mailbox?.name || mailbox?.address || "";

function MessageRow({ row, index, isOpen, isNew, params, top }) {
  const outbound = row.direction === "outbound";
  const correspondent = outbound
    ? row.to?.map((mailbox) => displayName(mailbox)).join(", ") || row.to_addr
    : displayName(row.from) || row.from_addr;
  const ownAddress = outbound ? row.from_addr : row.to_addr;
  return html`
    <li
      class=${`row ${isNew ? "new" : ""}`}
      style=${{ transform: `translateY(${top}px)` }}
      aria-posinset=${index + 1}
      aria-setsize="-1"
    >
      <a
        href=${href("messages", row.id, params)}
        aria-current=${isOpen ? "true" : undefined}
        data-row=${index}
        data-id=${row.id}
      >
        <span class="row-icon" title=${outbound ? "Sent" : "Received"}>
          <${Icon} name=${outbound ? "up" : "in"} size="16" />
        </span>
        <span class="row-correspondent">
          <${UserText} title=${outbound ? row.to_addr : row.from_addr}>${correspondent || "(nobody)"}<//>
        </span>
        <span class="row-subject">
          <${UserText}>${row.subject || "(no subject)"}<//>
        </span>
        <span class="row-own-address">
          <span class="visually-hidden">${outbound ? "from" : "to"}</span>
          <${UserText} title=${ownAddress}>${ownAddress}<//>
        </span>
        ${
          row.spam === "spam" &&
          html`
            <span class="row-spam">
              <${Badge} tone="bad">Spam<//>
            </span>
          `
        }
        <span class="row-status">
          <${MessageStatus} row=${row} />
        </span>
        <${RelativeTime} at=${row.received_at} class="row-time" />
      </a>
    </li>
  `;
}

export function MessageList({ list, openId, params, visibleIds }) {
  const listRef = useRef(null);
  const [viewport, setViewport] = useState({ top: 0, height: 800 });
  useLayoutEffect(() => {
    const element = listRef.current;
    // A phone hides the list behind an open message, and its height is 0. Keep the rendered rows: one of them may get
    // the focus back before the list is measured again.
    const measure = () => element.clientHeight && setViewport({ top: element.scrollTop, height: element.clientHeight });
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
  const firstIndex = Math.max(0, Math.floor(viewport.top / ROW_HEIGHT) - OVERSCAN);
  const endIndex = Math.min(rows.length, Math.ceil((viewport.top + viewport.height) / ROW_HEIGHT) + OVERSCAN);
  visibleIds.current = () => rows.slice(firstIndex, endIndex).map((row) => row.id);
  useEffect(() => {
    if (!list.complete && endIndex > rows.length - 30) list.loadMore();
  }, [endIndex, rows.length, list.complete]);

  // Keep the scroll position on the same rows when new ones are added above.
  const topId = useRef(rows[0]?.id);
  useLayoutEffect(() => {
    const previousTop = rows.findIndex((row) => row.id === topId.current);
    if (previousTop > 0 && listRef.current.scrollTop > ROW_HEIGHT / 2)
      listRef.current.scrollTop += previousTop * ROW_HEIGHT;
    topId.current = rows[0]?.id;
  }, [rows]);

  // Index of the row to focus once it is rendered; until then the arrow keys start from it.
  const pendingFocus = useRef(-1);
  const focusRow = useCallback(
    (index) => {
      const element = listRef.current;
      const clamped = Math.max(0, Math.min(rows.length - 1, index));
      const top = clamped * ROW_HEIGHT;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (top + ROW_HEIGHT > element.scrollTop + element.clientHeight)
        element.scrollTop = top + ROW_HEIGHT - element.clientHeight;
      pendingFocus.current = clamped;
      const focus = () => {
        const link = pendingFocus.current === clamped && element.querySelector(`[data-row="${clamped}"]`);
        if (link) {
          pendingFocus.current = -1;
          link.focus({ preventScroll: true });
        }
        return link;
      };
      if (!focus())
        requestAnimationFrame(() =>
          requestAnimationFrame(() => {
            if (!focus() && pendingFocus.current === clamped) pendingFocus.current = -1;
          }),
        );
      return rows[clamped];
    },
    [rows],
  );

  // Scroll to the message of the URL.
  useLayoutEffect(() => {
    const index = rows.findIndex((row) => row.id === openId);
    const element = listRef.current;
    if (index * ROW_HEIGHT + ROW_HEIGHT > element.scrollTop + element.clientHeight)
      element.scrollTop = index * ROW_HEIGHT - element.clientHeight / 2;
  }, []);

  useEffect(() => {
    const onKeyDown = (event) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        event.target.closest("input, textarea, select, dialog, [role=tablist]")
      )
        return;
      const direction = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      const inList = listRef.current.contains(document.activeElement);
      // Arrow keys also move menus and scroll text: take them only if nothing else would.
      const nothingFocused = document.activeElement.matches("body, main, h1, h2");
      if (!direction || (event.key.startsWith("Arrow") && !inList && !nothingFocused)) return;
      event.preventDefault();
      const focused = pendingFocus.current >= 0 ? pendingFocus.current : document.activeElement?.dataset?.row;
      const open = rows.findIndex((row) => row.id === openId);
      const index =
        (inList || pendingFocus.current >= 0) && focused !== undefined
          ? Number(focused) + direction
          : open >= 0
            ? open + direction
            : direction > 0
              ? 0
              : rows.length - 1;
      const row = focusRow(index);
      if (openId && row) replaceRoute(href("messages", row.id, params));
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [rows, openId, focusRow]);

  return html`
    <div class="list" ref=${listRef} data-list tabindex="-1">
      <ul
        style=${{ height: `${rows.length * ROW_HEIGHT + (list.complete ? 0 : ROW_HEIGHT)}px` }}
        aria-label="Messages"
        aria-busy=${list.complete ? "false" : "true"}
      >
        ${rows.slice(firstIndex, endIndex).map(
          (row, index) => html`
            <${MessageRow}
              key=${row.id}
              row=${row}
              index=${firstIndex + index}
              top=${(firstIndex + index) * ROW_HEIGHT}
              isOpen=${row.id === openId}
              isNew=${list.newIds.has(row.id)}
              params=${params}
            />
          `,
        )}
      </ul>
    </div>
  `;
}
