// Create or edit a route.
import { html, useState } from "../../lib/preact.js";
import { patch, post } from "../../lib/api.js";
import { apiPath } from "../../lib/paths.js";
import { Button, CopyableValue, Dialog, Field, Notice, SegmentedControl, toast, useAction } from "../../ui/index.js";
import { ON_AUTH_FAIL } from "./outcomes.js";
import { UnprovenNotice } from "./unproven-notice.js";

const ACTIONS = [
  ["webhook", "Webhook", "Post it as signed JSON."],
  ["forward", "Forward", "Send it on to one address."],
  ["store", "Store", "Keep it, call nobody."],
  ["drop", "Drop", "Accept and discard it; no other route runs."],
];

const ACK_MODES = [
  ["lenient", "Lenient"],
  ["ack", "Acknowledged"],
  ["control", "Control"],
];

export function RouteDialog({ route, onClose, onSaved }) {
  const [form, setForm] = useState({
    match: route?.match_pattern || "",
    action: route?.action || "webhook",
    destination: route?.destination || "",
    ackMode: route?.ack_mode || "lenient",
    onAuthFail: route?.on_auth_fail || "refuse",
  });
  const [error, setError] = useState(null);
  const [created, setCreated] = useState(null);
  const [busy, runAction] = useAction();
  const changeField = (name) => (event) => {
    setError(null);
    setForm({ ...form, [name]: event.target.value });
  };
  const needsDestination = form.action === "webhook" || form.action === "forward";
  const errorFor = (...codes) =>
    error && (codes.includes(error.field) || codes.includes(error.code)) ? error.message : undefined;
  const matchError = errorFor(
    "match",
    "match_required",
    "bad_match",
    "domain_not_owned",
    "domain_not_verified",
    "route_exists",
    "domain_webhook_route",
  );
  const destinationError = errorFor("destination", "bad_url", "bad_address");
  const save = (event) => {
    event.preventDefault();
    runAction(async () => {
      const fields = {
        ...(route?.is_domain_webhook ? {} : { match: form.match }),
        ...(needsDestination ? { destination: form.destination } : {}),
        ...(form.action === "webhook" ? { ackMode: form.ackMode } : {}),
        ...(form.action === "forward" ? { onAuthFail: form.onAuthFail } : {}),
      };
      const answer = route
        ? await patch(apiPath`/api/routes/${route.id}`, fields)
        : await post("/api/routes", { action: form.action, ...fields });
      if (route) toast("Route saved");
      onSaved();
      const needsConfirmation = answer.destination_proven === false && answer.destination !== route?.destination;
      answer.signing_secret || needsConfirmation ? setCreated(answer) : onClose();
    }, setError);
  };
  if (created && !created.signing_secret)
    return html`
      <${Dialog}
        title="The destination has to confirm"
        onClose=${onClose}
        actions=${html`<${Button} variant="primary" onClick=${onClose}>Done<//>`}
      >
        <${UnprovenNotice} route=${created} />
      <//>
    `;
  if (created)
    return html`
      <${Dialog}
        title="Route created"
        onClose=${onClose}
        actions=${html`<${Button} variant="primary" onClick=${onClose}>Done<//>`}
      >
        <p>
          Its webhooks are signed with this secret. Copy it now: it is not shown again. You can replace it at any
          time.
        </p>
        <${CopyableValue} wrap>${created.signing_secret}<//>
      <//>
    `;
  return html`
    <${Dialog} title=${route ? "Edit route" : "New route"} onClose=${onClose}>
      <form class="stack" onSubmit=${save}>
        <${Field}
          label="Address"
          error=${matchError}
          hint="support@acme.dev, *@acme.dev, ticket+*@acme.dev, or a /regular expression/"
        >
          <input
            class="mono"
            value=${form.match}
            disabled=${route?.is_domain_webhook}
            onInput=${changeField("match")}
            required
            autofocus=${!route}
            spellcheck="false"
            autocapitalize="none"
          />
        <//>
        ${
          !route &&
          html`
            <${Field} label="Action" hint=${ACTIONS.find(([key]) => key === form.action)[2]}>
              <select value=${form.action} onChange=${changeField("action")}>
                ${ACTIONS.map(
                  ([key, text]) =>
                    html`<option key=${key} value=${key} selected=${key === form.action}>${text}</option>`,
                )}
              </select>
            <//>
          `
        }
        ${
          needsDestination &&
          html`
            <${Field} label=${form.action === "webhook" ? "Webhook URL" : "Forward to"} error=${destinationError}>
              <input
                class="mono"
                type=${form.action === "webhook" ? "url" : "email"}
                value=${form.destination}
                onInput=${changeField("destination")}
                required
                placeholder=${form.action === "webhook" ? "https://app.acme.dev/support" : "team@example.com"}
              />
            <//>
          `
        }
        ${
          form.action === "webhook" &&
          html`
            <div class="field">
              <label>Counts as delivered</label>
              <${SegmentedControl}
                label="Ack mode"
                value=${form.ackMode}
                options=${ACK_MODES}
                onChange=${(ackMode) => setForm({ ...form, ackMode })}
              />
            </div>
          `
        }
        ${
          form.action === "forward" &&
          html`
            <${Field} label="Mail that may be forged" hint=${ON_AUTH_FAIL.find(([key]) => key === form.onAuthFail)[2]}>
              <select value=${form.onAuthFail} onChange=${changeField("onAuthFail")}>
                ${ON_AUTH_FAIL.map(
                  ([key, text]) =>
                    html`<option key=${key} value=${key} selected=${key === form.onAuthFail}>${text}</option>`,
                )}
              </select>
            <//>
          `
        }
        ${error && !matchError && !destinationError && html`<${Notice} tone="bad">${error.message}<//>`}
        <div class="actions">
          <${Button} type="submit" variant="primary" busy=${busy}>${route ? "Save" : "Create route"}<//>
          <${Button} onClick=${onClose}>Cancel<//>
        </div>
      </form>
    <//>
  `;
}
