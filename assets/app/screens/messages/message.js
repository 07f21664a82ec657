// One message: its content, its verification results, and its timeline.
import { html, useEffect, useRef, useState } from "../../lib/preact.js";
import { del, post, useResource } from "../../lib/api.js";
import { SEND_STATUSES } from "../../lib/explain.js";
import { exactTime, formatBytes, plural } from "../../lib/format.js";
import { useLiveRefresh } from "../../lib/live.js";
import { apiPath, byName, href } from "../../lib/paths.js";
import {
  Badge,
  Button,
  confirm,
  CopyableValue,
  Icon,
  LoadError,
  Notice,
  RelativeTime,
  Skeleton,
  Tabs,
  toast,
  toastError,
  UserText,
} from "../../ui/index.js";
import { AddressList, AttachmentList, HtmlBody, PlainText } from "./content.js";
import { prettyJson } from "./delivery.js";
import { HeaderFields } from "./headers.js";
import { RawSource } from "./raw-source.js";
import { Timeline } from "./timeline.js";
import { VerdictBadges } from "./verdicts.js";

/** Subject, cut if it is long until the reader expands it. */
function Subject({ text, headingRef }) {
  const [expanded, setExpanded] = useState(false);
  const isLong = text?.length > 240;
  return html`
    <div>
      <h2 ref=${headingRef} tabindex="-1" class=${isLong && !expanded ? "clamped" : ""}>
        <${UserText}>${text || "(no subject)"}<//>
      </h2>
      ${
        isLong &&
        html`
          <button
            type="button"
            class="link"
            aria-expanded=${expanded ? "true" : "false"}
            onClick=${() => setExpanded(!expanded)}
          >
            ${expanded ? "Show less" : "Show all of the subject"}
          </button>
        `
      }
    </div>
  `;
}

function ReplyLink({ message }) {
  const address = message.from_addr;
  const subject = /^re:/i.test(message.subject || "") ? message.subject : `Re: ${message.subject || ""}`;
  return html`
    <a class="button" href=${href("send", { to: address, from: message.to_addr, subject, inReplyTo: message.id })}>
      <${Icon} name="send" />
      <span>Reply</span>
    </a>
  `;
}

export function Message({ id, back, onDeleted }) {
  const detail = useResource(apiPath`/api/messages/${id}`);
  const routes = useResource("/api/routes");
  const transmissions = useResource(apiPath`/api/messages/${id}/transmissions`);
  const [tab, setTab] = useState(null);
  const headingRef = useRef(null);
  const subject = detail.data?.message.subject;
  useEffect(() => {
    if (!detail.data) return;
    document.title = `${subject || "(no subject)"} · mailkite`;
    // On narrow screens the list is hidden, and with it the row that had the focus.
    if (!document.querySelector("[data-list]")?.offsetParent) headingRef.current?.focus({ preventScroll: true });
  }, [detail.data !== undefined, subject]);
  useLiveRefresh(
    (_type, data) => (data.data?.messageId || data.id) === id,
    () => {
      detail.reload();
      transmissions.reload();
    },
    100,
  );
  // Poll while a transmission is under way: the event stream has no deferrals and forwards.
  const inTransit = transmissions.data?.some((transmission) => !transmission.settled);
  useEffect(() => {
    if (!inTransit) return undefined;
    const timer = setInterval(() => {
      if (document.hidden) return;
      detail.reload();
      transmissions.reload();
    }, 4000);
    return () => clearInterval(timer);
  }, [id, inTransit]);
  const deleteMessage = async () => {
    const confirmed = await confirm({
      title: "Delete this message?",
      text: "Its content, attachments, raw copy and attempts are removed for good. Pending deliveries end.",
    });
    if (!confirmed) return;
    await del(apiPath`/api/messages/${id}`);
    toast("Deleted");
    onDeleted?.(id);
  };
  const cancelSending = async () => {
    await del(apiPath`/v1/scheduled/${detail.data.message.scheduled_id}`);
    toast("Canceled");
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
            : html`<${LoadError} error=${detail.error} retry=${detail.reload} />`
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
  const blockSender = async () => {
    const confirmed = await confirm({
      title: "Block this sender?",
      text: `Mail from ${message.from_addr} is stored as spam from now on and calls no webhook.`,
      confirmLabel: "Block",
    });
    if (!confirmed) return;
    await post("/api/blocked-senders", { email: message.from_addr });
    toast(`${message.from_addr} is blocked`, {
      undo: () => del(apiPath`/api/blocked-senders/${byName(message.from_addr)}`).catch(toastError),
    });
  };
  return html`
    <article class="message">
      <header class="message-head">
        <a class="back" href=${back}>
          <${Icon} name="back" size="16" />
          Messages
        </a>
        <${Subject} text=${message.subject} headingRef=${headingRef} />
        <dl class="envelope">
          <div>
            <dt>From</dt>
            <dd>
              <${AddressList} addresses=${[message.from]} />
            </dd>
          </div>
          <div>
            <dt>To</dt>
            <dd>
              <${AddressList} addresses=${message.to} />
            </dd>
          </div>
          <div>
            <dt>${inbound ? "Received" : "Sent"}</dt>
            <dd>
              <span title=${exactTime(message.received_at)}>
                <${RelativeTime} at=${message.received_at} />
              </span> · ${formatBytes(message.size_bytes)}
            </dd>
          </div>
        </dl>
        ${inbound && html`<${VerdictBadges} message=${message} />`}
        ${
          !inbound &&
          html`
            <div class="verdicts">
              ${(([label, tone, hint]) => html`<${Badge} tone=${tone} title=${hint}>${label}<//>`)(
                SEND_STATUSES[message.send_status] || [message.send_status, "", ""],
              )}
            </div>
          `
        }
        <div class="actions">
          ${inbound && html`<${ReplyLink} message=${message} />`}
          ${
            message.send_status === "scheduled" &&
            message.scheduled_id &&
            html`<${Button} action=${cancelSending} icon="cross">Cancel sending<//>`
          }
          ${inbound && html`<${Button} action=${blockSender} icon="suppressions">Block sender<//>`}
          <${Button} action=${deleteMessage} icon="trash" variant="quiet-danger">Delete<//>
          <span class="id">
            <${CopyableValue}>${message.id}<//>
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
                  ? prettyJson(message.metadata)
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
            ${
              current === "html" &&
              html`<${HtmlBody} key=${id} source=${message.html_body} attachments=${attachments} />`
            }
            ${current === "text" && html`<${PlainText} text=${message.text_body} />`}
            ${current === "headers" && html`<${HeaderFields} json=${message.headers_json} />`}
            ${current === "raw" && html`<${RawSource} id=${id} available=${message.raw_available} />`}
          </div>
          ${
            attachments.length > 0 &&
            html`
              <h3>${plural(attachments.length, "attachment")}</h3>
              <${AttachmentList} attachments=${attachments} />
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
