// Show toasts: short messages in the corner of the page.
import { html, useCallback, useLayoutEffect, useState } from "../lib/preact.js";
import { Icon } from "./icons.js";

let pushToast = () => {};

/**
 * Show a toast: `error` marks an error, `undo` is the callback of an Undo button, and a toast replaces an older one
 * with the same `tag`.
 */
export const toast = (text, options = {}) => pushToast({ text, ...options });

/** Show an error in the server's words; an aborted request is none. */
export const toastError = (error) => {
  if (error?.name !== "AbortError") toast(error.message, { error: true });
};

export function Toasts() {
  const [toasts, setToasts] = useState([]);
  const dismiss = useCallback((id) => setToasts((old) => old.filter((entry) => entry.id !== id)), []);
  // A layout effect, so that toasts from the first effects are not lost.
  useLayoutEffect(() => {
    let lastId = 0;
    pushToast = (entry) => {
      const id = ++lastId;
      const isKept = (other) => other.text !== entry.text && !(entry.tag && other.tag === entry.tag);
      setToasts((old) => [...old.filter(isKept).slice(-3), { id, ...entry }]);
      setTimeout(() => dismiss(id), entry.undo ? 7000 : entry.error ? 9000 : 2500);
    };
  }, []);
  return html`
    <div class="toasts" role="status" aria-live="polite">
      ${toasts.map(
        (entry) => html`
          <div key=${entry.id} class=${`toast ${entry.error ? "bad" : ""}`}>
            ${entry.error && html`<${Icon} name="warn" />`}
            <span>${entry.text}</span>
            ${
              entry.undo &&
              html`
                <button
                  class="link"
                  onClick=${() => {
                    entry.undo();
                    dismiss(entry.id);
                  }}
                >
                  Undo
                </button>
              `
            }
            <button class="icon-button small" aria-label="Dismiss" onClick=${() => dismiss(entry.id)}>
              <${Icon} name="cross" size="14" />
            </button>
          </div>
        `,
      )}
    </div>
  `;
}
