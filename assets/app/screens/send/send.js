// Send: compose a message for now or later, with or without a template.
import { html, useEffect, useMemo, useRef, useState } from "../../lib/preact.js";
import { post, useResource } from "../../lib/api.js";
import { useDraft } from "../../lib/drafts.js";
import { exactTime } from "../../lib/format.js";
import { apiPath, href } from "../../lib/paths.js";
import {
  Button,
  Card,
  CodeBlock,
  EmptyState,
  Field,
  Notice,
  Page,
  SegmentedControl,
  Tabs,
  toast,
  useAction,
} from "../../ui/index.js";
import { BodyEditor } from "./body-editor.js";
import { codeSamplesFor } from "./code-samples.js";
import { FileInput } from "./file-input.js";
import { emptyForm, placeholders, randomKey, toRequestBody } from "./form.js";
import { TemplateSelect } from "./template-select.js";

export default function Send({ route }) {
  const initial = route.params;
  return html`<${Compose} key=${JSON.stringify(initial)} initial=${initial} />`;
}

function Compose({ initial }) {
  const domains = useResource("/api/domains");
  const sendingDomains = (domains.data || []).filter((domain) => domain.spf_verified && domain.dkim_verified);
  const {
    draft: form,
    setDraft,
    dirty,
    update,
    clear,
  } = useDraft(`send ${JSON.stringify(initial)}`, emptyForm(initial));
  const { files } = form;
  const [showMore, setShowMore] = useState(Boolean(form.cc || form.bcc || form.replyTo));
  const [language, setLanguage] = useState("curl");
  const [error, setError] = useState(null);
  const [sent, setSent] = useState(null);
  const [busy, runAction] = useAction();
  const template = useResource(form.templateId ? apiPath`/api/templates/${form.templateId}` : null);
  useEffect(() => {
    if (!form.from && sendingDomains.length)
      setDraft((old) => ({ ...old, from: old.from || `hello@${sendingDomains[0].domain}` }));
  }, [domains.data]);
  useEffect(() => {
    if (!template.data) return;
    const names = placeholders(template.data.subject || "", template.data.html || "", template.data.text || "");
    setDraft((old) => ({
      ...old,
      data: names.map((name) => [name, old.data.find(([key]) => key === name)?.[1] || ""]),
    }));
  }, [template.data]);
  const changeField = (name) => (event) => {
    setError(null);
    update({ [name]: event.target.value });
  };
  const errorFor = (...names) =>
    error && names.some((name) => error.field === name || error.field.startsWith?.(`${name}[`) || error.code === name)
      ? error.message
      : undefined;
  const fieldErrors = [
    errorFor("from", "from_domain", "domain_not_owned", "email_not_verified"),
    errorFor("to", "no_recipients", "recipient_suppressed", "too_many_recipients"),
    errorFor("subject", "missing_content"),
    errorFor("scheduledAt", "bad_schedule"),
  ];
  const codeSamples = useMemo(() => codeSamplesFor(toRequestBody(form, files)), [form]);
  // One idempotency key for the same content: sent again after a lost answer, it is still one message.
  const attempt = useRef({ content: "", key: "" });
  const submit = (event) => {
    event.preventDefault();
    runAction(
      async () => {
        const message = toRequestBody(form, files);
        const content = JSON.stringify(message);
        if (attempt.current.content !== content) attempt.current = { content, key: randomKey() };
        const answer = await post("/v1/send", message, { headers: { "idempotency-key": attempt.current.key } });
        attempt.current = { content: "", key: "" };
        setSent(answer);
        clear({ ...form, to: "", subject: "", text: "", html: "", inReplyTo: "", files: [] });
      },
      (failed) => {
        setSent(null);
        setError(failed);
      },
    );
  };
  const discard = () => {
    const discarded = form;
    clear({ ...emptyForm({}), from: form.from });
    setError(null);
    toast("Draft discarded", { undo: () => update(discarded) });
  };
  if (domains.data && !sendingDomains.length) {
    return html`
      <${Page} title="Send">
        <${EmptyState} icon="send" title="No domain can send yet">
          <p>Sending needs the SPF and DKIM records of a domain of yours, so that receivers know it was you.</p>
          <a
            class="button primary"
            href=${domains.data.length ? href("domains", domains.data[0].domain) : href("domains")}
          >
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
            error=${fieldErrors[0]}
            hint=${
              sendingDomains.length
                ? `Any address at ${sendingDomains.map((domain) => domain.domain).join(", ")}`
                : undefined
            }
          >
            <input
              value=${form.from}
              onInput=${changeField("from")}
              required
              placeholder="Acme <hello@acme.dev>"
              list="from-addresses"
            />
          <//>
          <${Field} label="To" error=${fieldErrors[1]}>
            <input
              value=${form.to}
              onInput=${changeField("to")}
              required
              placeholder="ada@example.com, Bob <bob@example.com>"
            />
          <//>
          ${
            showMore
              ? html`
                <div class="form-grid">
                  <${Field} label="Cc">
                    <input value=${form.cc} onInput=${changeField("cc")} />
                  <//>
                  <${Field} label="Bcc">
                    <input value=${form.bcc} onInput=${changeField("bcc")} />
                  <//>
                  <${Field} label="Reply to">
                    <input value=${form.replyTo} onInput=${changeField("replyTo")} />
                  <//>
                </div>
              `
              : html`
                <div>
                  <button type="button" class="link" onClick=${() => setShowMore(true)}>Cc, Bcc, Reply to</button>
                </div>
              `
          }
          <${TemplateSelect} value=${form.templateId} onChange=${changeField("templateId")} />
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
                          update({
                            data: form.data.map((pair, other) => (other === index ? [key, event.target.value] : pair)),
                          })}
                      />
                    <//>
                  `,
                )}
              </fieldset>
            `
          }
          <${Field}
            label="Subject"
            error=${fieldErrors[2]}
            hint=${form.templateId ? "Empty: the template's." : undefined}
          >
            <input
              value=${form.subject}
              onInput=${changeField("subject")}
              dir="auto"
              placeholder=${template.data?.subject || ""}
            />
          <//>
          ${
            form.inReplyTo &&
            html`<p class="hint">In reply to <a href=${href("messages", form.inReplyTo)}>${form.inReplyTo}</a></p>`
          }
          <${BodyEditor} form=${form} template=${template.data} changeField=${changeField} />
          <${FileInput} files=${files} onChange=${(files) => update({ files })} />
          <div class="toolbar">
            <div class="field">
              <label>When</label>
              <${SegmentedControl}
                label="When"
                value=${form.when}
                options=${[["now", "Now"], ["later", "Later"]]}
                onChange=${(when) => update({ when })}
              />
            </div>
            ${
              form.when === "later" &&
              html`
                <${Field} label="At" error=${fieldErrors[3]}>
                  <input type="datetime-local" value=${form.at} onInput=${changeField("at")} required />
                <//>
              `
            }
          </div>
          <div role="status">
            ${
              sent &&
              html`
                <${Notice}
                  tone="good"
                  title=${
                    sent.status === "scheduled"
                      ? `Scheduled for ${exactTime(sent.scheduledAt)}`
                      : "Accepted and stored; on its way"
                  }
                >
                  <a href=${href("messages", sent.messageId || sent.id)}>Follow it</a>
                  ${sent.suppressed && html`<p>Not sent to ${sent.suppressed.join(", ")}: on the suppression list.</p>`}
                <//>
              `
            }
            ${error && !fieldErrors.some(Boolean) && html`<${Notice} tone="bad">${error.message}<//>`}
          </div>
          <div class="actions">
            <${Button} type="submit" variant="primary" icon="send" busy=${busy}>
              ${form.when === "later" ? "Schedule" : "Send"}
            <//>
            ${dirty && html`<${Button} onClick=${discard}>Start over<//>`}
            ${document.body.dataset.dev && html`<span class="hint">In dev mode nothing leaves this machine.</span>`}
          </div>
        </form>
        <${Card} title="The same as code">
          <${Tabs}
            label="Language"
            value=${language}
            options=${[["curl", "curl"], ["node", "SDK"], ["fetch", "fetch"], ["python", "Python"]]}
            onChange=${setLanguage}
          />
          <${CodeBlock} class="snippet">${codeSamples[language]}<//>
          <p class="hint">The key is under <a href=${href("keys")}>Keys</a>.</p>
        <//>
      </div>
    <//>
  `;
}
