// Cards of the Overview: problems, endpoints, latest messages.
import { html, useState } from "../../lib/preact.js";
import { formatNumber } from "../../lib/format.js";
import { href, hrefFromLink } from "../../lib/paths.js";
import { Badge, Card, Icon, MessageStatus, RelativeTime, UrlText, UserText } from "../../ui/index.js";

/** Number of items shown at first, so that the rest of the screen stays in view. */
const COLLAPSED_COUNT = 3;

export function Attention({ items }) {
  const [showAll, setShowAll] = useState(false);
  if (!items?.length)
    return html`
      <p class="all-clear">
        <${Icon} name="check" />
        All is well: nothing needs your attention.
      </p>
    `;
  return html`
    <${Card} title="Needs attention">
      <ul class="attention">
        ${items.slice(0, showAll ? undefined : COLLAPSED_COUNT).map(
          (item, index) => html`
            <li key=${index}>
              <${Icon} name="warn" />
              <div>
                <strong>
                  <${UserText}>${item.title}<//>
                </strong>
                ${
                  item.detail &&
                  html`
                    <p class="hint">
                      <${UserText}>${item.detail}<//>
                    </p>
                  `
                }
              </div>
              ${
                item.link &&
                html`
                  <a class="button small" href=${hrefFromLink(item.link)} aria-label=${`Show: ${item.title}`}>Show</a>
                `
              }
            </li>
          `,
        )}
      </ul>
      ${
        items.length > COLLAPSED_COUNT &&
        html`
          <p>
            <button type="button" class="link" onClick=${() => setShowAll(!showAll)}>
              ${showAll ? "Show fewer" : `Show all ${formatNumber(items.length)}`}
            </button>
          </p>
        `
      }
    <//>
  `;
}

export function Endpoints({ endpoints }) {
  if (!endpoints?.length) return null;
  return html`
    <${Card} title="Endpoints" actions=${html`<a href=${href("deliveries")}>Deliveries</a>`}>
      <div class="table-wrap" tabindex="0" role="region" aria-label="Endpoints">
        <table>
          <thead>
            <tr>
              <th>Endpoint</th>
              <th class="num">Delivered</th>
              <th class="num">Failed</th>
              <th class="num">Waiting</th>
              <th>Last answer</th>
            </tr>
          </thead>
          <tbody>
            ${endpoints.map(
              (endpoint, index) => html`
                <tr key=${index}>
                  <td class="wide-cell">
                    <${UrlText}>${endpoint.url}<//>
                    ${endpoint.domain && html`<div class="muted">${endpoint.domain}</div>`}
                  </td>
                  <td class="num">${formatNumber(endpoint.delivered)}</td>
                  <td class=${`num ${endpoint.failed ? "bad-text" : ""}`}>${formatNumber(endpoint.failed)}</td>
                  <td class="num">${formatNumber(endpoint.waiting)}</td>
                  <td class="nowrap">
                    ${
                      endpoint.lastStatusCode
                        ? html`
                          <${Badge} tone=${endpoint.lastStatusCode < 300 ? "good" : "bad"}>
                            ${endpoint.lastStatusCode}
                          <//>
                        `
                        : endpoint.lastAttemptAt
                          ? html`<${Badge} tone="bad">none<//>`
                          : "–"
                    }${" "}
                    ${
                      endpoint.pausedUntil &&
                      html`
                        <${Badge}
                          tone="warn"
                          title="It failed five times in a row. Its deliveries wait; one at a time tries it."
                        >
                          Paused
                        <//>${" "}
                      `
                    }
                    ${endpoint.lastAttemptAt && html`<${RelativeTime} at=${endpoint.lastAttemptAt} class="muted" />`}
                  </td>
                </tr>
              `,
            )}
          </tbody>
        </table>
      </div>
    <//>
  `;
}

export function LatestMessages({ rows }) {
  if (!rows?.length) return null;
  return html`
    <${Card} title="Latest" actions=${html`<a href=${href("messages")}>All messages</a>`}>
      <ul class="recent">
        ${rows.slice(0, 6).map(
          (row) => html`
            <li key=${row.id}>
              <a href=${href("messages", row.id)}>
                <${Icon} name=${row.direction === "outbound" ? "up" : "in"} size="16" />
                <span class="recent-correspondent">
                  <${UserText}>${row.direction === "outbound" ? row.to_addr : row.from?.name || row.from_addr}<//>
                </span>
                <span class="recent-subject">
                  <${UserText}>${row.subject || "(no subject)"}<//>
                </span>
                <${MessageStatus} row=${row} />
                <${RelativeTime} at=${row.received_at} class="muted" />
              </a>
            </li>
          `,
        )}
      </ul>
    <//>
  `;
}
