// Show a message as it was received.
import { html, useEffect, useRef, useState } from "../../lib/preact.js";
import { api } from "../../lib/api.js";
import { formatBytes } from "../../lib/format.js";
import { apiPath } from "../../lib/paths.js";
import { Button, LoadError, Notice, Skeleton } from "../../ui/index.js";

const RAW_PREVIEW_BYTES = 200_000;

export function RawSource({ id, available }) {
  const [text, setText] = useState(null);
  const [error, setError] = useState(null);
  const blob = useRef(null);
  useEffect(() => {
    if (!available) return;
    api("GET", apiPath`/api/messages/${id}/raw`, undefined, { raw: true })
      .then((response) => response.blob())
      .then(async (content) => {
        blob.current = content;
        setText(await content.slice(0, RAW_PREVIEW_BYTES).text());
      })
      .catch(setError);
  }, [id, available]);
  const save = () => downloadBlob(blob.current, `${id}.eml`);
  if (!available)
    return html`<${Notice}>The raw copy is kept for seven days, or until the content is deleted. It is gone.<//>`;
  if (error) return html`<${LoadError} error=${error} />`;
  if (text === null) return html`<${Skeleton} />`;
  return html`
    <div>
      <div class="actions">
        <${Button} icon="in" onClick=${save}>Download .eml<//>
      </div>
      <pre class="raw" tabindex="0">${text}</pre>
      ${
        blob.current.size > RAW_PREVIEW_BYTES &&
        html`<p class="hint">Shown up to ${formatBytes(RAW_PREVIEW_BYTES)} of ${formatBytes(blob.current.size)}.</p>`
      }
    </div>
  `;
}

function downloadBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
