// The table of deliveries, with a checkbox for each.
import { html } from "../../lib/preact.js";
import { explainAttemptError } from "../../lib/explain.js";
import { href } from "../../lib/paths.js";
import { Badge, RelativeTime, UrlText, UserText } from "../../ui/index.js";

const STATUS_TONE = { delivered: "good", failed: "bad", pending: "warn" };
export const STATUS_LABEL = { delivered: "Delivered", failed: "Failed", pending: "Waiting" };

export function DeliveryTable({ rows, selected, onSelect }) {
  const toggle = (id) => {
    const next = new Set(selected);
    next.has(id) ? next.delete(id) : next.add(id);
    onSelect(next);
  };
  const allSelected = rows.length > 0 && rows.every((row) => selected.has(row.id));
  return html`
    <div class="table-wrap" tabindex="0" role="region" aria-label="Deliveries">
      <table>
        <thead>
          <tr>
            <th class="checkbox-cell">
              <input
                type="checkbox"
                aria-label="Select all"
                checked=${allSelected}
                onChange=${() => onSelect(allSelected ? new Set() : new Set(rows.map((row) => row.id)))}
              />
            </th>
            <th>State</th>
            <th>Message</th>
            <th class="endpoint-cell">Endpoint</th>
            <th class="num attempts-cell">Attempts</th>
            <th>When</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (row) => html`
              <tr key=${row.id}>
                <td class="checkbox-cell">
                  <input
                    type="checkbox"
                    aria-label=${`Select ${row.subject || row.id}`}
                    checked=${selected.has(row.id)}
                    onChange=${() => toggle(row.id)}
                  />
                </td>
                <td>
                  <${Badge}
                    tone=${STATUS_TONE[row.status]}
                    title=${row.last_error ? explainAttemptError(row.last_error).join(": ") : undefined}
                  >
                    ${
                      row.last_status_code ||
                      (row.last_error ? explainAttemptError(row.last_error)[0] : STATUS_LABEL[row.status])
                    }
                  <//>
                  ${
                    row.paused_until &&
                    html`
                      ${" "}<${Badge} title="Its endpoint failed five times in a row. It waits, and loses no attempt.">
                        Paused
                      <//>
                    `
                  }
                </td>
                <td class="subject-cell">
                  ${
                    row.message_id
                      ? html`
                        <a href=${href("messages", row.message_id)}>
                          <${UserText}>${row.subject || "(no subject)"}<//>
                        </a>
                      `
                      : html`<${UserText}>${row.event_type}<//>`
                  }
                  <div class="muted">
                    <bdi>${row.from_addr || ""}</bdi>
                  </div>
                  <div class="only-narrow">
                    <${UrlText}>${row.url}<//>
                  </div>
                </td>
                <td class="endpoint-cell">
                  <${UrlText}>${row.url}<//>
                </td>
                <td class="num attempts-cell">${row.attempts}</td>
                <td>
                  <${RelativeTime} at=${row.updated_at} />
                  ${
                    row.status === "pending" &&
                    row.next_attempt_at &&
                    html`<div class="muted">next <${RelativeTime} at=${row.next_attempt_at} /></div>`
                  }
                </td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
