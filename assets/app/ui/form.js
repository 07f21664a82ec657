// Form controls.
import { html, useEffect, useId, useState } from "../lib/preact.js";

/** Return `value` once it has not changed for `ms`; the first one immediately. */
export function useDebounced(value, ms) {
  const [debounced, setDebounced] = useState(value);
  useEffect(() => {
    if (debounced === undefined) return setDebounced(value);
    const timer = setTimeout(() => setDebounced(value), ms);
    return () => clearTimeout(timer);
  }, [value]);
  return debounced;
}

/** Label, control, and hint or error. The control is the only child and gets its id and ARIA attributes here. */
export function Field({ label, hint, error, children, class: extra = "" }) {
  const id = useId();
  const child = Array.isArray(children) ? children.find((candidate) => candidate?.type) : children;
  if (child?.props) {
    child.props.id = child.props.id || id;
    if (error || hint) child.props["aria-describedby"] = `${id}-hint`;
    if (error) child.props["aria-invalid"] = "true";
  }
  return html`
    <div class=${`field ${extra}`}>
      <label for=${child?.props?.id || id}>${label}</label>
      ${children}
      ${(error || hint) && html`<p id=${`${id}-hint`} class=${error ? "hint bad" : "hint"}>${error || hint}</p>`}
    </div>
  `;
}

/** Group of adjacent buttons of which one is pressed. */
export const SegmentedControl = ({ label, value, options, onChange }) => html`
  <div class="segments" role="group" aria-label=${label}>
    ${options.map(
      ([key, text]) => html`
        <button
          type="button"
          key=${key}
          aria-pressed=${value === key ? "true" : "false"}
          onClick=${() => onChange(key)}
        >
          ${text}
        </button>
      `,
    )}
  </div>
`;

export function Tabs({ value, options, onChange, label }) {
  const onKeyDown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = options.findIndex(([key]) => key === value);
    const next = options[(index + step + options.length) % options.length][0];
    onChange(next);
    event.currentTarget.querySelector(`[data-key="${CSS.escape(next)}"]`)?.focus();
  };
  return html`
    <div class="tabs" role="tablist" aria-label=${label} onKeyDown=${onKeyDown}>
      ${options.map(
        ([key, text, count]) => html`
          <button
            type="button"
            role="tab"
            key=${key}
            data-key=${key}
            aria-selected=${value === key ? "true" : "false"}
            tabindex=${value === key ? 0 : -1}
            onClick=${() => onChange(key)}
          >
            ${text}
            ${count ? html`<span class="count">${count}</span>` : ""}
          </button>
        `,
      )}
    </div>
  `;
}
