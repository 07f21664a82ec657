// List the sessions of the account, and end them.
import { html } from "../../lib/preact.js";
import { del, useResource } from "../../lib/api.js";
import { apiPath, byName } from "../../lib/paths.js";
import { Badge, Button, Card, confirm, Loaded, RelativeTime, UserText } from "../../ui/index.js";

/** Name the browser and its system from a User-Agent field. */
function describeUserAgent(text) {
  if (!text) return "Unknown client";
  const browser = /(Firefox|Edg|OPR|Chrome|Version)\/(\d+)/.exec(text);
  const name = { Edg: "Edge", OPR: "Opera", Version: "Safari" }[browser?.[1]] || browser?.[1];
  const system = /\((?:X11; )?(?:[^;)]*; )?(Windows|Mac OS X|Macintosh|Android|iPhone|iPad|Linux|CrOS)/.exec(text)?.[1];
  return name
    ? `${name} ${browser[2]}${system ? ` on ${system.replace("Macintosh", "macOS").replace("Mac OS X", "macOS")}` : ""}`
    : text.slice(0, 60);
}

export function Sessions() {
  const sessionList = useResource("/api/auth/sessions");
  const endSession = async (entry) => {
    if (
      entry.current &&
      !(await confirm({ title: "End this session?", text: "You are signed out here.", confirmLabel: "Sign out" }))
    )
      return;
    await del(apiPath`/api/auth/sessions/${byName(entry.id)}`);
    entry.current ? location.reload() : sessionList.reload();
  };
  return html`
    <${Card} title="Sessions">
      <${Loaded} resource=${sessionList}>
        ${({ sessions }) => html`
          <ul class="stack tight">
            ${sessions.map(
              (entry) => html`
                <li key=${entry.id} class="item-header">
                  <span class="route-line">
                    <strong title=${entry.userAgent}>
                      <${UserText}>${describeUserAgent(entry.userAgent)}<//>
                    </strong>
                    ${entry.current && html`<${Badge} tone="good">This one<//>`}
                    <span class="muted">
                      <bdi>${entry.ip || ""}</bdi> · since <${RelativeTime} at=${entry.createdAt} />
                    </span>
                  </span>
                  <${Button} variant="small" action=${() => endSession(entry)}>End<//>
                </li>
              `,
            )}
          </ul>
        `}
      <//>
    <//>
  `;
}
