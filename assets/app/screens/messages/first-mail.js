// Help with the first mail when there is none yet.
import { html } from "../../lib/preact.js";
import { mailCommand } from "../../lib/commands.js";
import { href } from "../../lib/paths.js";
import { useResource } from "../../lib/api.js";
import { CodeBlock, EmptyState, Icon } from "../../ui/index.js";

export function FirstMail({ domains }) {
  const verified = domains.data?.find((domain) => domain.mx_verified);
  const server = useResource("/api/server");
  if (domains.data && !verified)
    return html`
      <${EmptyState} icon="messages" title="No mail yet">
        <p>Mail comes in once a domain's MX record points here.</p>
        <a class="button primary" href=${href("domains")}>
          <${Icon} name="plus" />
          Add a domain
        </a>
      <//>
    `;
  return html`
    <${EmptyState} icon="messages" title="No mail yet">
      <p>Send one to any address at <strong>${verified?.domain}</strong>. It shows here as it arrives.</p>
      <${CodeBlock} label="with curl">${mailCommand(verified?.domain || "your.domain", server.data)}<//>
      <p>or <a href=${href("send")}>send one from here</a>.</p>
    <//>
  `;
}
