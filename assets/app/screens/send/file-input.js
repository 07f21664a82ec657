// Attach files to a message.
import { html } from "../../lib/preact.js";
import { formatBytes } from "../../lib/format.js";
import { FileName, Icon, toast } from "../../ui/index.js";
import { readFile } from "./form.js";

const MAX_FILES = 25 * 1024 * 1024;

export function FileInput({ files, onChange }) {
  const add = async (event) => {
    try {
      const added = await Promise.all([...event.target.files].map(readFile));
      const all = [...files, ...added];
      if (all.reduce((sum, file) => sum + file.size, 0) > MAX_FILES)
        throw new Error("Attachments may have 25 MiB together.");
      onChange(all);
    } catch (failed) {
      toast(failed.message, { error: true });
    }
    event.target.value = "";
  };
  return html`
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
                  <span class="muted">${formatBytes(file.size)}</span>
                  <button
                    type="button"
                    class="icon-button small"
                    aria-label=${`Remove ${file.filename}`}
                    onClick=${() => onChange(files.filter((_, other) => other !== index))}
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
  `;
}
