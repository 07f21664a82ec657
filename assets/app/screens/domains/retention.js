// Set how long mail of a domain is kept.
import { html, useState } from "../../lib/preact.js";
import { put } from "../../lib/api.js";
import { apiPath } from "../../lib/paths.js";
import { Button, Card, confirm, Field, toast, toastError, useAction } from "../../ui/index.js";

export function RetentionCard({ detail }) {
  const { domain } = detail.data;
  const [days, setDays] = useState(domain.retention_days ?? "");
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const save = (event) => {
    event.preventDefault();
    runAction(async () => {
      await put(apiPath`/api/domains/${domain.id}/retention`, { retentionDays: days === "" ? null : Number(days) });
      toast("Saved");
      detail.reload();
    }, setError);
  };
  const toggleZeroRetention = async (event) => {
    const on = event.target.checked;
    if (
      on &&
      !(await confirm({
        title: "Store nothing of this domain's mail?",
        text:
          "From now on, each message gets one webhook attempt, with its attachments inside, and is then " +
          "deleted: it is neither listed nor retried.",
        confirmLabel: "Store nothing",
      }))
    ) {
      event.target.checked = false;
      return;
    }
    try {
      await put(apiPath`/api/domains/${domain.id}/retention`, { zeroRetention: on });
      toast("Saved");
    } catch (failed) {
      toastError(failed);
    }
    detail.reload();
  };
  return html`
    <${Card} title="Retention">
      <form class="inline-form" onSubmit=${save}>
        <${Field}
          label="Keep messages for"
          hint="Days, 1 to 3,650. Leave empty for the server's default."
          error=${error?.message}
        >
          <input
            type="number"
            min="1"
            max="3650"
            value=${days}
            onInput=${(event) => {
              setError(null);
              setDays(event.target.value);
            }}
            placeholder="default"
          />
        <//>
        <${Button} type="submit" busy=${busy}>Save<//>
      </form>
      <label class="switch-row">
        <input type="checkbox" role="switch" checked=${domain.zero_retention} onChange=${toggleZeroRetention} />
        <span>
          <strong>Zero retention</strong>
          <span class="hint">One webhook attempt, attachments inside; nothing is stored.</span>
        </span>
      </label>
    <//>
  `;
}
