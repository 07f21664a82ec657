// Mail over time, drawn by uPlot, and the same as a table for those who do not see it.
import { html, useRef, useEffect, useState } from "./lib.js";
import { Skeleton } from "./ui.js";
import { number } from "./format.js";

const SERIES = [
  ["received", "Received", "--chart-1"],
  ["sent", "Sent", "--chart-2"],
  ["failed", "Webhooks failed", "--bad"],
];
let uPlot = null;

function styles() {
  if (document.querySelector("link[data-uplot]")) return;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.dataset.uplot = "";
  link.href = new URL("../vendor/uplot.css", import.meta.url).href;
  document.head.append(link);
}

const when = (at, range) =>
  new Intl.DateTimeFormat(
    undefined,
    range === "week"
      ? { weekday: "short", hour: "2-digit", minute: "2-digit" }
      : { hour: "2-digit", minute: "2-digit" },
  ).format(at);

export default function Chart({ data }) {
  const holder = useRef(null);
  const plot = useRef(null);
  const [ready, set] = useState(Boolean(uPlot));
  const [theme, retheme] = useState(0);
  const [at, hover] = useState(null);
  useEffect(() => {
    styles();
    if (!uPlot)
      import("../vendor/uplot.js").then((module) => {
        uPlot = module.default;
        set(true);
      });
    const changed = () => retheme((n) => n + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", changed);
    dark.addEventListener("change", changed);
    return () => {
      removeEventListener("themechange", changed);
      dark.removeEventListener("change", changed);
    };
  }, []);
  const columns = (of) => [
    of.buckets.map((one) => one.at / 1000),
    // A bar of no height would still be a line.
    ...SERIES.map(([key]) => of.buckets.map((one) => (one[key] || key === "sent" ? one[key] : null))),
  ];

  useEffect(() => {
    if (!ready) return undefined;
    const element = holder.current;
    const property = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const bars = uPlot.paths.bars({ size: [0.7, 28], radius: 0.15 });
    const failures = uPlot.paths.bars({ size: [0.25, 10] });
    const axis = {
      stroke: property("--soft"),
      grid: { stroke: property("--line"), width: 1 },
      ticks: { show: false },
      font: `12px ${property("--sans")}`,
    };
    plot.current = new uPlot(
      {
        width: Math.max(element.clientWidth, 200),
        height: 220,
        legend: { show: false },
        padding: [12, 8, 0, 0],
        cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
        hooks: { setCursor: [(self) => hover(self.cursor.idx)] },
        scales: {
          x: { time: true, range: (_self, from, until) => [from - data.bucketMs / 2000, until + data.bucketMs / 2000] },
          y: { range: (_self, _low, high) => [0, Math.max(4, Math.ceil(high * 1.1))] },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 30,
            space: 64,
            values: (_self, splits) => splits.map((one) => when(one * 1000, data.range)),
          },
          {
            ...axis,
            size: 44,
            incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000, 500000, 1000000],
            values: (_self, splits) => splits.map(number),
          },
        ],
        series: [
          {},
          { stroke: property("--chart-1"), fill: property("--chart-1"), paths: bars, points: { show: false } },
          { stroke: property("--chart-2"), width: 2, paths: uPlot.paths.linear(), points: { show: false } },
          { stroke: property("--bad"), fill: property("--bad"), paths: failures, points: { show: false } },
        ],
      },
      columns(data),
      element,
    );
    const observer = new ResizeObserver(() =>
      plot.current?.setSize({ width: Math.max(element.clientWidth, 200), height: 220 }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [ready, theme, data.range]);
  useEffect(() => {
    plot.current?.setData(columns(data));
  }, [data]);

  const bucket = at === null ? null : data.buckets[at];
  return html`
    <div class="chart">
      <div class="chart-legend" aria-hidden="true">
        ${SERIES.map(
          ([key, label], index) => html`
            <span key=${key}>
              <i class=${`key key-${index}`}></i>
              ${label}
              ${bucket ? html` <b>${number(bucket[key])}</b>` : ""}
            </span>
          `,
        )}
        <span class="chart-at">${bucket ? when(bucket.at, data.range) : ""}</span>
      </div>
      <div ref=${holder} class="chart-plot" aria-hidden="true">
        ${!ready && html`<${Skeleton} lines="3" />`}
      </div>
      <table class="visually-hidden">
        <caption>Mail over time</caption>
        <thead>
          <tr>
            <th>From</th>
            ${SERIES.map(([key, label]) => html`<th key=${key}>${label}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${data.buckets
            .filter((one) => one.received || one.sent || one.failed)
            .map(
              (one) => html`
                <tr key=${one.at}>
                  <th>${when(one.at, data.range)}</th>
                  ${SERIES.map(([key]) => html`<td key=${key}>${one[key]}</td>`)}
                </tr>
              `,
            )}
        </tbody>
      </table>
    </div>
  `;
}
