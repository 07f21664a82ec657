// One message: what it says, in every form; what was found out about it; and its way, from door to webhook, in one line
// of events.
import { html, useState, useEffect, useRef } from "./lib.js";
import { api, post, del, useLoad } from "./api.js";
import { apiPath, here, named, to } from "./paths.js";
import { useLiveSoon } from "./live.js";
import {
  Icon,
  Time,
  Text,
  Badge,
  Button,
  Tabs,
  Value,
  Code,
  Notice,
  Failure,
  Skeleton,
  Copy,
  EndpointPaused,
  FileName,
  confirm,
  say,
  complain,
} from "./ui.js";
import { MailFrame } from "./mailframe.js";
import { verdict, attemptError, SEND_STATES } from "./explain.js";
import { bytes, duration, exact, plural, clock } from "./format.js";

const RAW_SHOWN = 200_000;
const TEXT_SHOWN = 400_000;

function People({ all }) {
  return (all || []).map(
    (one, at) =>
      html`
        <span key=${at} class="person">
          ${at ? ", " : ""}
          ${
            one.name &&
            html`
              <${Text}>${one.name}<//>
              ${" "}
            `
          }
          <${Text} class=${one.name ? "faint" : ""}>${one.name ? `<${one.address}>` : one.address}<//>
        </span>
      `,
  );
}

// --- The content

function Html({ source, attachments }) {
  const [remote, allow] = useState(false);
  const [wanted, setWanted] = useState(0);
  return html`
    <div>
      ${
        wanted > 0 &&
        !remote &&
        html`
          <div class="remote-bar">
            <${Icon} name="shield" />
            <span>
              ${plural(wanted, "remote picture or style", "remote pictures and styles")} blocked, so the sender
              does not learn that you read this.
            </span>
            <button type="button" class="link" onClick=${() => allow(true)}>Load remote content</button>
          </div>
        `
      }
      <${MailFrame}
        source=${source}
        attachments=${attachments}
        remote=${remote}
        onWanted=${(count) => {
          if (!remote) setWanted(count);
        }}
      />
    </div>
  `;
}

const PlainText = ({ text }) => html`
  <pre class="mail-text" dir="auto" tabindex="0">${text.slice(0, TEXT_SHOWN)}</pre>
  ${
    text.length > TEXT_SHOWN &&
    html`<p class="hint">Shown up to ${bytes(TEXT_SHOWN)}; the rest is in the raw source.</p>`
  }
`;

function Headers({ json }) {
  const [find, set] = useState("");
  let fields = {};
  try {
    fields = JSON.parse(json) || {};
  } catch {
    /* none */
  }
  const all = Object.entries(fields).flatMap(([name, value]) =>
    String(value)
      .split("\n")
      .map((one) => [name, one]),
  );
  const shown = all.filter(([name, value]) => `${name}: ${value}`.toLowerCase().includes(find.toLowerCase()));
  return html`
    <div class="headers">
      <input
        type="search"
        placeholder=${`Find in ${plural(all.length, "field")}`}
        aria-label="Find in headers"
        value=${find}
        onInput=${(event) => set(event.target.value)}
      />
      <div class="headers-box" tabindex="0" role="region" aria-label="Header fields">
        <dl>
          ${shown.slice(0, 500).map(
            ([name, value], at) => html`
              <div key=${at}>
                <dt>${name}</dt>
                <dd dir="auto">${value.length > 2000 ? `${value.slice(0, 2000)}…` : value}</dd>
              </div>
            `,
          )}
        </dl>
      </div>
      ${shown.length > 500 && html`<p class="hint">500 of ${plural(shown.length, "field")}; find narrows them.</p>`}
    </div>
  `;
}

