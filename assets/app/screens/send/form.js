// The data of the Send form: empty, as the API takes it, with files and placeholders.

/** Convert the form to the body of `POST /v1/send`. */
export function toRequestBody(form, files) {
  // Commas and semicolons separate addresses, except within quotes.
  const list = (text) => {
    const all = (text.match(/(?:"(?:\\.|[^"\\])*"|[^,;\n])+/g) || []).map((address) => address.trim()).filter(Boolean);
    return all.length > 1 ? all : all[0];
  };
  const data = Object.fromEntries(form.data.filter(([key]) => key.trim()).map(([key, value]) => [key.trim(), value]));
  const body = {
    from: form.from.trim(),
    to: list(form.to) || "",
    cc: list(form.cc),
    bcc: list(form.bcc),
    replyTo: list(form.replyTo),
    subject: form.subject || undefined,
    text: form.text || undefined,
    html: form.html || undefined,
    inReplyTo: form.inReplyTo || undefined,
    templateId: form.templateId || undefined,
    templateData: form.templateId && Object.keys(data).length ? data : undefined,
    scheduledAt: form.when === "later" && form.at ? new Date(form.at).toISOString() : undefined,
    attachments: files.length
      ? files.map(({ filename, contentType, content }) => ({ filename, contentType, content }))
      : undefined,
  };
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined));
}

// Browsers have no `randomUUID` over plain HTTP.
export const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

export const readFile = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () =>
      resolve({
        filename: file.name,
        contentType: file.type || "application/octet-stream",
        size: file.size,
        content: reader.result.slice(reader.result.indexOf(",") + 1),
      });
    reader.onerror = () => reject(new Error(`${file.name} could not be read.`));
    reader.readAsDataURL(file);
  });

/** Return the names between braces, each once. */
export const placeholders = (...texts) => [
  ...new Set(
    texts
      .join(" ")
      .match(/\{\{\s*[\w.-]{1,64}\s*\}\}/g)
      ?.map((placeholder) => placeholder.replace(/[{}\s]/g, "")) || [],
  ),
];

/** Return an empty form, with values from the URL filled in. */
export const emptyForm = (initial) => ({
  from: initial.from || "",
  to: initial.to || "",
  cc: "",
  bcc: "",
  replyTo: "",
  subject: initial.subject || "",
  text: "",
  html: "",
  templateId: initial.templateId || "",
  data: [],
  when: "now",
  at: "",
  inReplyTo: initial.inReplyTo || "",
  files: [],
});

const escapeHtml = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** Fill in a template as the server does. */
export const fillTemplate = (text, data) =>
  text.replace(/\{\{\s*([\w.-]{1,64})\s*\}\}/g, (whole, name) => {
    const entry = data.find(([key]) => key === name);
    return entry ? (entry[1] ? escapeHtml(entry[1]) : `{{${name}}}`) : whole;
  });
