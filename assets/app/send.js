// Writing a mail: now or later, from a template or not, and the same as code.
import { html, useState, useEffect, useMemo, useRef } from "./lib.js";
import { post, useLoad } from "./api.js";
import { apiPath, to } from "./paths.js";
import { Icon, FileName, Page, Card, Empty, Button, Field, Notice, Segments, Tabs, Code, say, useBusy } from "./ui.js";
import { useDraft } from "./drafts.js";
import { MailFrame } from "./mailframe.js";
import { bytes, exact } from "./format.js";

const MAX_FILES = 25 * 1024 * 1024;

/** What the form says, as the API takes it. */
function submission(form, files) {
  // Commas and semicolons part addresses, but not within quotes.
  const list = (text) => {
    const all = (text.match(/(?:"(?:\\.|[^"\\])*"|[^,;\n])+/g) || []).map((one) => one.trim()).filter(Boolean);
    return all.length > 1 ? all : all[0];
  };
  const data = Object.fromEntries(form.data.filter(([key]) => key.trim()).map(([key, value]) => [key.trim(), value]));
  const body = {
    from: form.from.trim(),
    to: list(form.to) || "",
    cc: list(form.cc),
    bcc: list(form.bcc),
    replyTo: list(form.replyTo),
    subject: form.subject || undefined,
    text: form.text || undefined,
    html: form.html || undefined,
    inReplyTo: form.inReplyTo || undefined,
    templateId: form.templateId || undefined,
    templateData: form.templateId && Object.keys(data).length ? data : undefined,
    scheduledAt: form.when === "later" && form.at ? new Date(form.at).toISOString() : undefined,
    attachments: files.length
      ? files.map(({ filename, contentType, content }) => ({ filename, contentType, content }))
      : undefined,
  };
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined));
}

const quote = (text) => `'${text.replace(/'/g, "'\\''")}'`;

function snippets(body) {
  const url = document.body.dataset.url;
  const shown = body.attachments
    ? { ...body, attachments: body.attachments.map((one) => ({ ...one, content: "<base64>" })) }
    : body;
  const json = JSON.stringify(shown, null, 2);
  return {
    curl: `curl -s ${url}/v1/send \\\n  -H "Authorization: Bearer $MAILKITE_API_KEY" \\\n  -H 'Content-Type: application/json' \\\n  -H "Idempotency-Key: $(uuidgen)" \\\n  -d ${quote(json)}`,
    node: `import { MailKite } from "mailkite";\n\nconst mailkite = new MailKite(process.env.MAILKITE_API_KEY, { baseUrl: ${JSON.stringify(url)} });\n\nawait mailkite.send(${json});`,
    python: `import json, os, urllib.request\n\nmessage = ${json}\nrequest = urllib.request.Request(\n    ${JSON.stringify(`${url}/v1/send`)}, json.dumps(message).encode(),\n    {"Authorization": "Bearer " + os.environ["MAILKITE_API_KEY"], "Content-Type": "application/json"})\nprint(urllib.request.urlopen(request).read().decode())`,
    fetch: `await fetch(${JSON.stringify(`${url}/v1/send`)}, {\n  method: "POST",\n  headers: { authorization: \`Bearer \${process.env.MAILKITE_API_KEY}\`, "content-type": "application/json" },\n  body: JSON.stringify(${json}),\n});`,
  };
}

// Over plain HTTP a browser has no `randomUUID`.
const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

const readFile = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () =>
      resolve({
        filename: file.name,
        contentType: file.type || "application/octet-stream",
        size: file.size,
        content: reader.result.slice(reader.result.indexOf(",") + 1),
      });
    reader.onerror = () => reject(new Error(`${file.name} could not be read.`));
    reader.readAsDataURL(file);
  });

