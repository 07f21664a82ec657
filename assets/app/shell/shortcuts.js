// List the keyboard shortcuts.
import { html } from "../lib/preact.js";
import { Dialog } from "../ui/index.js";
import { SCREENS } from "./screens.js";

export function ShortcutsDialog({ onClose }) {
  const everywhere = [
    [["/"], "Search messages"],
    [["j", "↓"], "Next message"],
    [["k", "↑"], "Previous message"],
    [["Enter"], "Open it"],
    [["Esc"], "Back to the list"],
    [["?"], "This help"],
  ];
  const screens = Object.values(SCREENS).map(([name, , key]) => [["g", key], name]);
  const list = (rows, between) =>
    html`
      <dl class="shortcuts">
        ${rows.map(
          ([keys, text]) => html`
            <div key=${text}>
              <dt>
                ${keys.map(
                  (key, index) => html`
                    ${index ? between : ""}
                    <kbd>${key}</kbd>
                  `,
                )}
              </dt>
              <dd>${text}</dd>
            </div>
          `,
        )}
      </dl>
    `;
  return html`
    <${Dialog} title="Keyboard" onClose=${onClose}>
      <div class="shortcut-columns">
        <div>
          <h3>Go to</h3>
          ${list(screens, " then ")}
        </div>
        <div>
          <h3>Everywhere</h3>
          ${list(everywhere, " or ")}
        </div>
      </div>
    <//>
  `;
}
