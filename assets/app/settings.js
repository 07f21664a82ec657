// The account, its sessions, and facts about the server.
import { html, useState } from "./lib.js";
import { get, post, del, session, useLoad } from "./api.js";
import { apiPath, named } from "./paths.js";
import { Time, Text, Page, Card, Badge, Button, Field, Notice, Loaded, confirm, say, useBusy } from "./ui.js";
import { bytes, number, exact } from "./format.js";

function Profile({ user, setUser }) {
  const usage = useLoad("/api/billing/usage");
  const verify = async () => {
    const { status } = await post("/api/auth/verify/send");
    say(status === "verified" ? "Your address is verified already" : `A link is on its way to ${user.email}`);
    if (status === "verified") setUser(await get("/v1/me"));
  };
  return html`
    <${Card} title="Account">
      <dl class="facts">
        <div>
          <dt>E-mail</dt>
          <dd>
            <${Text}>${user.email}<//>
            ${" "}
            <${Badge} kind=${user.emailVerified ? "good" : "warn"}>
              ${user.emailVerified ? "Verified" : "Not verified"}
            <//>
            ${user.isAdmin && html` <${Badge} kind="info">Owner<//>`}
            ${!user.emailVerified && html` <${Button} kind="small" action=${verify}>Send the link<//>`}
          </dd>
        </div>
        ${
          usage.data &&
          html`
            <div>
              <dt>Sent this month</dt>
              <dd>${number(usage.data.used)}</dd>
            </div>
            <${Storage} ...${usage.data.storage} />
          `
        }
      </dl>
    <//>
  `;
}

/** What the account has stored, with a meter where there is a limit. */
function Storage({ used, limit }) {
  const share = limit && Math.min(1, used / limit);
  return html`
    <div>
      <dt>Stored</dt>
      <dd>
        ${bytes(used)}
        ${
          limit &&
          html`
            ${" "}of ${bytes(limit)}
            ${share >= 1 && html` <${Badge} kind="bad">Full<//>`}
            <div class=${`meter ${share > 0.9 ? "bad" : ""}`} aria-hidden="true">
              <i style=${{ width: `${Math.max(1, share * 100)}%` }}></i>
            </div>
          `
        }
      </dd>
    </div>
  `;
}

function Password() {
  const [form, set] = useState({ currentPassword: "", newPassword: "" });
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const input = (name) => ({
    value: form[name],
    onInput: (event) => {
      fail(null);
      set({ ...form, [name]: event.target.value });
    },
  });
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      const { token } = await post("/api/auth/password", {
        currentPassword: form.currentPassword || undefined,
        newPassword: form.newPassword,
      });
      session.token = token;
      set({ currentPassword: "", newPassword: "" });
      say("Password changed; every other session has ended");
    }, fail);
  };
  const current = error?.code === "wrong_password" || error?.field === "currentPassword" ? error.message : undefined;
  const next = error?.field === "newPassword" ? error.message : undefined;
  return html`
    <${Card} title="Password">
      <form class="stack" onSubmit=${submit}>
        ${error && !current && !next && html`<${Notice} kind="bad">${error.message}<//>`}
        <div class="form-grid">
          <${Field}
            label="Current password"
            error=${current}
            hint=${document.body.dataset.dev ? "Empty if the account has none yet." : undefined}
          >
            <input type="password" autocomplete="current-password" ...${input("currentPassword")} />
          <//>
          <${Field} label="New password" error=${next} hint="At least 10 characters.">
            <input type="password" autocomplete="new-password" minlength="10" required ...${input("newPassword")} />
          <//>
        </div>
        <div>
          <${Button} type="submit" busy=${busy}>Change password<//>
        </div>
      </form>
    <//>
  `;
}

/** A browser and its system, out of what it calls itself. */
function agent(text) {
  if (!text) return "Unknown client";
  const browser = /(Firefox|Edg|OPR|Chrome|Version)\/(\d+)/.exec(text);
  const name = { Edg: "Edge", OPR: "Opera", Version: "Safari" }[browser?.[1]] || browser?.[1];
  const system = /\((?:X11; )?(?:[^;)]*; )?(Windows|Mac OS X|Macintosh|Android|iPhone|iPad|Linux|CrOS)/.exec(text)?.[1];
  return name
    ? `${name} ${browser[2]}${system ? ` on ${system.replace("Macintosh", "macOS").replace("Mac OS X", "macOS")}` : ""}`
    : text.slice(0, 60);
}

function Sessions() {
  const list = useLoad("/api/auth/sessions");
  const end = async (one) => {
    if (
      one.current &&
      !(await confirm({ title: "End this session?", text: "You are signed out here.", yes: "Sign out" }))
    )
      return;
    await del(apiPath`/api/auth/sessions/${named(one.id)}`);
    one.current ? location.reload() : list.reload();
  };
  return html`
    <${Card} title="Sessions">
      <${Loaded} of=${list}>
        ${({ sessions }) => html`
          <ul class="stack tight">
            ${sessions.map(
              (one) => html`
                <li key=${one.id} class="thing-head">
                  <span class="route-line">
                    <strong title=${one.userAgent}>
                      <${Text}>${agent(one.userAgent)}<//>
                    </strong>
                    ${one.current && html`<${Badge} kind="good">This one<//>`}
                    <span class="faint">
                      <bdi>${one.ip || ""}</bdi> · since <${Time} at=${one.createdAt} />
                    </span>
                  </span>
                  <${Button} kind="small" action=${() => end(one)}>End<//>
                </li>
              `,
            )}
          </ul>
        `}
      <//>
    <//>
  `;
}

const listen = (all) =>
  all?.length
    ? all.map(
        (one, at) =>
          html`<code key=${at}>${at ? " " : ""}${typeof one === "string" ? one : JSON.stringify(one)}</code>`,
      )
    : "–";

function Server() {
  const facts = useLoad("/api/server");
  const ready = useLoad("/api/ready");
  return html`
    <${Card} title="Server">
      <${Loaded} of=${facts}>
        ${(data) => {
          const { disk } = data;
          const rest = data.certificate ? data.certificate.notAfter - Date.now() : 0;
          return html`
            <dl class="facts">
              <div>
                <dt>Version</dt>
                <dd>
                  ${data.version}
                  ${data.dev && html` <${Badge} kind="info">dev<//>`}
                  ${" "}
                  ${
                    ready.data
                      ? html`<${Badge} kind="good">Ready<//>`
                      : ready.error && html`<${Badge} kind="bad">${ready.error.message}<//>`
                  }
                </dd>
              </div>
              <div>
                <dt>Name</dt>
                <dd>
                  <${Text}>${data.hostname}<//>
                </dd>
              </div>
              <div>
                <dt>Running since</dt>
                <dd>
                  <${Time} at=${data.startedAt} />
                </dd>
              </div>
              ${
                disk &&
                html`
                  <div>
                    <dt>Disk</dt>
                    <dd>
                      ${bytes(disk.freeBytes)} free of ${bytes(disk.totalBytes)}; the database takes${" "}
                      ${bytes(disk.databaseBytes)}
                      <div class=${`meter ${disk.freeBytes < disk.totalBytes / 10 ? "bad" : ""}`} aria-hidden="true">
                        <i style=${{ width: `${Math.max(1, (1 - disk.freeBytes / disk.totalBytes) * 100)}%` }}></i>
                      </div>
                    </dd>
                  </div>
                `
              }
              <div>
                <dt>Queue</dt>
                <dd>
                  ${number(data.queue.webhooks ?? 0)} webhooks, ${number(data.queue.outbound ?? 0)} to send
                  ${data.queue.oldestAt ? html`; oldest <${Time} at=${data.queue.oldestAt} />` : ""}
                </dd>
              </div>
              <div>
                <dt>Certificate</dt>
                <dd>
                  ${
                    data.certificate
                      ? html`
                        <${Text}>${data.certificate.subject}<//>
                        ${" "}
                        <${Badge} kind=${data.certificate.selfSigned ? "warn" : rest < 14 * 86400000 ? "bad" : "good"}>
                          ${data.certificate.selfSigned ? "Self-signed" : rest < 0 ? "Expired" : "Valid"}
                        <//>
                        ${
                          !data.certificate.selfSigned &&
                          html`
                            ${" "}
                            <span class="faint" title=${exact(data.certificate.notAfter)}>
                              until ${new Date(data.certificate.notAfter).toLocaleDateString()}
                            </span>
                          `
                        }
                      `
                      : "none"
                  }
                </dd>
              </div>
              <div>
                <dt>Receives mail on</dt>
                <dd>${listen(data.smtp)}</dd>
              </div>
              <div>
                <dt>Takes mail to send on</dt>
                <dd>${listen(data.submission)}</dd>
              </div>
            </dl>
          `;
        }}
      <//>
    <//>
  `;
}

export default function Settings({ user, setUser }) {
  return html`
    <${Page} title="Settings" narrow>
      <${Profile} user=${user} setUser=${setUser} />
      <${Server} />
      <${Sessions} />
      <${Password} />
      <p class="hint">
        Everything here is done with the public API:${" "}
        <a href="/api/openapi.json" target="_blank" rel="noopener">its OpenAPI document</a>.
      </p>
    <//>
  `;
}
