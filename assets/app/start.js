// From a new account to "my app received its first webhook", by following the screen alone.
import { html, useState } from "./lib.js";
import { post, put, useLoad } from "./api.js";
import { apiPath, to } from "./paths.js";
import { RECEIVER, mailCommand } from "./commands.js";
import { Icon, Button, Card, Code, Field, Text, Notice, say, useBusy } from "./ui.js";

const Step = ({ number, title, done, current, children }) => html`
  <li class=${`step ${done ? "done" : current ? "current" : ""}`} aria-current=${current ? "step" : undefined}>
    <span class="step-mark">
      ${
        done
          ? html`
            <${Icon} name="check" size="16" />
            <span class="visually-hidden">done</span>
          `
          : number
      }
    </span>
    <div class="step-body">
      <h3>${title}</h3>
      ${(current || children?.always) && html`<div class="stack">${children}</div>`}
    </div>
  </li>
`;

export function AddDomain({ onAdded, autofocus }) {
  const [name, set] = useState("");
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const dev = document.body.dataset.dev;
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      const made = await post("/api/domains", { domain: name });
      set("");
      onAdded(made);
    }, fail);
  };
  return html`
    <form class="inline-form" onSubmit=${submit}>
      <${Field}
        label="Domain"
        error=${error?.message}
        hint=${
          dev ? "In dev mode names under .test, .localhost and .example need no DNS." : "One whose DNS you can edit."
        }
      >
        <input
          value=${name}
          onInput=${(event) => {
            fail(null);
            set(event.target.value);
          }}
          placeholder=${dev ? "acme.test" : "acme.dev"}
          autocapitalize="none"
          spellcheck="false"
          autocomplete="off"
          required
          autofocus=${autofocus}
        />
      <//>
      <${Button} type="submit" kind="primary" busy=${busy} icon="plus">Add domain<//>
    </form>
  `;
}

export function SetWebhook({ domain, onSet, label = "Save" }) {
  const [url, set] = useState(domain.webhookUrl || "");
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      const answer = await put(apiPath`/api/domains/${domain.id}/webhook`, {
        url,
        ackMode: domain.webhookAckMode || undefined,
      });
      say("Webhook saved");
      onSet(answer);
    }, fail);
  };
  return html`
    <form class="inline-form" onSubmit=${submit}>
      <${Field}
        label="Webhook URL"
        error=${error?.message}
        hint=${
          document.body.dataset.dev
            ? "https, or http on localhost."
            : "https. Each mail of the domain is posted to it as signed JSON."
        }
      >
        <input
          type="url"
          class="mono"
          value=${url}
          onInput=${(event) => {
            fail(null);
            set(event.target.value);
          }}
          placeholder=${document.body.dataset.dev ? "http://localhost:3000/hook" : "https://app.acme.dev/hook"}
          required
        />
      <//>
      <${Button} type="submit" kind=${url === domain.webhookUrl ? "" : "primary"} busy=${busy}>${label}<//>
    </form>
  `;
}

