// Domains: their DNS records and what DNS says of them, their webhook, how long their mail is kept.
import { html, useState, useEffect } from "./lib.js";
import { get, post, put, del, useLoad } from "./api.js";
import { apiPath, named, to } from "./paths.js";
import { go } from "./router.js";
import {
  Icon,
  Time,
  Text,
  Page,
  Card,
  Empty,
  Badge,
  Button,
  Field,
  Value,
  Copy,
  Secret,
  Notice,
  Loaded,
  Dialog,
  Segments,
  EndpointPaused,
  confirm,
  say,
  useBusy,
  complain,
} from "./ui.js";
import { PROVIDERS, RECORDS, recordProblem } from "./explain.js";
import { useLiveSoon } from "./live.js";
import { AddDomain, SetWebhook, TestWebhook } from "./start.js";

const Flags = ({ domain }) =>
  html`
    <span class="flags">
      ${["mx", "spf", "dkim", "dmarc"].map(
        (kind) => html`
          <${Badge}
            key=${kind}
            kind=${domain[`${kind}_verified`] ? "good" : ""}
            title=${`${kind.toUpperCase()}: ${domain[`${kind}_verified`] ? "found" : "not found"}`}
          >
            ${kind.toUpperCase()}
            ${domain[`${kind}_verified`] ? html` <${Icon} name="check" size="12" />` : ""}
          <//>
        `,
      )}
    </span>
  `;

export default function Domains({ route }) {
  return route.parts[1] ? html`<${Domain} key=${route.parts[1]} id=${route.parts[1]} />` : html`<${All} />`;
}

function All() {
  const domains = useLoad("/api/domains");
  const [adding, add] = useState(false);
  const added = (made) => {
    add(false);
    domains.reload();
    go(to("domains", made.domain.domain));
  };
  return html`
    <${Page}
      title="Domains"
      lead="Mail for them comes in here, and you send from them."
      actions=${
        domains.data?.length > 0 &&
        html`<${Button} kind="primary" icon="plus" onClick=${() => add(true)}>Add domain<//>`
      }
    >
      <${Loaded} of=${domains}>
        ${(all) =>
          all.length
            ? html`
              <ul class="cards">
                ${all.map(
                  (one) => html`
                    <li key=${one.id}>
                      <a class="card-link" href=${to("domains", one.domain)}>
                        <span class="card-title">
                          <${Text}>${one.domain}<//>
                          <${Badge} kind=${one.status === "verified" ? "good" : "warn"}>
                            ${one.status === "verified" ? "Receiving" : "Not verified"}
                          <//>
                          ${one.spf_verified && one.dkim_verified && html`<${Badge} kind="good">Sending<//>`}
                        </span>
                        <${Flags} domain=${one} />
                        <span class="card-sub">
                          ${
                            one.webhookUrl
                              ? html`
                                <${Icon} name="deliveries" size="16" />
                                <bdi class="mono">${one.webhookUrl}</bdi>
                              `
                              : html`<span class="faint">No webhook</span>`
                          }
                        </span>
                      </a>
                    </li>
                  `,
                )}
              </ul>
            `
            : html`
              <${Empty} icon="domains" title="Add your first domain">
                <p>You get its DNS records to copy, and see at once when they are found.</p>
                <${AddDomain} onAdded=${added} />
              <//>
            `}
      <//>
      ${
        adding &&
        html`
          <${Dialog} title="Add a domain" onClose=${() => add(false)}>
            <${AddDomain} onAdded=${added} autofocus />
          <//>
        `
      }
    <//>
  `;
}

// --- DNS

/** A TXT value as a zone file wants it: strings of at most 255 octets. */
const quoted = (value) => (value.match(/.{1,250}/g) || [""]).map((part) => `"${part.replace(/"/g, '\\"')}"`).join(" ");

const STATUS = {
  ok: ["Found", "good"],
  missing: ["Missing", "bad"],
  mismatch: ["Different", "bad"],
  unchecked: ["Not checked", ""],
};

