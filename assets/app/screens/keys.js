// Keys: the account's own, those limited to one domain, and the account's webhook secret.
import { html, useState } from "../lib/preact.js";
import { del, get, post, useResource } from "../lib/api.js";
import { apiCommand } from "../lib/commands.js";
import { apiPath, href } from "../lib/paths.js";
import {
  Button,
  Card,
  CodeBlock,
  confirm,
  CopyableValue,
  Dialog,
  Field,
  Loaded,
  Notice,
  Page,
  RelativeTime,
  SecretValue,
  toast,
  useAction,
  UserText,
} from "../ui/index.js";

function NewKeyDialog({ domains, onClose, onCreated }) {
  const [form, setForm] = useState({ name: "", domainId: domains[0]?.id || "" });
  const [created, setCreated] = useState(null);
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      setCreated(await post("/api/keys/scoped", form));
      onCreated();
    }, setError);
  };
  if (created)
    return html`
      <${Dialog}
        title="Key created"
        onClose=${onClose}
        actions=${html`<${Button} variant="primary" onClick=${onClose}>I have copied it<//>`}
      >
        <${Notice} tone="warn">This is the only time it is shown.<//>
        <${CopyableValue} wrap>${created.key}<//>
      <//>
    `;
  return html`
    <${Dialog} title="New key for one domain" onClose=${onClose}>
      <form class="stack" onSubmit=${submit}>
        ${error && html`<${Notice} tone="bad">${error.message}<//>`}
        <${Field} label="Name" hint="Where it is used, for example “blog”.">
          <input
            value=${form.name}
            onInput=${(event) => setForm({ ...form, name: event.target.value })}
            maxlength="100"
            required
            autofocus
          />
        <//>
        <${Field} label="Domain">
          <select value=${form.domainId} onChange=${(event) => setForm({ ...form, domainId: event.target.value })}>
            ${domains.map(
              (domain) => html`
                <option key=${domain.id} value=${domain.id} selected=${domain.id === form.domainId}>
                  ${domain.domain}
                </option>
              `,
            )}
          </select>
        <//>
        <div class="actions">
          <${Button} type="submit" variant="primary" busy=${busy}>Create key<//>
          <${Button} onClick=${onClose}>Cancel<//>
        </div>
      </form>
    <//>
  `;
}

export default function Keys() {
  const scopedKeys = useResource("/api/keys/scoped");
  const domains = useResource("/api/domains");
  const [creating, setCreating] = useState(false);
  const [version, setVersion] = useState(0);
  const rotateKey = async () => {
    if (
      !(await confirm({
        title: "Replace the account key?",
        text: "The current key stops working immediately. Anything that uses it fails until it has the new one.",
        confirmLabel: "Replace it",
      }))
    )
      return;
    await post("/api/keys/rotate");
    setVersion(version + 1);
    toast("The key was replaced");
  };
  const rotateSecret = async () => {
    if (
      !(await confirm({
        title: "Make a new secret?",
        text: "Both secrets sign for 24 hours.",
        confirmLabel: "Make a new one",
        destructive: false,
      }))
    )
      return;
    await post("/api/webhooks/secret/rotate");
    setVersion(version + 1);
    toast("The secret was rotated");
  };
  const revoke = async (row) => {
    if (
      !(await confirm({
        title: `Revoke “${row.name || row.prefix}”?`,
        text: "It stops working immediately.",
        confirmLabel: "Revoke",
      }))
    )
      return;
    await del(apiPath`/api/keys/scoped/${row.id}`);
    toast("Revoked");
    scopedKeys.reload();
  };
  return html`
    <${Page} title="Keys" narrow>
      <${Card}
        title="Account key"
        actions=${html`<${Button} variant="small" action=${rotateKey}>Replace<//>`}
      >
        <div class="stack">
          <p class="hint">Has full access to this account. Keep it on your servers.</p>
          <div>
            <${SecretValue} key=${version} load=${async () => (await get("/api/keys")).key} label="account key" />
          </div>
          <${CodeBlock} label="try it">${apiCommand("/v1/me")}<//>
        </div>
      <//>
      <${Card}
        title="Keys for one domain"
        actions=${
          domains.data?.length > 0 &&
          html`<${Button} variant="small" icon="plus" onClick=${() => setCreating(true)}>New key<//>`
        }
      >
        <p class="hint">Can read and send the mail of one domain, and nothing else.</p>
        <${Loaded} resource=${scopedKeys}>
          ${(all) =>
            all.length
              ? html`
                <div class="table-wrap" tabindex="0" role="region" aria-label="Keys for one domain">
                  <table>
                    <thead>
                      <tr>
                        <th>Name</th>
                        <th>Domain</th>
                        <th>Prefix</th>
                        <th>Created</th>
                        <th>Last used</th>
                        <th>
                          <span class="visually-hidden">Revoke</span>
                        </th>
                      </tr>
                    </thead>
                    <tbody>
                      ${all.map(
                        (key) => html`
                          <tr key=${key.id}>
                            <td class="address-cell">
                              <${UserText}>${key.name || "–"}<//>
                            </td>
                            <td>
                              <${UserText}>${key.domain}<//>
                            </td>
                            <td>
                              <code>${key.prefix}…</code>
                            </td>
                            <td>
                              <${RelativeTime} at=${key.createdAt} />
                            </td>
                            <td>
                              <${RelativeTime} at=${key.lastUsedAt} />
                            </td>
                            <td class="num">
                              <${Button} variant="small quiet-danger" action=${() => revoke(key)}>Revoke<//>
                            </td>
                          </tr>
                        `,
                      )}
                    </tbody>
                  </table>
                </div>
              `
              : domains.data && !domains.data.length
                ? html`<p class="hint">Add a domain first. <a href=${href("domains")}>Domains</a></p>`
                : html`<p class="hint">None yet.</p>`}
        <//>
      <//>
      <${Card}
        title="Account webhook secret"
        actions=${html`<${Button} variant="small" action=${rotateSecret}>Rotate<//>`}
      >
        <div class="stack">
          <p class="hint">
            Signs tracking webhooks. Every webhook route has a secret of its own, shown with its domain.
          </p>
          <div>
            <${SecretValue}
              key=${version}
              load=${async () => (await get("/api/webhooks/secret")).secret}
              label="account webhook secret"
            />
          </div>
        </div>
      <//>
      ${
        creating &&
        html`
          <${NewKeyDialog} domains=${domains.data} onClose=${() => setCreating(false)} onCreated=${scopedKeys.reload} />
        `
      }
    <//>
  `;
}
