// Shows HTML that somebody sent us. Four fences, each enough by itself: it is cleaned here; the server hands it to the
// frame under a policy without scripts, requests or forms; the frame is a sandbox of no origin; and the page's own policy
// lets a frame show nothing but this server.
//
// The document cannot be written from here (srcdoc, blob): it would inherit the page's policy, which forbids all styles
// that are not files. So it is posted to `/frame`, which gives it back under a policy of its own.
import { html, useRef, useEffect, useState, useMemo } from "./lib.js";
import { here } from "./api.js";

const policy = globalThis.trustedTypes?.createPolicy("mail", { createHTML: (text) => text });
const REMOVED =
  "noscript, iframe, frame, frameset, object, embed, applet, portal, fencedframe, link, meta, base, form > button, input, textarea, select, dialog, template, math, audio, video, source, track";
const URLS = [
  "src",
  "srcset",
  "background",
  "poster",
  "data",
  "action",
  "formaction",
  "xlink:href",
  "ping",
  "longdesc",
  "cite",
  "lowsrc",
  "dynsrc",
  "imagesrcset",
  "icon",
  "manifest",
  "classid",
  "codebase",
  "usemap",
  "profile",
];
const REMOTE_CSS = /(@import[^;]*;?|(?:-webkit-)?image-set\([^)]*\)|url\(\s*(?!["']?data:)[^)]*\))/gi;
const MAX_INLINE = 3_000_000;
/** Few words need no tall frame; how tall its content is, a frame of no origin tells nobody. */
const SHORT = 600;
const TINY = 240;

const isRemote = (url) => /^\s*(https?:)?\/\//i.test(url || "");

/** CSS escapes could hide an address from the pattern above; no honest mail needs them in a URL. */
const plainCss = (css) => css.replace(/\\[0-9a-f]{1,6}\s?/gi, "");

const BASE =
  "<style>html{background:#fff;color:#1c1a17;font:15px/1.5 -apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',system-ui,sans-serif;overflow-wrap:anywhere}body{margin:16px}img{max-width:100%;height:auto}</style>";

/**
 * A document that is only parsed has the page's policy too, and each style, event handler and base in it would be reported.
 * So none has its name while the page looks at it: a style sheet is a script of a type that does not exist, a base a link,
 * which is removed, and `mark`, which no mail can guess, stands before every word that could name an attribute of these,
 * also where it is none: before "only" in a sentence. What is left of it goes at the end.
 */
const mask = (source, mark) =>
  source
    .replace(/<base(?=[\s>/])/gi, "<link")
    .replace(/<style(?=[\s>/])/gi, `<script type="${mark}"`)
    .replace(/<\/style(?=[\s>/])/gi, "</script")
    .replace(/\b(?:style\b|on[a-z])/gi, (word) => mark + word);
const unmask = (text, mark) =>
  text
    .replace(new RegExp(`<script type="${mark}"([^>]*)>([^]*?)</script>`, "g"), "<style$1>$2</style>")
    .replaceAll(mark, "");

/**
 * The cleaned document and how many remote things it wants. Parsing happens in an inert document, where nothing runs and
 * nothing is fetched.
 */
export function clean(source, { remote = false, inline = {} } = {}) {
  const mark = `m${Math.random().toString(36).slice(2)}m`;
  const masked = mask(source, mark);
  const doc = new DOMParser().parseFromString(policy ? policy.createHTML(masked) : masked, "text/html");
  let wanted = 0;
  doc.querySelectorAll(REMOVED).forEach((element) => element.remove());
  doc.querySelectorAll("form").forEach((form) => form.replaceWith(...form.childNodes));
  doc.querySelectorAll("script").forEach((script) => {
    if (script.getAttribute("type") !== mark) script.remove();
  });
  const css = (value) => {
    const flat = plainCss(value).replace(/<\//g, "< /");
    const found = flat.match(REMOTE_CSS);
    if (!found) return flat;
    wanted += found.length;
    return remote ? flat.replace(/@import[^;]*;?/gi, "") : flat.replace(REMOTE_CSS, "none");
  };
  // `textContent` of a script is guarded by the page's policy; that of the text inside it is not.
  doc.querySelectorAll("script").forEach((style) => {
    for (const node of style.childNodes) node.data = css(node.data);
  });
  for (const element of doc.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      const lower = name.toLowerCase();
      if (element.localName === "script") {
        if (lower !== "type" && lower !== "media") element.removeAttribute(name);
      } else if (lower === `${mark}style`) element.setAttribute(name, css(value));
      else if (lower.includes(mark) || ["autofocus", "nonce", "is", "srcdoc"].includes(lower))
        element.removeAttribute(name);
      else if (lower === "href") {
        if (element.localName === "a" || element.localName === "area") {
          if (/^\s*(https?:|mailto:|tel:)/i.test(value)) {
            element.setAttribute("target", "_blank");
            element.setAttribute("rel", "noopener noreferrer");
          } else element.removeAttribute(name);
        } else if (!value.startsWith("#")) element.removeAttribute(name);
      } else if (URLS.includes(lower)) {
        const picture = lower === "src" || lower === "background" || lower === "srcset";
        const cid = lower === "src" && /^\s*cid:(.+)$/i.exec(value);
        if (cid) {
          const known = inline[decodeSafe(unmask(cid[1], mark).trim())];
          known ? element.setAttribute("src", known) : element.removeAttribute(name);
        } else if (picture && isRemote(value)) {
          wanted++;
          if (!remote) element.removeAttribute(name);
        } else if (!picture || !/^\s*data:image\/(png|jpe?g|gif|webp|bmp|avif)[;,]/i.test(value))
          element.removeAttribute(name);
      }
    }
  }
  return {
    text: `<!doctype html>\n<meta charset="utf-8">${BASE}\n${unmask(doc.documentElement.outerHTML, mark)}`,
    wanted,
  };
}

const decodeSafe = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** Pictures that came with the mail, as data: the frame may fetch nothing, not even from this server. */
async function inlinePictures(attachments, source) {
  const found = {};
  let total = 0;
  for (const one of attachments) {
    const id = (one.contentId || "").replace(/^<|>$/g, "");
    if (
      !id ||
      !one.url ||
      !/^image\/(png|jpe?g|gif|webp|bmp|avif)$/i.test(one.contentType || "") ||
      !source.includes(`cid:`)
    )
      continue;
    total += one.size;
    if (total > MAX_INLINE) break;
    try {
      const blob = await (await fetch(here(one.url))).blob();
      found[id] = await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.replace(/^data:[^;,]*/, `data:${one.contentType.toLowerCase()}`));
        reader.onerror = reject;
        reader.readAsDataURL(blob);
      });
    } catch {
      /* shown without it */
    }
  }
  return found;
}

