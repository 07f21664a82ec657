// One domain: DNS records, webhook, events, retention.
import { html } from "../../lib/preact.js";
import { del, useResource } from "../../lib/api.js";
import { apiPath, byName, href } from "../../lib/paths.js";
import { navigate } from "../../lib/router.js";
import { Badge, Button, confirm, Icon, Loaded, Page, toast } from "../../ui/index.js";
import { DnsRecords } from "./dns-records.js";
import { RetentionCard } from "./retention.js";
import { TrackingCard } from "./tracking.js";
import { WebhookCard } from "./webhook.js";

export function DomainPage({ id }) {
  const detail = useResource(apiPath`/api/domains/${byName(id)}`);
  const deleteDomain = async () => {
    const { domain } = detail.data;
    const confirmed = await confirm({
      title: `Delete ${domain.domain}?`,
      text:
        "Its webhook, routes, signing keys and scoped keys are deleted too, and mail for it is refused. Stored " +
        "messages stay until their retention ends.",
      typeToConfirm: domain.domain,
    });
    if (!confirmed) return;
    await del(apiPath`/api/domains/${domain.id}`);
    toast(`${domain.domain} is deleted`);
    navigate(href("domains"));
  };
  return html`
    <${Page}
      title=${detail.data?.domain.domain || id}
      back=${[href("domains"), "Domains"]}
      lead=${
        detail.data &&
        html`
          <${Badge} tone=${detail.data.domain.status === "verified" ? "good" : "warn"}>
            ${detail.data.domain.status === "verified" ? "Receiving" : "Not verified"}
          <//>${" "}
          ${
            detail.data.domain.spf_verified && detail.data.domain.dkim_verified
              ? html`<${Badge} tone="good">Sending<//>`
              : html`<${Badge}>Not sending<//>`
          }
        `
      }
      actions=${
        detail.data &&
        html`
          <a class="button" href=${href("messages", { domain: detail.data.domain.domain })}>
            <${Icon} name="messages" />
            Messages
          </a>
          <${Button} variant="quiet-danger" icon="trash" action=${deleteDomain}>Delete<//>
        `
      }
    >
      <${Loaded} resource=${detail} lines="8">
        ${(data) => html`
          <div class="stack wide-gap">
            ${
              data.domain.mx_verified
                ? html`
                  <${WebhookCard} detail=${detail} />
                  <${DnsRecords} detail=${detail} />
                `
                : html`
                  <${DnsRecords} detail=${detail} />
                  <${WebhookCard} detail=${detail} />
                `
            }
            <${TrackingCard} key=${data.domain.trackingWebhookUrl} detail=${detail} />
            <${RetentionCard} key=${data.domain.retention_days} detail=${detail} />
          </div>
        `}
      <//>
    <//>
  `;
}
