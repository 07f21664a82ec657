// Routes: where mail to which address goes.
import { html, useState } from "../../lib/preact.js";
import { apiCommand } from "../../lib/commands.js";
import { useLiveRefresh } from "../../lib/live.js";
import { href } from "../../lib/paths.js";
import { useResource } from "../../lib/api.js";
import { Button, CodeBlock, EmptyState, Loaded, Page } from "../../ui/index.js";
import { ReplayDialog } from "./replay-dialog.js";
import { RouteCard } from "./route-card.js";
import { RouteDialog } from "./route-dialog.js";
import { RouteTester } from "./route-tester.js";

export default function Routes({ route }) {
  const routes = useResource("/api/routes");
  const domains = useResource("/api/domains");
  const [editing, setEditing] = useState(null);
  const [replaying, setReplaying] = useState(null);
  useLiveRefresh((type) => type === "delivery.updated", routes.reload, 2000);
  return html`
    <${Page}
      title="Routes"
      lead="Every active route that matches an address runs, oldest first."
      actions=${html`<${Button} variant="primary" icon="plus" onClick=${() => setEditing({})}>New route<//>`}
    >
      <${Loaded} resource=${routes}>
        ${(all) => html`
          ${
            all.length
              ? html`
                <ul class="cards">
                  ${all.map(
                    (item) => html`
                      <${RouteCard}
                        key=${item.id}
                        route=${item}
                        reload=${routes.reload}
                        mutate=${routes.mutate}
                        onEdit=${() => setEditing(item)}
                        onReplay=${() => setReplaying(item)}
                      />
                    `,
                  )}
                </ul>
              `
              : html`
                <${EmptyState} icon="routes" title="No routes yet">
                  <p>
                    Mail of a verified domain is stored. A route posts it to your app, forwards it, or drops it,
                    for one address or for many.
                  </p>
                  <p class="hint">
                    The simplest one is a <a href=${href("domains")}>domain's webhook</a>. A route can be made
                    here or with the API:
                  </p>
                  <${CodeBlock} label="with curl">
                    ${apiCommand("/api/routes", {
                      match: `support@${domains.data?.find((domain) => domain.mx_verified)?.domain || "acme.dev"}`,
                      action: "webhook",
                      destination: "https://app.acme.dev/support",
                    })}
                  <//>
                  <div class="actions">
                    <${Button} variant="primary" icon="plus" onClick=${() => setEditing({})}>New route<//>
                  </div>
                <//>
              `
          }
          <${RouteTester} routes=${all} initialAddress=${route.params.address} />
        `}
      <//>
      ${
        editing &&
        html`
          <${RouteDialog}
            route=${editing.id ? editing : null}
            onClose=${() => setEditing(null)}
            onSaved=${routes.reload}
          />
        `
      }
      ${replaying && html`<${ReplayDialog} route=${replaying} onClose=${() => setReplaying(null)} />`}
    <//>
  `;
}
