// Show the bodies, addresses and attachments of a message.
import { html, useState } from "../../lib/preact.js";
import { formatBytes, plural } from "../../lib/format.js";
import { sameOriginUrl } from "../../lib/paths.js";
import { CopyButton, FileName, Icon, UserText } from "../../ui/index.js";
import { MailFrame } from "../../mail/frame.js";

const TEXT_PREVIEW_LENGTH = 400_000;

export function AddressList({ addresses }) {
  return (addresses || []).map(
    (mailbox, index) =>
      html`
        <span key=${index} class="person">
          ${index ? ", " : ""}
          ${
            mailbox.name &&
            html`
              <${UserText}>${mailbox.name}<//>${" "}
            `
          }
          <${UserText} class=${mailbox.name ? "muted" : ""}>
            ${mailbox.name ? `<${mailbox.address}>` : mailbox.address}
          <//>
        </span>
      `,
  );
}

export function HtmlBody({ source, attachments }) {
  const [remoteAllowed, setRemoteAllowed] = useState(false);
  const [remoteCount, setRemoteCount] = useState(0);
  return html`
    <div>
      ${
        remoteCount > 0 &&
        !remoteAllowed &&
        html`
          <div class="remote-bar">
            <${Icon} name="shield" />
            <span>
              ${plural(remoteCount, "remote picture or style", "remote pictures and styles")} blocked, so the
              sender does not learn that you read this.
            </span>
            <button type="button" class="link" onClick=${() => setRemoteAllowed(true)}>Load remote content</button>
          </div>
        `
      }
      <${MailFrame}
        source=${source}
        attachments=${attachments}
        allowRemote=${remoteAllowed}
        onRemoteCount=${(count) => {
          if (!remoteAllowed) setRemoteCount(count);
        }}
      />
    </div>
  `;
}

export const PlainText = ({ text }) => html`
  <pre class="mail-text" dir="auto" tabindex="0">${text.slice(0, TEXT_PREVIEW_LENGTH)}</pre>
  ${
    text.length > TEXT_PREVIEW_LENGTH &&
    html`<p class="hint">Shown up to ${formatBytes(TEXT_PREVIEW_LENGTH)}; the rest is in the raw source.</p>`
  }
`;

export const AttachmentList = ({ attachments }) =>
  html`
    <ul class="files">
      ${attachments.map(
        (attachment) => html`
          <li key=${attachment.id}>
            <${Icon} name="clip" />
            <span class="file-name">
              <${FileName}>${attachment.filename}<//>
            </span>
            <span class="muted">
              ${attachment.contentType || "unknown type"} · ${formatBytes(attachment.size)}
              ${attachment.disposition === "inline" ? " · inline" : ""}
            </span>
            ${
              attachment.url
                ? html`
                  <a
                    class="button small"
                    href=${sameOriginUrl(attachment.url)}
                    download=${attachment.filename || "attachment"}
                    aria-label=${`Download ${attachment.filename || "attachment"}`}
                  >
                    <${Icon} name="in" size="16" />
                    <span>Download</span>
                  </a>
                  <${CopyButton} text=${attachment.url} label="Copy the signed link" />
                `
                : html`<span class="expired hint">expired</span>`
            }
          </li>
        `,
      )}
    </ul>
  `;
