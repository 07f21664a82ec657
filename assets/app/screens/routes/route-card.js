// One route in the list, with its actions.
import { html, useState } from "../../lib/preact.js";
import { del, patch, post } from "../../lib/api.js";
import { apiPath } from "../../lib/paths.js";
import {
  Badge,
  Button,
  confirm,
  CopyableValue,
  EndpointPausedNotice,
  Icon,
  Notice,
  RelativeTime,
  toast,
  toastError,
} from "../../ui/index.js";
import { explainRouteOutcome } from "./outcomes.js";
import { UnprovenNotice } from "./unproven-notice.js";

export function RouteCard({ route, reload, mutate, onEdit, onReplay }) {
  const [version, setVersion] = useState(0);
  const [newSecret, setNewSecret] = useState(null);
  const updateRoute = (change) =>
    mutate((all) => all.map((other) => (other.id === route.id ? { ...other, ...change } : other)));
  const togglePaused = async () => {
    updateRoute({ active: !route.active });
    try {
      await patch(apiPath`/api/routes/${route.id}`, { active: !route.active });
    } catch (error) {
      updateRoute({ active: route.active });
      toastError(error);
    }
  };
  const deleteRoute = async () => {
    const confirmed = await confirm({
      title: "Delete this route?",
      text:
        `${route.match_pattern} → ${route.destination || route.action}. ` +
        "Its secret is lost, and its pending deliveries end.",
    });
    if (!confirmed) return;
    await del(apiPath`/api/routes/${route.id}`);
    toast("Route deleted");
    reload();
  };
  const rotateSecret = async () => {
    const confirmed = await confirm({
      title: "Make a new secret?",
      text: "Both secrets sign for 24 hours.",
      confirmLabel: "Make a new one",
      destructive: false,
    });
    if (confirmed) {
      setNewSecret((await post(apiPath`/api/routes/${route.id}/secret/rotate`)).secret);
      setVersion(version + 1);
    }
  };
  const [outcome, tone, hint] = explainRouteOutcome(route.last_status);
  return html`
    <li class=${`item-card ${route.active ? "" : "paused"}`}>
      <div class="item-header">
        <span class="route-line">
          <bdi class="mono">
            <strong>${route.match_pattern}</strong>
          </bdi>
          <${Icon} name="next" size="14" />
          <${Badge}>${route.action}<//>
          ${route.is_domain_webhook && html`<${Badge} tone="info">Domain webhook<//>`}
          ${!route.active && html`<${Badge} tone="warn">Paused<//>`}
        </span>
        <div class="actions">
          <${Button} variant="small" icon=${route.active ? "pause" : "play"} onClick=${togglePaused}>
            ${route.active ? "Pause" : "Resume"}
          <//>
          <${Button}
            variant="small"
            icon="edit"
            onClick=${onEdit}
            disabled=${route.action === "store" || route.action === "drop" ? route.is_domain_webhook : false}
          >
            Edit
          <//>
          ${
            route.action === "webhook" &&
            html`
              <${Button} variant="small" icon="refresh" onClick=${onReplay}>Replay<//>
              <${Button} variant="small" icon="keys" action=${rotateSecret}>New secret<//>
            `
          }
          <${Button} variant="small quiet-danger" icon="trash" action=${deleteRoute}>Delete<//>
        </div>
      </div>
      ${
        route.destination &&
        html`
          <p class="mono wrap">
            <bdi>${route.destination}</bdi>
          </p>
        `
      }
      ${
        newSecret &&
        html`
          <${Notice} tone="good" title="The new secret">
            <${CopyableValue} wrap>${newSecret}<//>
          <//>
        `
      }
      ${route.active && route.paused_until && html`<${EndpointPausedNotice} until=${route.paused_until} />`}
      ${route.destination_proven === false && html`<${UnprovenNotice} route=${route} updateRoute=${updateRoute} />`}
      <p class="hint">
        ${
          route.last_status
            ? html`
              Last: <${Badge} tone=${tone}>${outcome} ${route.last_status_code || ""}<//>
              ${hint && !(route.destination_proven === false && route.last_status === "unproven") ? ` ${hint}` : ""}
            `
            : "Nothing yet."
        }
        ${route.on_auth_fail === "rewrite" ? " Mail that may be forged is forwarded as yours." : ""}
        ${route.ack_mode && route.ack_mode !== "lenient" ? ` Ack mode: ${route.ack_mode}.` : ""} Made${" "}
        <${RelativeTime} at=${route.created_at} />.
      </p>
    </li>
  `;
}
