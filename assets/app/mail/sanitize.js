// Sanitize HTML of a mail: the browser parses it into a document where nothing runs and nothing is fetched, and only
// names on the lists below are serialized again. No source text is copied: each element, attribute, rule and
// declaration is the parser's reading of it, so an escape, an odd spelling or a broken tag hides nothing.

const tokenSet = (text) => new Set(text.split(/\s+/).filter(Boolean));

const ALLOWED_ELEMENTS =
  tokenSet(`a abbr acronym address area article aside b bdi bdo big blockquote body br caption center cite code
  col colgroup data dd del details dfn dir div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup hr
  i img ins kbd li main map mark nav ol p pre q rp rt ruby s samp section small span strike strong sub summary sup table
  tbody td tfoot th thead time tr tt u ul var wbr`);

/** Dropped with their content. Of other elements that are not allowed, the content stays. */
const DROPPED_ELEMENTS =
  tokenSet(`applet audio button canvas datalist dialog embed fencedframe frame frameset head iframe input
  link math meta meter noembed noframes object option optgroup output param portal progress script select source style
  svg template textarea title track video`);

const VOID_ELEMENTS = tokenSet("area br col hr img wbr");

const ALLOWED_ATTRIBUTES =
  tokenSet(`abbr align alt aria-hidden aria-label axis bgcolor border bordercolor cellpadding cellspacing
  char charoff class clear color colspan compact coords datetime dir face frame headers height hspace id lang name
  noshade nowrap open reversed role rowspan rules scope shape size span start summary title type valign value vspace
  width`);

/** Elements whose `type` attribute is a list style. */
const LIST_ELEMENTS = tokenSet("ol ul li");

/** CSS functions that are allowed: none of those that fetch, such as url(), image-set(), src(), image(), element(). */
const ALLOWED_FUNCTIONS =
  tokenSet(`rgb rgba hsl hsla hwb lab lch oklab oklch color color-mix light-dark calc min max clamp
  linear-gradient radial-gradient conic-gradient repeating-linear-gradient repeating-radial-gradient
  repeating-conic-gradient rotate rotatex rotatey rotatez scale scalex scaley skew skewx skewy translate translatex
  translatey matrix cubic-bezier steps blur brightness contrast drop-shadow grayscale hue-rotate invert opacity saturate
  sepia fit-content minmax repeat inset circle ellipse polygon`);

const IMAGE_DATA_URL = /^data:image\/(?:png|jpe?g|gif|webp|bmp|avif)[;,]/i;

/** Limit of nested rules. */
const MAX_DEPTH = 4;

const escapeHtml = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const trustedTypesPolicy = globalThis.trustedTypes?.createPolicy("mail", { createHTML: (text) => text });

/**
 * Parse into the document of a removed frame. It has no window, so scripts are off, nothing loads and links lead
 * nowhere; and the page's own policy, which forbids inline styles, does not report each style of the mail.
 */
function parse(source) {
  const frame = document.createElement("iframe");
  frame.hidden = true;
  document.body.append(frame);
  const inert = frame.contentDocument;
  frame.remove();
  inert.documentElement.innerHTML = trustedTypesPolicy ? trustedTypesPolicy.createHTML(source) : source;
  return inert;
}

