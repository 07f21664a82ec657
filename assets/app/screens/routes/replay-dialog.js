// Replay stored mail to a route.
import { html, useEffect, useState } from "../../lib/preact.js";
import { get, post } from "../../lib/api.js";
import { formatNumber, plural } from "../../lib/format.js";
import { apiPath, withQuery } from "../../lib/paths.js";
import { Badge, Button, Dialog, Notice, RelativeTime, toast, UserText } from "../../ui/index.js";

export function ReplayDialog({ route, onClose }) {
  const [state, setState] = useState({ messages: [], next: undefined, error: null });
  const [selected, setSelected] = useState(new Set());
  const load = async (before) => {
    try {
      const page = await get(withQuery(apiPath`/api/routes/${route.id}/candidates`, { before, limit: 50 }));
      setState((old) => ({
        messages: [...(before ? old.messages : []), ...page.messages],
        next: page.nextBefore,
        error: null,
      }));
    } catch (error) {
      setState((old) => ({ ...old, next: null, error }));
    }
  };
  useEffect(() => {
    load();
  }, []);
  const send = async () => {
    const { results } = await post(apiPath`/api/routes/${route.id}/deliver`, {
      messageIds: [...selected].slice(0, 50),
    });
    const delivered = results.filter((result) => result.ok).length;
    toast(
      delivered === results.length
        ? `${plural(delivered, "message")} delivered`
        : `${delivered} of ${results.length} delivered`,
      {
        error: delivered < results.length,
      },
    );
    const deliveredIds = new Set(results.filter((result) => result.ok).map((result) => result.id));
    setState((old) => ({
      ...old,
      messages: old.messages.map((message) =>
        deliveredIds.has(message.id) ? { ...message, delivered_here: true } : message,
      ),
    }));
    setSelected(new Set());
  };
  const toggle = (id) => {
    const next = new Set(selected);
    next.has(id) ? next.delete(id) : next.size < 50 && next.add(id);
    setSelected(next);
  };
  return html`
    <${Dialog}
      wide
      title="Replay stored mail to this route"
      onClose=${onClose}
      actions=${html`
        <${Button} onClick=${onClose}>Close<//>
        <${Button} variant="primary" disabled=${!selected.size} action=${send}>Deliver ${selected.size || ""}<//>
      `}
    >
      <p class="hint">
        Stored mail that <bdi class="mono">${route.match_pattern}</bdi> covers, also older than the route. Up to
        50 at a time.
      </p>
      ${state.error && html`<${Notice} tone="bad">${state.error.message}<//>`}
      ${
        state.next !== undefined &&
        !state.messages.length &&
        state.next === null &&
        !state.error &&
        html`<${Notice}>No stored mail matches.<//>`
      }
      ${
        state.messages.length > 1 &&
        html`
          <label class="pick-all">
            <input
              type="checkbox"
              checked=${selected.size > 0}
              onChange=${() =>
                setSelected(
                  new Set(
                    selected.size
                      ? []
                      : state.messages
                          .filter((message) => !message.delivered_here)
                          .slice(0, 50)
                          .map((message) => message.id),
                  ),
                )}
            />
            <strong>
              ${selected.size ? `${formatNumber(selected.size)} selected` : "Select those not delivered here"}
            </strong>
          </label>
        `
      }
      <ul class="pick-list">
        ${state.messages.map(
          (message) => html`
            <li key=${message.id}>
              <label>
                <input type="checkbox" checked=${selected.has(message.id)} onChange=${() => toggle(message.id)} />
                <span class="pick-text">
                  <${UserText} title=${message.subject}>${message.subject || "(no subject)"}<//>
                  <span class="muted">
                    <bdi>${message.from_addr}</bdi> → <bdi>${message.to_addr}</bdi>
                  </span>
                </span>
                ${message.delivered_here && html`<${Badge} tone="good">Delivered here<//>`}
                <${RelativeTime} at=${message.received_at} class="muted" />
              </label>
            </li>
          `,
        )}
      </ul>
      ${
        state.next &&
        html`
          <div>
            <${Button} action=${() => load(state.next)}>More<//>
          </div>
        `
      }
    <//>
  `;
}
