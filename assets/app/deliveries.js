// Webhook deliveries across all messages: what fails, and sending it again, one by one or many at once.
import { html, useState, useEffect, useRef, useMemo } from "./lib.js";
import { get, post, useLoad } from "./api.js";
import { query, to } from "./paths.js";
import { replace } from "./router.js";
import { useLiveSoon } from "./live.js";
import {
  Icon,
  Time,
  Text,
  Url,
  Page,
  Card,
  Empty,
  Badge,
  Button,
  Field,
  Failure,
  Skeleton,
  Segments,
  PauseWords,
  confirm,
  say,
} from "./ui.js";
import { attemptError } from "./explain.js";
import { plural, number } from "./format.js";

const STATES = [
  ["", "All"],
  ["failed", "Failed"],
  ["pending", "Waiting"],
  ["delivered", "Delivered"],
];
const TONE = { delivered: "good", failed: "bad", pending: "warn" };
const WORD = { delivered: "Delivered", failed: "Failed", pending: "Waiting" };

const local = (ms) => (ms ? new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 16) : "");
const parse = (text) => (text ? new Date(text).getTime() : undefined);

/** Retries many, in calls of at most 50, and says how it goes. */
async function retryAll(ids, tell) {
  let good = 0,
    done = 0;
  for (let at = 0; at < ids.length; at += 50) {
    const { results } = await post("/api/deliveries/retry", { deliveryIds: ids.slice(at, at + 50) });
    good += results.filter((one) => one.ok).length;
    done += results.length;
    tell(done, good);
  }
  return good;
}

/** Endpoints that lately did not take what they should. */
function Failing({ show }) {
  const week = useLoad("/api/overview?range=week");
  useLiveSoon((type) => type === "delivery.updated", week.reload, 2000);
  const bad = (one) =>
    one.pausedUntil || one.failed > 0 || (one.waiting > 0 && one.lastAttemptAt && !(one.lastStatusCode < 300));
  const all = week.data?.endpoints.filter(bad) || [];
  if (!all.length) return null;
  return html`
    <${Card} title="Failing endpoints">
      <ul class="attention">
        ${all.map(
          (one) => html`
            <li key=${one.url}>
              <${Icon} name="warn" />
              <div>
                <strong>
                  <bdi class="mono wrap">${one.url}</bdi>
                </strong>
                <p class="hint">
                  In the last 7 days${" "}
                  ${[
                    one.failed && `${number(one.failed)} given up`,
                    one.waiting && `${number(one.waiting)} waiting for another attempt`,
                  ]
                    .filter(Boolean)
                    .join(", ")}
                  ${
                    one.lastAttemptAt &&
                    html`; last answer ${one.lastStatusCode || "none"}, <${Time} at=${one.lastAttemptAt} />`
                  }.
                </p>
                ${
                  one.pausedUntil &&
                  html`
                    <p class="hint">
                      <strong>Paused.</strong>
                      ${" "}
                      <${PauseWords} until=${one.pausedUntil} />
                    </p>
                  `
                }
              </div>
              <${Button} kind="small" onClick=${() => show(one)}>Show<//>
            </li>
          `,
        )}
      </ul>
    <//>
  `;
}