const parseUrl = (text) => {
  try {
    return new URL(/^[\s\u0000-\u001f]*\/\//.test(text) ? `https:${text.trim()}` : text);
  } catch {
    return null;
  }
};

const decodePercent = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

class Sanitizer {
  constructor(allowRemote, inlineImages) {
    Object.assign(this, { allowRemote, inlineImages, remoteCount: 0, styles: [] });
    // The browser parses declarations here; a sheet that no document has adopted fetches nothing.
    this.scratch = new CSSStyleSheet();
    this.scratch.insertRule("a{}");
  }

  /** Return the URL of an image that may be shown: an inline one, or a remote one that the reader asked for. */
  imageUrl(text) {
    const url = parseUrl(text);
    if (!url) return null;
    if (url.protocol === "cid:") {
      const id = decodePercent(url.pathname);
      return Object.hasOwn(this.inlineImages, id) ? this.inlineImages[id] : null;
    }
    if (url.protocol === "data:") return IMAGE_DATA_URL.test(url.href) ? url.href : null;
    if (url.protocol !== "https:" && url.protocol !== "http:") return null;
    this.remoteCount++;
    return this.allowRemote ? url.href : null;
  }

  /** Return a value as the browser serialized it, or "" if it is not allowed. */
  cssValue(text) {
    const without = text.replace(/url\("([^"\\]*)"\)/gi, (_, url) => {
      const image = this.imageUrl(url);
      return image && !/["\\]/.test(image) ? `\u0001${image}\u0002` : "none";
    });
    if (without.includes("\\")) return "";
    for (const [, name] of without.matchAll(/([-\w\u0080-\uffff]*)\(/g))
      if (name && !ALLOWED_FUNCTIONS.has(name.toLowerCase())) return "";
    return without.replaceAll("\u0001", 'url("').replaceAll("\u0002", '")');
  }

  /** Remove declarations that are not allowed, and return the others as text. */
  declarations(style) {
    for (const name of [...style]) {
      const before = style.getPropertyValue(name);
      const priority = style.getPropertyPriority(name);
      // The longhands of a shorthand with var() have no value.
      const after = name.startsWith("--") || before === "" ? "" : this.cssValue(before);
      if (after === before) continue;
      style.removeProperty(name);
      if (after) style.setProperty(name, after, priority);
    }
    const text = style.cssText;
    // Each declaration was checked alone; check all of them together as well.
    const plain = text.replace(/url\("[^"\\]*"\)/g, "none");
    return this.cssValue(plain) === plain ? text : "";
  }

  inlineStyle(text) {
    const { style } = this.scratch.cssRules[0];
    style.cssText = text;
    return this.declarations(style);
  }

  cssRules(list, depth) {
    let text = "";
    for (const rule of list) {
      if (rule instanceof CSSStyleRule) {
        const inside = this.declarations(rule.style);
        if (inside) text += `${rule.selectorText}{${inside}}\n`;
      } else if (rule instanceof CSSMediaRule && depth < MAX_DEPTH) {
        const inside = this.cssRules(rule.cssRules, depth + 1);
        if (inside) text += `@media ${rule.media.mediaText}{${inside}}\n`;
      }
    }
    return text;
  }

  styleSheet(element) {
    const sheet = new CSSStyleSheet();
    // Behind a rule @import is not valid; at the top, the browser would log a warning for each.
    sheet.replaceSync(`a{}${element.textContent}`);
    const media = element.getAttribute("media");
    const rules = this.cssRules(sheet.cssRules, 0);
    if (!media || !rules) return rules;
    const wrapper = new CSSStyleSheet({ media });
    return wrapper.media.mediaText ? `@media ${wrapper.media.mediaText}{${rules}}` : rules;
  }

  attributes(element, name) {
    let text = "";
    const add = (key, value) => {
      text += ` ${key}="${escapeHtml(value)}"`;
    };
    for (const { name: key, value } of element.attributes) {
      if (key === "style") {
        const style = this.inlineStyle(value);
        if (style) add("style", style);
      } else if (key === "type" ? LIST_ELEMENTS.has(name) : ALLOWED_ATTRIBUTES.has(key)) add(key, value);
      else if (key === "href" && (name === "a" || name === "area")) {
        const url = parseUrl(value);
        if (!url || !["https:", "http:", "mailto:"].includes(url.protocol)) continue;
        add("href", url.href);
        add("target", "_blank");
        add("rel", "noopener noreferrer");
      } else if ((key === "src" && name === "img") || (key === "background" && /^(body|table|td|th|tr)$/.test(name))) {
        const image = this.imageUrl(value);
        if (image) add(key, image);
      } else if (key === "srcset" && name === "img" && !element.hasAttribute("src")) {
        const image = this.imageUrl(value.trim().split(/[\s,]/)[0]);
        if (image) add("src", image);
      } else if (key === "usemap" && value.startsWith("#")) add(key, value);
    }
    return text;
  }

  /**
   * Serialize a tree without recursion, since the sender chooses its depth. A TreeWalker, since properties of a form
   * can be shadowed by its fields: `form.nextSibling` may be one of them.
   */
  serialize(root) {
    const out = [];
    const ends = [];
    const walker = document.createTreeWalker(root);
    for (;;) {
      const end = this.openNode(walker.currentNode, out);
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

  /** Append the start tag of a node; return its end tag, or null if its content is left out. */
  openNode(node, out) {
    if (node.nodeType === Node.TEXT_NODE) out.push(escapeHtml(node.data));
    const name = node.localName;
    if (node.nodeType !== Node.ELEMENT_NODE || node.namespaceURI !== "http://www.w3.org/1999/xhtml") return null;
    if (name === "style") this.styles.push(this.styleSheet(node));
    else if (name === "head")
      for (const style of node.querySelectorAll("style")) this.styles.push(this.styleSheet(style));
    if (DROPPED_ELEMENTS.has(name)) return null;
    if (!ALLOWED_ELEMENTS.has(name)) return "";
    out.push(`<${name}${this.attributes(node, name)}>`);
    return VOID_ELEMENTS.has(name) ? null : `</${name}>`;
  }
}

const BASE_STYLE =
  "html{background:#fff;color:#1c1a17;overflow-wrap:anywhere;" +
  "font:15px/1.5 -apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',system-ui,sans-serif}" +
  "body{margin:16px}img{max-width:100%;height:auto}";

/**
 * Return the sanitized document, and how many remote images and styles it refers to. `inlineImages` are data URLs by
 * Content-ID.
 */
export function sanitize(source, { allowRemote = false, inlineImages = {} } = {}) {
  const sanitizer = new Sanitizer(allowRemote, inlineImages);
  const body = sanitizer.serialize(parse(source).documentElement);
  // The escape means the same in a style sheet, and cannot end the element.
  const styles = sanitizer.styles.join("\n").replaceAll("<", "\\3c ");
  const head = ['<meta charset="utf-8">', `<style>${BASE_STYLE}</style>`, `<style>${styles}</style>`].join("");
  const html = `<!doctype html>\n${head}\n${body}`;
  return { html, remoteCount: sanitizer.remoteCount };
}