function Raw({ id, available }) {
  const [text, set] = useState(null);
  const [error, fail] = useState(null);
  const blob = useRef(null);
  useEffect(() => {
    if (!available) return;
    api("GET", apiPath`/api/messages/${id}/raw`, undefined, { raw: true })
      .then((response) => response.blob())
      .then(async (found) => {
        blob.current = found;
        set(await found.slice(0, RAW_SHOWN).text());
      })
      .catch(fail);
  }, [id, available]);
  const save = () => saveAs(blob.current, `${id}.eml`);
  if (!available)
    return html`<${Notice}>The raw copy is kept for seven days, or goes with the content. It is gone.<//>`;
  if (error) return html`<${Failure} error=${error} />`;
  if (text === null) return html`<${Skeleton} />`;
  return html`
    <div>
      <div class="actions">
        <${Button} icon="in" onClick=${save}>Download .eml<//>
      </div>
      <pre class="raw" tabindex="0">${text}</pre>
      ${
        blob.current.size > RAW_SHOWN &&
        html`<p class="hint">Shown up to ${bytes(RAW_SHOWN)} of ${bytes(blob.current.size)}.</p>`
      }
    </div>
  `;
}

function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const Attachments = ({ all }) =>
  html`
    <ul class="files">
      ${all.map(
        (one) => html`
          <li key=${one.id}>
            <${Icon} name="clip" />
            <span class="file-name">
              <${FileName}>${one.filename}<//>
            </span>
            <span class="faint">
              ${one.contentType || "unknown type"} · ${bytes(one.size)}
              ${one.disposition === "inline" ? " · inline" : ""}
            </span>
            ${
              one.url
                ? html`
                  <a
                    class="button small"
                    href=${here(one.url)}
                    download=${one.filename || "attachment"}
                    aria-label=${`Download ${one.filename || "attachment"}`}
                  >
                    <${Icon} name="in" size="16" />
                    <span>Download</span>
                  </a>
                  <${Copy} text=${one.url} label="Copy the signed link" />
                `
                : html`<span class="expired hint">expired</span>`
            }
          </li>
        `,
      )}
    </ul>
  `;

function Verdicts({ message }) {
  const [open, set] = useState(null);
  const all = ["spf", "dkim", "dmarc", "spam"].map((kind) => [kind, message[kind], verdict(kind, message[kind])]);
  return html`
    <div class="verdicts">
      ${all.map(
        ([kind, word, { tone }]) => html`
          <button
            type="button"
            key=${kind}
            class=${`badge ${tone}`}
            aria-expanded=${open === kind ? "true" : "false"}
            onClick=${() => set(open === kind ? null : kind)}
          >
            ${kind === "spam" ? word || "Spam not checked" : `${kind.toUpperCase()} ${word || "not checked"}`}
          </button>
        `,
      )}
      ${
        open &&
        html`
          <p class="hint">
            <strong>${verdict(open, message[open]).what}</strong>
            <br />
            ${verdict(open, message[open]).text}
          </p>
        `
      }
    </div>
  `;
}

// --- The timeline

const Event = ({ tone = "", icon = "check", title, at, children, end }) => html`
  <li class=${`event ${tone}`}>
    <span class="event-mark">
      <${Icon} name=${icon} size="14" />
    </span>
    <div class="event-body">
      <div class="event-head">
        <strong>${title}</strong>
        ${end}
        ${at !== undefined && at !== null && html`<${Time} at=${at} class="faint" />`}
      </div>
      ${children}
    </div>
  </li>
`;

function pretty(body) {
  if (!body) return "";
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}

