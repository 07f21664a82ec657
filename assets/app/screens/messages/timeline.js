// Show a message's way in one timeline: from acceptance to every webhook and recipient.
import { html } from "../../lib/preact.js";
import { SEND_STATUSES } from "../../lib/explain.js";
import { exactTime, formatBytes, plural } from "../../lib/format.js";
import { href } from "../../lib/paths.js";
import { RelativeTime } from "../../ui/index.js";
import { WebhookDelivery } from "./delivery.js";
import { TimelineEvent } from "./timeline-event.js";

/** Status of one recipient, with the host that accepted or refused it and the SMTP transcript. */
function RecipientStatus({ recipient, transmission, forwarded }) {
  const [label, tone, hint] = SEND_STATUSES[recipient.status] || [recipient.status, "", ""];
  const icon = tone === "good" ? "check" : tone === "bad" ? "cross" : "clock";
  return html`
    <${TimelineEvent}
      tone=${tone}
      icon=${icon}
      title=${forwarded ? (recipient.status === "failed" ? "Not forwarded" : `Forward: ${label.toLowerCase()}`) : label}
      at=${recipient.updatedAt}
    >
      <p class="mono wrap">
        <bdi>${recipient.address}</bdi>
      </p>
      ${
        transmission?.host &&
        html`
          <p class="hint">
            by <bdi>${transmission.host}</bdi> ·${" "}
            ${transmission.tls ? html`<bdi>${transmission.tls}</bdi>` : "not encrypted"}
            ${transmission.attempts > 1 ? ` · attempt ${transmission.attempts}` : ""}
          </p>
        `
      }
      ${
        recipient.diagnostic
          ? html`<pre class="raw small" tabindex="0" dir="auto">${recipient.diagnostic}</pre>`
          : html`<p class="hint">${hint}</p>`
      }
      ${
        transmission?.transcript &&
        html`
          <details class="attempt">
            <summary>
              <span>SMTP dialog</span>
              ${transmission.attemptedAt && html`<${RelativeTime} at=${transmission.attemptedAt} class="muted" />`}
            </summary>
            <div class="attempt-body">
              <pre class="raw small" tabindex="0">${transmission.transcript}</pre>
            </div>
          </details>
        `
      }
    <//>
  `;
}

export function Timeline({ message, deliveries, recipients, transmissions, routes, reload }) {
  const inbound = message.direction === "inbound";
  const route = routes?.find((other) => other.id === message.route_id);
  const checked = ["spf", "dkim", "dmarc"].filter((kind) => message[kind]);
  const failed = checked.filter((kind) => message[kind] === "fail");
  const transmissionTo = (address) =>
    transmissions.find(
      (transmission) =>
        !transmission.routeId && transmission.recipients.some((recipient) => recipient.address === address),
    );
  const forwards = transmissions.filter((transmission) => transmission.routeId);
  const targets = [
    deliveries.length && plural(deliveries.length, "webhook"),
    forwards.length && plural(forwards.length, "other address", "other addresses"),
  ].filter(Boolean);
  return html`
    <ol class="timeline" aria-label="What happened to this message">
      ${
        inbound
          ? html`
            <${TimelineEvent} tone="good" icon="in" title="Received" at=${message.received_at}>
              <p class="hint">
                from <bdi>${message.mail_from || "<> (a bounce or notice)"}</bdi> for${" "}
                <bdi>${message.to_addr}</bdi>, ${formatBytes(message.size_bytes)}
              </p>
            <//>
            <${TimelineEvent}
              tone=${failed.length ? "warn" : checked.length ? "good" : ""}
              icon="shield"
              title=${checked.length ? "Verified" : "Not verified"}
            >
              <p class="hint">
                ${
                  checked.length
                    ? checked.map((kind) => `${kind.toUpperCase()} ${message[kind]}`).join(" · ")
                    : "SPF, DKIM and DMARC are not checked for mail from this machine or the API."
                }
              </p>
            <//>
            <${TimelineEvent} tone="good" icon="server" title="Stored" at=${message.received_at}>
              <p class="hint">
                On disk before the sender got its confirmation
                ${message.raw_available ? "; the raw copy is kept for seven days" : ""}.
              </p>
            <//>
            ${
              message.status === "dropped" &&
              html`
                <${TimelineEvent} icon="trash" title="Dropped">
                  <p class="hint">Your webhook asked for it; the content is deleted.</p>
                <//>
              `
            }
            <${TimelineEvent}
              tone=${message.route_id || targets.length ? "good" : ""}
              icon="routes"
              title=${targets.length ? `Routed to ${targets.join(" and ")}` : message.route_id ? "Routed" : "No route"}
            >
              <p class="hint">
                ${
                  route
                    ? html`
                      <bdi>${route.match_pattern}</bdi> → ${route.action}${" "}
                      <bdi>${route.destination || ""}</bdi>
                    `
                    : message.route_id
                      ? ""
                      : html`
                        No route matched, so it is only stored.${" "}
                        <a href=${href("routes", { address: message.to_addr })}>Which routes would match?</a>
                      `
                }
              </p>
            <//>
          `
          : html`
            <${TimelineEvent} tone="good" icon="up" title="Accepted" at=${message.received_at}>
              <p class="hint">
                from <bdi>${message.from_addr}</bdi>, composed, signed and stored,${" "}
                ${formatBytes(message.size_bytes)}
              </p>
            <//>
            ${
              message.scheduled_at &&
              html`
                <${TimelineEvent} tone="info" icon="clock" title="Scheduled" at=${message.scheduled_at}>
                  <p class="hint">${exactTime(message.scheduled_at)}</p>
                <//>
              `
            }
            ${recipients.map(
              (recipient) => html`
                <${RecipientStatus}
                  key=${recipient.address}
                  recipient=${recipient}
                  transmission=${transmissionTo(recipient.address)}
                />
              `,
            )}
          `
      }
      ${forwards.flatMap((transmission) =>
        transmission.recipients.map(
          (recipient) => html`
            <${RecipientStatus}
              key=${`${transmission.routeId} ${recipient.address}`}
              recipient=${recipient}
              transmission=${transmission}
              forwarded
            />
          `,
        ),
      )}
      ${deliveries.map(
        (delivery) => html`<${WebhookDelivery} key=${delivery.id} delivery=${delivery} reload=${reload} />`,
      )}
    </ol>
  `;
}
