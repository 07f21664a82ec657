// Whom nothing is sent to, and whose mail calls no webhook.
import { html, useState } from "./lib.js";
import { get, post, del, useLoad } from "./api.js";
import { apiPath, named, query } from "./paths.js";
import { Icon, Time, Text, Page, Card, Badge, Button, Field, Loaded, say, complain, useBusy } from "./ui.js";

const REASONS = { manual: "By hand", unsubscribe: "Unsubscribed", bounce: "Bounced", complaint: "Complained" };

function AddForm({ label, hint, path, extra, onAdded }) {
  const [form, set] = useState({ email: "", note: "" });
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      await post(path, { email: form.email, ...(extra ? { note: form.note || undefined, reason: "manual" } : {}) });
      set({ email: "", note: "" });
      onAdded();
    }, fail);
  };
  return html`
    <form class="inline-form" onSubmit=${submit}>
      <${Field} label=${label} error=${error?.message} hint=${hint}>
        <input
          type="email"
          value=${form.email}
          onInput=${(event) => {
            fail(null);
            set({ ...form, email: event.target.value });
          }}
          required
          placeholder="ada@example.com"
        />
      <//>
      ${
        extra &&
        html`
          <${Field} label="Note">
            <input
              value=${form.note}
              onInput=${(event) => set({ ...form, note: event.target.value })}
              maxlength="500"
            />
          <//>
        `
      }
      <${Button} type="submit" busy=${busy} icon="plus">Add<//>
    </form>
  `;
}

/** Removes at once and offers the way back. */
function useRemoval(list, pathOf, key, restore) {
  return async (row) => {
    const without = (data) => key(data, (all) => all.filter((one) => one.email !== row.email));
    list.mutate(without);
    try {
      await del(pathOf(row));
      say(`${row.email} removed`, { undo: () => restore(row).then(list.reload, complain) });
    } catch (error) {
      complain(error);
      list.reload();
    }
  };
}

export default function Suppressions() {
  const list = useLoad("/api/contacts/suppressions");
  const blocked = useLoad("/api/blocked-senders");
  const [find, set] = useState("");
  const [more, setMore] = useState([]);
  const remove = useRemoval(
    list,
    (row) => apiPath`/api/contacts/suppressions/${named(row.email)}`,
    (data, change) => ({ suppressions: change(data.suppressions) }),
    (row) => post("/api/contacts/suppressions", row),
  );
  const unblock = useRemoval(
    blocked,
    (row) => apiPath`/api/blocked-senders/${named(row.email)}`,
    (data, change) => change(data),
    (row) => post("/api/blocked-senders", { email: row.email }),
  );
  const next = async () => {
    const all = [...(list.data?.suppressions || []), ...more];
    const page = await get(query("/api/contacts/suppressions", { before: all[all.length - 1].created_at }));
    setMore([...more, ...page.suppressions]);
    if (!page.suppressions.length) say("That is all");
  };
  return html`
    <${Page}
      title="Suppressions"
      narrow
      lead="Addresses that bounced or complained are added by themselves; nothing is sent to them."
    >
      <${Card} title="Never send to">
        <div class="stack">
          <${AddForm}
            extra
            label="Address"
            path="/api/contacts/suppressions"
            onAdded=${() => {
              say("Added");
              list.reload();
            }}
          />
          <${Loaded} of=${list}>
            ${({ suppressions }) => {
              const all = [...suppressions, ...more];
              const shown = all.filter((one) => one.email.includes(find.toLowerCase()));
              return all.length
                ? html`
                  <div class="stack">
                    ${
                      all.length > 8 &&
                      html`
                        <input
                          type="search"
                          aria-label="Find an address"
                          placeholder="Find an address"
                          value=${find}
                          onInput=${(event) => set(event.target.value)}
                        />
                      `
                    }
                    <div class="table-wrap" tabindex="0" role="region" aria-label="Suppressed addresses">
                      <table>
                        <thead>
                          <tr>
                            <th>Address</th>
                            <th>Why</th>
                            <th>Note</th>
                            <th>Since</th>
                            <th>
                              <span class="visually-hidden">Remove</span>
                            </th>
                          </tr>
                        </thead>
                        <tbody>
                          ${shown.slice(0, 500).map(
                            (one) => html`
                              <tr key=${one.email}>
                                <td class="address-cell">
                                  <${Text}>${one.email}<//>
                                </td>
                                <td>
                                  <${Badge} kind=${one.reason === "manual" ? "" : "warn"}>
                                    ${REASONS[one.reason] || one.reason}
                                  <//>
                                </td>
                                <td class="note-cell">
                                  <${Text}>${one.note || ""}<//>
                                </td>
                                <td>
                                  <${Time} at=${one.created_at} />
                                </td>
                                <td class="num">
                                  <button
                                    type="button"
                                    class="copy"
                                    aria-label=${`Remove ${one.email}`}
                                    onClick=${() => remove(one)}
                                  >
                                    <${Icon} name="cross" size="16" />
                                  </button>
                                </td>
                              </tr>
                            `,
                          )}
                        </tbody>
                      </table>
                    </div>
                    ${
                      suppressions.length >= 1000 &&
                      html`
                        <div>
                          <${Button} action=${next}>More<//>
                        </div>
                      `
                    }
                  </div>
                `
                : html`<p class="hint">Nobody. Hard bounces and complaints will appear here by themselves.</p>`;
            }}
          <//>
        </div>
      <//>
      <${Card} title="Blocked senders">
        <div class="stack">
          <p class="hint">Their mail is stored as spam and calls no webhook.</p>
          <${AddForm}
            label="Address"
            path="/api/blocked-senders"
            onAdded=${() => {
              say("Blocked");
              blocked.reload();
            }}
          />
          <${Loaded} of=${blocked}>
            ${(all) =>
              all.length
                ? html`
                  <div class="table-wrap" tabindex="0" role="region" aria-label="Blocked senders">
                    <table>
                      <thead>
                        <tr>
                          <th>Address</th>
                          <th>Since</th>
                          <th>
                            <span class="visually-hidden">Unblock</span>
                          </th>
                        </tr>
                      </thead>
                      <tbody>
                        ${all.map(
                          (one) => html`
                            <tr key=${one.email}>
                              <td class="wide-cell">
                                <${Text}>${one.email}<//>
                              </td>
                              <td>
                                <${Time} at=${one.created_at} />
                              </td>
                              <td class="num">
                                <button
                                  type="button"
                                  class="copy"
                                  aria-label=${`Unblock ${one.email}`}
                                  onClick=${() => unblock(one)}
                                >
                                  <${Icon} name="cross" size="16" />
                                </button>
                              </td>
                            </tr>
                          `,
                        )}
                      </tbody>
                    </table>
                  </div>
                `
                : html`<p class="hint">Nobody.</p>`}
          <//>
        </div>
      <//>
    <//>
  `;
}