const HeaderLines = ({ of }) =>
  of && Object.keys(of).length
    ? html`
      <pre class="raw small" tabindex="0">
        ${Object.entries(of)
          .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(", ") : value}`)
          .join("\n")}
      </pre>
    `
    : html`<p class="hint">No headers.</p>`;

function Attempt({ attempt }) {
  const good = attempt.status_code >= 200 && attempt.status_code < 300 && !attempt.error;
  const [word, why] = attempt.error ? attemptError(attempt.error) : ["", ""];
  const label = attempt.status_code
    ? `${attempt.status_code}${attempt.error && attempt.error !== "http_status" ? ` · ${word}` : ""}`
    : word;
  return html`
    <details class="attempt">
      <summary>
        <span class=${`badge ${good ? "good" : "bad"}`}>${label}</span>
        <span>Attempt ${attempt.attempt}${attempt.manual ? ", by hand" : ""}</span>
        <span class="faint">${duration(attempt.duration_ms)}</span>
        <time class="faint" datetime=${new Date(attempt.created_at).toISOString()} title=${exact(attempt.created_at)}>
          ${clock(attempt.created_at)}
        </time>
      </summary>
      <div class="attempt-body">
        ${why && !good && html`<p class="hint">${why}</p>`}
        <h4>Request</h4>
        <p class="mono wrap">POST <bdi>${attempt.request_url}</bdi></p>
        <${HeaderLines} of=${attempt.request_headers} />
        ${
          attempt.request_body
            ? html`<${Code} label="body" text=${attempt.request_body}>${pretty(attempt.request_body)}<//>`
            : html`<p class="hint">The content is gone.</p>`
        }
        <h4>
          Response${" "}
          ${
            attempt.status_code
              ? html`<span class="faint">${attempt.status_code}</span>`
              : html`<span class="faint">none</span>`
          }
        </h4>
        ${
          attempt.status_code
            ? html`
              <${HeaderLines} of=${attempt.response_headers} />
              ${
                attempt.response_body
                  ? html`
                    <${Code}
                      label=${attempt.response_truncated ? "body, cut at 64 KiB" : "body"}
                      text=${attempt.response_body}
                    >
                      ${pretty(attempt.response_body)}
                    <//>
                  `
                  : html`<p class="hint">An empty body.</p>`
              }
            `
            : html`<p class="hint">${why || "No answer."}</p>`
        }
      </div>
    </details>
  `;
}

/** One webhook delivery with its attempts. */
export function Delivery({ delivery, reload, showUrl = true }) {
  const attempts = useLoad(delivery.attempts ? apiPath`/api/deliveries/${delivery.id}/attempts` : null);
  const seen = useRef(delivery.attempts);
  useEffect(() => {
    if (seen.current !== delivery.attempts) {
      seen.current = delivery.attempts;
      attempts.reload();
    }
  }, [delivery.attempts]);
  const retry = async () => {
    const answer = await post(apiPath`/api/deliveries/${delivery.id}/retry`).finally(() => {
      reload?.();
      attempts.reload();
    });
    answer.ok
      ? say(`Delivered: your endpoint answered ${answer.status}.`)
      : say(`Your endpoint answered ${answer.status}.`, { bad: true });
  };
  const [word, why] = delivery.last_error ? attemptError(delivery.last_error) : ["", ""];
  const tone = { delivered: "good", failed: "bad" }[delivery.status] || (delivery.attempts ? "warn" : "info");
  const title =
    { delivered: "Delivered", failed: "Given up" }[delivery.status] ||
    (delivery.attempts ? "Retrying" : "Waiting for its first attempt");
  return html`
    <${Event}
      tone=${tone}
      icon=${{ delivered: "check", failed: "cross" }[delivery.status] || "clock"}
      title=${title}
      at=${delivery.updated_at}
      end=${html`
        <${Button} kind="small" action=${retry} icon="refresh">
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
      ${delivery.last_error && html`<p class="hint">${word}${why ? `: ${why}` : ""}</p>`}
      ${delivery.paused_until && html`<${EndpointPaused} until=${delivery.paused_until} />`}
      ${
        delivery.next_attempt_at &&
        !delivery.paused_until &&
        delivery.status === "pending" &&
        delivery.attempts > 0 &&
        html`<p class="hint">Next attempt <${Time} at=${delivery.next_attempt_at} /></p>`
      }
      ${attempts.data?.map((attempt) => html`<${Attempt} key=${attempt.id} attempt=${attempt} />`)}
      ${attempts.error && html`<p class="hint bad">${attempts.error.message}</p>`}
    <//>
  `;
}

