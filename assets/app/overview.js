// How it goes: mail in and out, what is delivered and how fast, what waits, what needs somebody.
import { html, useState } from "./lib.js";
import { useLoad } from "./api.js";
import { query, screen, to } from "./paths.js";
import { useLiveSoon } from "./live.js";
import { Icon, Time, Text, Url, Page, Card, Segments, Badge, Standing, Failure, Skeleton } from "./ui.js";
import { compact, number, percent, duration, plural } from "./format.js";
import Chart from "./chart.js";
import Start from "./start.js";

const RANGES = [
  ["hour", "Hour"],
  ["day", "Day"],
  ["week", "Week"],
];
const LAST = { hour: "in the last hour", day: "in the last 24 hours", week: "in the last 7 days" };

const Stat = ({ label, value, note, tone = "", href }) =>
  html`
    <div class=${`stat ${tone}`}>
      <dt>${label}</dt>
      <dd>
        ${href ? html`<a href=${href}>${value}</a>` : value}
      </dd>
      ${note && html`<dd class="note">${note}</dd>`}
    </div>
  `;

/** As many as leave room for what follows. */
const FEW = 3;

function Attention({ items }) {
  const [all, show] = useState(false);
  if (!items?.length)
    return html`
      <p class="all-well">
        <${Icon} name="check" />
        All is well: nothing needs your attention.
      </p>
    `;
  return html`
    <${Card} title="Needs attention">
      <ul class="attention">
        ${items.slice(0, all ? undefined : FEW).map(
          (one, at) => html`
            <li key=${at}>
              <${Icon} name="warn" />
              <div>
                <strong>
                  <${Text}>${one.title}<//>
                </strong>
                ${
                  one.detail &&
                  html`
                    <p class="hint">
                      <${Text}>${one.detail}<//>
                    </p>
                  `
                }
              </div>
              ${
                one.link &&
                html`<a class="button small" href=${screen(one.link)} aria-label=${`Show: ${one.title}`}>Show</a>`
              }
            </li>
          `,
        )}
      </ul>
      ${
        items.length > FEW &&
        html`
          <p>
            <button type="button" class="link" onClick=${() => show(!all)}>
              ${all ? "Show fewer" : `Show all ${number(items.length)}`}
            </button>
          </p>
        `
      }
    <//>
  `;
}

