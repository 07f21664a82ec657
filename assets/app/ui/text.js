// Show times, and text that comes from outside.
import { html } from "../lib/preact.js";
import { exactTime, relativeTime, useNow } from "../lib/format.js";

/** Relative time; the exact time is its tooltip. */
export function RelativeTime({ at, class: extra = "" }) {
  const now = useNow();
  if (at === null || at === undefined) return html`<span class="muted">never</span>`;
  return html`
    <time class=${extra} datetime=${new Date(at).toISOString()} title=${exactTime(at)}>${relativeTime(at, now)}</time>
  `;
}

/** Text from outside, isolated, so that right-to-left characters cannot reorder the text around it. */
export const UserText = ({ children, class: extra = "", title }) =>
  html`<bdi class=${extra} title=${title}>${children}</bdi>`;

/** URL, cut to one line; the tooltip has all of it. */
export const UrlText = ({ children }) => html`<bdi class="mono url" dir="ltr" title=${children}>${children}</bdi>`;

/** File name from outside, without directional marks: they could make `gnp.exe` look like `exe.png`. */
export const FileName = ({ children }) =>
  html`
    <bdi dir="ltr">
      ${(children || "").replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "") || "(no name)"}
    </bdi>
  `;
