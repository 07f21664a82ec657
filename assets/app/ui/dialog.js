// Modal dialogs, and the one that confirms destructive actions.
import { html, useEffect, useId, useRef, useState } from "../lib/preact.js";
import { Button } from "./button.js";
import { Field } from "./form.js";
import { Icon } from "./icons.js";

export function Dialog({ title, onClose, children, wide, actions }) {
  const ref = useRef(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    const previousFocus = document.activeElement;
    dialog.showModal();
    return () => {
      if (dialog.open) dialog.close();
      previousFocus?.focus?.();
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
          <button type="button" class="icon-button" aria-label="Close" onClick=${onClose}>
            <${Icon} name="cross" />
          </button>
        </header>
        <div class="dialog-body">${children}</div>
        ${actions && html`<footer>${actions}</footer>`}
      </div>
    </dialog>
  `;
}

let openConfirm = null;

/** Ask before a destructive action; resolves to true if the reader confirms. */
export const confirm = (question) => new Promise((resolve) => openConfirm({ ...question, resolve }));

export function ConfirmDialog() {
  const [question, setQuestion] = useState(null);
  const [typedText, setTypedText] = useState("");
  useEffect(() => {
    openConfirm = (next) => {
      setTypedText("");
      setQuestion(next);
    };
  }, []);
  if (!question) return null;
  const answer = (accepted) => {
    setQuestion(null);
    question.resolve(accepted);
  };
  const confirmed = !question.typeToConfirm || typedText.trim() === question.typeToConfirm;
  return html`
    <${Dialog}
      title=${question.title}
      onClose=${() => answer(false)}
      actions=${html`
        <${Button} onClick=${() => answer(false)} autofocus=${!question.typeToConfirm}>Cancel<//>
        <${Button}
          variant=${question.destructive === false ? "primary" : "danger"}
          disabled=${!confirmed}
          onClick=${() => answer(true)}
        >
          ${question.confirmLabel || "Delete"}
        <//>
      `}
    >
      <p>${question.text}</p>
      ${
        question.typeToConfirm &&
        html`
          <${Field}
            label=${html`Type <strong>${question.typeToConfirm}</strong> to confirm`}
          >
            <input autofocus value=${typedText} onInput=${(event) => setTypedText(event.target.value)} />
          <//>
        `
      }
    <//>
  `;
}
