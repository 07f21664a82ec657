// The account: address, verification, usage.
import { html } from "../../lib/preact.js";
import { get, post, useResource } from "../../lib/api.js";
import { formatBytes, formatNumber } from "../../lib/format.js";
import { Badge, Button, Card, toast, UserText } from "../../ui/index.js";

export function Profile({ user, setUser }) {
  const usage = useResource("/api/billing/usage");
  const verify = async () => {
    const { status } = await post("/api/auth/verify/send");
    toast(status === "verified" ? "Your address is verified already" : `A link is on its way to ${user.email}`);
    if (status === "verified") setUser(await get("/v1/me"));
  };
  return html`
    <${Card} title="Account">
      <dl class="facts">
        <div>
          <dt>E-mail</dt>
          <dd>
            <${UserText}>${user.email}<//>${" "}
            <${Badge} tone=${user.emailVerified ? "good" : "warn"}>
              ${user.emailVerified ? "Verified" : "Not verified"}
            <//>
            ${user.isAdmin && html` <${Badge} tone="info">Owner<//>`}
            ${!user.emailVerified && html` <${Button} variant="small" action=${verify}>Send the link<//>`}
          </dd>
        </div>
        ${
          usage.data &&
          html`
            <div>
              <dt>Sent this month</dt>
              <dd>${formatNumber(usage.data.used)}</dd>
            </div>
            <${StorageUsage} ...${usage.data.storage} />
          `
        }
      </dl>
    <//>
  `;
}

/** Storage used, with a meter if it is limited. */
function StorageUsage({ used, limit }) {
  const usedShare = limit && Math.min(1, used / limit);
  return html`
    <div>
      <dt>Stored</dt>
      <dd>
        ${formatBytes(used)}
        ${
          limit &&
          html`
            ${" "}of ${formatBytes(limit)}
            ${usedShare >= 1 && html` <${Badge} tone="bad">Full<//>`}
            <div class=${`meter ${usedShare > 0.9 ? "bad" : ""}`} aria-hidden="true">
              <i style=${{ width: `${Math.max(1, usedShare * 100)}%` }}></i>
            </div>
          `
        }
      </dd>
    </div>
  `;
}
