// Shows HTML that somebody sent us. Four fences, each enough by itself: it is cleaned (clean.js); the server hands it to the
// frame under a policy without scripts, requests or forms; the frame is a sandbox of no origin; and the page's own policy
// lets a frame show nothing but this server.
//
// The document cannot be written from here (srcdoc, blob): it would inherit the page's policy, which forbids all styles
// that are not files. So it is posted to `/frame`, which gives it back under a policy of its own.
import { html, useRef, useEffect, useState, useMemo } from "./lib.js";
import { here } from "./paths.js";
import { clean } from "./clean.js";

const MAX_INLINE = 3_000_000;
/** Few words need no tall frame; how tall its content is, a frame of no origin tells nobody. */
const SHORT = 600;
const TINY = 240;

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
  return html`
    <div
      class=${`mailframe ${source.length < TINY ? "tiny" : source.length < SHORT ? "short" : ""} ${extra}`}
      ref=${holder}
    ></div>
  `;
}
