// Deliveries: webhooks of all messages, filtered, selected, and sent again.
import { html, useEffect, useMemo, useRef, useState } from "../../lib/preact.js";
import { get, post } from "../../lib/api.js";
import { formatNumber, plural } from "../../lib/format.js";
import { useLiveRefresh } from "../../lib/live.js";
import { href, withQuery } from "../../lib/paths.js";
import { replaceRoute } from "../../lib/router.js";
import { Button, confirm, EmptyState, LoadError, Page, SegmentedControl, Skeleton, toast } from "../../ui/index.js";
import { DeliveryFilters } from "./delivery-filters.js";
import { DeliveryTable, STATUS_LABEL } from "./delivery-table.js";
import { FailingEndpoints } from "./failing-endpoints.js";

const STATUS_OPTIONS = [
  ["", "All"],
  ["failed", "Failed"],
  ["pending", "Waiting"],
  ["delivered", "Delivered"],
];

/** Retry deliveries in batches of 50, the limit of the API, and report progress. */
async function retryAll(ids, onProgress) {
  let delivered = 0,
    done = 0;
  for (let offset = 0; offset < ids.length; offset += 50) {
    const { results } = await post("/api/deliveries/retry", { deliveryIds: ids.slice(offset, offset + 50) });
    delivered += results.filter((result) => result.ok).length;
    done += results.length;
    onProgress(done, delivered);
  }
  return delivered;
}

export default function Deliveries({ route }) {
  const { status = "", domain = "", routeId = "", since = "", until = "" } = route.params;
  const filters = useMemo(() => ({ status, domain, routeId, since, until }), [status, domain, routeId, since, until]);
  const [state, setState] = useState({ rows: null, next: null, error: null });
  const [selected, setSelected] = useState(new Set());
  const [progress, setProgress] = useState(null);
  const latestRequest = useRef(0);
  const load = async (before) => {
    const request = ++latestRequest.current;
    try {
      const page = await get(withQuery("/api/deliveries", { ...filters, before, limit: 100 }));
      if (request === latestRequest.current)
        setState((old) => ({
          rows: before ? [...old.rows, ...page.deliveries] : page.deliveries,
          next: page.nextCursor ?? null,
          error: null,
        }));
    } catch (error) {
      if (request === latestRequest.current) setState((old) => ({ ...old, rows: before ? old.rows : null, error }));
    }
  };
  useEffect(() => {
    setState({ rows: null, next: null, error: null });
    setSelected(new Set());
    load();
  }, [filters]);
  useLiveRefresh(
    (type) => type === "delivery.updated" || type === "email.received",
    () => {
      if (!progress && (state.rows?.length || 0) <= 100) load();
    },
    600,
  );
  const setFilters = (change) => replaceRoute(href("deliveries", { ...filters, ...change }));
  const rows = state.rows || [];
  const filtered = Object.values(filters).filter(Boolean).length;
  const retry = async (ids) => {
    setProgress({ done: 0, delivered: 0, total: ids.length });
    try {
      const deliveredCount = await retryAll(ids, (done, delivered) =>
        setProgress({ done, delivered, total: ids.length }),
      );
      toast(
        deliveredCount === ids.length
          ? `${plural(deliveredCount, "delivery", "deliveries")} made`
          : `${deliveredCount} of ${ids.length} delivered`,
        { error: deliveredCount < ids.length },
      );
    } finally {
      setProgress(null);
      setSelected(new Set());
      load();
    }
  };
  /** Retry everything that matches the filters, not only the page shown; failed ones unless a state is chosen. */
  const retryRange = async () => {
    const ids = [];
    let before;
    do {
      const page = await get(
        withQuery("/api/deliveries", { ...filters, status: status || "failed", before, limit: 200 }),
      );
      ids.push(...page.deliveries.map((row) => row.id));
      before = page.nextCursor;
    } while (before && ids.length < 5000);
    if (!ids.length) return toast("Nothing to send again");
    const confirmed = await confirm({
      title: `Send ${plural(ids.length, "delivery", "deliveries")} again?`,
      text:
        `All ${STATUS_LABEL[status || "failed"].toLowerCase()} ones${since || until ? " in this time range" : ""} ` +
        "are attempted now, fifty at a time. Receivers de-duplicate by id.",
      confirmLabel: "Send again",
      destructive: false,
    });
    return confirmed ? retry(ids) : undefined;
  };
  return html`
    <${Page}
      title="Deliveries"
      lead="All webhooks, delivered and pending."
      actions=${html`
        <${SegmentedControl}
          label="State"
          value=${status}
          options=${STATUS_OPTIONS}
          onChange=${(value) => setFilters({ status: value })}
        />
      `}
    >
      <${FailingEndpoints}
        onShow=${(endpoint) =>
          setFilters({
            status: endpoint.failed ? "failed" : "pending",
            domain: endpoint.domain || "",
            routeId: "",
            since: "",
            until: "",
          })}
      />
      <${DeliveryFilters} filters=${filters} onChange=${setFilters}>
        <${Button} icon="refresh" action=${retryRange} disabled=${Boolean(progress)}>
          ${status === "delivered" ? "Send all again" : status === "pending" ? "Attempt all now" : "Retry all failed"}
        <//>
      <//>
      ${
        (selected.size > 0 || progress) &&
        html`
          <div class="selection" role="status">
            ${
              progress
                ? html`
                  <span>
                    ${formatNumber(progress.done)} of ${formatNumber(progress.total)} attempted,${" "}
                    ${formatNumber(progress.delivered)} delivered
                  </span>
                `
                : html`
                  <strong>${formatNumber(selected.size)} selected</strong>
                  <${Button} variant="small primary" icon="refresh" action=${() => retry([...selected])}>Send again<//>
                  <button type="button" class="link" onClick=${() => setSelected(new Set())}>Clear</button>
                `
            }
          </div>
        `
      }
      ${
        state.error
          ? html`<${LoadError} error=${state.error} retry=${() => load()} />`
          : !state.rows
            ? html`<${Skeleton} lines="6" />`
            : !rows.length
              ? html`
                <${EmptyState} icon="deliveries" title=${status === "failed" ? "Nothing has failed" : "No deliveries"}>
                  <p>
                    ${
                      status === "failed" && filtered === 1
                        ? "Every webhook was delivered or is still being retried."
                        : filtered
                          ? "No deliveries match the filters."
                          : "Every message for a webhook is listed here, with the response of your app."
                    }
                  </p>
                  ${
                    filtered
                      ? html`
                        <${Button}
                          onClick=${() => setFilters({ status: "", domain: "", routeId: "", since: "", until: "" })}
                        >
                          Clear the filters
                        <//>
                      `
                      : html`<a class="button primary" href=${href("domains")}>Set a domain's webhook</a>`
                  }
                <//>
              `
              : html`
                <section class="card">
                  <${DeliveryTable} rows=${rows} selected=${selected} onSelect=${setSelected} />
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
