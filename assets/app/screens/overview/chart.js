// Draw mail over time with uPlot, and as a table for screen readers.
import { html, useEffect, useRef, useState } from "../../lib/preact.js";
import { formatNumber } from "../../lib/format.js";
import { Skeleton } from "../../ui/index.js";

const SERIES = [
  ["received", "Received", "--chart-1"],
  ["sent", "Sent", "--chart-2"],
  ["failed", "Webhooks failed", "--bad"],
];

let uPlot = null;

function loadStyles() {
  if (document.querySelector("link[data-uplot]")) return;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.dataset.uplot = "";
  link.href = new URL("../../../vendor/uplot.css", import.meta.url).href;
  document.head.append(link);
}

const formatBucketTime = (at, range) =>
  new Intl.DateTimeFormat(
    undefined,
    range === "week"
      ? { weekday: "short", hour: "2-digit", minute: "2-digit" }
      : { hour: "2-digit", minute: "2-digit" },
  ).format(at);

export function Chart({ data }) {
  const container = useRef(null);
  const plot = useRef(null);
  const [ready, setReady] = useState(Boolean(uPlot));
  const [themeVersion, setThemeVersion] = useState(0);
  const [hoveredIndex, setHoveredIndex] = useState(null);
  useEffect(() => {
    loadStyles();
    if (!uPlot)
      import("../../../vendor/uplot.js").then((module) => {
        uPlot = module.default;
        setReady(true);
      });
    const onThemeChange = () => setThemeVersion((n) => n + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", onThemeChange);
    dark.addEventListener("change", onThemeChange);
    return () => {
      removeEventListener("themechange", onThemeChange);
      dark.removeEventListener("change", onThemeChange);
    };
  }, []);
  const toColumns = (data) => [
    data.buckets.map((bucket) => bucket.at / 1000),
    // A bar of height zero would still be drawn as a line.
    ...SERIES.map(([key]) => data.buckets.map((bucket) => (bucket[key] || key === "sent" ? bucket[key] : null))),
  ];

  useEffect(() => {
    if (!ready) return undefined;
    const element = container.current;
    const cssProperty = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const bars = uPlot.paths.bars({ size: [0.7, 28], radius: 0.15 });
    const failures = uPlot.paths.bars({ size: [0.25, 10] });
    const axis = {
      stroke: cssProperty("--text-secondary"),
      grid: { stroke: cssProperty("--border"), width: 1 },
      ticks: { show: false },
      font: `12px ${cssProperty("--font-sans")}`,
    };
    plot.current = new uPlot(
      {
        width: Math.max(element.clientWidth, 200),
        height: 220,
        legend: { show: false },
        padding: [12, 8, 0, 0],
        cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
        hooks: { setCursor: [(self) => setHoveredIndex(self.cursor.idx)] },
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
            values: (_self, splits) => splits.map((split) => formatBucketTime(split * 1000, data.range)),
          },
          {
            ...axis,
            size: 44,
            incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000, 500000, 1000000],
            values: (_self, splits) => splits.map(formatNumber),
          },
        ],
        series: [
          {},
          { stroke: cssProperty("--chart-1"), fill: cssProperty("--chart-1"), paths: bars, points: { show: false } },
          { stroke: cssProperty("--chart-2"), width: 2, paths: uPlot.paths.linear(), points: { show: false } },
          { stroke: cssProperty("--bad"), fill: cssProperty("--bad"), paths: failures, points: { show: false } },
        ],
      },
      toColumns(data),
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
  }, [ready, themeVersion, data.range]);
  useEffect(() => {
    plot.current?.setData(toColumns(data));
  }, [data]);

  const bucket = hoveredIndex === null ? null : data.buckets[hoveredIndex];
  return html`
    <div class="chart">
      <div class="chart-legend" aria-hidden="true">
        ${SERIES.map(
          ([key, label], index) => html`
            <span key=${key}>
              <i class=${`swatch swatch-${index}`}></i>
              ${label}
              ${bucket ? html` <b>${formatNumber(bucket[key])}</b>` : ""}
            </span>
          `,
        )}
        <span class="chart-time">${bucket ? formatBucketTime(bucket.at, data.range) : ""}</span>
      </div>
      <div ref=${container} class="chart-plot" aria-hidden="true">
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
            .filter((row) => row.received || row.sent || row.failed)
            .map(
              (row) => html`
                <tr key=${row.at}>
                  <th>${formatBucketTime(row.at, data.range)}</th>
                  ${SERIES.map(([key]) => html`<td key=${key}>${row[key]}</td>`)}
                </tr>
              `,
            )}
        </tbody>
      </table>
    </div>
  `;
}
