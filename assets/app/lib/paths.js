// Build every API path that holds an id or a name, and every URL of a screen. Values are checked and encoded, so a
// value that is no id cannot lead to another path.

/** Patterns of ids (contract 1.3), by the path segment before them. */
const ID_PATTERNS = {
  messages: /^msg_[0-9A-Za-z]{16}$/,
  deliveries: /^dlv_[0-9A-Za-z]{16}$/,
  routes: /^rte_[0-9A-Za-z]{16}$/,
  domains: /^dom_[0-9A-Za-z]{16}$/,
  templates: /^tpl_[0-9A-Za-z]{16}$|^base_[a-z_]{1,40}$/,
  scoped: /^key_[0-9A-Za-z]{16}$/,
  scheduled: /^ssnd_[0-9A-Za-z]{16}$/,
};

/** Pattern of names; dots alone would be a step up, even when they are encoded. */
const NAME_PATTERN = /^(?!\.{1,2}$)\P{Cc}{1,320}$/u;

class NameSegment {
  constructor(text) {
    this.text = text;
  }
}

/** Mark a path segment that is a name rather than an id: a domain, an e-mail address, a session. */
export const byName = (text) => new NameSegment(text);

const segment = (value, before) => {
  const [text, pattern] =
    value instanceof NameSegment ? [value.text, NAME_PATTERN] : [value, ID_PATTERNS[/(\w+)\/$/.exec(before)[1]]];
  return typeof text === "string" && pattern.test(text) ? encodeURIComponent(text) : null;
};

/** Build a path of the API: apiPath`/api/messages/${id}/raw`; "" if a value is not valid. */
export function apiPath(literals, ...values) {
  const parts = values.map((value, index) => segment(value, literals[index]));
  return parts.includes(null) ? "" : literals.reduce((path, literal, index) => path + parts[index - 1] + literal);
}

/** Append a query; empty parameters are left out. */
export function withQuery(path, params) {
  const filled = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return filled.length && path ? `${path}?${new URLSearchParams(filled)}` : path;
}

/** Turn a signed link to the server's public name into one to the host name of this page. */
export function sameOriginUrl(url) {
  try {
    const { pathname, search } = new URL(url);
    return /^\/att\/[^/]+\/[^/]+$/.test(pathname) ? pathname + search : "#";
  } catch {
    return "#";
  }
}

/** Build the URL of a screen from its segments and, as the last argument, its filters. */
export function href(...parts) {
  const params = typeof parts[parts.length - 1] === "object" ? parts.pop() : {};
  return withQuery(`#/${parts.map(encodeURIComponent).join("/")}`, params);
}

/** Build the URL of a screen that the server names, with or without `#`. */
export function hrefFromLink(link) {
  const [parts, filters] = link.replace(/^#?\/?/, "").split("?");
  const params = Object.fromEntries(new URLSearchParams(filters || ""));
  return href(...parts.split("/"), params);
}
