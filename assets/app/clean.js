// Cleans HTML that somebody sent us: the browser parses it into a document where nothing runs and nothing is fetched, and
// what is on the lists below is written out anew. Nothing of the source is copied: each element, attribute, rule and
// declaration is the parser's word for it, so that an escape, an odd spelling or a broken tag hides nothing.

const words = (text) => new Set(text.split(/\s+/).filter(Boolean));

const ELEMENTS =
  words(`a abbr acronym address area article aside b bdi bdo big blockquote body br caption center cite code
  col colgroup data dd del details dfn dir div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup hr i
  img ins kbd li main map mark nav ol p pre q rp rt ruby s samp section small span strike strong sub summary sup table
  tbody td tfoot th thead time tr tt u ul var wbr`);
/** These go with all that is in them. Others that are not on the list leave their content behind. */
const DROPPED = words(`applet audio button canvas datalist dialog embed fencedframe frame frameset head iframe input
  link math meta meter noembed noframes object option optgroup output param portal progress script select source style
  svg template textarea title track video`);
const VOID = words("area br col hr img wbr");
const ATTRIBUTES = words(`abbr align alt aria-hidden aria-label axis bgcolor border bordercolor cellpadding cellspacing
  char charoff class clear color colspan compact coords datetime dir face frame headers height hspace id lang name noshade
  nowrap open reversed role rowspan rules scope shape size span start summary title type valign value vspace width`);
/** `type` says something else on other elements. */
const LISTS = words("ol ul li");
/** What a declaration may call. All that fetches is by another name: url(), image-set(), src(), image(), element() … */
const FUNCTIONS = words(`rgb rgba hsl hsla hwb lab lch oklab oklch color color-mix light-dark calc min max clamp
  linear-gradient radial-gradient conic-gradient repeating-linear-gradient repeating-radial-gradient
  repeating-conic-gradient rotate rotatex rotatey rotatez scale scalex scaley skew skewx skewy translate translatex
  translatey matrix cubic-bezier steps blur brightness contrast drop-shadow grayscale hue-rotate invert opacity saturate
  sepia fit-content minmax repeat inset circle ellipse polygon`);
const PICTURE = /^data:image\/(?:png|jpe?g|gif|webp|bmp|avif)[;,]/i;
/** Rules inside rules. */
const MAX_DEPTH = 4;

const escaped = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const policy = globalThis.trustedTypes?.createPolicy("mail", { createHTML: (text) => text });

/**
 * The document of a frame that is gone has no window: scripts are off, nothing loads, links lead nowhere; and this page's own
 * policy, which forbids all styles that are not files, does not report each style that a mail has.
 */
function parse(source) {
  const frame = document.createElement("iframe");
  frame.hidden = true;
  document.body.append(frame);
  const inert = frame.contentDocument;
  frame.remove();
  inert.documentElement.innerHTML = policy ? policy.createHTML(source) : source;
  return inert;
}

