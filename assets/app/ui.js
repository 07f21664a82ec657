// The parts that screens are made of.
import { html, useState, useEffect, useLayoutEffect, useRef, useCallback, useId } from "./lib.js";
import { Icon } from "./icons.js";
import { SEND_STATES } from "./explain.js";
import { ago, exact, useNow } from "./format.js";

export { Icon };

/** A relative time, the exact one on hover. */
export function Time({ at, class: extra = "" }) {
  const now = useNow();
  if (at === null || at === undefined) return html`<span class="faint">never</span>`;
  return html`<time class=${extra} datetime=${new Date(at).toISOString()} title=${exact(at)}>${ago(at, now)}</time>`;
}

/** Text from outside: a direction of its own, so that it cannot disorder what stands around it. */
export const Text = ({ children, class: extra = "", title }) =>
  html`<bdi class=${extra} title=${title}>${children}</bdi>`;

/** An address on the web on one line; the whole of it on hover. */
export const Url = ({ children }) => html`<bdi class="mono url" dir="ltr" title=${children}>${children}</bdi>`;

/** A file's name from outside. Marks that turn the direction of what follows could make `exe.png` of `gnp.exe`. */
export const FileName = ({ children }) =>
  html`
    <bdi dir="ltr">
      ${(children || "").replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "") || "(no name)"}
    </bdi>
  `;

// --- Copying

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    /* no permission, or plain HTTP */
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

export function Copy({ text, label = "Copy", small = true, children }) {
  const [done, set] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const click = async (event) => {
    event.preventDefault();
    event.stopPropagation();
    const copied = await copy(typeof text === "function" ? await text() : text);
    set(copied);
    say(copied ? "Copied" : "Could not copy");
    clearTimeout(timer.current);
    timer.current = setTimeout(() => set(false), 1500);
  };
  return html`
    <button
      type="button"
      class=${`copy ${small ? "small" : "button"} ${done ? "done" : ""}`}
      onClick=${click}
      title=${label}
      aria-label=${children ? undefined : label}
    >
      <${Icon} name=${done ? "check" : "copy"} size="16" />
      ${children}
    </button>
  `;
}

/** A value to be copied. */
export const Value = ({ children, text = children, wrap }) => html`
  <span class=${`value ${wrap ? "wrap" : ""}`}>
    <code tabindex=${wrap ? undefined : 0} dir="auto">${children}</code>
    <${Copy} text=${text} label="Copy" />
  </span>
`;

/** A command or some code, to be copied. */
export const Code = ({ children, text = children, label, class: extra = "" }) => html`
  <figure class=${`code ${extra}`}>
    ${label && html`<figcaption>${label}</figcaption>`}
    <pre tabindex="0">
      <code>${children}</code>
    </pre>
    <${Copy} text=${text} label=${`Copy ${label || "this"}`} />
  </figure>
`;

/** A secret, shown when asked for. */
export function Secret({ load, value, label = "secret" }) {
  const [shown, set] = useState(null);
  const [busy, act] = useBusy();
  const fetch = async () => value ?? (await load());
  const toggle = () => act(async () => set(shown === null ? await fetch() : null));
  return html`
    <span class="value">
      <code dir="ltr" tabindex="0">${shown ?? "•".repeat(28)}</code>
      <button
        type="button"
        class="copy small"
        aria-label=${shown === null ? `Show the ${label}` : `Hide the ${label}`}
        title=${shown === null ? "Show" : "Hide"}
        disabled=${busy}
        onClick=${toggle}
      >
        <${Icon} name="eye" size="16" />
      </button>
      <${Copy} text=${fetch} label=${`Copy the ${label}`} />
    </span>
  `;
}

// --- Saying something

let showToast = () => {};
/** A word at the edge of the page: `bad` for an error, `undo` for a way back; one takes the place of an older one of its `topic`. */
export const say = (text, options = {}) => showToast({ text, ...options });
/** An error, in the server's words. */
export const complain = (error) => {
  if (error?.name !== "AbortError") say(error.message, { bad: true });
};

