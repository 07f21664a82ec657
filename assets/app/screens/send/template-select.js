// Choose a template, an own one or one that is built in.
import { html } from "../../lib/preact.js";
import { useResource } from "../../lib/api.js";
import { Field } from "../../ui/index.js";

export function TemplateSelect({ value, onChange }) {
  const ownTemplates = useResource("/api/templates");
  const builtInTemplates = useResource("/api/templates/base");
  return html`
    <${Field} label="Template">
      <select value=${value} onChange=${onChange}>
        <option value="" selected=${!value}>None</option>
        ${[
          ["Your own", ownTemplates.data],
          ["Built in", builtInTemplates.data],
        ].map(
          ([label, all]) =>
            all?.length > 0 &&
            html`
              <optgroup key=${label} label=${label}>
                ${all.map(
                  (option) => html`
                    <option key=${option.id} value=${option.id} selected=${option.id === value}>${option.name}</option>
                  `,
                )}
              </optgroup>
            `,
        )}
      </select>
    <//>
  `;
}