function Record({ record, at, zone, provider }) {
  const [title, why] = RECORDS[at] || [record.type, ""];
  const [word, tone] = STATUS[record.status] || [record.status, ""];
  const kind = record.status === "missing" && record.optional ? "" : tone;
  const name = PROVIDERS[provider][2](record.name, zone);
  const value =
    record.type === "TXT" && (provider === "route53" || provider === "bind")
      ? quoted(record.value)
      : record.type === "MX" && provider === "bind"
        ? `${record.value}.`
        : record.value;
  const problem = recordProblem(record);
  return html`
    <li class="record">
      <header>
        <h3>
          ${title}
          ${record.optional ? html` <span class="faint">optional</span>` : ""}
        </h3>
        <${Badge} kind=${kind}>
          ${record.status === "ok" && html`<${Icon} name="check" size="12" />`}
          ${word}
        <//>
        <p class="hint">${why}</p>
      </header>
      <dl class="record-fields">
        <div>
          <dt>Type</dt>
          <dd>
            <${Value}>${record.type}<//>
          </dd>
        </div>
        <div>
          <dt>Name</dt>
          <dd>
            <${Value} text=${name}>${name || "(empty)"}<//>
          </dd>
        </div>
        ${
          record.priority !== undefined &&
          html`
            <div>
              <dt>Priority</dt>
              <dd>
                <${Value}>${String(record.priority)}<//>
              </dd>
            </div>
          `
        }
        <div class="record-value">
          <dt>Value</dt>
          <dd>
            <${Value} wrap text=${value}>${value}<//>
          </dd>
        </div>
      </dl>
      ${
        problem &&
        record.status !== "unchecked" &&
        !(record.optional && record.status === "missing") &&
        html`
          <div class="record-problem">
            <p>
              <${Icon} name="warn" size="16" />
              ${" "}${problem}
            </p>
            ${
              record.found?.length > 0 &&
              html`
                <p class="faint">DNS has now:</p>
                <ul>
                  ${record.found.map(
                    (one, index) => html`
                      <li key=${index}>
                        <code dir="auto">${one}</code>
                      </li>
                    `,
                  )}
                </ul>
              `
            }
          </div>
        `
      }
    </li>
  `;
}

const zoneFile = (dns) =>
  dns
    .map(
      (one) =>
        `${`${one.name}.`.padEnd(44)} ${one.type.padEnd(4)} ${one.type === "MX" ? `${one.priority} ${one.value}.` : quoted(one.value)}`,
    )
    .join("\n");

function Records({ detail }) {
  const { domain, dns } = detail.data;
  const [provider, set] = useState(() => localStorage.getItem("mailkite.provider") || "generic");
  const known = PROVIDERS[provider] ? provider : "generic";
  const [busy, act] = useBusy();
  const check = () =>
    act(async () => {
      const { checks } = await post(apiPath`/api/domains/${domain.id}/verify`);
      const lacking = Object.entries(checks)
        .filter(([, ok]) => !ok)
        .map(([name]) => name.toUpperCase());
      lacking.length
        ? say(`Not found yet: ${lacking.join(", ")}`, { bad: lacking.includes("MX"), topic: "dns" })
        : say("Everything is found", { topic: "dns" });
      await detail.reload();
    });
  // While somebody waits on this page for DNS, it looks by itself now and then.
  const complete = dns.every((one) => one.optional || one.status === "ok");
  useEffect(() => {
    if (complete || document.body.dataset.dev) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) post(apiPath`/api/domains/${domain.id}/verify`).then(detail.reload, () => {});
    }, 30000);
    return () => clearInterval(timer);
  }, [domain.id, complete]);
  return html`
    <${Card}
      title="DNS records"
      actions=${html`
        <${Button} kind=${complete ? "" : "primary"} icon="refresh" onClick=${check} busy=${busy}>Check now<//>
      `}
    >
      <p class="hint">
        ${complete ? "Everything is found." : "Publish these where the domain's DNS is kept."}${" "}
        ${domain.checked_at ? html`Last look <${Time} at=${domain.checked_at} />.` : "Not looked at yet."}
        ${!complete && !document.body.dataset.dev ? " This page looks again every 30 seconds." : ""}
        ${document.body.dataset.dev ? " In dev mode names under .test, .localhost and .example are believed." : ""}
      </p>
      <div class="provider">
        <${Field} label="Your DNS provider">
          <select
            value=${known}
            onChange=${(event) => {
              set(event.target.value);
              localStorage.setItem("mailkite.provider", event.target.value);
            }}
          >
            ${Object.entries(PROVIDERS).map(
              ([key, [title]]) => html`<option key=${key} value=${key} selected=${key === known}>${title}</option>`,
            )}
          </select>
        <//>
        <p class="hint">${PROVIDERS[known][1]}</p>
        <${Copy} text=${() => zoneFile(dns)} small=${false} label="Copy all records as a zone file">
          <span>Copy all as zone file</span>
        <//>
      </div>
      <ul class="records">
        ${dns.map(
          (record, at) => html`
            <${Record} key=${at} record=${record} at=${at} zone=${domain.domain} provider=${known} />
          `,
        )}
      </ul>
    <//>
  `;
}

// --- Webhook

const ACK = [
  ["lenient", "Lenient", "Any 2xx counts as delivered."],
  ["ack", "Acknowledged", '2xx, and a body with {"status":"ok"} or the header x-mailkite-ack: ok.'],
  ["control", "Control", "Any 2xx; the body may say spam, drop, or block the sender."],
];

