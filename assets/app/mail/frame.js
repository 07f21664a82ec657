// Show HTML of a mail behind four barriers, each sufficient on its own: it is sanitized (sanitize.js); the server gives
// it to the frame under a policy without scripts, requests or forms; the frame is sandboxed with an opaque origin; and
// the page's own policy lets a frame show nothing but this server.
//
// The document cannot be written from here (srcdoc, blob): it would inherit the page's policy, which forbids all styles
// that are not files. So it is posted to `/frame`, which returns it under a policy of its own.
import { html, useEffect, useMemo, useRef, useState } from "../lib/preact.js";
import { sameOriginUrl } from "../lib/paths.js";
import { sanitize } from "./sanitize.js";

const MAX_INLINE_BYTES = 3_000_000;

/** Sources shorter than these get a lower frame; the frame's opaque origin hides the real height of its content. */
const SHORT_SOURCE = 600;

const TINY_SOURCE = 240;

/** Load inline images as data URLs: the frame may fetch nothing, not even from this server. */
async function loadInlineImages(attachments, source) {
  const images = {};
  let total = 0;
  for (const attachment of attachments) {
    const id = (attachment.contentId || "").replace(/^<|>$/g, "");
    if (
      !id ||
      !attachment.url ||
      !/^image\/(png|jpe?g|gif|webp|bmp|avif)$/i.test(attachment.contentType || "") ||
      !source.includes(`cid:`)
    )
      continue;
    total += attachment.size;
    if (total > MAX_INLINE_BYTES) break;
    try {
      const blob = await (await fetch(sameOriginUrl(attachment.url))).blob();
      images[id] = await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () =>
          resolve(reader.result.replace(/^data:[^;,]*/, `data:${attachment.contentType.toLowerCase()}`));
        reader.onerror = reject;
        reader.readAsDataURL(blob);
      });
    } catch {
      /* Shown without this image. */
    }
  }
  return images;
}

let frameCount = 0;

/** Frame with sanitized HTML. */
export function MailFrame({
  source,
  attachments = [],
  allowRemote = false,
  onRemoteCount,
  title = "The message as HTML",
  class: extra = "",
}) {
  const container = useRef(null);
  const [inlineImages, setInlineImages] = useState(null);
  useEffect(() => {
    let current = true;
    setInlineImages(null);
    const needed = attachments.some((attachment) => attachment.contentId);
    (needed ? loadInlineImages(attachments, source) : Promise.resolve({})).then((found) => {
      if (current) setInlineImages(found);
    });
    return () => {
      current = false;
    };
  }, [source]);
  const sanitized = useMemo(
    () => (inlineImages ? sanitize(source, { allowRemote, inlineImages }) : null),
    [source, allowRemote, inlineImages],
  );
  useEffect(() => {
    if (sanitized) onRemoteCount?.(sanitized.remoteCount);
  }, [sanitized]);
  useEffect(() => {
    if (!sanitized) return undefined;
    // A new frame each time: the Back button must not step through earlier documents of the frame.
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox");
    frame.setAttribute("referrerpolicy", "no-referrer");
    frame.title = title;
    frame.name = `mail-${++frameCount}`;
    container.current.replaceChildren(frame);
    const form = document.createElement("form");
    form.method = "post";
    form.enctype = "text/plain";
    form.action = allowRemote ? "/frame?remote=1" : "/frame";
    form.target = frame.name;
    form.hidden = true;
    const field = document.createElement("textarea");
    field.name = "html";
    field.value = sanitized.html;
    form.append(field);
    document.body.append(form);
    form.submit();
    form.remove();
    return () => frame.remove();
  }, [sanitized, allowRemote]);
  const height = source.length < TINY_SOURCE ? "tiny" : source.length < SHORT_SOURCE ? "short" : "";
  return html`<div class=${`mail-frame ${height} ${extra}`} ref=${container}></div>`;
}
