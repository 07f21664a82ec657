// List the problems that need the owner's attention.
import { html, useState } from "../../lib/preact.js";
import { formatNumber } from "../../lib/format.js";
import { hrefFromLink } from "../../lib/paths.js";
import { Card, Icon, UserText } from "../../ui/index.js";

/** Number of items shown at first, so that the rest of the screen stays in view. */
const COLLAPSED_COUNT = 3;

export function Attention({ items }) {
  const [showAll, setShowAll] = useState(false);
  if (!items?.length)
    return html`
      <p class="all-clear">
        <${Icon} name="check" />
        All is well: nothing needs your attention.
      </p>
    `;
  return html`
    <${Card} title="Needs attention">
      <ul class="attention">
        ${items.slice(0, showAll ? undefined : COLLAPSED_COUNT).map(
          (item, index) => html`
            <li key=${index}>
              <${Icon} name="warn" />
              <div>
                <strong>
                  <${UserText}>${item.title}<//>
                </strong>
                ${
                  item.detail &&
                  html`
                    <p class="hint">
                      <${UserText}>${item.detail}<//>
                    </p>
                  `
                }
              </div>
              ${
                item.link &&
                html`
                  <a class="button small" href=${hrefFromLink(item.link)} aria-label=${`Show: ${item.title}`}>Show</a>
                `
              }
            </li>
          `,
        )}
      </ul>
      ${
        items.length > COLLAPSED_COUNT &&
        html`
          <p>
            <button type="button" class="link" onClick=${() => setShowAll(!showAll)}>
              ${showAll ? "Show fewer" : `Show all ${formatNumber(items.length)}`}
            </button>
          </p>
        `
      }
    <//>
  `;
}
