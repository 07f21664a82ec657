// Filter deliveries by domain, route and time.
import { html } from "../../lib/preact.js";
import { useResource } from "../../lib/api.js";
import { Field } from "../../ui/index.js";

const toLocalInput = (ms) =>
  ms ? new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 16) : "";

const fromLocalInput = (text) => (text ? new Date(text).getTime() : undefined);

export function DeliveryFilters({ filters, onChange, children }) {
  const { domain, routeId, since, until } = filters;
  const domains = useResource("/api/domains");
  const routes = useResource("/api/routes");
  return html`
    <div class="toolbar">
      <${Field} label="Domain">
        <select value=${domain} onChange=${(event) => onChange({ domain: event.target.value })}>
          <option value="" selected=${!domain}>All</option>
          ${(domains.data || []).map(
            (option) => html`
              <option key=${option.id} value=${option.domain} selected=${option.domain === domain}>
                ${option.domain}
              </option>
            `,
          )}
        </select>
      <//>
      <${Field} label="Route">
        <select value=${routeId} onChange=${(event) => onChange({ routeId: event.target.value })}>
          <option value="" selected=${!routeId}>All</option>
          ${(routes.data || [])
            .filter((candidate) => candidate.action === "webhook")
            .map(
              (option) => html`
                <option key=${option.id} value=${option.id} selected=${option.id === routeId}>
                  ${option.match_pattern}
                </option>
              `,
            )}
        </select>
      <//>
      <${Field} label="From">
        <input
          type="datetime-local"
          value=${toLocalInput(Number(since))}
          onChange=${(event) => onChange({ since: fromLocalInput(event.target.value) })}
        />
      <//>
      <${Field} label="Until">
        <input
          type="datetime-local"
          value=${toLocalInput(Number(until))}
          onChange=${(event) => onChange({ until: fromLocalInput(event.target.value) })}
        />
      <//>
      ${children}
    </div>
  `;
}
