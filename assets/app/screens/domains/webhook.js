// Set, test and remove the webhook of a domain.
import { html, useState } from "../../lib/preact.js";
import { del, get, post, put, useResource } from "../../lib/api.js";
import { useLiveRefresh } from "../../lib/live.js";
import { apiPath } from "../../lib/paths.js";
import {
  Button,
  Card,
  confirm,
  EndpointPausedNotice,
  Notice,
  SecretValue,
  SegmentedControl,
  toast,
  toastError,
} from "../../ui/index.js";
import { SetWebhook, TestWebhook } from "./forms.js";

const ACK_MODES = [
  ["lenient", "Lenient", "Any 2xx counts as delivered."],
  ["ack", "Acknowledged", '2xx, and a body with {"status":"ok"} or the header x-mailkite-ack: ok.'],
  ["control", "Control", "Any 2xx; the body may say spam, drop, or block the sender."],
];

export function WebhookCard({ detail }) {
  const { domain } = detail.data;
  const path = apiPath`/api/domains/${domain.id}/webhook`;
  const setAckMode = async (ackMode) => {
    try {
      await put(path, { url: domain.webhookUrl, ackMode });
      toast("Saved");
    } catch (error) {
      toastError(error);
    }
    detail.reload();
  };
  const removeWebhook = async () => {
    const confirmed = await confirm({
      title: "Remove the webhook?",
      text: "Mail is stored, and nothing is called. Pending deliveries end. A webhook set later has another secret.",
      confirmLabel: "Remove",
    });
    if (!confirmed) return;
    await del(path);
    detail.reload();
    toast("Webhook removed");
  };
  const rotateSecret = async () => {
    const confirmed = await confirm({
      title: "Make a new secret?",
      text: "Both secrets sign for 24 hours, so you have time to update your app. After that, only the new one does.",
      confirmLabel: "Make a new one",
      destructive: false,
    });
    if (!confirmed) return;
    await post(apiPath`/api/domains/${domain.id}/webhook/secret/rotate`);
    setVersion(version + 1);
    toast("The secret was rotated; the old one also signs for 24 hours");
  };
  const [version, setVersion] = useState(0);
  const routes = useResource(domain.webhookUrl ? "/api/routes" : null);
  useLiveRefresh((type) => type === "delivery.updated", routes.reload, 2000);
  const isOwnRoute = (route) => route.is_domain_webhook && route.match_pattern === `*@${domain.domain}`;
  const pausedUntil = routes.data?.find(isOwnRoute)?.paused_until;
  return html`
    <${Card} title="Webhook" id="webhook">
      ${!domain.mx_verified && html`<${Notice}>You can set a webhook once the MX record is found.<//>`}
      ${
        domain.mx_verified &&
        html`
          <div class="stack">
            <${SetWebhook}
              key=${domain.webhookUrl}
              domain=${domain}
              onSet=${detail.reload}
              label=${domain.webhookUrl ? "Change" : "Set"}
            />
            ${
              domain.webhookUrl &&
              html`
                <dl class="facts">
                  <div>
                    <dt>Signing secret</dt>
                    <dd>
                      <${SecretValue}
                        key=${version}
                        load=${async () => (await get(apiPath`/api/domains/${domain.id}/webhook/secret`)).secret}
                        label="signing secret"
                      />${" "}
                      <${Button} variant="small" action=${rotateSecret}>Rotate<//>
                    </dd>
                  </div>
                  <div>
                    <dt>Counts as delivered</dt>
                    <dd>
                      <${SegmentedControl}
                        label="Ack mode"
                        value=${domain.webhookAckMode}
                        options=${ACK_MODES.map(([key, text]) => [key, text])}
                        onChange=${setAckMode}
                      />
                      <p class="hint">${ACK_MODES.find(([key]) => key === domain.webhookAckMode)?.[2]}</p>
                    </dd>
                  </div>
                </dl>
                ${pausedUntil && html`<${EndpointPausedNotice} until=${pausedUntil} />`}
                <${TestWebhook} domain=${domain}>
                  <${Button} variant="quiet-danger" icon="trash" action=${removeWebhook}>Remove webhook<//>
                <//>
              `
            }
          </div>
        `
      }
    <//>
  `;
}
