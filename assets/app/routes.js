// Routes: which address goes where; which of them an address would match; old mail replayed to a new one.
import { html, useState, useEffect } from "./lib.js";
import { get, post, patch, del, useLoad } from "./api.js";
import { apiPath, query, to } from "./paths.js";
import { apiCommand } from "./commands.js";
import {
  Icon,
  Time,
  Text,
  Page,
  Card,
  Empty,
  Badge,
  Button,
  Field,
  Notice,
  Loaded,
  Dialog,
  Segments,
  Value,
  Code,
  EndpointPaused,
  confirm,
  say,
  complain,
  useBusy,
} from "./ui.js";
import { useLiveSoon } from "./live.js";
import { ON_AUTH_FAIL, routeOutcome } from "./explain.js";
import { plural, number, useNow } from "./format.js";

const ACTIONS = [
  ["webhook", "Webhook", "Post it as signed JSON."],
  ["forward", "Forward", "Send it on to one address."],
  ["store", "Store", "Keep it, call nobody."],
  ["drop", "Drop", "Accept and discard it; no other route runs."],
];
const ACK = [
  ["lenient", "Lenient"],
  ["ack", "Acknowledged"],
  ["control", "Control"],
];

const DAY = 86_400_000;
/** The link is mailed to one address at most once in so long … */
const ASK_AGAIN = 7 * DAY;
/** … and for so long not at all once somebody there declined (contract 4.6). */
const DECLINED_FOR = 90 * DAY;

// --- The tester