export default function Deliveries({ route }) {
  const { status = "", domain = "", routeId = "", since = "", until = "" } = route.params;
  const filters = useMemo(() => ({ status, domain, routeId, since, until }), [status, domain, routeId, since, until]);
  const [state, set] = useState({ rows: null, next: null, error: null });
  const [chosen, choose] = useState(new Set());
  const [progress, tell] = useState(null);
  const domains = useLoad("/api/domains");
  const routes = useLoad("/api/routes");
  const turn = useRef(0);
  const load = async (before) => {
    const mine = ++turn.current;
    try {
      const page = await get(query("/api/deliveries", { ...filters, before, limit: 100 }));
      if (mine === turn.current)
        set((old) => ({
          rows: before ? [...old.rows, ...page.deliveries] : page.deliveries,
          next: page.nextCursor ?? null,
          error: null,
        }));
    } catch (error) {
      if (mine === turn.current) set((old) => ({ ...old, rows: before ? old.rows : null, error }));
    }
  };
  useEffect(() => {
    set({ rows: null, next: null, error: null });
    choose(new Set());
    load();
  }, [filters]);
  useLiveSoon(
    (type) => type === "delivery.updated" || type === "email.received",
    () => {
      if (!progress && (state.rows?.length || 0) <= 100) load();
    },
    600,
  );
  const apply = (change) => replace(to("deliveries", { ...filters, ...change }));
  const rows = state.rows || [];
  const filtered = Object.values(filters).filter(Boolean).length;
  const flip = (id) => {
    const next = new Set(chosen);
    next.has(id) ? next.delete(id) : next.add(id);
    choose(next);
  };
  const all = rows.length > 0 && rows.every((row) => chosen.has(row.id));
  const run = async (ids) => {
    tell({ done: 0, good: 0, all: ids.length });
    try {
      const good = await retryAll(ids, (done, delivered) => tell({ done, good: delivered, all: ids.length }));
      say(
        good === ids.length ? `${plural(good, "delivery", "deliveries")} made` : `${good} of ${ids.length} delivered`,
        { bad: good < ids.length },
      );
    } finally {
      tell(null);
      choose(new Set());
      load();
    }
  };
  /** Everything the filters let through, beyond the page shown; failed ones unless another state is chosen. */
  const runRange = async () => {
    const ids = [];
    let before;
    do {
      const page = await get(query("/api/deliveries", { ...filters, status: status || "failed", before, limit: 200 }));
      ids.push(...page.deliveries.map((row) => row.id));
      before = page.nextCursor;
    } while (before && ids.length < 5000);
    if (!ids.length) return say("Nothing to send again");
    const yes = await confirm({
      title: `Send ${plural(ids.length, "delivery", "deliveries")} again?`,
      text: `All ${WORD[status || "failed"].toLowerCase()} ones${since || until ? " in this time range" : ""} are attempted now, fifty at a time. Receivers de-duplicate by id.`,
      yes: "Send again",
      calm: true,
    });
    return yes ? run(ids) : undefined;
  };
  return html`
    <${Page}
      title="Deliveries"
      lead="Every webhook that was or will be posted."
      actions=${html`
        <${Segments} label="State" value=${status} options=${STATES} onChange=${(value) => apply({ status: value })} />
      `}
    >
      <${Failing}
        show=${(one) =>
          apply({
            status: one.failed ? "failed" : "pending",
            domain: one.domain || "",
            routeId: "",
            since: "",
            until: "",
          })}
      />
      <div class="toolbar">
        <${Field} label="Domain">
          <select value=${domain} onChange=${(event) => apply({ domain: event.target.value })}>
            <option value="" selected=${!domain}>All</option>
            ${(domains.data || []).map(
              (one) => html`
                <option key=${one.id} value=${one.domain} selected=${one.domain === domain}>${one.domain}</option>
              `,
            )}
          </select>
        <//>
        <${Field} label="Route">
          <select value=${routeId} onChange=${(event) => apply({ routeId: event.target.value })}>
            <option value="" selected=${!routeId}>All</option>
            ${(routes.data || [])
              .filter((one) => one.action === "webhook")
              .map(
                (one) => html`
                  <option key=${one.id} value=${one.id} selected=${one.id === routeId}>${one.match_pattern}</option>
                `,
              )}
          </select>
        <//>
        <${Field} label="From">
          <input
            type="datetime-local"
            value=${local(Number(since))}
            onChange=${(event) => apply({ since: parse(event.target.value) })}
          />
        <//>
        <${Field} label="Until">
          <input
            type="datetime-local"
            value=${local(Number(until))}
            onChange=${(event) => apply({ until: parse(event.target.value) })}
          />
        <//>
        <${Button} icon="refresh" action=${runRange} disabled=${Boolean(progress)}>
          ${status === "delivered" ? "Send all again" : status === "pending" ? "Attempt all now" : "Retry all failed"}
        <//>
      </div>
      ${
        (chosen.size > 0 || progress) &&
        html`
          <div class="selection" role="status">
            ${
              progress
                ? html`
                  <span>
                    ${number(progress.done)} of ${number(progress.all)} attempted, ${number(progress.good)}${" "}
                    delivered
                  </span>
                `
                : html`
                  <strong>${number(chosen.size)} selected</strong>
                  <${Button} kind="small primary" icon="refresh" action=${() => run([...chosen])}>Send again<//>
                  <button type="button" class="link" onClick=${() => choose(new Set())}>Clear</button>
                `
            }
          </div>
        `
      }
      ${
        state.error
          ? html`<${Failure} error=${state.error} retry=${() => load()} />`
          : !state.rows
            ? html`<${Skeleton} lines="6" />`
            : !rows.length
              ? html`
                <${Empty} icon="deliveries" title=${status === "failed" ? "Nothing has failed" : "No deliveries"}>
                  <p>
                    ${
                      status === "failed" && filtered === 1
                        ? "Every webhook was taken, or is still tried."
                        : filtered
                          ? "Nothing fits the filters."
                          : "Each mail for a webhook shows here, with what your app answered."
                    }
                  </p>
                  ${
                    filtered
                      ? html`
                        <${Button}
                          onClick=${() => apply({ status: "", domain: "", routeId: "", since: "", until: "" })}
                        >
                          Clear the filters
                        <//>
                      `
                      : html`<a class="button primary" href=${to("domains")}>Set a domain's webhook</a>`
                  }
                <//>
              `
              : html`
                <section class="card">
                  <div class="table-wrap" tabindex="0" role="region" aria-label="Deliveries">
                    <table>
                      <thead>
                        <tr>
                          <th class="td-check">
                            <input
                              type="checkbox"
                              aria-label="Select all"
                              checked=${all}
                              onChange=${() => choose(all ? new Set() : new Set(rows.map((row) => row.id)))}
                            />
                          </th>
                          <th>State</th>
                          <th>Message</th>
                          <th class="endpoint-cell">Endpoint</th>
                          <th class="num attempts-cell">Attempts</th>
                          <th>When</th>
                        </tr>
                      </thead>
                      <tbody>
                        ${rows.map(
                          (row) => html`
                            <tr key=${row.id}>
                              <td class="td-check">
                                <input
                                  type="checkbox"
                                  aria-label=${`Select ${row.subject || row.id}`}
                                  checked=${chosen.has(row.id)}
                                  onChange=${() => flip(row.id)}
                                />
                              </td>
                              <td>
                                <${Badge}
                                  kind=${TONE[row.status]}
                                  title=${row.last_error ? attemptError(row.last_error).join(": ") : undefined}
                                >
                                  ${
                                    row.last_status_code ||
                                    (row.last_error ? attemptError(row.last_error)[0] : WORD[row.status])
                                  }
                                <//>
                                ${
                                  row.paused_until &&
                                  html`
                                    ${" "}
                                    <${Badge}
                                      title="Its endpoint failed five times in a row. It waits, and loses no attempt."
                                    >
                                      Paused
                                    <//>
                                  `
                                }
                              </td>
                              <td class="subject-cell">
                                ${
                                  row.message_id
                                    ? html`
                                      <a href=${to("messages", row.message_id)}>
                                        <${Text}>${row.subject || "(no subject)"}<//>
                                      </a>
                                    `
                                    : html`<${Text}>${row.event_type}<//>`
                                }
                                <div class="faint">
                                  <bdi>${row.from_addr || ""}</bdi>
                                </div>
                                <div class="only-narrow">
                                  <${Url}>${row.url}<//>
                                </div>
                              </td>
                              <td class="endpoint-cell">
                                <${Url}>${row.url}<//>
                              </td>
                              <td class="num attempts-cell">${row.attempts}</td>
                              <td>
                                <${Time} at=${row.updated_at} />
                                ${
                                  row.status === "pending" &&
                                  row.next_attempt_at &&
                                  html`<div class="faint">next <${Time} at=${row.next_attempt_at} /></div>`
                                }
                              </td>
                            </tr>
                          `,
                        )}
                      </tbody>
                    </table>
                  </div>
                  ${
                    state.next &&
                    html`
                      <div class="actions">
                        <${Button} action=${() => load(state.next)}>More<//>
                      </div>
                    `
                  }
                </section>
              `
      }
    <//>
  `;
}
