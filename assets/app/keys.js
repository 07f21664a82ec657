// Keys: the account's own, those limited to one domain, and the account's webhook secret.
import { html, useState } from "./lib.js";
import { get, post, del, useLoad } from "./api.js";
import { apiPath, to } from "./paths.js";
import { apiCommand } from "./commands.js";
import {
  Time,
  Text,
  Page,
  Card,
  Button,
  Field,
  Value,
  Secret,
  Notice,
  Loaded,
  Dialog,
  Code,
  confirm,
  say,
  useBusy,
} from "./ui.js";

function NewKey({ domains, onClose, onMade }) {
  const [form, set] = useState({ name: "", domainId: domains[0]?.id || "" });
  const [made, setMade] = useState(null);
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      setMade(await post("/api/keys/scoped", form));
      onMade();
    }, fail);
  };
  if (made)
    return html`
      <${Dialog}
        title="Key created"
        onClose=${onClose}
        actions=${html`<${Button} kind="primary" onClick=${onClose}>I have copied it<//>`}
      >
        <${Notice} kind="warn">This is the only time it is shown.<//>
        <${Value} wrap>${made.key}<//>
      <//>
    `;
  return html`
    <${Dialog} title="New key for one domain" onClose=${onClose}>
      <form class="stack" onSubmit=${submit}>
        ${error && html`<${Notice} kind="bad">${error.message}<//>`}
        <${Field} label="Name" hint="Where it is used, for example “blog”.">
          <input
            value=${form.name}
            onInput=${(event) => set({ ...form, name: event.target.value })}
            maxlength="100"
            required
            autofocus
          />
        <//>
        <${Field} label="Domain">
          <select value=${form.domainId} onChange=${(event) => set({ ...form, domainId: event.target.value })}>
            ${domains.map(
              (one) => html`
                <option key=${one.id} value=${one.id} selected=${one.id === form.domainId}>${one.domain}</option>
              `,
            )}
          </select>
        <//>
        <div class="actions">
          <${Button} type="submit" kind="primary" busy=${busy}>Create key<//>
          <${Button} onClick=${onClose}>Cancel<//>
        </div>
      </form>
    <//>
  `;
}

export default function Keys() {
  const scoped = useLoad("/api/keys/scoped");
  const domains = useLoad("/api/domains");
  const [making, make] = useState(false);
  const [version, bump] = useState(0);
  const rotateKey = async () => {
    if (
      !(await confirm({
        title: "Replace the account key?",
        text: "The present key is dead at once; whatever uses it fails until it has the new one.",
        yes: "Replace it",
      }))
    )
      return;
    await post("/api/keys/rotate");
    bump(version + 1);
    say("There is a new key");
  };
  const rotateSecret = async () => {
    if (
      !(await confirm({
        title: "Make a new secret?",
        text: "For 24 hours both secrets sign.",
        yes: "Make a new one",
        calm: true,
      }))
    )
      return;
    await post("/api/webhooks/secret/rotate");
    bump(version + 1);
    say("There is a new secret");
  };
  const revoke = async (row) => {
    if (!(await confirm({ title: `Revoke “${row.name || row.prefix}”?`, text: "It is dead at once.", yes: "Revoke" })))
      return;
    await del(apiPath`/api/keys/scoped/${row.id}`);
    say("Revoked");
    scoped.reload();
  };
  return html`
    <${Page} title="Keys" narrow>
      <${Card}
        title="Account key"
        actions=${html`<${Button} kind="small" action=${rotateKey}>Replace<//>`}
      >
        <div class="stack">
          <p class="hint">May do everything this account may. Keep it on servers.</p>
          <div>
            <${Secret} key=${version} load=${async () => (await get("/api/keys")).key} label="account key" />
          </div>
          <${Code} label="try it">${apiCommand("/v1/me")}<//>
        </div>
      <//>
      <${Card}
        title="Keys for one domain"
        actions=${
          domains.data?.length > 0 && html`<${Button} kind="small" icon="plus" onClick=${() => make(true)}>New key<//>`
        }
      >
        <p class="hint">See and send the mail of one domain, and nothing else.</p>
        <${Loaded} of=${scoped}>
          ${(all) =>
            all.length
              ? html`
                <div class="table-wrap" tabindex="0" role="region" aria-label="Keys for one domain">
                  <table>
                    <thead>
                      <tr>
                        <th>Name</th>
                        <th>Domain</th>
                        <th>Begins with</th>
                        <th>Made</th>
                        <th>Last used</th>
                        <th>
                          <span class="visually-hidden">Revoke</span>
                        </th>
                      </tr>
                    </thead>
                    <tbody>
                      ${all.map(
                        (one) => html`
                          <tr key=${one.id}>
                            <td class="address-cell">
                              <${Text}>${one.name || "–"}<//>
                            </td>
                            <td>
                              <${Text}>${one.domain}<//>
                            </td>
                            <td>
                              <code>${one.prefix}…</code>
                            </td>
                            <td>
                              <${Time} at=${one.createdAt} />
                            </td>
                            <td>
                              <${Time} at=${one.lastUsedAt} />
                            </td>
                            <td class="num">
                              <${Button} kind="small quiet-danger" action=${() => revoke(one)}>Revoke<//>
                            </td>
                          </tr>
                        `,
                      )}
                    </tbody>
                  </table>
                </div>
              `
              : domains.data && !domains.data.length
                ? html`<p class="hint">They need a domain first. <a href=${to("domains")}>Domains</a></p>`
                : html`<p class="hint">None yet.</p>`}
        <//>
      <//>
      <${Card}
        title="Account webhook secret"
        actions=${html`<${Button} kind="small" action=${rotateSecret}>Rotate<//>`}
      >
        <div class="stack">
          <p class="hint">
            Signs tracking webhooks. Every webhook route has a secret of its own, shown with its domain.
          </p>
          <div>
            <${Secret}
              key=${version}
              load=${async () => (await get("/api/webhooks/secret")).secret}
              label="account webhook secret"
            />
          </div>
        </div>
      <//>
      ${making && html`<${NewKey} domains=${domains.data} onClose=${() => make(false)} onMade=${scoped.reload} />`}
    <//>
  `;
}
