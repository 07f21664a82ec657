// Forms to add a domain and to set and test its webhook; the first steps on the Overview use them too.
import { html, useState } from "../../lib/preact.js";
import { post, put } from "../../lib/api.js";
import { apiPath } from "../../lib/paths.js";
import { Button, Field, Notice, toast, useAction } from "../../ui/index.js";

export function AddDomain({ onAdded, autofocus }) {
  const [name, setName] = useState("");
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const dev = document.body.dataset.dev;
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      const created = await post("/api/domains", { domain: name });
      setName("");
      onAdded(created);
    }, setError);
  };
  return html`
    <form class="inline-form" onSubmit=${submit}>
      <${Field}
        label="Domain"
        error=${error?.message}
        hint=${
          dev ? "In dev mode names under .test, .localhost and .example need no DNS." : "One whose DNS you can edit."
        }
      >
        <input
          value=${name}
          onInput=${(event) => {
            setError(null);
            setName(event.target.value);
          }}
          placeholder=${dev ? "acme.test" : "acme.dev"}
          autocapitalize="none"
          spellcheck="false"
          autocomplete="off"
          required
          autofocus=${autofocus}
        />
      <//>
      <${Button} type="submit" variant="primary" busy=${busy} icon="plus">Add domain<//>
    </form>
  `;
}

export function SetWebhook({ domain, onSet, label = "Save" }) {
  const [url, setUrl] = useState(domain.webhookUrl || "");
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      const answer = await put(apiPath`/api/domains/${domain.id}/webhook`, {
        url,
        ackMode: domain.webhookAckMode || undefined,
      });
      toast("Webhook saved");
      onSet(answer);
    }, setError);
  };
  return html`
    <form class="inline-form" onSubmit=${submit}>
      <${Field}
        label="Webhook URL"
        error=${error?.message}
        hint=${
          document.body.dataset.dev
            ? "https, or http on localhost."
            : "https. Each mail of the domain is posted to it as signed JSON."
        }
      >
        <input
          type="url"
          class="mono"
          value=${url}
          onInput=${(event) => {
            setError(null);
            setUrl(event.target.value);
          }}
          placeholder=${document.body.dataset.dev ? "http://localhost:3000/hook" : "https://app.acme.dev/hook"}
          required
        />
      <//>
      <${Button} type="submit" variant=${url === domain.webhookUrl ? "" : "primary"} busy=${busy}>${label}<//>
    </form>
  `;
}

/** Post a test event, and show what the endpoint answered. */
export function TestWebhook({ domain, onDone, variant = "", children }) {
  const [result, setResult] = useState(null);
  const test = async () => {
    setResult(null);
    try {
      const answer = await post(apiPath`/api/domains/${domain.id}/webhook/test`);
      setResult(
        answer.ok
          ? { delivered: true, text: `Your endpoint answered ${answer.status}.` }
          : {
              text:
                `Your endpoint answered ${answer.status}, which does not count as delivered` +
                `${answer.status < 300 ? " in this ack mode" : ""}.`,
            },
      );
      if (answer.ok) onDone?.();
    } catch (error) {
      setResult({ text: error.message });
    }
  };
  return html`
    <div class="stack tight">
      <div class="actions">
        <${Button} variant=${variant} action=${test} icon="send">Send a test event<//>
        ${children}
      </div>
      <div role="status">
        ${result && html`<${Notice} tone=${result.delivered ? "good" : "bad"}>${result.text}<//>`}
      </div>
    </div>
  `;
}
