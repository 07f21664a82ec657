// Times, sizes and numbers for people, in their own language's order; one clock for all relative times on the page.
import { useState, useEffect } from "./lib.js";

const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SECONDS = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const YEAR = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const NUMBER = new Intl.NumberFormat();
const COMPACT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

export const exact = (ms) => EXACT.format(ms);
export const clock = (ms) => SECONDS.format(ms);
export const number = (n) => NUMBER.format(n);
export const compact = (n) => (n < 10000 ? NUMBER.format(n) : COMPACT.format(n));
export const percent = (share) => `${(share * 100).toFixed(share >= 0.9995 || share < 0.1 ? 0 : 1)} %`;
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** How long ago, or in how long. */
export function ago(ms, now = Date.now()) {
  const seconds = Math.round((now - ms) / 1000);
  if (seconds < 0) {
    const rest = -seconds;
    if (rest < 60) return `in ${rest} s`;
    if (rest < 5400) return `in ${Math.round(rest / 60)} min`;
    if (rest < 129600) return `in ${Math.round(rest / 3600)} h`;
    return `in ${Math.round(rest / 86400)} days`;
  }
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 21600) return `${Math.floor(seconds / 3600)} h ago`;
  const then = new Date(ms),
    today = new Date(now);
  if (then.toDateString() === today.toDateString()) return CLOCK.format(ms);
  if (seconds < 86400 * 300) return seconds < 86400 * 6 ? `${DAY.format(ms)}, ${CLOCK.format(ms)}` : DAY.format(ms);
  return YEAR.format(ms);
}

export function bytes(n) {
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

export function duration(ms) {
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

/** The time, again and again. */
export function useNow() {
  const [now, set] = useState(Date.now);
  useEffect(() => {
    tickers.add(set);
    return () => tickers.delete(set);
  }, []);
  return now;
}
