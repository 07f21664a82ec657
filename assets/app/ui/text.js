// Show times, text that comes from outside, and values to copy.
import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { exactTime, relativeTime, useNow } from "../lib/format.js";
import { useAction } from "./button.js";
import { Icon } from "./icons.js";
import { toast } from "./toast.js";

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

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    /* No permission, or no clipboard API over plain HTTP. */
  }
  const textarea = document.createElement("textarea");
  textarea.value = text;
  textarea.className = "offscreen";
  document.body.append(textarea);
  textarea.select();
  const copied = document.execCommand("copy");
  textarea.remove();
  return copied;
}

export function CopyButton({ text, label = "Copy", small = true, children }) {
  const [copied, setCopied] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const click = async (event) => {
    event.preventDefault();
    event.stopPropagation();
    const success = await copyText(typeof text === "function" ? await text() : text);
    setCopied(success);
    toast(success ? "Copied" : "Could not copy");
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setCopied(false), 1500);
  };
  return html`
    <button
      type="button"
      class=${`icon-button ${small ? "small" : "button"} ${copied ? "done" : ""}`}
      onClick=${click}
      title=${label}
      aria-label=${children ? undefined : label}
    >
      <${Icon} name=${copied ? "check" : "copy"} size="16" />
      ${children}
    </button>
  `;
}

/** Value with a copy button. */
export const CopyableValue = ({ children, text = children, wrap }) => html`
  <span class=${`value ${wrap ? "wrap" : ""}`}>
    <code tabindex=${wrap ? undefined : 0} dir="auto">${children}</code>
    <${CopyButton} text=${text} label="Copy" />
  </span>
`;

/** Code or a command with a copy button. */
export const CodeBlock = ({ children, text = children, label, class: extra = "" }) => html`
  <figure class=${`code ${extra}`}>
    ${label && html`<figcaption>${label}</figcaption>`}
    <pre tabindex="0">
      <code>${children}</code>
    </pre>
    <${CopyButton} text=${text} label=${`Copy ${label || "this"}`} />
  </figure>
`;

/** Secret, hidden until the reader asks for it. */
export function SecretValue({ load, value, label = "secret" }) {
  const [secret, setSecret] = useState(null);
  const [busy, runAction] = useAction();
  const loadSecret = async () => value ?? (await load());
  const toggle = () => runAction(async () => setSecret(secret === null ? await loadSecret() : null));
  return html`
    <span class="value">
      <code dir="ltr" tabindex="0">${secret ?? "•".repeat(28)}</code>
      <button
        type="button"
        class="icon-button small"
        aria-label=${secret === null ? `Show the ${label}` : `Hide the ${label}`}
        title=${secret === null ? "Show" : "Hide"}
        disabled=${busy}
        onClick=${toggle}
      >
        <${Icon} name="eye" size="16" />
      </button>
      <${CopyButton} text=${loadSecret} label=${`Copy the ${label}`} />
    </span>
  `;
}