/** `routes` are not looked at: when they change, the server is asked again. */
function Tester({ routes, given }) {
  const [address, set] = useState(given || "");
  const [result, show] = useState(null);
  useEffect(() => {
    const asked = address.trim().toLowerCase();
    if (!/^[^@\s]+@[^@\s]+$/.test(asked)) {
      show(null);
      return undefined;
    }
    const timer = setTimeout(async () => {
      try {
        show(await get(query("/api/routes/match", { address: asked })));
      } catch (error) {
        show({ address: asked, matches: [], error: error.message });
      }
    }, 200);
    return () => clearTimeout(timer);
  }, [address, routes]);
  return html`
    <${Card} title="Which routes would this address match?">
      <${Field} label="Address">
        <input
          type="email"
          value=${address}
          onInput=${(event) => set(event.target.value)}
          placeholder="support+42@acme.dev"
          autocomplete="off"
          spellcheck="false"
        />
      <//>
      <div role="status" class="stack tight">
        ${
          result &&
          (result.error
            ? html`<${Notice} kind="bad">${result.error}<//>`
            : result.known === false
              ? html`<${Notice} kind="warn">Mail to it is refused: no verified domain of yours receives it.<//>`
              : result.drop
                ? html`<${Notice} kind="warn">Accepted and discarded: a drop route matches, so no other runs.<//>`
                : result.matches.length
                  ? html`<p class="hint">${plural(result.matches.length, "route")} would run:</p>`
                  : html`<${Notice}>No route matches. The mail is stored and nothing is called.<//>`)
        }
        ${
          result?.matches?.length > 0 &&
          html`
            <ul class="stack tight">
              ${result.matches.map(
                (route) => html`
                  <li key=${route.id} class="route-line">
                    <${Icon} name="check" size="16" />
                    <bdi class="mono">${route.match_pattern}</bdi>
                    <span class="faint">→ ${route.action}</span>
                    <bdi class="mono">${route.destination || ""}</bdi>
                    ${route.reason && html`<span class="faint">${route.reason}</span>`}
                  </li>
                `,
              )}
            </ul>
          `
        }
      </div>
    <//>
  `;
}

// --- Making and changing

function Editor({ route, onClose, onSaved }) {
  const [form, set] = useState({
    match: route?.match_pattern || "",
    action: route?.action || "webhook",
    destination: route?.destination || "",
    ackMode: route?.ack_mode || "lenient",
    onAuthFail: route?.on_auth_fail || "refuse",
  });
  const [error, fail] = useState(null);
  const [made, setMade] = useState(null);
  const [busy, act] = useBusy();
  const change = (name) => (event) => {
    fail(null);
    set({ ...form, [name]: event.target.value });
  };
  const needs = form.action === "webhook" || form.action === "forward";
  const at = (...codes) =>
    error && (codes.includes(error.field) || codes.includes(error.code)) ? error.message : undefined;
  const atMatch = at(
    "match",
    "match_required",
    "bad_match",
    "domain_not_owned",
    "domain_not_verified",
    "route_exists",
    "domain_webhook_route",
  );
  const atDestination = at("destination", "bad_url", "bad_address");
  const save = (event) => {
    event.preventDefault();
    act(async () => {
      const fields = {
        ...(route?.is_domain_webhook ? {} : { match: form.match }),
        ...(needs ? { destination: form.destination } : {}),
        ...(form.action === "webhook" ? { ackMode: form.ackMode } : {}),
        ...(form.action === "forward" ? { onAuthFail: form.onAuthFail } : {}),
      };
      const answer = route
        ? await patch(apiPath`/api/routes/${route.id}`, fields)
        : await post("/api/routes", { action: form.action, ...fields });
      if (route) say("Route saved");
      onSaved();
      const asks = answer.destination_proven === false && answer.destination !== route?.destination;
      answer.signing_secret || asks ? setMade(answer) : onClose();
    }, fail);
  };
  if (made && !made.signing_secret)
    return html`
      <${Dialog}
        title="The destination has to confirm"
        onClose=${onClose}
        actions=${html`<${Button} kind="primary" onClick=${onClose}>Done<//>`}
      >
        <${Unproven} route=${made} />
      <//>
    `;
  if (made)
    return html`
      <${Dialog}
        title="Route created"
        onClose=${onClose}
        actions=${html`<${Button} kind="primary" onClick=${onClose}>Done<//>`}
      >
        <p>It signs with a secret of its own. It is shown now; a lost one is replaced by a new one.</p>
        <${Value} wrap>${made.signing_secret}<//>
      <//>
    `;
  return html`
    <${Dialog} title=${route ? "Edit route" : "New route"} onClose=${onClose}>
      <form class="stack" onSubmit=${save}>
        <${Field}
          label="Address"
          error=${atMatch}
          hint="support@acme.dev, *@acme.dev, ticket+*@acme.dev, or a /regular expression/"
        >
          <input
            class="mono"
            value=${form.match}
            disabled=${route?.is_domain_webhook}
            onInput=${change("match")}
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
              <select value=${form.action} onChange=${change("action")}>
                ${ACTIONS.map(
                  ([key, text]) =>
                    html`<option key=${key} value=${key} selected=${key === form.action}>${text}</option>`,
                )}
              </select>
            <//>
          `
        }
        ${
          needs &&
          html`
            <${Field} label=${form.action === "webhook" ? "Webhook URL" : "Forward to"} error=${atDestination}>
              <input
                class="mono"
                type=${form.action === "webhook" ? "url" : "email"}
                value=${form.destination}
                onInput=${change("destination")}
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
              <${Segments}
                label="Ack mode"
                value=${form.ackMode}
                options=${ACK}
                onChange=${(ackMode) => set({ ...form, ackMode })}
              />
            </div>
          `
        }
        ${
          form.action === "forward" &&
          html`
            <${Field} label="Mail that may be forged" hint=${ON_AUTH_FAIL.find(([key]) => key === form.onAuthFail)[2]}>
              <select value=${form.onAuthFail} onChange=${change("onAuthFail")}>
                ${ON_AUTH_FAIL.map(
                  ([key, text]) =>
                    html`<option key=${key} value=${key} selected=${key === form.onAuthFail}>${text}</option>`,
                )}
              </select>
            <//>
          `
        }
        ${error && !atMatch && !atDestination && html`<${Notice} kind="bad">${error.message}<//>`}
        <div class="actions">
          <${Button} type="submit" kind="primary" busy=${busy}>${route ? "Save" : "Create route"}<//>
          <${Button} onClick=${onClose}>Cancel<//>
        </div>
      </form>
    <//>
  `;
}

// --- Replay

function Replay({ route, onClose }) {
  const [state, set] = useState({ messages: [], next: undefined, error: null });
  const [chosen, choose] = useState(new Set());
  const load = async (before) => {
    try {
      const page = await get(query(apiPath`/api/routes/${route.id}/candidates`, { before, limit: 50 }));
      set((old) => ({
        messages: [...(before ? old.messages : []), ...page.messages],
        next: page.nextBefore,
        error: null,
      }));
    } catch (error) {
      set((old) => ({ ...old, next: null, error }));
    }
  };
  useEffect(() => {
    load();
  }, []);
  const send = async () => {
    const { results } = await post(apiPath`/api/routes/${route.id}/deliver`, { messageIds: [...chosen].slice(0, 50) });
    const good = results.filter((one) => one.ok).length;
    say(good === results.length ? `${plural(good, "message")} delivered` : `${good} of ${results.length} delivered`, {
      bad: good < results.length,
    });
    const done = new Set(results.filter((one) => one.ok).map((one) => one.id));
    set((old) => ({
      ...old,
      messages: old.messages.map((one) => (done.has(one.id) ? { ...one, delivered_here: true } : one)),
    }));
    choose(new Set());
  };
  const flip = (id) => {
    const next = new Set(chosen);
    next.has(id) ? next.delete(id) : next.size < 50 && next.add(id);
    choose(next);
  };
  return html`
    <${Dialog}
      wide
      title="Replay stored mail to this route"
      onClose=${onClose}
      actions=${html`
        <${Button} onClick=${onClose}>Close<//>
        <${Button} kind="primary" disabled=${!chosen.size} action=${send}>Deliver ${chosen.size || ""}<//>
      `}
    >
      <p class="hint">
        Stored mail that <bdi class="mono">${route.match_pattern}</bdi> covers, also older than the route. Up to
        50 at a time.
      </p>
      ${state.error && html`<${Notice} kind="bad">${state.error.message}<//>`}
      ${
        state.next !== undefined &&
        !state.messages.length &&
        state.next === null &&
        !state.error &&
        html`<${Notice}>No stored mail fits.<//>`
      }
      ${
        state.messages.length > 1 &&
        html`
          <label class="pick-all">
            <input
              type="checkbox"
              checked=${chosen.size > 0}
              onChange=${() =>
                choose(
                  new Set(
                    chosen.size
                      ? []
                      : state.messages
                          .filter((one) => !one.delivered_here)
                          .slice(0, 50)
                          .map((one) => one.id),
                  ),
                )}
            />
            <strong>${chosen.size ? `${number(chosen.size)} selected` : "Select those not delivered here"}</strong>
          </label>
        `
      }
      <ul class="picks">
        ${state.messages.map(
          (one) => html`
            <li key=${one.id}>
              <label>
                <input type="checkbox" checked=${chosen.has(one.id)} onChange=${() => flip(one.id)} />
                <span class="pick-text">
                  <${Text} title=${one.subject}>${one.subject || "(no subject)"}<//>
                  <span class="faint">
                    <bdi>${one.from_addr}</bdi> → <bdi>${one.to_addr}</bdi>
                  </span>
                </span>
                ${one.delivered_here && html`<${Badge} kind="good">Delivered here<//>`}
                <${Time} at=${one.received_at} class="faint" />
              </label>
            </li>
          `,
        )}
      </ul>
      ${
        state.next &&
        html`
          <div>
            <${Button} action=${() => load(state.next)}>More<//>
          </div>
        `
      }
    <//>
  `;
}

// --- Whether the destination wants it

/** What a forward waits for, and the link once more when it may be mailed; `swap` takes the route as it is then. */
function Unproven({ route, swap }) {
  const now = useNow();
  const { destination, destination_asked_at: asked, destination_declined_at: declined } = route;
  const next = declined ? declined + DECLINED_FOR : asked ? asked + ASK_AGAIN : 0;
  const ask = async () => {
    const answer = await patch(apiPath`/api/routes/${route.id}`, { destination });
    swap(answer);
    if (answer.destination_proven) say("The destination has confirmed");
    else if (answer.destination_asked_at !== asked) say(`A link was mailed to ${destination}`);
    else say("Not mailed: your e-mail is not verified, or too many links were mailed lately.", { bad: true });
  };
  const mailbox = html`<bdi class="mono">${destination}</bdi>`;
  const what = declined
    ? html`Somebody at ${mailbox} declined <${Time} at=${declined} />.`
    : asked
      ? html`A link was mailed to ${mailbox} <${Time} at=${asked} />.`
      : html`No link was mailed to ${mailbox} yet.`;
  const until = declined
    ? "Mail is stored and not forwarded."
    : "Until somebody there follows it and confirms, mail is stored and not forwarded.";
  return html`
    <${Notice} kind="warn" title="Not forwarding yet">
      <p>${what} ${until}</p>
      ${
        swap &&
        (next > now
          ? html`<p class="hint">The address can be asked again <${Time} at=${next} />.</p>`
          : html`
            <p>
              <${Button} kind="small" icon="send" action=${ask}>${asked ? "Mail the link again" : "Mail the link"}<//>
            </p>
          `)
      }
    <//>
  `;
}

// --- The list

function Route({ route, reload, mutate, edit, replay }) {
  const [version, setVersion] = useState(0);
  const [fresh, show] = useState(null);
  const swap = (change) => mutate((all) => all.map((one) => (one.id === route.id ? { ...one, ...change } : one)));
  const pause = async () => {
    swap({ active: !route.active });
    try {
      await patch(apiPath`/api/routes/${route.id}`, { active: !route.active });
    } catch (error) {
      swap({ active: route.active });
      complain(error);
    }
  };
  const remove = async () => {
    const yes = await confirm({
      title: "Delete this route?",
      text: `${route.match_pattern} → ${route.destination || route.action}. Its secret is lost, and its pending deliveries end.`,
    });
    if (!yes) return;
    await del(apiPath`/api/routes/${route.id}`);
    say("Route deleted");
    reload();
  };
  const rotate = async () => {
    const yes = await confirm({
      title: "Make a new secret?",
      text: "For 24 hours both secrets sign.",
      yes: "Make a new one",
      calm: true,
    });
    if (yes) {
      show((await post(apiPath`/api/routes/${route.id}/secret/rotate`)).secret);
      setVersion(version + 1);
    }
  };
  const [outcome, tone, why] = routeOutcome(route.last_status);
  return html`
    <li class=${`thing ${route.active ? "" : "paused"}`}>
      <div class="thing-head">
        <span class="route-line">
          <bdi class="mono">
            <strong>${route.match_pattern}</strong>
          </bdi>
          <${Icon} name="next" size="14" />
          <${Badge}>${route.action}<//>
          ${route.is_domain_webhook && html`<${Badge} kind="info">Domain webhook<//>`}
          ${!route.active && html`<${Badge} kind="warn">Paused<//>`}
        </span>
        <div class="actions">
          <${Button} kind="small" icon=${route.active ? "pause" : "play"} onClick=${pause}>
            ${route.active ? "Pause" : "Resume"}
          <//>
          <${Button}
            kind="small"
            icon="edit"
            onClick=${edit}
            disabled=${route.action === "store" || route.action === "drop" ? route.is_domain_webhook : false}
          >
            Edit
          <//>
          ${
            route.action === "webhook" &&
            html`
              <${Button} kind="small" icon="refresh" onClick=${replay}>Replay<//>
              <${Button} kind="small" icon="keys" action=${rotate}>New secret<//>
            `
          }
          <${Button} kind="small quiet-danger" icon="trash" action=${remove}>Delete<//>
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
        fresh &&
        html`
          <${Notice} kind="good" title="The new secret">
            <${Value} wrap>${fresh}<//>
          <//>
        `
      }
      ${route.active && route.paused_until && html`<${EndpointPaused} until=${route.paused_until} />`}
      ${route.destination_proven === false && html`<${Unproven} route=${route} swap=${swap} />`}
      <p class="hint">
        ${
          route.last_status
            ? html`
              Last: <${Badge} kind=${tone}>${outcome} ${route.last_status_code || ""}<//>
              ${why && !(route.destination_proven === false && route.last_status === "unproven") ? ` ${why}` : ""}
            `
            : "Nothing yet."
        }
        ${route.on_auth_fail === "rewrite" ? " Mail that may be forged is forwarded as yours." : ""}
        ${route.ack_mode && route.ack_mode !== "lenient" ? ` Ack mode: ${route.ack_mode}.` : ""} Made${" "}
        <${Time} at=${route.created_at} />.
      </p>
    </li>
  `;
}

export default function Routes({ route }) {
  const routes = useLoad("/api/routes");
  const domains = useLoad("/api/domains");
  const [editing, edit] = useState(null);
  const [replaying, replay] = useState(null);
  useLiveSoon((type) => type === "delivery.updated", routes.reload, 2000);
  return html`
    <${Page}
      title="Routes"
      lead="Every active route that matches an address runs, oldest first."
      actions=${html`<${Button} kind="primary" icon="plus" onClick=${() => edit({})}>New route<//>`}
    >
      <${Loaded} of=${routes}>
        ${(all) => html`
          ${
            all.length
              ? html`
                <ul class="cards">
                  ${all.map(
                    (one) => html`
                      <${Route}
                        key=${one.id}
                        route=${one}
                        reload=${routes.reload}
                        mutate=${routes.mutate}
                        edit=${() => edit(one)}
                        replay=${() => replay(one)}
                      />
                    `,
                  )}
                </ul>
              `
              : html`
                <${Empty} icon="routes" title="No routes yet">
                  <p>
                    Mail of a verified domain is stored. A route posts it to your app, forwards it, or drops it,
                    for one address or for many.
                  </p>
                  <p class="hint">
                    The simplest one is a <a href=${to("domains")}>domain's webhook</a>. A route can be made here
                    or with the API:
                  </p>
                  <${Code} label="with curl">
                    ${apiCommand("/api/routes", {
                      match: `support@${domains.data?.find((one) => one.mx_verified)?.domain || "acme.dev"}`,
                      action: "webhook",
                      destination: "https://app.acme.dev/support",
                    })}
                  <//>
                  <div class="actions">
                    <${Button} kind="primary" icon="plus" onClick=${() => edit({})}>New route<//>
                  </div>
                <//>
              `
          }
          <${Tester} routes=${all} given=${route.params.address} />
        `}
      <//>
      ${
        editing &&
        html`<${Editor} route=${editing.id ? editing : null} onClose=${() => edit(null)} onSaved=${routes.reload} />`
      }
      ${replaying && html`<${Replay} route=${replaying} onClose=${() => replay(null)} />`}
    <//>
  `;
}
