// Show the header fields of a message.
import { html, useState } from "../../lib/preact.js";
import { plural } from "../../lib/format.js";

export function HeaderFields({ json }) {
  const [filter, setFilter] = useState("");
  let fields = {};
  try {
    fields = JSON.parse(json) || {};
  } catch {
    /* Shown as no fields. */
  }
  const entries = Object.entries(fields).flatMap(([name, value]) =>
    String(value)
      .split("\n")
      .map((line) => [name, line]),
  );
  const shown = entries.filter(([name, value]) => `${name}: ${value}`.toLowerCase().includes(filter.toLowerCase()));
  return html`
    <div class="headers">
      <input
        type="search"
        placeholder=${`Find in ${plural(entries.length, "field")}`}
        aria-label="Find in headers"
        value=${filter}
        onInput=${(event) => setFilter(event.target.value)}
      />
      <div class="headers-box" tabindex="0" role="region" aria-label="Header fields">
        <dl>
          ${shown.slice(0, 500).map(
            ([name, value], index) => html`
              <div key=${index}>
                <dt>${name}</dt>
                <dd dir="auto">${value.length > 2000 ? `${value.slice(0, 2000)}…` : value}</dd>
              </div>
            `,
          )}
        </dl>
      </div>
      ${shown.length > 500 && html`<p class="hint">500 of ${plural(shown.length, "field")}; find narrows them.</p>`}
    </div>
  `;
}
