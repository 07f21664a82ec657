// Format times, sizes and numbers by the reader's locale; one clock drives all relative times on the page.
import { useEffect, useState } from "./preact.js";

const EXACT_FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const CLOCK_FORMAT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SECONDS_FORMAT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY_FORMAT = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const YEAR_FORMAT = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const NUMBER_FORMAT = new Intl.NumberFormat();
const COMPACT_FORMAT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
export const exactTime = (ms) => EXACT_FORMAT.format(ms);
export const clockTime = (ms) => SECONDS_FORMAT.format(ms);
export const formatNumber = (n) => NUMBER_FORMAT.format(n);
export const compactNumber = (n) => (n < 10000 ? NUMBER_FORMAT.format(n) : COMPACT_FORMAT.format(n));
export const formatPercent = (share) => `${(share * 100).toFixed(share >= 0.9995 || share < 0.1 ? 0 : 1)} %`;
export const plural = (n, one, many = `${one}s`) => `${formatNumber(n)} ${n === 1 ? one : many}`;

/** Format the distance to `now`: “3 min ago”, “in 2 h”, or a date for what is further away. */
export function relativeTime(ms, now = Date.now()) {
  const seconds = Math.round((now - ms) / 1000);
  if (seconds < 0) {
    const ahead = -seconds;
    if (ahead < 60) return `in ${ahead} s`;
    if (ahead < 5400) return `in ${Math.round(ahead / 60)} min`;
    if (ahead < 129600) return `in ${Math.round(ahead / 3600)} h`;
    return `in ${Math.round(ahead / 86400)} days`;
  }
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 21600) return `${Math.floor(seconds / 3600)} h ago`;
  const then = new Date(ms),
    today = new Date(now);
  if (then.toDateString() === today.toDateString()) return CLOCK_FORMAT.format(ms);
  if (seconds < 86400 * 300)
    return seconds < 86400 * 6 ? `${DAY_FORMAT.format(ms)}, ${CLOCK_FORMAT.format(ms)}` : DAY_FORMAT.format(ms);
  return YEAR_FORMAT.format(ms);
}

export function formatBytes(n) {
  if (n < 1000) return `${n} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = n,
    unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function formatDuration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
  if (ms < 3600000) return `${Math.round(ms / 60000)} min`;
  if (ms < 86400000 * 2) return `${Math.round(ms / 3600000)} h`;
  return `${Math.round(ms / 86400000)} days`;
}

const tickers = new Set();

setInterval(() => {
  if (!document.hidden) tickers.forEach((tick) => tick(Date.now()));
}, 10000);

/** Return the current time, updated every ten seconds. */
export function useNow() {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    tickers.add(setNow);
    return () => tickers.delete(setNow);
  }, []);
  return now;
}
