// Buttons, and actions that run one at a time.
import { html, useCallback, useEffect, useRef, useState } from "../lib/preact.js";
import { Icon } from "./icons.js";
import { toastError } from "./toast.js";

/** Track whether an action runs; by default its error is shown as a toast. */
export function useAction() {
  const [busy, setBusy] = useState(false);
  const mounted = useRef(true);
  useEffect(
    () => () => {
      mounted.current = false;
    },
    [],
  );
  const runAction = useCallback(async (action, onError = toastError) => {
    setBusy(true);
    try {
      return await action();
    } catch (error) {
      onError(error);
      return undefined;
    } finally {
      if (mounted.current) setBusy(false);
    }
  }, []);
  return [busy, runAction];
}

/** Button that is disabled and shows a spinner while its `action` runs. */
export function Button({
  action,
  onClick,
  variant = "",
  icon,
  children,
  type = "button",
  disabled,
  busy: externalBusy,
  ...rest
}) {
  const [ownBusy, runAction] = useAction();
  const busy = ownBusy || externalBusy;
  return html`
    <button
      type=${type}
      class=${`button ${variant}`}
      disabled=${disabled || busy}
      aria-busy=${busy ? "true" : undefined}
      onClick=${action ? () => runAction(action) : onClick}
      ...${rest}
    >
      ${busy ? html`<span class="spinner" aria-hidden="true"></span>` : icon && html`<${Icon} name=${icon} />`}
      ${children && html`<span>${children}</span>`}
    </button>
  `;
}