/** One recipient: how it stands, which host took or refused it, and what was said. */
function Recipient({ recipient, by, forwarded }) {
  const [word, tone, why] = SEND_STATES[recipient.status] || [recipient.status, "", ""];
  const icon = tone === "good" ? "check" : tone === "bad" ? "cross" : "clock";
  return html`
    <${Event}
      tone=${tone}
      icon=${icon}
      title=${forwarded ? (recipient.status === "failed" ? "Not forwarded" : `Forward: ${word.toLowerCase()}`) : word}
      at=${recipient.updatedAt}
    >
      <p class="mono wrap">
        <bdi>${recipient.address}</bdi>
      </p>
      ${
        by?.host &&
        html`
          <p class="hint">
            by <bdi>${by.host}</bdi> · ${by.tls ? html`<bdi>${by.tls}</bdi>` : "not encrypted"}
            ${by.attempts > 1 ? ` · attempt ${by.attempts}` : ""}
          </p>
        `
      }
      ${
        recipient.diagnostic
          ? html`<pre class="raw small" tabindex="0" dir="auto">${recipient.diagnostic}</pre>`
          : html`<p class="hint">${why}</p>`
      }
      ${
        by?.transcript &&
        html`
          <details class="attempt">
            <summary>
              <span>SMTP dialog</span>
              ${by.attemptedAt && html`<${Time} at=${by.attemptedAt} class="faint" />`}
            </summary>
            <div class="attempt-body">
              <pre class="raw small" tabindex="0">${by.transcript}</pre>
            </div>
          </details>
        `
      }
    <//>
  `;
}

