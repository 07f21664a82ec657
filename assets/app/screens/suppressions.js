// Suppressions: addresses that get no mail, and senders whose mail calls no webhook.
import { html, useState } from "../lib/preact.js";
import { del, get, post, useResource } from "../lib/api.js";
import { apiPath, byName, withQuery } from "../lib/paths.js";
import {
  Badge,
  Button,
  Card,
  Field,
  Icon,
  Loaded,
  Page,
  RelativeTime,
  toast,
  toastError,
  useAction,
  UserText,
} from "../ui/index.js";

const REASONS = { manual: "By hand", unsubscribe: "Unsubscribed", bounce: "Bounced", complaint: "Complained" };

function AddForm({ label, hint, path, extra, onAdded }) {
  const [form, setForm] = useState({ email: "", note: "" });
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      await post(path, { email: form.email, ...(extra ? { note: form.note || undefined, reason: "manual" } : {}) });
      setForm({ email: "", note: "" });
      onAdded();
    }, setError);
  };
  return html`
    <form class="inline-form" onSubmit=${submit}>
      <${Field} label=${label} error=${error?.message} hint=${hint}>
        <input
          type="email"
          value=${form.email}
          onInput=${(event) => {
            setError(null);
            setForm({ ...form, email: event.target.value });
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
              onInput=${(event) => setForm({ ...form, note: event.target.value })}
              maxlength="500"
            />
          <//>
        `
      }
      <${Button} type="submit" busy=${busy} icon="plus">Add<//>
    </form>
  `;
}

/** The columns between the address and the date of a suppression. */
const SUPPRESSION_COLUMNS = [
  {
    title: "Why",
    cell: (entry) => html`
      <td>
        <${Badge} tone=${entry.reason === "manual" ? "" : "warn"}>${REASONS[entry.reason] || entry.reason}<//>
      </td>
    `,
  },
  {
    title: "Note",
    cell: (entry) => html`
      <td class="note-cell">
        <${UserText}>${entry.note || ""}<//>
      </td>
    `,
  },
];

/** Addresses with their dates and a button that removes each; `removal` is its verb. */
function AddressTable({ label, rows, columns = [], removal, onRemove }) {
  return html`
    <div class="table-wrap" tabindex="0" role="region" aria-label=${label}>
      <table>
        <thead>
          <tr>
            <th>Address</th>
            ${columns.map(({ title }) => html`<th key=${title}>${title}</th>`)}
            <th>Since</th>
            <th>
              <span class="visually-hidden">${removal}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (entry) => html`
              <tr key=${entry.email}>
                <td class=${columns.length ? "address-cell" : "wide-cell"}>
                  <${UserText}>${entry.email}<//>
                </td>
                ${columns.map(({ cell }) => cell(entry))}
                <td>
                  <${RelativeTime} at=${entry.created_at} />
                </td>
                <td class="num">
                  <button
                    type="button"
                    class="icon-button"
                    aria-label=${`${removal} ${entry.email}`}
                    onClick=${() => onRemove(entry)}
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
  `;
}

/** Remove an entry optimistically, with a toast to undo it. */
function useRemoval(list, pathOf, mapRows, restore) {
  return async (row) => {
    const without = (data) => mapRows(data, (all) => all.filter((entry) => entry.email !== row.email));
    list.mutate(without);
    try {
      await del(pathOf(row));
      toast(`${row.email} removed`, { undo: () => restore(row).then(list.reload, toastError) });
    } catch (error) {
      toastError(error);
      list.reload();
    }
  };
}

export default function Suppressions() {
  const suppressed = useResource("/api/contacts/suppressions");
  const blocked = useResource("/api/blocked-senders");
  const [filter, setFilter] = useState("");
  const [moreRows, setMoreRows] = useState([]);
  const remove = useRemoval(
    suppressed,
    (row) => apiPath`/api/contacts/suppressions/${byName(row.email)}`,
    (data, change) => ({ suppressions: change(data.suppressions) }),
    (row) => post("/api/contacts/suppressions", row),
  );
  const unblock = useRemoval(
    blocked,
    (row) => apiPath`/api/blocked-senders/${byName(row.email)}`,
    (data, change) => change(data),
    (row) => post("/api/blocked-senders", { email: row.email }),
  );
  const loadMore = async () => {
    const all = [...(suppressed.data?.suppressions || []), ...moreRows];
    const page = await get(withQuery("/api/contacts/suppressions", { before: all[all.length - 1].created_at }));
    setMoreRows([...moreRows, ...page.suppressions]);
    if (!page.suppressions.length) toast("There are no more");
  };
  return html`
    <${Page}
      title="Suppressions"
      narrow
      lead="Addresses that bounce or complain are added automatically; nothing is sent to them."
    >
      <${Card} title="Never send to">
        <div class="stack">
          <${AddForm}
            extra
            label="Address"
            path="/api/contacts/suppressions"
            onAdded=${() => {
              toast("Added");
              suppressed.reload();
            }}
          />
          <${Loaded} resource=${suppressed}>
            ${({ suppressions }) => {
              const all = [...suppressions, ...moreRows];
              const shown = all.filter((entry) => entry.email.includes(filter.toLowerCase()));
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
                          value=${filter}
                          onInput=${(event) => setFilter(event.target.value)}
                        />
                      `
                    }
                    <${AddressTable}
                      label="Suppressed addresses"
                      rows=${shown.slice(0, 500)}
                      columns=${SUPPRESSION_COLUMNS}
                      removal="Remove"
                      onRemove=${remove}
                    />
                    ${
                      suppressions.length >= 1000 &&
                      html`
                        <div>
                          <${Button} action=${loadMore}>More<//>
                        </div>
                      `
                    }
                  </div>
                `
                : html`<p class="hint">None. Hard bounces and complaints are added automatically.</p>`;
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
              toast("Blocked");
              blocked.reload();
            }}
          />
          <${Loaded} resource=${blocked}>
            ${(all) =>
              all.length
                ? html`
                  <${AddressTable} label="Blocked senders" rows=${all} removal="Unblock" onRemove=${unblock} />
                `
                : html`<p class="hint">None.</p>`}
          <//>
        </div>
      <//>
    <//>
  `;
}
