// Show whether live updates arrive.
import { html } from "../lib/preact.js";
import * as live from "../lib/live.js";

export function ConnectionStatus() {
  const state = live.useConnectionState();
  const label = {
    live: ["Live", "Changes show immediately."],
    connecting: ["Reconnecting", "The event stream is being opened again."],
    off: ["Paused", "The event stream is closed."],
  }[state];
  return html`
    <span class=${`live is-${state}`} title=${label[1]} role="status">
      <i aria-hidden="true"></i>
      ${label[0]}
    </span>
  `;
}