export function Toasts() {
  const [all, set] = useState([]);
  const drop = useCallback((id) => set((old) => old.filter((one) => one.id !== id)), []);
  // Before any effect: what the first ones have to say would be lost.
  useLayoutEffect(() => {
    let next = 0;
    showToast = (toast) => {
      const id = ++next;
      const stays = (one) => one.text !== toast.text && !(toast.topic && one.topic === toast.topic);
      set((old) => [...old.filter(stays).slice(-3), { id, ...toast }]);
      setTimeout(() => drop(id), toast.undo ? 7000 : toast.bad ? 9000 : 2500);
    };
  }, []);
  return html`
    <div class="toasts" role="status" aria-live="polite">
      ${all.map(
        (one) => html`
          <div key=${one.id} class=${`toast ${one.bad ? "bad" : ""}`}>
            ${one.bad && html`<${Icon} name="warn" />`}
            <span>${one.text}</span>
            ${
              one.undo &&
              html`
                <button
                  class="link"
                  onClick=${() => {
                    one.undo();
                    drop(one.id);
                  }}
                >
                  Undo
                </button>
              `
            }
            <button class="copy small" aria-label="Dismiss" onClick=${() => drop(one.id)}>
              <${Icon} name="cross" size="14" />
            </button>
          </div>
        `,
      )}
    </div>
  `;
}

/** A value once it has not changed for a moment; the first one at once. */
export function usePause(value, ms) {
  const [shown, show] = useState(value);
  useEffect(() => {
    if (shown === undefined) return show(value);
    const timer = setTimeout(() => show(value), ms);
    return () => clearTimeout(timer);
  }, [value]);
  return shown;
}

/** Runs one action at a time; tells its error. */
export function useBusy() {
  const [busy, set] = useState(false);
  const alive = useRef(true);
  useEffect(
    () => () => {
      alive.current = false;
    },
    [],
  );
  const act = useCallback(async (action, failed = complain) => {
    set(true);
    try {
      return await action();
    } catch (error) {
      failed(error);
      return undefined;
    } finally {
      if (alive.current) set(false);
    }
  }, []);
  return [busy, act];
}

/** A button that is busy while its action runs. */
export function Button({
  action,
  onClick,
  kind = "",
  icon,
  children,
  type = "button",
  disabled,
  busy: outside,
  ...rest
}) {
  const [busy, act] = useBusy();
  const working = busy || outside;
  return html`
    <button
      type=${type}
      class=${`button ${kind}`}
      disabled=${disabled || working}
      aria-busy=${working ? "true" : undefined}
      onClick=${action ? () => act(action) : onClick}
      ...${rest}
    >
      ${working ? html`<span class="spinner" aria-hidden="true"></span>` : icon && html`<${Icon} name=${icon} />`}
      ${children && html`<span>${children}</span>`}
    </button>
  `;
}

// --- Dialogs

export function Dialog({ title, onClose, children, wide, actions }) {
  const ref = useRef(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      if (dialog.open) dialog.close();
      before?.focus?.();
    };
  }, []);
  return html`
    <dialog
      ref=${ref}
      class=${wide ? "wide" : ""}
      aria-labelledby=${id}
      onCancel=${(event) => {
        event.preventDefault();
        onClose();
      }}
      onMouseDown=${(event) => {
        if (event.target === ref.current) onClose();
      }}
    >
      <div class="dialog">
        <header>
          <h2 id=${id}>${title}</h2>
          <button type="button" class="copy" aria-label="Close" onClick=${onClose}>
            <${Icon} name="cross" />
          </button>
        </header>
        <div class="dialog-body">${children}</div>
        ${actions && html`<footer>${actions}</footer>`}
      </div>
    </dialog>
  `;
}

let showConfirm = null;
/** Asks before something is destroyed; true when it may be. */
export const confirm = (question) => new Promise((resolve) => showConfirm({ ...question, resolve }));

export function Confirms() {
  const [question, set] = useState(null);
  const [typed, type] = useState("");
  useEffect(() => {
    showConfirm = (next) => {
      type("");
      set(next);
    };
  }, []);
  if (!question) return null;
  const answer = (yes) => {
    set(null);
    question.resolve(yes);
  };
  const fits = !question.type || typed.trim() === question.type;
  return html`
    <${Dialog}
      title=${question.title}
      onClose=${() => answer(false)}
      actions=${html`
        <${Button} onClick=${() => answer(false)} autofocus=${!question.type}>Cancel<//>
        <${Button} kind=${question.calm ? "primary" : "danger"} disabled=${!fits} onClick=${() => answer(true)}>
          ${question.yes || "Delete"}
        <//>
      `}
    >
      <p>${question.text}</p>
      ${
        question.type &&
        html`
          <${Field} label=${html`Type <strong>${question.type}</strong> to confirm`}>
            <input autofocus value=${typed} onInput=${(event) => type(event.target.value)} />
          <//>
        `
      }
    <//>
  `;
}

// --- Forms