/** The names between braces. */
const tags = (...texts) => [
  ...new Set(
    texts
      .join(" ")
      .match(/\{\{\s*[\w.-]{1,64}\s*\}\}/g)
      ?.map((one) => one.replace(/[{}\s]/g, "")) || [],
  ),
];

/** An empty form, but for what the address gives. */
const blank = (given) => ({
  from: given.from || "",
  to: given.to || "",
  cc: "",
  bcc: "",
  replyTo: "",
  subject: given.subject || "",
  text: "",
  html: "",
  templateId: given.templateId || "",
  data: [],
  when: "now",
  at: "",
  inReplyTo: given.inReplyTo || "",
  files: [],
});

export default function Send({ route }) {
  const given = route.params;
  return html`<${Compose} key=${JSON.stringify(given)} given=${given} />`;
}

function Compose({ given }) {
  const domains = useLoad("/api/domains");
  const own = useLoad("/api/templates");
  const base = useLoad("/api/templates/base");
  const sending = (domains.data || []).filter((one) => one.spf_verified && one.dkim_verified);
  const { draft: form, set, written, keep, drop } = useDraft(`send ${JSON.stringify(given)}`, blank(given));
  const { files } = form;
  const [more, setMore] = useState(Boolean(form.cc || form.bcc || form.replyTo));
  const [body, setBody] = useState("text");
  const [lang, setLang] = useState("curl");
  const [error, fail] = useState(null);
  const [sent, setSent] = useState(null);
  const [busy, act] = useBusy();
  const template = useLoad(form.templateId ? apiPath`/api/templates/${form.templateId}` : null);
  useEffect(() => {
    if (!form.from && sending.length) set((old) => ({ ...old, from: old.from || `hello@${sending[0].domain}` }));
  }, [domains.data]);
  useEffect(() => {
    if (!template.data) return;
    const names = tags(template.data.subject || "", template.data.html || "", template.data.text || "");
    set((old) => ({ ...old, data: names.map((name) => [name, old.data.find(([key]) => key === name)?.[1] || ""]) }));
  }, [template.data]);
  const change = (name) => (event) => {
    fail(null);
    keep({ [name]: event.target.value });
  };
  const at = (...names) =>
    error && names.some((name) => error.field === name || error.field.startsWith?.(`${name}[`) || error.code === name)
      ? error.message
      : undefined;
  const placed = [
    at("from", "from_domain", "domain_not_owned", "email_not_verified"),
    at("to", "no_recipients", "recipient_suppressed", "too_many_recipients"),
    at("subject", "missing_content"),
    at("scheduledAt", "bad_schedule"),
  ];
  const code = useMemo(() => snippets(submission(form, files)), [form]);
  const add = async (event) => {
    try {
      const added = await Promise.all([...event.target.files].map(readFile));
      const all = [...files, ...added];
      if (all.reduce((sum, one) => sum + one.size, 0) > MAX_FILES)
        throw new Error("Attachments may have 25 MiB together.");
      keep({ files: all });
    } catch (failed) {
      say(failed.message, { bad: true });
    }
    event.target.value = "";
  };
  // The same words, sent again because no answer came, are the same message to the server.
  const attempt = useRef({ words: "", key: "" });
  const submit = (event) => {
    event.preventDefault();
    act(
      async () => {
        const message = submission(form, files);
        const words = JSON.stringify(message);
        if (attempt.current.words !== words) attempt.current = { words, key: randomKey() };
        const answer = await post("/v1/send", message, { headers: { "idempotency-key": attempt.current.key } });
        attempt.current = { words: "", key: "" };
        setSent(answer);
        drop({ ...form, to: "", subject: "", text: "", html: "", inReplyTo: "", files: [] });
      },
      (failed) => {
        setSent(null);
        fail(failed);
      },
    );
  };
  const discard = () => {
    const thrown = form;
    drop({ ...blank({}), from: form.from });
    fail(null);
    say("The draft is thrown away", { undo: () => keep(thrown) });
  };
  if (domains.data && !sending.length) {
    return html`
      <${Page} title="Send">
        <${Empty} icon="send" title="No domain can send yet">
          <p>Sending needs the SPF and DKIM records of a domain of yours, so that receivers know it was you.</p>
          <a class="button primary" href=${domains.data.length ? to("domains", domains.data[0].domain) : to("domains")}>
            ${domains.data.length ? "See its records" : "Add a domain"}
          </a>
        <//>
      <//>
    `;
  }
  return html`
    <${Page} title="Send">
      <div class="compose">
        <form class="card stack" onSubmit=${submit}>
          <${Field}
            label="From"
            error=${placed[0]}
            hint=${sending.length ? `Any address at ${sending.map((one) => one.domain).join(", ")}` : undefined}
          >
            <input
              value=${form.from}
              onInput=${change("from")}
              required
              placeholder="Acme <hello@acme.dev>"
              list="from-addresses"
            />
          <//>
          <${Field} label="To" error=${placed[1]}>
            <input
              value=${form.to}
              onInput=${change("to")}
              required
              placeholder="ada@example.com, Bob <bob@example.com>"
            />
          <//>
          ${
            more
              ? html`
                <div class="form-grid">
                  <${Field} label="Cc">
                    <input value=${form.cc} onInput=${change("cc")} />
                  <//>
                  <${Field} label="Bcc">
                    <input value=${form.bcc} onInput=${change("bcc")} />
                  <//>
                  <${Field} label="Reply to">
                    <input value=${form.replyTo} onInput=${change("replyTo")} />
                  <//>
                </div>
              `
              : html`
                <div>
                  <button type="button" class="link" onClick=${() => setMore(true)}>Cc, Bcc, Reply to</button>
                </div>
              `
          }
          <${Field} label="Template">
            <select value=${form.templateId} onChange=${change("templateId")}>
              <option value="" selected=${!form.templateId}>None</option>
              ${[
                ["Your own", own.data],
                ["Built in", base.data],
              ].map(
                ([label, all]) =>
                  all?.length > 0 &&
                  html`
                    <optgroup key=${label} label=${label}>
                      ${all.map(
                        (one) => html`
                          <option key=${one.id} value=${one.id} selected=${one.id === form.templateId}>
                            ${one.name}
                          </option>
                        `,
                      )}
                    </optgroup>
                  `,
              )}
            </select>
          <//>
          ${
            form.templateId &&
            form.data.length > 0 &&
            html`
              <fieldset class="form-grid">
                <legend class="visually-hidden">Values of the template</legend>
                ${form.data.map(
                  ([key, value], index) => html`
                    <${Field} key=${key} label=${`{{${key}}}`}>
                      <input
                        value=${value}
                        onInput=${(event) =>
                          keep({
                            data: form.data.map((pair, other) => (other === index ? [key, event.target.value] : pair)),
                          })}
                      />
                    <//>
                  `,
                )}
              </fieldset>
            `
          }
          <${Field} label="Subject" error=${placed[2]} hint=${form.templateId ? "Empty: the template's." : undefined}>
            <input
              value=${form.subject}
              onInput=${change("subject")}
              dir="auto"
              placeholder=${template.data?.subject || ""}
            />
          <//>
          ${
            form.inReplyTo &&
            html`<p class="hint">In reply to <a href=${to("messages", form.inReplyTo)}>${form.inReplyTo}</a></p>`
          }
          <div>
            <${Tabs}
              label="Body"
              value=${body}
              options=${[["text", "Text"], ["html", "HTML"], ["preview", "Preview"]]}
              onChange=${setBody}
            />
            ${
              body === "text" &&
              html`
                <textarea
                  class="body"
                  aria-label="Text"
                  dir="auto"
                  value=${form.text}
                  onInput=${change("text")}
                  placeholder=${form.templateId ? "Empty: the template's." : "Dear Ada, …"}
                ></textarea>
              `
            }
            ${
              body === "html" &&
              html`
                <textarea
                  class="body mono"
                  aria-label="HTML"
                  spellcheck="false"
                  value=${form.html}
                  onInput=${change("html")}
                  placeholder="<p>Dear Ada, …</p>"
                ></textarea>
              `
            }
            ${
              body === "preview" &&
              (form.html || template.data?.html
                ? html`<${MailFrame} source=${fill(form.html || template.data.html, form.data)} title="Preview" />`
                : html`
                  <pre class="mail-text" dir="auto" tabindex="0">
                    ${form.text || template.data?.text || "Nothing yet."}
                  </pre>
                `)
            }
          </div>
          <div class="stack tight">
            <div>
              <label class="button">
                <${Icon} name="clip" />
                <span>Attach files</span>
                <input type="file" multiple class="visually-hidden" onChange=${add} />
              </label>
            </div>
            ${
              files.length > 0 &&
              html`
                <ul class="file-list">
                  ${files.map(
                    (file, index) => html`
                      <li key=${index}>
                        <${Icon} name="clip" size="16" />
                        <${FileName}>${file.filename}<//>
                        <span class="faint">${bytes(file.size)}</span>
                        <button
                          type="button"
                          class="copy small"
                          aria-label=${`Remove ${file.filename}`}
                          onClick=${() => keep({ files: files.filter((_, other) => other !== index) })}
                        >
                          <${Icon} name="cross" size="14" />
                        </button>
                      </li>
                    `,
                  )}
                </ul>
              `
            }
          </div>
          <div class="toolbar">
            <div class="field">
              <label>When</label>
              <${Segments}
                label="When"
                value=${form.when}
                options=${[["now", "Now"], ["later", "Later"]]}
                onChange=${(when) => keep({ when })}
              />
            </div>
            ${
              form.when === "later" &&
              html`
                <${Field} label="At" error=${placed[3]}>
                  <input type="datetime-local" value=${form.at} onInput=${change("at")} required />
                <//>
              `
            }
          </div>
          <div role="status">
            ${
              sent &&
              html`
                <${Notice}
                  kind="good"
                  title=${
                    sent.status === "scheduled"
                      ? `Scheduled for ${exact(sent.scheduledAt)}`
                      : "Accepted and stored; on its way"
                  }
                >
                  <a href=${to("messages", sent.messageId || sent.id)}>Follow it</a>
                  ${sent.suppressed && html`<p>Not sent to ${sent.suppressed.join(", ")}: on the suppression list.</p>`}
                <//>
              `
            }
            ${error && !placed.some(Boolean) && html`<${Notice} kind="bad">${error.message}<//>`}
          </div>
          <div class="actions">
            <${Button} type="submit" kind="primary" icon="send" busy=${busy}>
              ${form.when === "later" ? "Schedule" : "Send"}
            <//>
            ${written && html`<${Button} onClick=${discard}>Start over<//>`}
            ${document.body.dataset.dev && html`<span class="hint">In dev mode nothing leaves this machine.</span>`}
          </div>
        </form>
        <${Card} title="The same as code">
          <${Tabs}
            label="Language"
            value=${lang}
            options=${[["curl", "curl"], ["node", "SDK"], ["fetch", "fetch"], ["python", "Python"]]}
            onChange=${setLang}
          />
          <${Code} class="snippet">${code[lang]}<//>
          <p class="hint">The key is under <a href=${to("keys")}>Keys</a>.</p>
        <//>
      </div>
    <//>
  `;
}

const escapeHtml = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
/** A template with its values, as the server fills it. */
export const fill = (text, data) =>
  text.replace(/\{\{\s*([\w.-]{1,64})\s*\}\}/g, (whole, name) => {
    const found = data.find(([key]) => key === name);
    return found ? (found[1] ? escapeHtml(found[1]) : `{{${name}}}`) : whole;
  });
