// Show a webhook delivery with its attempts.
import { html, useEffect, useRef } from "../../lib/preact.js";
import { post, useResource } from "../../lib/api.js";
import { explainAttemptError } from "../../lib/explain.js";
import { clockTime, exactTime, formatDuration } from "../../lib/format.js";
import { apiPath } from "../../lib/paths.js";
import { Button, CodeBlock, EndpointPausedNotice, RelativeTime, toast } from "../../ui/index.js";
import { TimelineEvent } from "./timeline-event.js";

export function prettyJson(body) {
  if (!body) return "";
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}

const HeaderBlock = ({ fields }) =>
  fields && Object.keys(fields).length
    ? html`
      <pre class="raw small" tabindex="0">
        ${Object.entries(fields)
          .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(", ") : value}`)
          .join("\n")}
      </pre>
    `
    : html`<p class="hint">No headers.</p>`;

function DeliveryAttempt({ attempt }) {
  const succeeded = attempt.status_code >= 200 && attempt.status_code < 300 && !attempt.error;
  const [errorTitle, errorHint] = attempt.error ? explainAttemptError(attempt.error) : ["", ""];
  const label = attempt.status_code
    ? `${attempt.status_code}${attempt.error && attempt.error !== "http_status" ? ` · ${errorTitle}` : ""}`
    : errorTitle;
  return html`
    <details class="attempt">
      <summary>
        <span class=${`badge ${succeeded ? "good" : "bad"}`}>${label}</span>
        <span>Attempt ${attempt.attempt}${attempt.manual ? ", by hand" : ""}</span>
        <span class="muted">${formatDuration(attempt.duration_ms)}</span>
        <time
          class="muted"
          datetime=${new Date(attempt.created_at).toISOString()}
          title=${exactTime(attempt.created_at)}
        >
          ${clockTime(attempt.created_at)}
        </time>
      </summary>
      <div class="attempt-body">
        ${errorHint && !succeeded && html`<p class="hint">${errorHint}</p>`}
        <h4>Request</h4>
        <p class="mono wrap">POST <bdi>${attempt.request_url}</bdi></p>
        <${HeaderBlock} fields=${attempt.request_headers} />
        ${
          attempt.request_body
            ? html`<${CodeBlock} label="body" text=${attempt.request_body}>${prettyJson(attempt.request_body)}<//>`
            : html`<p class="hint">The content is gone.</p>`
        }
        <h4>
          Response${" "}
          ${
            attempt.status_code
              ? html`<span class="muted">${attempt.status_code}</span>`
              : html`<span class="muted">none</span>`
          }
        </h4>
        ${
          attempt.status_code
            ? html`
              <${HeaderBlock} fields=${attempt.response_headers} />
              ${
                attempt.response_body
                  ? html`
                    <${CodeBlock}
                      label=${attempt.response_truncated ? "body, cut at 64 KiB" : "body"}
                      text=${attempt.response_body}
                    >
                      ${prettyJson(attempt.response_body)}
                    <//>
                  `
                  : html`<p class="hint">An empty body.</p>`
              }
            `
            : html`<p class="hint">${errorHint || "No answer."}</p>`
        }
      </div>
    </details>
  `;
}

/** Webhook delivery with its attempts. */
export function WebhookDelivery({ delivery, reload, showUrl = true }) {
  const attempts = useResource(delivery.attempts ? apiPath`/api/deliveries/${delivery.id}/attempts` : null);
  const seenAttempts = useRef(delivery.attempts);
  useEffect(() => {
    if (seenAttempts.current !== delivery.attempts) {
      seenAttempts.current = delivery.attempts;
      attempts.reload();
    }
  }, [delivery.attempts]);
  const retry = async () => {
    const answer = await post(apiPath`/api/deliveries/${delivery.id}/retry`).finally(() => {
      reload?.();
      attempts.reload();
    });
    answer.ok
      ? toast(`Delivered: your endpoint answered ${answer.status}.`)
      : toast(`Your endpoint answered ${answer.status}.`, { error: true });
  };
  const [errorTitle, errorHint] = delivery.last_error ? explainAttemptError(delivery.last_error) : ["", ""];
  const tone = { delivered: "good", failed: "bad" }[delivery.status] || (delivery.attempts ? "warn" : "info");
  const title =
    { delivered: "Delivered", failed: "Given up" }[delivery.status] ||
    (delivery.attempts ? "Retrying" : "Waiting for its first attempt");
  return html`
    <${TimelineEvent}
      tone=${tone}
      icon=${{ delivered: "check", failed: "cross" }[delivery.status] || "clock"}
      title=${title}
      at=${delivery.updated_at}
      action=${html`
        <${Button} variant="small" action=${retry} icon="refresh">
          ${delivery.status === "delivered" ? "Send again" : "Retry now"}
        <//>
      `}
    >
      ${
        showUrl &&
        html`
          <p class="mono wrap">
            <bdi>${delivery.url}</bdi>
          </p>
        `
      }
      ${
        delivery.event_type &&
        delivery.event_type !== "email.received" &&
        html`<p class="hint">Event ${delivery.event_type}</p>`
      }
      ${delivery.last_error && html`<p class="hint">${errorTitle}${errorHint ? `: ${errorHint}` : ""}</p>`}
      ${delivery.paused_until && html`<${EndpointPausedNotice} until=${delivery.paused_until} />`}
      ${
        delivery.next_attempt_at &&
        !delivery.paused_until &&
        delivery.status === "pending" &&
        delivery.attempts > 0 &&
        html`<p class="hint">Next attempt <${RelativeTime} at=${delivery.next_attempt_at} /></p>`
      }
      ${attempts.data?.map((attempt) => html`<${DeliveryAttempt} key=${attempt.id} attempt=${attempt} />`)}
      ${attempts.error && html`<p class="hint bad">${attempts.error.message}</p>`}
    <//>
  `;
}
