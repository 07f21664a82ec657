// List the latest messages.
import { html } from "../../lib/preact.js";
import { href } from "../../lib/paths.js";
import { Card, Icon, MessageStatus, RelativeTime, UserText } from "../../ui/index.js";

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
