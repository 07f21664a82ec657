// Summarize the webhook endpoints.
import { html } from "../../lib/preact.js";
import { formatNumber } from "../../lib/format.js";
import { href } from "../../lib/paths.js";
import { Badge, Card, RelativeTime, UrlText } from "../../ui/index.js";

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