function Endpoints({ all }) {
  if (!all?.length) return null;
  return html`
    <${Card} title="Endpoints" actions=${html`<a href=${to("deliveries")}>Deliveries</a>`}>
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
            ${all.map(
              (one, at) => html`
                <tr key=${at}>
                  <td class="wide-cell">
                    <${Url}>${one.url}<//>
                    ${one.domain && html`<div class="faint">${one.domain}</div>`}
                  </td>
                  <td class="num">${number(one.delivered)}</td>
                  <td class=${`num ${one.failed ? "bad-text" : ""}`}>${number(one.failed)}</td>
                  <td class="num">${number(one.waiting)}</td>
                  <td class="nowrap">
                    ${
                      one.lastStatusCode
                        ? html`<${Badge} kind=${one.lastStatusCode < 300 ? "good" : "bad"}>${one.lastStatusCode}<//>`
                        : one.lastAttemptAt
                          ? html`<${Badge} kind="bad">none<//>`
                          : "–"
                    }
                    ${" "}
                    ${
                      one.pausedUntil &&
                      html`
                        <${Badge}
                          kind="warn"
                          title="It failed five times in a row. Its deliveries wait; one at a time tries it."
                        >
                          Paused
                        <//>
                        ${" "}
                      `
                    }
                    ${one.lastAttemptAt && html`<${Time} at=${one.lastAttemptAt} class="faint" />`}
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

function Recent({ rows }) {
  if (!rows?.length) return null;
  return html`
    <${Card} title="Latest" actions=${html`<a href=${to("messages")}>All messages</a>`}>
      <ul class="recent">
        ${rows.slice(0, 6).map(
          (row) => html`
            <li key=${row.id}>
              <a href=${to("messages", row.id)}>
                <${Icon} name=${row.direction === "outbound" ? "up" : "in"} size="16" />
                <span class="recent-who">
                  <${Text}>${row.direction === "outbound" ? row.to_addr : row.from?.name || row.from_addr}<//>
                </span>
                <span class="recent-subject">
                  <${Text}>${row.subject || "(no subject)"}<//>
                </span>
                <${Standing} row=${row} />
                <${Time} at=${row.received_at} class="faint" />
              </a>
            </li>
          `,
        )}
      </ul>
    <//>
  `;
}

export default function Overview() {
  const [range, setRange] = useState(() =>
    RANGES.some(([key]) => key === localStorage.getItem("mailkite.range"))
      ? localStorage.getItem("mailkite.range")
      : "day",
  );
  const view = useLoad(query("/api/overview", { range }));
  const recent = useLoad("/api/messages?limit=6");
  const domains = useLoad("/api/domains");
  // The server keeps figures for two seconds; asked later than that, they hold what was told.
  useLiveSoon(() => true, view.reload, 2100);
  useLiveSoon(
    () => true,
    () => {
      recent.reload();
      domains.reload();
    },
    600,
  );
  const choose = (next) => {
    localStorage.setItem("mailkite.range", next);
    setRange(next);
  };
  const data = view.data;
  const delivered = recent.data?.some((row) => row.delivered_count > 0) || data?.totals?.delivered > 0;
  return html`
    <${Page}
      title="Overview"
      actions=${html`<${Segments} label="Range" value=${range} options=${RANGES} onChange=${choose} />`}
    >
      ${
        domains.data &&
        recent.data &&
        html`<${Start} domains=${domains.data} reload=${domains.reload} delivered=${delivered} />`
      }
      ${
        view.error && !data
          ? html`<${Failure} error=${view.error} retry=${view.reload} />`
          : !data
            ? html`<${Skeleton} lines="6" />`
            : html`
              <dl class="stats">
                <${Stat}
                  label="Received"
                  value=${compact(data.totals.received)}
                  note=${LAST[data.range]}
                  href=${to("messages", { direction: "inbound" })}
                />
                <${Stat}
                  label="Sent"
                  value=${compact(data.totals.sent)}
                  note=${LAST[data.range]}
                  href=${to("messages", { direction: "outbound" })}
                />
                <${Stat}
                  label="Webhooks delivered"
                  value=${data.successRate === null ? "–" : percent(data.successRate)}
                  note=${
                    data.totals.failed
                      ? `${number(data.totals.failed)} given up`
                      : data.successRate === null
                        ? "none yet"
                        : "none given up"
                  }
                  tone=${data.totals.failed ? "bad" : ""}
                  href=${to("deliveries", data.totals.failed ? { status: "failed" } : {})}
                />
                <${Stat}
                  label="Mail to acknowledged"
                  value=${data.latencyMs.p50 === null ? "–" : duration(data.latencyMs.p50)}
                  note=${data.latencyMs.p99 === null ? "none yet" : `99 % within ${duration(data.latencyMs.p99)}`}
                />
                <${Stat}
                  label="Waiting"
                  value=${compact(data.queue.webhooks + data.queue.outbound)}
                  note=${
                    data.queue.oldestAt
                      ? html`oldest <${Time} at=${data.queue.oldestAt} />`
                      : `${plural(data.queue.webhooks, "webhook")}, ${number(data.queue.outbound)} to send`
                  }
                  href=${to("deliveries", { status: "pending" })}
                />
              </dl>
              <${Attention} items=${data.attention} />
              <${Card} title="Mail over time" class="chart-card">
                <${Chart} data=${data} />
              <//>
              <${Endpoints} all=${data.endpoints} />
            `
      }
      <${Recent} rows=${recent.data} />
    <//>
  `;
}
