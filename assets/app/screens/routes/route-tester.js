// Show which routes an address would match.
import { html, useEffect, useState } from "../../lib/preact.js";
import { get } from "../../lib/api.js";
import { plural } from "../../lib/format.js";
import { withQuery } from "../../lib/paths.js";
import { Card, Field, Icon, Notice } from "../../ui/index.js";

/** Ask the server which routes match; `routes` only triggers a new request when it changes. */
export function RouteTester({ routes, initialAddress }) {
  const [address, setAddress] = useState(initialAddress || "");
  const [result, setResult] = useState(null);
  useEffect(() => {
    const wantedAddress = address.trim().toLowerCase();
    if (!/^[^@\s]+@[^@\s]+$/.test(wantedAddress)) {
      setResult(null);
      return undefined;
    }
    const timer = setTimeout(async () => {
      try {
        setResult(await get(withQuery("/api/routes/match", { address: wantedAddress })));
      } catch (error) {
        setResult({ address: wantedAddress, matches: [], error: error.message });
      }
    }, 200);
    return () => clearTimeout(timer);
  }, [address, routes]);
  return html`
    <${Card} title="Which routes would this address match?">
      <${Field} label="Address">
        <input
          type="email"
          value=${address}
          onInput=${(event) => setAddress(event.target.value)}
          placeholder="support+42@acme.dev"
          autocomplete="off"
          spellcheck="false"
        />
      <//>
      <div role="status" class="stack tight">
        ${
          result &&
          (result.error
            ? html`<${Notice} tone="bad">${result.error}<//>`
            : result.known === false
              ? html`<${Notice} tone="warn">Mail to it is refused: no verified domain of yours receives it.<//>`
              : result.drop
                ? html`<${Notice} tone="warn">Accepted and discarded: a drop route matches, so no other runs.<//>`
                : result.matches.length
                  ? html`<p class="hint">${plural(result.matches.length, "route")} would run:</p>`
                  : html`<${Notice}>No route matches. The mail is stored and nothing is called.<//>`)
        }
        ${
          result?.matches?.length > 0 &&
          html`
            <ul class="stack tight">
              ${result.matches.map(
                (route) => html`
                  <li key=${route.id} class="route-line">
                    <${Icon} name="check" size="16" />
                    <bdi class="mono">${route.match_pattern}</bdi>
                    <span class="muted">→ ${route.action}</span>
                    <bdi class="mono">${route.destination || ""}</bdi>
                    ${route.reason && html`<span class="muted">${route.reason}</span>`}
                  </li>
                `,
              )}
            </ul>
          `
        }
      </div>
    <//>
  `;
}
