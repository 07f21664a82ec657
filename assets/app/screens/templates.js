// Templates: the list, and an editor with a preview beside it.
import { html, useEffect, useState } from "../lib/preact.js";
import { del, post, put, useResource } from "../lib/api.js";
import { useDraft } from "../lib/drafts.js";
import { apiPath, href } from "../lib/paths.js";
import { navigate } from "../lib/router.js";
import {
  Badge,
  Button,
  Card,
  confirm,
  EmptyState,
  Field,
  Icon,
  Loaded,
  Notice,
  Page,
  RelativeTime,
  Tabs,
  toast,
  useAction,
  useDebounced,
  UserText,
} from "../ui/index.js";
import { MailFrame } from "../mail/frame.js";

export default function Templates({ route, user }) {
  return route.parts[1]
    ? html`<${TemplateEditor} key=${route.parts[1]} id=${route.parts[1]} user=${user} />`
    : html`<${TemplateList} />`;
}

function TemplateList() {
  const ownTemplates = useResource("/api/templates");
  const builtInTemplates = useResource("/api/templates/base");
  const create = async () => {
    const created = await post("/api/templates", {
      name: "New template",
      subject: "Hello {{name}}",
      html: "<p>Hello {{name}},</p>\n<p>…</p>",
      text: "Hello {{name}},\n\n…",
    });
    navigate(href("templates", created.id));
  };
  return html`
    <${Page}
      title="Templates"
      lead=${html`Placeholders in <code>{{braces}}</code> are filled in when you send.`}
      actions=${html`<${Button} variant="primary" icon="plus" action=${create}>New template<//>`}
    >
      <${Loaded} resource=${ownTemplates}>
        ${(all) =>
          all.length
            ? html`
              <ul class="cards">
                ${all.map(
                  (template) => html`
                    <li key=${template.id}>
                      <a class="card-link" href=${href("templates", template.id)}>
                        <span class="card-title">
                          <${UserText}>${template.name}<//>
                        </span>
                        <span class="card-sub">
                          <${UserText}>${template.subject || "(no subject)"}<//>
                          <span class="aside">changed <${RelativeTime} at=${template.updated_at} /></span>
                        </span>
                      </a>
                    </li>
                  `,
                )}
              </ul>
            `
            : html`
              <${EmptyState} icon="templates" title="No templates of your own yet">
                <p>Start with a built-in template below, or with an empty one.</p>
              <//>
            `}
      <//>
      <${Card} title="Built in">
        <${Loaded} resource=${builtInTemplates}>
          ${(all) => html`
            <ul class="stack tight">
              ${all.map(
                (template) => html`
                  <li key=${template.id} class="item-header">
                    <span class="route-line">
                      <strong>${template.name}</strong>
                      <span class="muted">${template.subject}</span>
                    </span>
                    <span class="actions">
                      <a class="button small" href=${href("templates", template.id)}>Open</a>
                      <a class="button small" href=${href("send", { templateId: template.id })}>Send</a>
                    </span>
                  </li>
                `,
              )}
            </ul>
          `}
        <//>
      <//>
    <//>
  `;
}

const FIELDS = ["name", "subject", "html", "text"];

/** Pick the fields of a template that the form edits. */
const toForm = (template) => Object.fromEntries(FIELDS.map((key) => [key, template[key] || ""]));

const sameForm = (left, right) => FIELDS.every((key) => left[key] === right[key]);

function TemplateEditor({ id, user }) {
  const template = useResource(apiPath`/api/templates/${id}`);
  const { draft: form, setDraft, dirty, update, clear } = useDraft(`template ${id}`, null);
  const [error, setError] = useState(null);
  const [tab, setTab] = useState("html");
  const [busy, runAction] = useAction();
  const [address, setAddress] = useState("");
  useEffect(() => {
    if (template.data && !form) setDraft(toForm(template.data));
  }, [template.data]);
  const previewHtml = useDebounced(form?.html, 250);
  const builtIn = template.data?.is_base;
  const changeField = (name) => (event) => {
    setError(null);
    const next = { ...form, [name]: event.target.value };
    sameForm(next, toForm(template.data)) ? clear(next) : update(next);
  };
  const save = (event) => {
    event.preventDefault();
    runAction(async () => {
      const answer = await put(apiPath`/api/templates/${id}`, form);
      template.mutate(() => answer);
      clear(toForm(answer));
      toast("Saved");
    }, setError);
  };
  const undoChanges = () => {
    const discarded = form;
    clear(toForm(template.data));
    toast("Changes undone", { undo: () => update(discarded) });
  };
  const duplicate = async () => {
    const created = await post("/api/templates", {
      baseId: id,
      name: builtIn ? template.data.name : `${form.name} copy`,
    });
    navigate(href("templates", created.id));
  };
  const deleteTemplate = async () => {
    if (
      !(await confirm({
        title: `Delete “${form.name}”?`,
        text: "Requests that use it will fail. Messages that are already scheduled are still sent.",
      }))
    )
      return;
    await del(apiPath`/api/templates/${id}`);
    clear(null);
    toast("Template deleted");
    navigate(href("templates"));
  };
  const sendTest = async (event) => {
    event.preventDefault();
    await runAction(async () => {
      await post("/api/templates/test", {
        to: address,
        subject: form.subject,
        html: form.html || undefined,
        text: form.text || undefined,
      });
      toast(`On its way to ${address}`);
    });
  };
  return html`
    <${Page}
      title=${form?.name || "Template"}
      back=${[href("templates"), "Templates"]}
      lead=${
        builtIn &&
        html`
          <${Badge}>Built in<//> Make it your own to change it.
        `
      }
      actions=${
        form &&
        html`
          <a class="button" href=${href("send", { templateId: id })}>
            <${Icon} name="send" />
            Send
          </a>
          <${Button} variant=${builtIn ? "primary" : ""} icon="copy" action=${duplicate}>
            ${builtIn ? "Make it my own" : "Duplicate"}
          <//>
          ${!builtIn && html`<${Button} variant="quiet-danger" icon="trash" action=${deleteTemplate}>Delete<//>`}
        `
      }
    >
      <${Loaded} resource=${template}>
        ${() =>
          form &&
          html`
            <div class="editor">
              <form class="card stack" onSubmit=${save}>
                ${error && html`<${Notice} tone="bad">${error.message}<//>`}
                <${Field} label="Name">
                  <input
                    value=${form.name}
                    onInput=${changeField("name")}
                    required
                    maxlength="200"
                    readonly=${builtIn}
                  />
                <//>
                <${Field} label="Subject">
                  <input value=${form.subject} onInput=${changeField("subject")} dir="auto" readonly=${builtIn} />
                <//>
                <div>
                  <${Tabs}
                    label="Body"
                    value=${tab}
                    options=${[["html", "HTML"], ["text", "Text"]]}
                    onChange=${setTab}
                  />
                  <textarea
                    key=${tab}
                    aria-label=${tab === "html" ? "HTML" : "Text"}
                    spellcheck=${tab === "text"}
                    value=${form[tab]}
                    onInput=${changeField(tab)}
                    readonly=${builtIn}
                  ></textarea>
                </div>
                ${
                  !builtIn &&
                  html`
                    <div class="actions">
                      <${Button} type="submit" variant="primary" disabled=${!dirty} busy=${busy}>Save<//>
                      ${
                        dirty &&
                        html`
                          <${Button} onClick=${undoChanges}>Undo changes<//>
                          <span class="hint">Not saved yet</span>
                        `
                      }
                    </div>
                  `
                }
              </form>
              <div class="stack">
                <${Card} title="Preview">
                  <p class="hint">
                    <${UserText}>${form.subject}<//>
                  </p>
                  ${
                    tab === "html"
                      ? html`<${MailFrame} source=${previewHtml || "<p></p>"} title="Preview" />`
                      : html`<pre class="mail-text" dir="auto" tabindex="0">${form.text}</pre>`
                  }
                <//>
                <${Card} title="Send a test">
                  <form class="inline-form" onSubmit=${sendTest}>
                    <${Field} label="To">
                      <input
                        type="email"
                        value=${address}
                        onInput=${(event) => setAddress(event.target.value)}
                        required
                        placeholder=${user.email}
                      />
                    <//>
                    <${Button} type="submit" icon="send">Send test<//>
                  </form>
                <//>
              </div>
            </div>
          `}
      <//>
    <//>
  `;
}
