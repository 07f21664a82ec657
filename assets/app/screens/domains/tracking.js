// Choose where events of sent mail go.
import { html, useState } from "../../lib/preact.js";
import { del, put } from "../../lib/api.js";
import { apiPath } from "../../lib/paths.js";
import { Button, Card, Field, toast, toastError, useAction } from "../../ui/index.js";

const EVENTS = [
  ["email.sent", "Sent"],
  ["email.bounced", "Bounced"],
  ["email.complained", "Complained"],
];

export function TrackingCard({ detail }) {
  const { domain } = detail.data;
  const [url, setUrl] = useState(domain.trackingWebhookUrl || "");
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const selected = domain.webhookEvents === "all" ? EVENTS.map(([key]) => key) : domain.webhookEvents || [];
  const save = (event) => {
    event.preventDefault();
    runAction(async () => {
      url.trim()
        ? await put(apiPath`/api/domains/${domain.id}/tracking-webhook`, { url })
        : await del(apiPath`/api/domains/${domain.id}/tracking-webhook`);
      toast("Saved");
      detail.reload();
    }, setError);
  };
  const toggle = async (key) => {
    const next = selected.includes(key) ? selected.filter((selectedKey) => selectedKey !== key) : [...selected, key];
    detail.mutate((old) => ({ ...old, domain: { ...old.domain, webhookEvents: next } }));
    try {
      next.length
        ? await put(apiPath`/api/domains/${domain.id}/webhook-events`, { events: next })
        : await del(apiPath`/api/domains/${domain.id}/webhook-events`);
    } catch (failed) {
      toastError(failed);
    }
    detail.reload();
  };
  return html`
    <${Card} title="Events of sent mail">
      <form class="inline-form" onSubmit=${save}>
        <${Field}
          label="Tracking webhook"
          hint="Receives events of mail sent from this domain, signed with the account's secret. Leave empty for none."
          error=${error?.message}
        >
          <input
            type="url"
            class="mono"
            value=${url}
            onInput=${(event) => {
              setError(null);
              setUrl(event.target.value);
            }}
            placeholder="https://app.acme.dev/events"
          />
        <//>
        <${Button} type="submit" busy=${busy}>Save<//>
      </form>
      ${
        !domain.trackingWebhookUrl &&
        html`
          <fieldset class="checks">
            <legend>Or send these to the domain's webhook</legend>
            ${EVENTS.map(
              ([key, text]) => html`
                <label key=${key}>
                  <input type="checkbox" checked=${selected.includes(key)} onChange=${() => toggle(key)} />${" "}
                  ${text}${" "}
                  <span class="muted mono">${key}</span>
                </label>
              `,
            )}
          </fieldset>
        `
      }
    <//>
  `;
}
