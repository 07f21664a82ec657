// Overview: mail in and out, delivery rates and latency, queues, problems.
import { html, useState } from "../../lib/preact.js";
import { compactNumber, formatDuration, formatNumber, formatPercent, plural } from "../../lib/format.js";
import { useLiveRefresh } from "../../lib/live.js";
import { href, withQuery } from "../../lib/paths.js";
import { useResource } from "../../lib/api.js";
import { Card, LoadError, Page, RelativeTime, SegmentedControl, Skeleton } from "../../ui/index.js";
import { Attention, Endpoints, LatestMessages } from "./cards.js";
import { Chart } from "./chart.js";
import { GetStarted } from "./get-started.js";

const RANGES = [
  ["hour", "Hour"],
  ["day", "Day"],
  ["week", "Week"],
];

const PERIOD = { hour: "in the last hour", day: "in the last 24 hours", week: "in the last 7 days" };

const Stat = ({ label, value, note, tone = "", link }) =>
  html`
    <div class=${`stat ${tone}`}>
      <dt>${label}</dt>
      <dd>
        ${link ? html`<a href=${link}>${value}</a>` : value}
      </dd>
      ${note && html`<dd class="note">${note}</dd>`}
    </div>
  `;

export default function Overview() {
  const [range, setRange] = useState(() =>
    RANGES.some(([key]) => key === localStorage.getItem("mailkite.range"))
      ? localStorage.getItem("mailkite.range")
      : "day",
  );
  const overview = useResource(withQuery("/api/overview", { range }));
  const recent = useResource("/api/messages?limit=6");
  const domains = useResource("/api/domains");
  // The server caches these figures for two seconds; a request after that includes the event.
  useLiveRefresh(() => true, overview.reload, 2100);
  useLiveRefresh(
    () => true,
    () => {
      recent.reload();
      domains.reload();
    },
    600,
  );
  const selectRange = (next) => {
    localStorage.setItem("mailkite.range", next);
    setRange(next);
  };
  const data = overview.data;
  const delivered = recent.data?.some((row) => row.delivered_count > 0) || data?.totals?.delivered > 0;
  return html`
    <${Page}
      title="Overview"
      actions=${html`<${SegmentedControl} label="Range" value=${range} options=${RANGES} onChange=${selectRange} />`}
    >
      ${
        domains.data &&
        recent.data &&
        html`<${GetStarted} domains=${domains.data} reload=${domains.reload} delivered=${delivered} />`
      }
      ${
        overview.error && !data
          ? html`<${LoadError} error=${overview.error} retry=${overview.reload} />`
          : !data
            ? html`<${Skeleton} lines="6" />`
            : html`
              <dl class="stats">
                <${Stat}
                  label="Received"
                  value=${compactNumber(data.totals.received)}
                  note=${PERIOD[data.range]}
                  link=${href("messages", { direction: "inbound" })}
                />
                <${Stat}
                  label="Sent"
                  value=${compactNumber(data.totals.sent)}
                  note=${PERIOD[data.range]}
                  link=${href("messages", { direction: "outbound" })}
                />
                <${Stat}
                  label="Webhooks delivered"
                  value=${data.successRate === null ? "–" : formatPercent(data.successRate)}
                  note=${
                    data.totals.failed
                      ? `${formatNumber(data.totals.failed)} given up`
                      : data.successRate === null
                        ? "none yet"
                        : "none given up"
                  }
                  tone=${data.totals.failed ? "bad" : ""}
                  link=${href("deliveries", data.totals.failed ? { status: "failed" } : {})}
                />
                <${Stat}
                  label="Mail to acknowledged"
                  value=${data.latencyMs.p50 === null ? "–" : formatDuration(data.latencyMs.p50)}
                  note=${data.latencyMs.p99 === null ? "none yet" : `99 % within ${formatDuration(data.latencyMs.p99)}`}
                />
                <${Stat}
                  label="Waiting"
                  value=${compactNumber(data.queue.webhooks + data.queue.outbound)}
                  note=${
                    data.queue.oldestAt
                      ? html`oldest <${RelativeTime} at=${data.queue.oldestAt} />`
                      : `${plural(data.queue.webhooks, "webhook")}, ${formatNumber(data.queue.outbound)} to send`
                  }
                  link=${href("deliveries", { status: "pending" })}
                />
              </dl>
              <${Attention} items=${data.attention} />
              <${Card} title="Mail over time" class="chart-card">
                <${Chart} data=${data} />
              <//>
              <${Endpoints} endpoints=${data.endpoints} />
            `
      }
      <${LatestMessages} rows=${recent.data} />
    <//>
  `;
}
