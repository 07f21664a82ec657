// Show the DNS records of a domain to publish, and what DNS has now.
import { html, useEffect, useState } from "../../lib/preact.js";
import { post } from "../../lib/api.js";
import { apiPath } from "../../lib/paths.js";
import {
  Badge,
  Button,
  Card,
  CopyableValue,
  CopyButton,
  confirm,
  Field,
  Icon,
  RelativeTime,
  toast,
  useAction,
} from "../../ui/index.js";
import { DNS_PROVIDERS, DNS_RECORDS, explainRecordProblem, ROTATION, rotatingTitle } from "./dns-help.js";

/** Quote a TXT value for a zone file, in strings of at most 255 octets. */
const quoteTxt = (value) =>
  (value.match(/.{1,250}/g) || [""]).map((part) => `"${part.replace(/"/g, '\\"')}"`).join(" ");

const RECORD_STATUS = {
  ok: ["Found", "good"],
  missing: ["Missing", "bad"],
  mismatch: ["Different", "bad"],
  unchecked: ["Not checked", ""],
};

function DnsRecord({ record, index, zone, provider }) {
  const rotation = ROTATION[record.rotation];
  const [title, hint] = rotation ? [rotatingTitle(record), rotation[1]] : DNS_RECORDS[index] || [record.type, ""];
  const [label, statusTone] = RECORD_STATUS[record.status] || [record.status, ""];
  const tone = record.status === "missing" && (record.optional || rotation) ? "" : statusTone;
  const name = DNS_PROVIDERS[provider][2](record.name, zone);
  const value =
    record.type === "TXT" && (provider === "route53" || provider === "bind")
      ? quoteTxt(record.value)
      : record.type === "MX" && provider === "bind"
        ? `${record.value}.`
        : record.value;
  const problem = explainRecordProblem(record);
  return html`
    <li class="record">
      <header>
        <h3>
          ${title}
          ${record.optional && !rotation ? html` <span class="muted">optional</span>` : ""}
        </h3>
        ${rotation && html`<${Badge} tone=${record.rotation === "next" ? "warn" : ""}>${rotation[0]}<//>`}
        <${Badge} tone=${tone}>
          ${record.status === "ok" && html`<${Icon} name="check" size="12" />`}
          ${label}
        <//>
        <p class="hint">
          ${hint}
          ${record.removable_at && html`${" "}It may be removed <${RelativeTime} at=${record.removable_at} />.`}
        </p>
      </header>
      <dl class="record-fields">
        <div>
          <dt>Type</dt>
          <dd>
            <${CopyableValue}>${record.type}<//>
          </dd>
        </div>
        <div>
          <dt>Name</dt>
          <dd>
            <${CopyableValue} text=${name}>${name || "(empty)"}<//>
          </dd>
        </div>
        ${
          record.priority !== undefined &&
          html`
            <div>
              <dt>Priority</dt>
              <dd>
                <${CopyableValue}>${String(record.priority)}<//>
              </dd>
            </div>
          `
        }
        <div class="record-value">
          <dt>Value</dt>
          <dd>
            <${CopyableValue} wrap text=${value}>${value}<//>
          </dd>
        </div>
      </dl>
      ${
        problem &&
        record.status !== "unchecked" &&
        !((record.optional || rotation) && record.status === "missing") &&
        html`
          <div class="record-problem">
            <p>
              <${Icon} name="warn" size="16" />${" "}
              ${problem}
            </p>
            ${
              record.found?.length > 0 &&
              html`
                <p class="muted">DNS has now:</p>
                <ul>
                  ${record.found.map(
                    (value, valueIndex) => html`
                      <li key=${valueIndex}>
                        <code dir="auto">${value}</code>
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

const zoneFile = (records) =>
  records
    .map(({ name, type, priority, value }) => {
      const data = type === "MX" ? `${priority} ${value}.` : quoteTxt(value);
      return `${`${name}.`.padEnd(44)} ${type.padEnd(4)} ${data}`;
    })
    .join("\n");

export function DnsRecords({ detail }) {
  const { domain, dns } = detail.data;
  const [provider, setProvider] = useState(() => localStorage.getItem("mailkite.provider") || "generic");
  const knownProvider = DNS_PROVIDERS[provider] ? provider : "generic";
  const [busy, runAction] = useAction();
  const check = () =>
    runAction(async () => {
      const { checks } = await post(apiPath`/api/domains/${domain.id}/verify`);
      const missing = Object.entries(checks)
        .filter(([, ok]) => !ok)
        .map(([name]) => name.toUpperCase());
      missing.length
        ? toast(`Not found yet: ${missing.join(", ")}`, { error: missing.includes("MX"), tag: "dns" })
        : toast("All records were found", { tag: "dns" });
      await detail.reload();
    });
  const published = dns.filter((record) => record.rotation !== "retired");
  const rotating = dns.some((record) => record.rotation === "next" || record.rotation === "retiring");
  const rotate = async () => {
    const confirmed = await confirm({
      title: "Rotate DKIM keys?",
      text:
        "New keys are made, and you publish two more records. They sign once they are found; the present ones stay " +
        "published for at least a week after that. Sending goes on meanwhile.",
      confirmLabel: "Make new keys",
      destructive: false,
    });
    if (!confirmed) return;
    await post(apiPath`/api/domains/${domain.id}/dkim/rotate`);
    toast("New keys were made; publish their records");
    await detail.reload();
  };
  // Check again by itself while the page is open and records are missing.
  const complete = dns.every((record) => record.optional || record.rotation === "retiring" || record.status === "ok");
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
        ${!rotating && html`<${Button} icon="keys" action=${rotate}>Rotate DKIM keys<//>`}
        <${Button} variant=${complete ? "" : "primary"} icon="refresh" onClick=${check} busy=${busy}>Check now<//>
      `}
    >
      <p class="hint">
        ${complete ? "All records were found." : "Publish these where the domain's DNS is kept."}${" "}
        ${domain.checked_at ? html`Last checked <${RelativeTime} at=${domain.checked_at} />.` : "Not checked yet."}
        ${!complete && !document.body.dataset.dev ? " This page checks again every 30 seconds." : ""}
        ${
          document.body.dataset.dev ? " In dev mode, names under .test, .localhost and .example count as verified." : ""
        }
      </p>
      <div class="provider">
        <${Field} label="Your DNS provider">
          <select
            value=${knownProvider}
            onChange=${(event) => {
              setProvider(event.target.value);
              localStorage.setItem("mailkite.provider", event.target.value);
            }}
          >
            ${Object.entries(DNS_PROVIDERS).map(
              ([key, [title]]) => html`
                <option key=${key} value=${key} selected=${key === knownProvider}>${title}</option>
              `,
            )}
          </select>
        <//>
        <p class="hint">${DNS_PROVIDERS[knownProvider][1]}</p>
        <${CopyButton} text=${() => zoneFile(published)} small=${false} label="Copy all records as a zone file">
          <span>Copy all as zone file</span>
        <//>
      </div>
      <ul class="records">
        ${dns.map(
          (record, index) => html`
            <${DnsRecord}
              key=${index}
              record=${record}
              index=${index}
              zone=${domain.domain}
              provider=${knownProvider}
            />
          `,
        )}
      </ul>
    <//>
  `;
}
