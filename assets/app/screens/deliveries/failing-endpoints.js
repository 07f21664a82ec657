// List endpoints that recently failed to take webhooks.
import { html } from "../../lib/preact.js";
import { formatNumber } from "../../lib/format.js";
import { useLiveRefresh } from "../../lib/live.js";
import { useResource } from "../../lib/api.js";
import { Button, Card, Icon, PauseExplanation, RelativeTime } from "../../ui/index.js";

/** Card with endpoints that are paused or failed during the last week. */
export function FailingEndpoints({ onShow }) {
  const week = useResource("/api/overview?range=week");
  useLiveRefresh((type) => type === "delivery.updated", week.reload, 2000);
  const isFailing = (endpoint) =>
    endpoint.pausedUntil ||
    endpoint.failed > 0 ||
    (endpoint.waiting > 0 && endpoint.lastAttemptAt && !(endpoint.lastStatusCode < 300));
  const failing = week.data?.endpoints.filter(isFailing) || [];
  if (!failing.length) return null;
  return html`
    <${Card} title="Failing endpoints">
      <ul class="attention">
        ${failing.map(
          (endpoint) => html`
            <li key=${endpoint.url}>
              <${Icon} name="warn" />
              <div>
                <strong>
                  <bdi class="mono wrap">${endpoint.url}</bdi>
                </strong>
                <p class="hint">
                  In the last 7 days${" "}
                  ${[
                    endpoint.failed && `${formatNumber(endpoint.failed)} given up`,
                    endpoint.waiting && `${formatNumber(endpoint.waiting)} waiting for another attempt`,
                  ]
                    .filter(Boolean)
                    .join(", ")}
                  ${
                    endpoint.lastAttemptAt &&
                    html`
                      ; last answer ${endpoint.lastStatusCode || "none"},${" "}
                      <${RelativeTime} at=${endpoint.lastAttemptAt} />
                    `
                  }.
                </p>
                ${
                  endpoint.pausedUntil &&
                  html`
                    <p class="hint">
                      <strong>Paused.</strong>${" "}
                      <${PauseExplanation} until=${endpoint.pausedUntil} />
                    </p>
                  `
                }
              </div>
              <${Button} variant="small" onClick=${() => onShow(endpoint)}>Show<//>
            </li>
          `,
        )}
      </ul>
    <//>
  `;
}
