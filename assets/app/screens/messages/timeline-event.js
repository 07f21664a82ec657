// One event of a message's timeline.
import { html } from "../../lib/preact.js";
import { Icon, RelativeTime } from "../../ui/index.js";

export const TimelineEvent = ({ tone = "", icon = "check", title, at, children, action }) => html`
  <li class=${`event ${tone}`}>
    <span class="event-icon">
      <${Icon} name=${icon} size="14" />
    </span>
    <div class="event-body">
      <div class="event-head">
        <strong>${title}</strong>
        ${action}
        ${at !== undefined && at !== null && html`<${RelativeTime} at=${at} class="muted" />`}
      </div>
      ${children}
    </div>
  </li>
`;
