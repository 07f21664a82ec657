// Badges, notices, the states of loading, and the layout of a screen: a page with a header, and cards.
import { html, useEffect } from "../lib/preact.js";
import { SEND_STATUSES } from "../lib/explain.js";
import { useNow } from "../lib/format.js";
import { Button } from "./button.js";
import { Icon } from "./icons.js";
import { RelativeTime } from "./text.js";

export const Badge = ({ tone = "", children, title }) =>
  html`<span class=${`badge ${tone}`} title=${title}>${children}</span>`;

/** Badge with the delivery status of a message. */
export function MessageStatus({ row }) {
  if (row.direction === "outbound") {
    const [label, tone] = SEND_STATUSES[row.send_status] || [row.send_status, ""];
    return html`<${Badge} tone=${tone}>${label}<//>`;
  }
  if (row.status === "dropped") return html`<${Badge}>Dropped<//>`;
  if (row.failed_count) return html`<${Badge} tone="bad">${row.last_status_code || "Failed"}<//>`;
  if (row.pending_count)
    return html`
      <${Badge} tone=${row.attempts > 0 ? "warn" : "info"}>
        ${row.attempts > 0 ? `Retrying${row.last_status_code ? ` ${row.last_status_code}` : ""}` : "Pending"}
      <//>
    `;
  if (row.delivered_count) return html`<${Badge} tone="good">${row.last_status_code || "Delivered"}<//>`;
  return html`<${Badge}>Stored<//>`;
}

export const EmptyState = ({ icon, title, children }) =>
  html`
    <div class="empty">
      ${
        icon &&
        html`
          <span class="empty-icon">
            <${Icon} name=${icon} size="26" />
          </span>
        `
      }
      <h2>${title}</h2>
      ${children}
    </div>
  `;

export const Notice = ({ tone = "info", title, children }) => html`
  <div class=${`notice ${tone}`} role=${tone === "bad" ? "alert" : undefined}>
    <${Icon} name=${tone === "good" ? "check" : tone === "info" ? "info" : "warn"} />
    <div>
      ${title && html`<strong>${title}</strong>`}
      ${children}
    </div>
  </div>
`;

/** Error of a failed load in the server's words, with a retry button if `retry` is given. */
export const LoadError = ({ error, retry }) =>
  error.status === 404
    ? html`<${Notice} title="There is nothing here.">It was deleted, or the address is wrong.<//>`
    : html`
      <${Notice} tone="bad" title="This could not be loaded.">
        <p>${error.message}</p>
        ${retry && html`<${Button} action=${retry} icon="refresh">Try again<//>`}
      <//>
    `;

/** Explain a paused endpoint (contract 9.5); `until` is the time of the next probe. */
export function PauseExplanation({ until }) {
  const now = useNow();
  return html`
    It failed five times in a row, so nothing is posted to it for a while. One delivery tries it again${" "}
    ${until > now ? html`<${RelativeTime} at=${until} />` : "at this moment"}; the others wait, lose no attempt,
    and follow once it works.
  `;
}

export const EndpointPausedNotice = ({ until }) =>
  html`
    <${Notice} tone="warn" title="This endpoint is paused.">
      <p>
        <${PauseExplanation} until=${until} />
      </p>
    <//>
  `;

export const Skeleton = ({ lines = 4 }) =>
  html`
    <div class="skeleton" aria-hidden="true">
      ${Array.from({ length: lines }, (_, index) => html`<div key=${index}></div>`)}
    </div>
  `;

/** Render a resource of `useResource`: a skeleton while it loads, its error, or `children(data)`. */
export const Loaded = ({ resource, children, lines }) =>
  resource.data !== undefined
    ? children(resource.data)
    : resource.error
      ? html`<${LoadError} error=${resource.error} retry=${resource.reload} />`
      : html`<${Skeleton} lines=${lines} />`;

export const Page = ({ title, lead, actions, children, back, narrow }) => {
  useEffect(() => {
    document.title = `${typeof title === "string" ? title : "mailkite"} · mailkite`;
  }, [title]);
  return html`
    <div class=${`page ${narrow ? "narrow" : ""}`}>
      <header class="page-head">
        <div>
          ${
            back &&
            html`
              <a class="back" href=${back[0]}>
                <${Icon} name="back" size="16" />
                ${back[1]}
              </a>
            `
          }
          <h1 tabindex="-1">${title}</h1>
          ${lead && html`<p class="lead">${lead}</p>`}
        </div>
        ${actions && html`<div class="actions">${actions}</div>`}
      </header>
      ${children}
    </div>
  `;
};

export const Card = ({ title, actions, children, class: extra = "", id }) =>
  html`
    <section class=${`card ${extra}`} id=${id}>
      ${
        (title || actions) &&
        html`
          <header>
            <h2>${title}</h2>
            ${actions && html`<div class="actions">${actions}</div>`}
          </header>
        `
      }
      ${children}
    </section>
  `;