/** A label, a control and what is said about it. The control is the one child. */
export function Field({ label, hint, error, children, class: extra = "" }) {
  const id = useId();
  const child = Array.isArray(children) ? children.find((one) => one?.type) : children;
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

/** A few choices side by side. */
export const Segments = ({ label, value, options, onChange }) => html`
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
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = options.findIndex(([key]) => key === value);
    const next = options[(at + step + options.length) % options.length][0];
    onChange(next);
    event.currentTarget.querySelector(`[data-key="${CSS.escape(next)}"]`)?.focus();
  };
  return html`
    <div class="tabs" role="tablist" aria-label=${label} onKeyDown=${move}>
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

// --- States

export const Badge = ({ kind = "", children, title }) =>
  html`<span class=${`badge ${kind}`} title=${title}>${children}</span>`;

/** How a message stands, in one mark. */
export function Standing({ row }) {
  if (row.direction === "outbound") {
    const [word, kind] = SEND_STATES[row.send_status] || [row.send_status, ""];
    return html`<${Badge} kind=${kind}>${word}<//>`;
  }
  if (row.status === "dropped") return html`<${Badge}>Dropped<//>`;
  if (row.failed_count) return html`<${Badge} kind="bad">${row.last_status_code || "Failed"}<//>`;
  if (row.pending_count)
    return html`
      <${Badge} kind=${row.attempts > 0 ? "warn" : "info"}>
        ${row.attempts > 0 ? `Retrying${row.last_status_code ? ` ${row.last_status_code}` : ""}` : "Pending"}
      <//>
    `;
  if (row.delivered_count) return html`<${Badge} kind="good">${row.last_status_code || "Delivered"}<//>`;
  return html`<${Badge}>Stored<//>`;
}

export const Empty = ({ icon, title, children }) =>
  html`
    <div class="empty">
      ${
        icon &&
        html`
          <span class="empty-icon">
            <${Icon} name=${icon} size="26" />
          </span>
        `
      }
      <h2>${title}</h2>
      ${children}
    </div>
  `;

export const Notice = ({ kind = "info", title, children }) => html`
  <div class=${`notice ${kind}`} role=${kind === "bad" ? "alert" : undefined}>
    <${Icon} name=${kind === "good" ? "check" : kind === "info" ? "info" : "warn"} />
    <div>
      ${title && html`<strong>${title}</strong>`}
      ${children}
    </div>
  </div>
`;

/** What could not be loaded, in the server's words. */
export const Failure = ({ error, retry }) =>
  error.status === 404
    ? html`<${Notice} title="There is nothing here.">It was deleted, or the address is wrong.<//>`
    : html`
      <${Notice} kind="bad" title="This could not be loaded.">
        <p>${error.message}</p>
        ${retry && html`<${Button} action=${retry} icon="refresh">Try again<//>`}
      <//>
    `;

/** Why an endpoint is left alone for a while (contract 9.5); `until` is when one delivery tries it again. */
export function PauseWords({ until }) {
  const now = useNow();
  return html`
    It failed five times in a row, so nothing is posted to it for a while. One delivery tries it again${" "}
    ${until > now ? html`<${Time} at=${until} />` : "at this moment"}; the others wait, lose no attempt, and
    follow once it works.
  `;
}

export const EndpointPaused = ({ until }) =>
  html`
    <${Notice} kind="warn" title="This endpoint is paused.">
      <p>
        <${PauseWords} until=${until} />
      </p>
    <//>
  `;

export const Skeleton = ({ lines = 4 }) =>
  html`
    <div class="skeleton" aria-hidden="true">
      ${Array.from({ length: lines }, (_, at) => html`<div key=${at}></div>`)}
    </div>
  `;

/** What loads, what failed, or what there is. */
export const Loaded = ({ of, children, lines }) =>
  of.data !== undefined
    ? children(of.data)
    : of.error
      ? html`<${Failure} error=${of.error} retry=${of.reload} />`
      : html`<${Skeleton} lines=${lines} />`;

export const Page = ({ title, lead, actions, children, back, narrow }) => {
  useEffect(() => {
    document.title = `${typeof title === "string" ? title : "mailkite"} · mailkite`;
  }, [title]);
  return html`
    <div class=${`page ${narrow ? "narrow" : ""}`}>
      <header class="page-head">
        <div>
          ${
            back &&
            html`
              <a class="back" href=${back[0]}>
                <${Icon} name="back" size="16" />
                ${back[1]}
              </a>
            `
          }
          <h1 tabindex="-1">${title}</h1>
          ${lead && html`<p class="lead">${lead}</p>`}
        </div>
        ${actions && html`<div class="actions">${actions}</div>`}
      </header>
      ${children}
    </div>
  `;
};

export const Card = ({ title, actions, children, class: extra = "", id }) =>
  html`
    <section class=${`card ${extra}`} id=${id}>
      ${
        (title || actions) &&
        html`
          <header>
            <h2>${title}</h2>
            ${actions && html`<div class="actions">${actions}</div>`}
          </header>
        `
      }
      ${children}
    </section>
  `;
