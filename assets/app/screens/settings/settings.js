// Settings: the account, its sessions, and the server.
import { html } from "../../lib/preact.js";
import { Page } from "../../ui/index.js";
import { Password } from "./password.js";
import { Profile } from "./profile.js";
import { Server } from "./server.js";
import { Sessions } from "./sessions.js";

export default function Settings({ user, setUser }) {
  return html`
    <${Page} title="Settings" narrow>
      <${Profile} user=${user} setUser=${setUser} />
      <${Server} />
      <${Sessions} />
      <${Password} />
      <p class="hint">
        Everything here is done with the public API:${" "}
        <a href="/api/openapi.json" target="_blank" rel="noopener">its OpenAPI document</a>.
      </p>
    <//>
  `;
}