/** Posts a test event; says what the endpoint really answered. */
export function TestWebhook({ domain, onDone, kind = "", children }) {
  const [result, set] = useState(null);
  const test = async () => {
    set(null);
    try {
      const answer = await post(apiPath`/api/domains/${domain.id}/webhook/test`);
      set(
        answer.ok
          ? { good: true, text: `Your endpoint answered ${answer.status}.` }
          : {
              text: `Your endpoint answered ${answer.status}, which does not count as delivered${answer.status < 300 ? " in this ack mode" : ""}.`,
            },
      );
      if (answer.ok) onDone?.();
    } catch (error) {
      set({ text: error.message });
    }
  };
  return html`
    <div class="stack tight">
      <div class="actions">
        <${Button} kind=${kind} action=${test} icon="send">Send a test event<//>
        ${children}
      </div>
      <div role="status">
        ${result && html`<${Notice} kind=${result.good ? "good" : "bad"}>${result.text}<//>`}
      </div>
    </div>
  `;
}

const KEY = "mailkite.started";

export default function Start({ domains, reload, delivered }) {
  const [hidden, hide] = useState(() => localStorage.getItem(KEY) === "hidden");
  const [tested, setTested] = useState(() => localStorage.getItem(KEY) === "tested");
  const server = useLoad("/api/server");
  const domain =
    domains.find((one) => one.mx_verified && one.webhookUrl) || domains.find((one) => one.mx_verified) || domains[0];
  const verified = Boolean(domain?.mx_verified);
  const hooked = Boolean(domain?.webhookUrl);
  // What `mailkite dev` set up for itself is no app of anybody's yet.
  const builtIn = Boolean(
    document.body.dataset.dev && /^http:\/\/127\.0\.0\.1:\d+\/hook$/.test(domain?.webhookUrl || ""),
  );
  const own = hooked && !builtIn;
  const done = own && (tested || delivered);
  if (hidden) return null;
  const [changing, change] = useState(false);
  const step = !domain ? 1 : !verified ? 2 : !own || changing ? 3 : !(tested || delivered) ? 4 : 5;
  const finish = () => {
    localStorage.setItem(KEY, "tested");
    setTested(true);
  };
  const dismiss = () => {
    localStorage.setItem(KEY, "hidden");
    hide(true);
  };
  if (done) {
    return html`
      <${Card}
        class="start"
        title="Your app has received its first webhook"
        actions=${html`<${Button} kind="small" onClick=${dismiss}>Done<//>`}
      >
        <p>
          Next: check the signature with <a href=${to("domains", domain.domain)}>the secret</a>, then${" "}
          <a href=${to("routes")}>route single addresses</a>, or <a href=${to("send")}>send mail</a>.
        </p>
      <//>
    `;
  }
  return html`
    <${Card}
      class="start"
      title="Get your first webhook"
      actions=${html`<button type="button" class="link" onClick=${dismiss}>Hide</button>`}
    >
      <ol class="steps">
        <${Step} number="1" title="Add a domain" done=${step > 1} current=${step === 1}>
          <${AddDomain} onAdded=${reload} />
        <//>
        <${Step}
          number="2"
          title=${domain ? html`Point <${Text}>${domain.domain}<//> here` : "Point it here"}
          done=${step > 2}
          current=${step === 2}
        >
          ${
            domain &&
            html`
              <p>Publish its DNS records, or at least the MX, then check.</p>
              <div class="actions">
                <a class="button" href=${to("domains", domain.domain)}>
                  <${Icon} name="domains" />
                  Records to copy
                </a>
                <${Button}
                  kind="primary"
                  icon="refresh"
                  action=${async () => {
                    const answer = await post(apiPath`/api/domains/${domain.id}/verify`);
                    answer.checks.mx
                      ? say(`${domain.domain} is verified`, { topic: "dns" })
                      : say("The MX record was not found yet.", { bad: true, topic: "dns" });
                    await reload();
                  }}
                >
                  Check now
                <//>
              </div>
            `
          }
        <//>
        <${Step} number="3" title="Say where its mail goes" done=${step > 3} current=${step === 3}>
          ${
            domain &&
            html`
              ${
                builtIn
                  ? html`
                    <p>
                      <strong>${domain.domain}</strong> posts to a receiver inside <code>mailkite dev</code>.
                      Start one of your own, or use your app:
                    </p>
                  `
                  : html`
                    <p>
                      ${
                        document.body.dataset.dev
                          ? "Have your app's URL at hand, or start a receiver that prints what arrives:"
                          : "Each mail is posted to your app. Where does it listen?"
                      }
                    </p>
                  `
              }
              ${document.body.dataset.dev && html`<${Code} label="a receiver">${RECEIVER}<//>`}
              <${SetWebhook}
                key=${domain.id}
                domain=${builtIn ? { ...domain, webhookUrl: "http://localhost:3000/hook" } : domain}
                onSet=${() => {
                  change(false);
                  return reload();
                }}
              />
            `
          }
        <//>
        <${Step} number="4" title="Receive the first webhook" current=${step === 4}>
          ${
            domain &&
            html`
              <p>
                Post a test event to <bdi class="mono wrap">${domain.webhookUrl}</bdi> (
                <button type="button" class="link" onClick=${() => change(true)}>change it</button>):
              </p>
              <${TestWebhook} kind="primary" domain=${domain} onDone=${finish} />
              <p>or send a real mail; this page notices:</p>
              <${Code} label="with curl">${mailCommand(domain.domain, server.data)}<//>
            `
          }
        <//>
      </ol>
    <//>
  `;
}
