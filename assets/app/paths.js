// Every path of the API that holds an id or a name, and every address of a screen, is made here: literal parts as they
// are, each other part checked and encoded. What is no id of anything leads nowhere; it reaches no other path.

/** Contract 1.3: what kind of id stands behind which word of a path. */
const ID = {
  messages: /^msg_[0-9A-Za-z]{16}$/,
  deliveries: /^dlv_[0-9A-Za-z]{16}$/,
  routes: /^rte_[0-9A-Za-z]{16}$/,
  domains: /^dom_[0-9A-Za-z]{16}$/,
  templates: /^tpl_[0-9A-Za-z]{16}$|^base_[a-z_]{1,40}$/,
  scoped: /^key_[0-9A-Za-z]{16}$/,
  scheduled: /^ssnd_[0-9A-Za-z]{16}$/,
};
/** What stands in a path by another name than an id; dots alone would be a step up, also when they are encoded. */
const NAME = /^(?!\.{1,2}$)\P{Cc}{1,320}$/u;

class Name {
  constructor(text) {
    this.text = text;
  }
}

/** A part of a path that is no id: the name of a domain, an e-mail address, what a session is named by. */
export const named = (text) => new Name(text);

const part = (value, before) => {
  const [text, shape] = value instanceof Name ? [value.text, NAME] : [value, ID[/(\w+)\/$/.exec(before)[1]]];
  return typeof text === "string" && shape.test(text) ? encodeURIComponent(text) : null;
};

/** A path of the API: apiPath`/api/messages/${id}/raw`; "" when a part is not what it has to be. */
export function apiPath(literals, ...values) {
  const parts = values.map((value, at) => part(value, literals[at]));
  return parts.includes(null) ? "" : literals.reduce((made, literal, at) => made + parts[at - 1] + literal);
}

/** A path with a query; what is empty is left out. */
export function query(path, params) {
  const filled = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return filled.length && path ? `${path}?${new URLSearchParams(filled)}` : path;
}

/** A signed link that the server made for its public name, for the name this page was opened under. */
export function here(url) {
  try {
    const { pathname, search } = new URL(url);
    return /^\/att\/[^/]+\/[^/]+$/.test(pathname) ? pathname + search : "#";
  } catch {
    return "#";
  }
}

/** The address of a screen: its parts, and its filters as the last one. */
export function to(...parts) {
  const params = typeof parts[parts.length - 1] === "object" ? parts.pop() : {};
  return query(`#/${parts.map(encodeURIComponent).join("/")}`, params);
}

/** The address of a screen that the server names, with or without the mark. */
export function screen(link) {
  const [parts, filters] = link.replace(/^#?\/?/, "").split("?");
  const params = Object.fromEntries(new URLSearchParams(filters || ""));
  return to(...parts.split("/"), params);
}
