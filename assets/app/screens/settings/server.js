// Facts about the server.
import { html } from "../../lib/preact.js";
import { exactTime, formatBytes, formatNumber } from "../../lib/format.js";
import { useResource } from "../../lib/api.js";
import { Badge, Card, Loaded, RelativeTime, UserText } from "../../ui/index.js";

const listenAddresses = (all) =>
  all?.length
    ? all.map(
        (address, index) =>
          html`
            <code key=${index}>
              ${index ? " " : ""}${typeof address === "string" ? address : JSON.stringify(address)}
            </code>
          `,
      )
    : "–";

const storedSizes = (sizes) =>
  [
    `database ${formatBytes(sizes.databaseBytes)}`,
    sizes.freePageBytes ? `${formatBytes(sizes.freePageBytes)} of it free pages` : "",
    `WAL ${formatBytes(sizes.walBytes)}`,
    `large mail ${formatBytes(sizes.mailBytes)}`,
    `uploads ${formatBytes(sizes.uploadBytes)}`,
    sizes.schemaCopyBytes ? `copies from before an upgrade ${formatBytes(sizes.schemaCopyBytes)}` : "",
  ]
    .filter(Boolean)
    .join(", ");

export function Server() {
  const server = useResource("/api/server");
  const ready = useResource("/api/ready");
  return html`
    <${Card} title="Server">
      <${Loaded} resource=${server}>
        ${(data) => {
          const { disk, sizes } = data;
          const validFor = data.certificate ? data.certificate.notAfter - Date.now() : 0;
          return html`
            <dl class="facts">
              <div>
                <dt>Version</dt>
                <dd>
                  ${data.version}
                  ${data.dev && html` <${Badge} tone="info">dev<//>`}${" "}
                  ${
                    ready.data
                      ? html`<${Badge} tone="good">Ready<//>`
                      : ready.error && html`<${Badge} tone="bad">${ready.error.message}<//>`
                  }
                </dd>
              </div>
              <div>
                <dt>Name</dt>
                <dd>
                  <${UserText}>${data.hostname}<//>
                </dd>
              </div>
              <div>
                <dt>Running since</dt>
                <dd>
                  <${RelativeTime} at=${data.startedAt} />
                </dd>
              </div>
              ${
                disk &&
                html`
                  <div>
                    <dt>Disk</dt>
                    <dd>
                      ${formatBytes(disk.freeBytes)} free of ${formatBytes(disk.totalBytes)}
                      <div class=${`meter ${disk.freeBytes < disk.totalBytes / 10 ? "bad" : ""}`} aria-hidden="true">
                        <i style=${{ width: `${Math.max(1, (1 - disk.freeBytes / disk.totalBytes) * 100)}%` }}></i>
                      </div>
                    </dd>
                  </div>
                `
              }
              ${
                sizes &&
                html`
                  <div>
                    <dt>On disk</dt>
                    <dd>
                      ${storedSizes(sizes)}
                    </dd>
                  </div>
                  <div>
                    <dt>Last backup</dt>
                    <dd>
                      ${
                        data.lastBackupAt
                          ? html`<${RelativeTime} at=${data.lastBackupAt} />`
                          : html`<${Badge} tone="warn">none yet<//> On the server, run <code>mailkite backup</code>.`
                      }
                    </dd>
                  </div>
                `
              }
              <div>
                <dt>Queue</dt>
                <dd>
                  ${formatNumber(data.queue.webhooks ?? 0)} webhooks, ${formatNumber(data.queue.outbound ?? 0)} to
                  send
                  ${data.queue.oldestAt ? html`; oldest <${RelativeTime} at=${data.queue.oldestAt} />` : ""}
                </dd>
              </div>
              <div>
                <dt>Certificate</dt>
                <dd>
                  ${
                    data.certificate
                      ? html`
                        <${UserText}>${data.certificate.subject}<//>${" "}
                        <${Badge}
                          tone=${data.certificate.selfSigned ? "warn" : validFor < 14 * 86400000 ? "bad" : "good"}
                        >
                          ${data.certificate.selfSigned ? "Self-signed" : validFor < 0 ? "Expired" : "Valid"}
                        <//>
                        ${
                          !data.certificate.selfSigned &&
                          html`
                            ${" "}<span class="muted" title=${exactTime(data.certificate.notAfter)}>
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
                <dd>${listenAddresses(data.smtp)}</dd>
              </div>
              <div>
                <dt>Accepts submissions on</dt>
                <dd>${listenAddresses(data.submission)}</dd>
              </div>
            </dl>
          `;
        }}
      <//>
    <//>
  `;
}
