// Templates: a list, and an editor with its preview beside it.
import { html, useState, useEffect } from "./lib.js";
import { post, put, del, useLoad } from "./api.js";
import { apiPath, to } from "./paths.js";
import { go } from "./router.js";
import {
  Icon,
  Time,
  Text,
  Page,
  Card,
  Empty,
  Badge,
  Button,
  Field,
  Notice,
  Loaded,
  Tabs,
  confirm,
  say,
  useBusy,
  usePause,
} from "./ui.js";
import { useDraft } from "./drafts.js";
import { MailFrame } from "./mailframe.js";

export default function Templates({ route, user }) {
  return route.parts[1] ? html`<${Edit} key=${route.parts[1]} id=${route.parts[1]} user=${user} />` : html`<${All} />`;
}

function All() {
  const own = useLoad("/api/templates");
  const base = useLoad("/api/templates/base");
  const create = async () => {
    const made = await post("/api/templates", {
      name: "New template",
      subject: "Hello {{name}}",
      html: "<p>Hello {{name}},</p>\n<p>…</p>",
      text: "Hello {{name}},\n\n…",
    });
    go(to("templates", made.id));
  };
  return html`
    <${Page}
      title="Templates"
      lead=${html`Words between <code>{{braces}}</code> are filled in when you send.`}
      actions=${html`<${Button} kind="primary" icon="plus" action=${create}>New template<//>`}
    >
      <${Loaded} of=${own}>
        ${(all) =>
          all.length
            ? html`
              <ul class="cards">
                ${all.map(
                  (one) => html`
                    <li key=${one.id}>
                      <a class="card-link" href=${to("templates", one.id)}>
                        <span class="card-title">
                          <${Text}>${one.name}<//>
                        </span>
                        <span class="card-sub">
                          <${Text}>${one.subject || "(no subject)"}<//>
                          <span class="aside">changed <${Time} at=${one.updated_at} /></span>
                        </span>
                      </a>
                    </li>
                  `,
                )}
              </ul>
            `
            : html`
              <${Empty} icon="templates" title="None of your own yet">
                <p>Begin with a built-in one below, or with an empty one.</p>
              <//>
            `}
      <//>
      <${Card} title="Built in">
        <${Loaded} of=${base}>
          ${(all) => html`
            <ul class="stack tight">
              ${all.map(
                (one) => html`
                  <li key=${one.id} class="thing-head">
                    <span class="route-line">
                      <strong>${one.name}</strong>
                      <span class="faint">${one.subject}</span>
                    </span>
                    <span class="actions">
                      <a class="button small" href=${to("templates", one.id)}>Open</a>
                      <a class="button small" href=${to("send", { templateId: one.id })}>Send</a>
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
/** A template's fields as the form holds them. */
const saved = (template) => Object.fromEntries(FIELDS.map((key) => [key, template[key] || ""]));
const same = (one, other) => FIELDS.every((key) => one[key] === other[key]);

function Edit({ id, user }) {
  const loaded = useLoad(apiPath`/api/templates/${id}`);
  const { draft: form, set, written: dirty, keep, drop } = useDraft(`template ${id}`, null);
  const [error, fail] = useState(null);
  const [tab, setTab] = useState("html");
  const [busy, act] = useBusy();
  const [address, setAddress] = useState("");
  useEffect(() => {
    if (loaded.data && !form) set(saved(loaded.data));
  }, [loaded.data]);
  const shown = usePause(form?.html, 250);
  const base = loaded.data?.is_base;
  const change = (name) => (event) => {
    fail(null);
    const next = { ...form, [name]: event.target.value };
    same(next, saved(loaded.data)) ? drop(next) : keep(next);
  };
  const save = (event) => {
    event.preventDefault();
    act(async () => {
      const answer = await put(apiPath`/api/templates/${id}`, form);
      loaded.mutate(() => answer);
      drop(saved(answer));
      say("Saved");
    }, fail);
  };
  const revert = () => {
    const thrown = form;
    drop(saved(loaded.data));
    say("Changes undone", { undo: () => keep(thrown) });
  };
  const duplicate = async () => {
    const made = await post("/api/templates", { baseId: id, name: base ? loaded.data.name : `${form.name} copy` });
    go(to("templates", made.id));
  };
  const remove = async () => {
    if (
      !(await confirm({
        title: `Delete “${form.name}”?`,
        text: "Sends that name it will fail. Scheduled ones are composed already and go out.",
      }))
    )
      return;
    await del(apiPath`/api/templates/${id}`);
    drop(null);
    say("Template deleted");
    go(to("templates"));
  };
  const test = async (event) => {
    event.preventDefault();
    await act(async () => {
      await post("/api/templates/test", {
        to: address,
        subject: form.subject,
        html: form.html || undefined,
        text: form.text || undefined,
      });
      say(`On its way to ${address}`);
    });
  };
  return html`
    <${Page}
      title=${form?.name || "Template"}
      back=${[to("templates"), "Templates"]}
      lead=${
        base &&
        html`
          <${Badge}>Built in<//> Make it your own to change it.
        `
      }
      actions=${
        form &&
        html`
          <a class="button" href=${to("send", { templateId: id })}>
            <${Icon} name="send" />
            Send
          </a>
          <${Button} kind=${base ? "primary" : ""} icon="copy" action=${duplicate}>
            ${base ? "Make it my own" : "Duplicate"}
          <//>
          ${!base && html`<${Button} kind="quiet-danger" icon="trash" action=${remove}>Delete<//>`}
        `
      }
    >
      <${Loaded} of=${loaded}>
        ${() =>
          form &&
          html`
            <div class="editor">
              <form class="card stack" onSubmit=${save}>
                ${error && html`<${Notice} kind="bad">${error.message}<//>`}
                <${Field} label="Name">
                  <input value=${form.name} onInput=${change("name")} required maxlength="200" readonly=${base} />
                <//>
                <${Field} label="Subject">
                  <input value=${form.subject} onInput=${change("subject")} dir="auto" readonly=${base} />
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
                    onInput=${change(tab)}
                    readonly=${base}
                  ></textarea>
                </div>
                ${
                  !base &&
                  html`
                    <div class="actions">
                      <${Button} type="submit" kind="primary" disabled=${!dirty} busy=${busy}>Save<//>
                      ${
                        dirty &&
                        html`
                          <${Button} onClick=${revert}>Undo changes<//>
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
                    <${Text}>${form.subject}<//>
                  </p>
                  ${
                    tab === "html"
                      ? html`<${MailFrame} source=${shown || "<p></p>"} title="Preview" />`
                      : html`<pre class="mail-text" dir="auto" tabindex="0">${form.text}</pre>`
                  }
                <//>
                <${Card} title="Send a test">
                  <form class="inline-form" onSubmit=${test}>
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
