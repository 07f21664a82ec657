// Edit the bodies of a message, with a preview.
import { html, useState } from "../../lib/preact.js";
import { Tabs } from "../../ui/index.js";
import { MailFrame } from "../../mail/frame.js";
import { fillTemplate } from "./form.js";

export function BodyEditor({ form, template, changeField }) {
  const [tab, setTab] = useState("text");
  return html`
    <div>
      <${Tabs}
        label="Body"
        value=${tab}
        options=${[["text", "Text"], ["html", "HTML"], ["preview", "Preview"]]}
        onChange=${setTab}
      />
      ${
        tab === "text" &&
        html`
          <textarea
            class="body"
            aria-label="Text"
            dir="auto"
            value=${form.text}
            onInput=${changeField("text")}
            placeholder=${form.templateId ? "Empty: the template's." : "Dear Ada, …"}
          ></textarea>
        `
      }
      ${
        tab === "html" &&
        html`
          <textarea
            class="body mono"
            aria-label="HTML"
            spellcheck="false"
            value=${form.html}
            onInput=${changeField("html")}
            placeholder="<p>Dear Ada, …</p>"
          ></textarea>
        `
      }
      ${
        tab === "preview" &&
        (form.html || template?.html
          ? html`<${MailFrame} source=${fillTemplate(form.html || template.html, form.data)} title="Preview" />`
          : html`<pre class="mail-text" dir="auto" tabindex="0">${form.text || template?.text || "Nothing yet."}</pre>`)
      }
    </div>
  `;
}