const urlOf = (text) => {
  try {
    return new URL(/^[\s\u0000-\u001f]*\/\//.test(text) ? `https:${text.trim()}` : text);
  } catch {
    return null;
  }
};

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

class Cleaner {
  constructor(remote, inline) {
    Object.assign(this, { remote, inline, wanted: 0, styles: [] });
    // Where the browser parses declarations; a sheet that no document has adopted fetches nothing.
    this.scratch = new CSSStyleSheet();
    this.scratch.insertRule("a{}");
  }

  /** The address of a picture, if it may be shown: one that came with the mail, or one that the reader asked for. */
  picture(text) {
    const url = urlOf(text);
    if (!url) return null;
    if (url.protocol === "cid:") {
      const id = decoded(url.pathname);
      return Object.hasOwn(this.inline, id) ? this.inline[id] : null;
    }
    if (url.protocol === "data:") return PICTURE.test(url.href) ? url.href : null;
    if (url.protocol !== "https:" && url.protocol !== "http:") return null;
    this.wanted++;
    return this.remote ? url.href : null;
  }

  /** A value as the browser wrote it, or "" when it may not stay. */
  value(text) {
    const without = text.replace(/url\("([^"\\]*)"\)/gi, (_, url) => {
      const picture = this.picture(url);
      return picture && !/["\\]/.test(picture) ? `\u0001${picture}\u0002` : "none";
    });
    if (without.includes("\\")) return "";
    for (const [, name] of without.matchAll(/([-\w\u0080-\uffff]*)\(/g))
      if (name && !FUNCTIONS.has(name.toLowerCase())) return "";
    return without.replaceAll("\u0001", 'url("').replaceAll("\u0002", '")');
  }

  /** Takes out of a style what may not stay; the rest as text. */
  declarations(style) {
    for (const name of [...style]) {
      const before = style.getPropertyValue(name);
      const priority = style.getPropertyPriority(name);
      // Of a shorthand with var() its parts have no value.
      const after = name.startsWith("--") || before === "" ? "" : this.value(before);
      if (after === before) continue;
      style.removeProperty(name);
      if (after) style.setProperty(name, after, priority);
    }
    const text = style.cssText;
    // Each part is fine; so is the whole, or it is nothing.
    const plain = text.replace(/url\("[^"\\]*"\)/g, "none");
    return this.value(plain) === plain ? text : "";
  }

  inlineStyle(text) {
    const { style } = this.scratch.cssRules[0];
    style.cssText = text;
    return this.declarations(style);
  }

  rules(list, depth) {
    let text = "";
    for (const rule of list) {
      if (rule instanceof CSSStyleRule) {
        const inside = this.declarations(rule.style);
        if (inside) text += `${rule.selectorText}{${inside}}\n`;
      } else if (rule instanceof CSSMediaRule && depth < MAX_DEPTH) {
        const inside = this.rules(rule.cssRules, depth + 1);
        if (inside) text += `@media ${rule.media.mediaText}{${inside}}\n`;
      }
    }
    return text;
  }

  sheet(element) {
    const sheet = new CSSStyleSheet();
    // After a rule no other sheet can be asked for; before one, that it may not be is said on the console.
    sheet.replaceSync(`a{}${element.textContent}`);
    const media = element.getAttribute("media");
    const rules = this.rules(sheet.cssRules, 0);
    if (!media || !rules) return rules;
    const wrapper = new CSSStyleSheet({ media });
    return wrapper.media.mediaText ? `@media ${wrapper.media.mediaText}{${rules}}` : rules;
  }

  attributes(element, name) {
    let text = "";
    const add = (key, value) => {
      text += ` ${key}="${escaped(value)}"`;
    };
    for (const { name: key, value } of element.attributes) {
      if (key === "style") {
        const style = this.inlineStyle(value);
        if (style) add("style", style);
      } else if (key === "type" ? LISTS.has(name) : ATTRIBUTES.has(key)) add(key, value);
      else if (key === "href" && (name === "a" || name === "area")) {
        const url = urlOf(value);
        if (!url || !["https:", "http:", "mailto:"].includes(url.protocol)) continue;
        add("href", url.href);
        add("target", "_blank");
        add("rel", "noopener noreferrer");
      } else if ((key === "src" && name === "img") || (key === "background" && /^(body|table|td|th|tr)$/.test(name))) {
        const picture = this.picture(value);
        if (picture) add(key, picture);
      } else if (key === "srcset" && name === "img" && !element.hasAttribute("src")) {
        const picture = this.picture(value.trim().split(/[\s,]/)[0]);
        if (picture) add("src", picture);
      } else if (key === "usemap" && value.startsWith("#")) add(key, value);
    }
    return text;
  }

  /**
   * Writes a tree out, without recursion: how deep it is, is the sender's choice. The walker knows where it is, whatever
   * a form's fields are called: `form.nextSibling` may be one of them.
   */
  write(root) {
    const out = [];
    const ends = [];
    const walker = document.createTreeWalker(root);
    for (;;) {
      const end = this.begin(walker.currentNode, out);
      if (end !== null && walker.firstChild()) {
        ends.push(end);
        continue;
      }
      if (end) out.push(end);
      while (walker.currentNode !== root && !walker.nextSibling()) {
        walker.parentNode();
        out.push(ends.pop());
      }
      if (walker.currentNode === root) return out.join("");
    }
  }

  /** Writes how a node begins; how it ends, or null when its content is left out. */
  begin(node, out) {
    if (node.nodeType === Node.TEXT_NODE) out.push(escaped(node.data));
    const name = node.localName;
    if (node.nodeType !== Node.ELEMENT_NODE || node.namespaceURI !== "http://www.w3.org/1999/xhtml") return null;
    if (name === "style") this.styles.push(this.sheet(node));
    else if (name === "head") for (const style of node.querySelectorAll("style")) this.styles.push(this.sheet(style));
    if (DROPPED.has(name)) return null;
    if (!ELEMENTS.has(name)) return "";
    out.push(`<${name}${this.attributes(node, name)}>`);
    return VOID.has(name) ? null : `</${name}>`;
  }
}

const BASE =
  "html{background:#fff;color:#1c1a17;font:15px/1.5 -apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',system-ui,sans-serif;overflow-wrap:anywhere}body{margin:16px}img{max-width:100%;height:auto}";

/**
 * The cleaned document, and how many remote things it wants. `inline`: pictures that came with the mail, as data, by their
 * Content-ID.
 */
export function clean(source, { remote = false, inline = {} } = {}) {
  const cleaner = new Cleaner(remote, inline);
  const body = cleaner.write(parse(source).documentElement);
  // In a style sheet this is the same, and ends no element.
  const styles = cleaner.styles.join("\n").replaceAll("<", "\\3c ");
  const text = `<!doctype html>\n<meta charset="utf-8"><style>${BASE}</style><style>${styles}</style>\n${body}`;
  return { text, wanted: cleaner.wanted };
}