function Webhook({ detail }) {
  const { domain } = detail.data;
  const path = apiPath`/api/domains/${domain.id}/webhook`;
  const setAck = async (ackMode) => {
    try {
      await put(path, { url: domain.webhookUrl, ackMode });
      say("Saved");
    } catch (error) {
      complain(error);
    }
    detail.reload();
  };
  const remove = async () => {
    const yes = await confirm({
      title: "Remove the webhook?",
      text: "Mail is stored, and nothing is called. Pending deliveries end. A webhook set later has another secret.",
      yes: "Remove",
    });
    if (!yes) return;
    await del(path);
    detail.reload();
    say("Webhook removed");
  };
  const rotate = async () => {
    const yes = await confirm({
      title: "Make a new secret?",
      text: "For 24 hours both secrets sign, so that you can change your app in peace. After that the old one is worth nothing.",
      yes: "Make a new one",
      calm: true,
    });
    if (!yes) return;
    await post(apiPath`/api/domains/${domain.id}/webhook/secret/rotate`);
    setVersion(version + 1);
    say("A new secret signs; the old one does too for 24 hours");
  };
  const [version, setVersion] = useState(0);
  const routes = useLoad(domain.webhookUrl ? "/api/routes" : null);
  useLiveSoon((type) => type === "delivery.updated", routes.reload, 2000);
  const own = (one) => one.is_domain_webhook && one.match_pattern === `*@${domain.domain}`;
  const pausedUntil = routes.data?.find(own)?.paused_until;
  return html`
    <${Card} title="Webhook" id="webhook">
      ${!domain.mx_verified && html`<${Notice}>Once the MX record is found, say here where mail goes.<//>`}
      ${
        domain.mx_verified &&
        html`
          <div class="stack">
            <${SetWebhook}
              key=${domain.webhookUrl}
              domain=${domain}
              onSet=${detail.reload}
              label=${domain.webhookUrl ? "Change" : "Set"}
            />
            ${
              domain.webhookUrl &&
              html`
                <dl class="facts">
                  <div>
                    <dt>Signing secret</dt>
                    <dd>
                      <${Secret}
                        key=${version}
                        load=${async () => (await get(apiPath`/api/domains/${domain.id}/webhook/secret`)).secret}
                        label="signing secret"
                      />
                      ${" "}
                      <${Button} kind="small" action=${rotate}>Rotate<//>
                    </dd>
                  </div>
                  <div>
                    <dt>Counts as delivered</dt>
                    <dd>
                      <${Segments}
                        label="Ack mode"
                        value=${domain.webhookAckMode}
                        options=${ACK.map(([key, text]) => [key, text])}
                        onChange=${setAck}
                      />
                      <p class="hint">${ACK.find(([key]) => key === domain.webhookAckMode)?.[2]}</p>
                    </dd>
                  </div>
                </dl>
                ${pausedUntil && html`<${EndpointPaused} until=${pausedUntil} />`}
                <${TestWebhook} domain=${domain}>
                  <${Button} kind="quiet-danger" icon="trash" action=${remove}>Remove webhook<//>
                <//>
              `
            }
          </div>
        `
      }
    <//>
  `;
}

const EVENTS = [
  ["email.sent", "Sent"],
  ["email.bounced", "Bounced"],
  ["email.complained", "Complained"],
];

function Tracking({ detail }) {
  const { domain } = detail.data;
  const [url, set] = useState(domain.trackingWebhookUrl || "");
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const chosen = domain.webhookEvents === "all" ? EVENTS.map(([key]) => key) : domain.webhookEvents || [];
  const save = (event) => {
    event.preventDefault();
    act(async () => {
      url.trim()
        ? await put(apiPath`/api/domains/${domain.id}/tracking-webhook`, { url })
        : await del(apiPath`/api/domains/${domain.id}/tracking-webhook`);
      say("Saved");
      detail.reload();
    }, fail);
  };
  const toggle = async (key) => {
    const next = chosen.includes(key) ? chosen.filter((one) => one !== key) : [...chosen, key];
    detail.mutate((old) => ({ ...old, domain: { ...old.domain, webhookEvents: next } }));
    try {
      next.length
        ? await put(apiPath`/api/domains/${domain.id}/webhook-events`, { events: next })
        : await del(apiPath`/api/domains/${domain.id}/webhook-events`);
    } catch (failed) {
      complain(failed);
    }
    detail.reload();
  };
  return html`
    <${Card} title="Events of sent mail">
      <form class="inline-form" onSubmit=${save}>
        <${Field}
          label="Tracking webhook"
          hint="Gets what becomes of mail sent from this domain, signed with the account's secret. Empty: none."
          error=${error?.message}
        >
          <input
            type="url"
            class="mono"
            value=${url}
            onInput=${(event) => {
              fail(null);
              set(event.target.value);
            }}
            placeholder="https://app.acme.dev/events"
          />
        <//>
        <${Button} type="submit" busy=${busy}>Save<//>
      </form>
      ${
        !domain.trackingWebhookUrl &&
        html`
          <fieldset class="checks">
            <legend>Or send these to the domain's webhook</legend>
            ${EVENTS.map(
              ([key, text]) => html`
                <label key=${key}>
                  <input type="checkbox" checked=${chosen.includes(key)} onChange=${() => toggle(key)} />
                  ${" "}${text}${" "}
                  <span class="faint mono">${key}</span>
                </label>
              `,
            )}
          </fieldset>
        `
      }
    <//>
  `;
}

function Retention({ detail }) {
  const { domain } = detail.data;
  const [days, set] = useState(domain.retention_days ?? "");
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const save = (event) => {
    event.preventDefault();
    act(async () => {
      await put(apiPath`/api/domains/${domain.id}/retention`, { retentionDays: days === "" ? null : Number(days) });
      say("Saved");
      detail.reload();
    }, fail);
  };
  const zero = async (event) => {
    const on = event.target.checked;
    if (
      on &&
      !(await confirm({
        title: "Keep nothing of this domain's mail?",
        text: "From now on each mail gets one webhook attempt, with its attachments inside, and is gone after it: no list, no retry.",
        yes: "Keep nothing",
      }))
    ) {
      event.target.checked = false;
      return;
    }
    try {
      await put(apiPath`/api/domains/${domain.id}/retention`, { zeroRetention: on });
      say("Saved");
    } catch (failed) {
      complain(failed);
    }
    detail.reload();
  };
  return html`
    <${Card} title="Retention">
      <form class="inline-form" onSubmit=${save}>
        <${Field}
          label="Keep messages for"
          hint="Days, 1 to 3,650. Empty: the server's default."
          error=${error?.message}
        >
          <input
            type="number"
            min="1"
            max="3650"
            value=${days}
            onInput=${(event) => {
              fail(null);
              set(event.target.value);
            }}
            placeholder="default"
          />
        <//>
        <${Button} type="submit" busy=${busy}>Save<//>
      </form>
      <label class="switch-row">
        <input type="checkbox" role="switch" checked=${domain.zero_retention} onChange=${zero} />
        <span>
          <strong>Zero retention</strong>
          <span class="hint">One webhook attempt, attachments inside; nothing is stored.</span>
        </span>
      </label>
    <//>
  `;
}

function Domain({ id }) {
  const detail = useLoad(apiPath`/api/domains/${named(id)}`);
  const remove = async () => {
    const { domain } = detail.data;
    const yes = await confirm({
      title: `Delete ${domain.domain}?`,
      text: "Its webhook, routes, signing keys and scoped keys go with it, and mail for it is refused. Stored messages stay until their retention ends.",
      type: domain.domain,
    });
    if (!yes) return;
    await del(apiPath`/api/domains/${domain.id}`);
    say(`${domain.domain} is deleted`);
    go(to("domains"));
  };
  return html`
    <${Page}
      title=${detail.data?.domain.domain || id}
      back=${[to("domains"), "Domains"]}
      lead=${
        detail.data &&
        html`
          <${Badge} kind=${detail.data.domain.status === "verified" ? "good" : "warn"}>
            ${detail.data.domain.status === "verified" ? "Receiving" : "Not verified"}
          <//>
          ${" "}
          ${
            detail.data.domain.spf_verified && detail.data.domain.dkim_verified
              ? html`<${Badge} kind="good">Sending<//>`
              : html`<${Badge}>Not sending<//>`
          }
        `
      }
      actions=${
        detail.data &&
        html`
          <a class="button" href=${to("messages", { domain: detail.data.domain.domain })}>
            <${Icon} name="messages" />
            Messages
          </a>
          <${Button} kind="quiet-danger" icon="trash" action=${remove}>Delete<//>
        `
      }
    >
      <${Loaded} of=${detail} lines="8">
        ${(data) => html`
          <div class="stack wide-gap">
            ${
              data.domain.mx_verified
                ? html`
                  <${Webhook} detail=${detail} />
                  <${Records} detail=${detail} />
                `
                : html`
                  <${Records} detail=${detail} />
                  <${Webhook} detail=${detail} />
                `
            }
            <${Tracking} key=${data.domain.trackingWebhookUrl} detail=${detail} />
            <${Retention} key=${data.domain.retention_days} detail=${detail} />
          </div>
        `}
      <//>
    <//>
  `;
}
