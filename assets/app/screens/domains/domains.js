// Domains: the list, and one domain.
import { html, useState } from "../../lib/preact.js";
import { href } from "../../lib/paths.js";
import { useResource } from "../../lib/api.js";
import { navigate } from "../../lib/router.js";
import { Badge, Button, Dialog, EmptyState, Icon, Loaded, Page, UserText } from "../../ui/index.js";
import { DomainPage } from "./domain.js";
import { AddDomain } from "./forms.js";

const RecordBadges = ({ domain }) =>
  html`
    <span class="flags">
      ${["mx", "spf", "dkim", "dmarc"].map(
        (kind) => html`
          <${Badge}
            key=${kind}
            tone=${domain[`${kind}_verified`] ? "good" : ""}
            title=${`${kind.toUpperCase()}: ${domain[`${kind}_verified`] ? "found" : "not found"}`}
          >
            ${kind.toUpperCase()}
            ${domain[`${kind}_verified`] ? html` <${Icon} name="check" size="12" />` : ""}
          <//>
        `,
      )}
    </span>
  `;

export default function Domains({ route }) {
  return route.parts[1] ? html`<${DomainPage} key=${route.parts[1]} id=${route.parts[1]} />` : html`<${DomainList} />`;
}

function DomainList() {
  const domains = useResource("/api/domains");
  const [adding, setAdding] = useState(false);
  const onAdded = (created) => {
    setAdding(false);
    domains.reload();
    navigate(href("domains", created.domain.domain));
  };
  return html`
    <${Page}
      title="Domains"
      lead="Receive mail for these domains, and send from them."
      actions=${
        domains.data?.length > 0 &&
        html`<${Button} variant="primary" icon="plus" onClick=${() => setAdding(true)}>Add domain<//>`
      }
    >
      <${Loaded} resource=${domains}>
        ${(list) =>
          list.length
            ? html`
              <ul class="cards">
                ${list.map(
                  (domain) => html`
                    <li key=${domain.id}>
                      <a class="card-link" href=${href("domains", domain.domain)}>
                        <span class="card-title">
                          <${UserText}>${domain.domain}<//>
                          <${Badge} tone=${domain.status === "verified" ? "good" : "warn"}>
                            ${domain.status === "verified" ? "Receiving" : "Not verified"}
                          <//>
                          ${domain.spf_verified && domain.dkim_verified && html`<${Badge} tone="good">Sending<//>`}
                        </span>
                        <${RecordBadges} domain=${domain} />
                        <span class="card-sub">
                          ${
                            domain.webhookUrl
                              ? html`
                                <${Icon} name="deliveries" size="16" />
                                <bdi class="mono">${domain.webhookUrl}</bdi>
                              `
                              : html`<span class="muted">No webhook</span>`
                          }
                        </span>
                      </a>
                    </li>
                  `,
                )}
              </ul>
            `
            : html`
              <${EmptyState} icon="domains" title="Add your first domain">
                <p>Copy its DNS records from here, and see as soon as they are found.</p>
                <${AddDomain} onAdded=${onAdded} />
              <//>
            `}
      <//>
      ${
        adding &&
        html`
          <${Dialog} title="Add a domain" onClose=${() => setAdding(false)}>
            <${AddDomain} onAdded=${onAdded} autofocus />
          <//>
        `
      }
    <//>
  `;
}
