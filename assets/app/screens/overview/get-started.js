// Lead a new account to its first webhook, step by step.
import { html, useState } from "../../lib/preact.js";
import { post, useResource } from "../../lib/api.js";
import { mailCommand, RECEIVER_COMMAND } from "../../lib/commands.js";
import { apiPath, href } from "../../lib/paths.js";
import { Button, Card, CodeBlock, Icon, toast, UserText } from "../../ui/index.js";
import { AddDomain, SetWebhook, TestWebhook } from "../domains/forms.js";

const Step = ({ number, title, done, current, children }) => html`
  <li class=${`step ${done ? "done" : current ? "current" : ""}`} aria-current=${current ? "step" : undefined}>
    <span class="step-number">
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

const STORAGE_KEY = "mailkite.started";

export function GetStarted({ domains, reload, delivered }) {
  const [hidden, setHidden] = useState(() => localStorage.getItem(STORAGE_KEY) === "hidden");
  const [tested, setTested] = useState(() => localStorage.getItem(STORAGE_KEY) === "tested");
  const [changingUrl, setChangingUrl] = useState(false);
  const server = useResource("/api/server");
  const domain =
    domains.find((candidate) => candidate.mx_verified && candidate.webhookUrl) ||
    domains.find((candidate) => candidate.mx_verified) ||
    domains[0];
  const verified = Boolean(domain?.mx_verified);
  const hasWebhook = Boolean(domain?.webhookUrl);
  // The receiver built into `mailkite dev` is not the user's own app.
  const builtIn = Boolean(
    document.body.dataset.dev && /^http:\/\/127\.0\.0\.1:\d+\/hook$/.test(domain?.webhookUrl || ""),
  );
  const hasOwnWebhook = hasWebhook && !builtIn;
  const done = hasOwnWebhook && (tested || delivered);
  if (hidden) return null;
  const step = !domain ? 1 : !verified ? 2 : !hasOwnWebhook || changingUrl ? 3 : !(tested || delivered) ? 4 : 5;
  const finish = () => {
    localStorage.setItem(STORAGE_KEY, "tested");
    setTested(true);
  };
  const dismiss = () => {
    localStorage.setItem(STORAGE_KEY, "hidden");
    setHidden(true);
  };
  if (done) {
    return html`
      <${Card}
        class="start"
        title="Your app has received its first webhook"
        actions=${html`<${Button} variant="small" onClick=${dismiss}>Done<//>`}
      >
        <p>
          Next: check the signature with <a href=${href("domains", domain.domain)}>the secret</a>, then${" "}
          <a href=${href("routes")}>route single addresses</a>, or <a href=${href("send")}>send mail</a>.
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
          title=${domain ? html`Point <${UserText}>${domain.domain}<//> here` : "Point it here"}
          done=${step > 2}
          current=${step === 2}
        >
          ${
            domain &&
            html`
              <p>Publish its DNS records, or at least the MX, then check.</p>
              <div class="actions">
                <a class="button" href=${href("domains", domain.domain)}>
                  <${Icon} name="domains" />
                  Records to copy
                </a>
                <${Button}
                  variant="primary"
                  icon="refresh"
                  action=${async () => {
                    const answer = await post(apiPath`/api/domains/${domain.id}/verify`);
                    answer.checks.mx
                      ? toast(`${domain.domain} is verified`, { tag: "dns" })
                      : toast("The MX record was not found yet.", { error: true, tag: "dns" });
                    await reload();
                  }}
                >
                  Check now
                <//>
              </div>
            `
          }
        <//>
        <${Step} number="3" title="Choose where its mail goes" done=${step > 3} current=${step === 3}>
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
                          ? "Use your app's URL, or start a receiver that prints what arrives:"
                          : "Each message is posted to your app. What is its URL?"
                      }
                    </p>
                  `
              }
              ${document.body.dataset.dev && html`<${CodeBlock} label="a receiver">${RECEIVER_COMMAND}<//>`}
              <${SetWebhook}
                key=${domain.id}
                domain=${builtIn ? { ...domain, webhookUrl: "http://localhost:3000/hook" } : domain}
                onSet=${() => {
                  setChangingUrl(false);
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
                <button type="button" class="link" onClick=${() => setChangingUrl(true)}>change it</button>):
              </p>
              <${TestWebhook} variant="primary" domain=${domain} onDone=${finish} />
              <p>or send a real mail; this page notices:</p>
              <${CodeBlock} label="with curl">${mailCommand(domain.domain, server.data)}<//>
            `
          }
        <//>
      </ol>
    <//>
  `;
}