function Timeline({ message, deliveries, recipients, transmissions, routes, reload }) {
  const inbound = message.direction === "inbound";
  const route = routes?.find((one) => one.id === message.route_id);
  const checked = ["spf", "dkim", "dmarc"].filter((kind) => message[kind]);
  const failed = checked.filter((kind) => message[kind] === "fail");
  const by = (address) =>
    transmissions.find((one) => !one.routeId && one.recipients.some((other) => other.address === address));
  const forwards = transmissions.filter((one) => one.routeId);
  const ways = [
    deliveries.length && plural(deliveries.length, "webhook"),
    forwards.length && plural(forwards.length, "other address", "other addresses"),
  ].filter(Boolean);
  return html`
    <ol class="timeline" aria-label="What happened to this message">
      ${
        inbound
          ? html`
            <${Event} tone="good" icon="in" title="Received" at=${message.received_at}>
              <p class="hint">
                from <bdi>${message.mail_from || "<> (a bounce or notice)"}</bdi> for${" "}
                <bdi>${message.to_addr}</bdi>,${" "}${bytes(message.size_bytes)}
              </p>
            <//>
            <${Event}
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
            <${Event} tone="good" icon="server" title="Stored" at=${message.received_at}>
              <p class="hint">
                On disk before the sender was told so
                ${message.raw_available ? "; the raw copy is kept for seven days" : ""}.
              </p>
            <//>
            ${
              message.status === "dropped" &&
              html`
                <${Event} icon="trash" title="Dropped">
                  <p class="hint">Your webhook said so; the content is deleted.</p>
                <//>
              `
            }
            <${Event}
              tone=${message.route_id || ways.length ? "good" : ""}
              icon="routes"
              title=${ways.length ? `Routed to ${ways.join(" and ")}` : message.route_id ? "Routed" : "No route"}
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
                        <a href=${to("routes", { address: message.to_addr })}>Which routes would match?</a>
                      `
                }
              </p>
            <//>
          `
          : html`
            <${Event} tone="good" icon="up" title="Accepted" at=${message.received_at}>
              <p class="hint">
                from <bdi>${message.from_addr}</bdi>, composed, signed and stored, ${bytes(message.size_bytes)}
              </p>
            <//>
            ${
              message.scheduled_at &&
              html`
                <${Event} tone="info" icon="clock" title="Scheduled" at=${message.scheduled_at}>
                  <p class="hint">${exact(message.scheduled_at)}</p>
                <//>
              `
            }
            ${recipients.map((one) => html`<${Recipient} key=${one.address} recipient=${one} by=${by(one.address)} />`)}
          `
      }
      ${forwards.flatMap((way) =>
        way.recipients.map(
          (one) => html`<${Recipient} key=${`${way.routeId} ${one.address}`} recipient=${one} by=${way} forwarded />`,
        ),
      )}
      ${deliveries.map((delivery) => html`<${Delivery} key=${delivery.id} delivery=${delivery} reload=${reload} />`)}
    </ol>
  `;
}

// --- The whole

/** Long ones show their beginning first. */
function Subject({ text, head }) {
  const [whole, show] = useState(false);
  const long = text?.length > 240;
  return html`
    <div>
      <h2 ref=${head} tabindex="-1" class=${long && !whole ? "clamped" : ""}>
        <${Text}>${text || "(no subject)"}<//>
      </h2>
      ${
        long &&
        html`
          <button type="button" class="link" aria-expanded=${whole ? "true" : "false"} onClick=${() => show(!whole)}>
            ${whole ? "Show less" : "Show all of the subject"}
          </button>
        `
      }
    </div>
  `;
}

function Reply({ message }) {
  const address = message.from_addr;
  const subject = /^re:/i.test(message.subject || "") ? message.subject : `Re: ${message.subject || ""}`;
  return html`
    <a class="button" href=${to("send", { to: address, from: message.to_addr, subject, inReplyTo: message.id })}>
      <${Icon} name="send" />
      <span>Reply</span>
    </a>
  `;
}

export default function Message({ id, back, onDeleted }) {
  const detail = useLoad(apiPath`/api/messages/${id}`);
  const routes = useLoad("/api/routes");
  const transmissions = useLoad(apiPath`/api/messages/${id}/transmissions`);
  const [tab, setTab] = useState(null);
  const head = useRef(null);
  const subject = detail.data?.message.subject;
  useEffect(() => {
    if (!detail.data) return;
    document.title = `${subject || "(no subject)"} · mailkite`;
    // Where the list is not beside it, its row is gone from under the focus.
    if (!document.querySelector("[data-list]")?.offsetParent) head.current?.focus({ preventScroll: true });
  }, [detail.data !== undefined, subject]);
  useLiveSoon(
    (_type, data) => (data.data?.messageId || data.id) === id,
    () => {
      detail.reload();
      transmissions.reload();
    },
    100,
  );
  // Deferrals and forwards are no events of the stream: while something is on its way, this looks now and then.
  const onItsWay = transmissions.data?.some((one) => !one.settled);
  useEffect(() => {
    if (!onItsWay) return undefined;
    const timer = setInterval(() => {
      if (document.hidden) return;
      detail.reload();
      transmissions.reload();
    }, 4000);
    return () => clearInterval(timer);
  }, [id, onItsWay]);
  const remove = async () => {
    const yes = await confirm({
      title: "Delete this message?",
      text: "Its content, attachments, raw copy and attempts are removed for good. Pending deliveries end.",
    });
    if (!yes) return;
    await del(apiPath`/api/messages/${id}`);
    say("Deleted");
    onDeleted?.(id);
  };
  const cancel = async () => {
    await del(apiPath`/v1/scheduled/${detail.data.message.scheduled_id}`);
    say("Canceled");
    detail.reload();
  };
  if (detail.error && !detail.data) {
    return html`
      <div class="message">
        <header class="message-head">
          <a class="back" href=${back}>
            <${Icon} name="back" size="16" />
            Messages
          </a>
        </header>
        ${
          detail.error.status === 404
            ? html`<${Notice} title="This message is not here.">It was deleted, or its retention ended.<//>`
            : html`<${Failure} error=${detail.error} retry=${detail.reload} />`
        }
      </div>
    `;
  }
  if (!detail.data)
    return html`
      <div class="message">
        <${Skeleton} lines="7" />
      </div>
    `;
  const { message, deliveries, attachments, recipients } = detail.data;
  const inbound = message.direction === "inbound";
  const tabs = [
    message.html_body && ["html", "HTML"],
    message.text_body && ["text", "Text"],
    ["headers", "Headers"],
    ["raw", "Raw"],
  ].filter(Boolean);
  const current = tabs.some(([key]) => key === tab) ? tab : tabs[0][0];
  const block = async () => {
    const yes = await confirm({
      title: "Block this sender?",
      text: `Mail from ${message.from_addr} is stored as spam from now on and calls no webhook.`,
      yes: "Block",
    });
    if (!yes) return;
    await post("/api/blocked-senders", { email: message.from_addr });
    say(`${message.from_addr} is blocked`, {
      undo: () => del(apiPath`/api/blocked-senders/${named(message.from_addr)}`).catch(complain),
    });
  };
  return html`
    <article class="message">
      <header class="message-head">
        <a class="back" href=${back}>
          <${Icon} name="back" size="16" />
          Messages
        </a>
        <${Subject} text=${message.subject} head=${head} />
        <dl class="envelope">
          <div>
            <dt>From</dt>
            <dd>
              <${People} all=${[message.from]} />
            </dd>
          </div>
          <div>
            <dt>To</dt>
            <dd>
              <${People} all=${message.to} />
            </dd>
          </div>
          <div>
            <dt>${inbound ? "Received" : "Sent"}</dt>
            <dd>
              <span title=${exact(message.received_at)}>
                <${Time} at=${message.received_at} />
              </span> · ${bytes(message.size_bytes)}
            </dd>
          </div>
        </dl>
        ${inbound && html`<${Verdicts} message=${message} />`}
        ${
          !inbound &&
          html`
            <div class="verdicts">
              ${(([word, tone, why]) => html`<${Badge} kind=${tone} title=${why}>${word}<//>`)(
                SEND_STATES[message.send_status] || [message.send_status, "", ""],
              )}
            </div>
          `
        }
        <div class="actions">
          ${inbound && html`<${Reply} message=${message} />`}
          ${
            message.send_status === "scheduled" &&
            message.scheduled_id &&
            html`<${Button} action=${cancel} icon="cross">Cancel sending<//>`
          }
          ${inbound && html`<${Button} action=${block} icon="suppressions">Block sender<//>`}
          <${Button} action=${remove} icon="trash" kind="quiet-danger">Delete<//>
          <span class="id">
            <${Value}>${message.id}<//>
          </span>
        </div>
      </header>
      ${
        message.metadata &&
        html`
          <details class="meta">
            <summary>Metadata</summary>
            <pre class="raw small" tabindex="0">
              ${
                typeof message.metadata === "string"
                  ? pretty(message.metadata)
                  : JSON.stringify(message.metadata, null, 2)
              }
            </pre>
          </details>
        `
      }
      <div class="message-grid">
        <div class="message-content">
          <${Tabs} label="Forms of the message" value=${current} options=${tabs} onChange=${setTab} />
          <div role="tabpanel" aria-label=${tabs.find(([key]) => key === current)[1]}>
            ${current === "html" && html`<${Html} key=${id} source=${message.html_body} attachments=${attachments} />`}
            ${current === "text" && html`<${PlainText} text=${message.text_body} />`}
            ${current === "headers" && html`<${Headers} json=${message.headers_json} />`}
            ${current === "raw" && html`<${Raw} id=${id} available=${message.raw_available} />`}
          </div>
          ${
            attachments.length > 0 &&
            html`
              <h3>${plural(attachments.length, "attachment")}</h3>
              <${Attachments} all=${attachments} />
            `
          }
        </div>
        <div class="message-side">
          <h3>Timeline</h3>
          <${Timeline}
            message=${message}
            deliveries=${deliveries}
            recipients=${recipients}
            transmissions=${transmissions.data || []}
            routes=${routes.data}
            reload=${detail.reload}
          />
        </div>
      </div>
    </article>
  `;
}