let count = 0;

/** A frame with cleaned HTML. */
export function MailFrame({
  source,
  attachments = [],
  remote = false,
  onWanted,
  title = "The message as HTML",
  class: extra = "",
}) {
  const holder = useRef(null);
  const [inline, setInline] = useState(null);
  useEffect(() => {
    let current = true;
    setInline(null);
    const needed = attachments.some((one) => one.contentId);
    (needed ? inlinePictures(attachments, source) : Promise.resolve({})).then((found) => {
      if (current) setInline(found);
    });
    return () => {
      current = false;
    };
  }, [source]);
  const cleaned = useMemo(() => (inline ? clean(source, { remote, inline }) : null), [source, remote, inline]);
  useEffect(() => {
    if (cleaned) onWanted?.(cleaned.wanted);
  }, [cleaned]);
  useEffect(() => {
    if (!cleaned) return undefined;
    // A new frame each time: going back must leave the page, not step through what a frame showed.
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox");
    frame.setAttribute("referrerpolicy", "no-referrer");
    frame.title = title;
    frame.name = `mail-${++count}`;
    holder.current.replaceChildren(frame);
    const form = document.createElement("form");
    form.method = "post";
    form.enctype = "text/plain";
    form.action = remote ? "/frame?remote=1" : "/frame";
    form.target = frame.name;
    form.hidden = true;
    const field = document.createElement("textarea");
    field.name = "html";
    field.value = cleaned.text;
    form.append(field);
    document.body.append(form);
    form.submit();
    form.remove();
    return () => frame.remove();
  }, [cleaned, remote]);
  return html`<div class=${`mailframe ${source.length < TINY ? "tiny" : source.length < SHORT ? "short" : ""} ${extra}`} ref=${holder}></div>`;
}
