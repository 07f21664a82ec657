// Build the shell commands that screens offer for copying.

const { dev, hostname, url } = document.body.dataset;

/** Return the port of a listener's first address. */
const publicPort = (listeners, fallback) => listeners?.[0]?.match?.(/:(\d+)$/)?.[1] || fallback;

/** Send a mail over SMTP; `server` is the answer of `/api/server`, once it has loaded. */
export function mailCommand(domain, server) {
  const host = dev ? "127.0.0.1" : hostname;
  const port = publicPort(server?.smtp, dev ? "2525" : "25");
  return [
    "printf 'Subject: Hi\\r\\n\\r\\nDoes it branch?\\r\\n' |",
    `  curl -s smtp://${host}:${port} -T - \\`,
    `  --mail-from you@example.com --mail-rcpt hello@${domain}`,
  ].join("\n");
}

/** Call the API with the key from the environment. */
export const apiCommand = (path, body) =>
  [
    `curl -s ${url}${path}`,
    '  -H "Authorization: Bearer $MAILKITE_API_KEY"',
    ...(body ? [`  -d '${JSON.stringify(body)}'`] : []),
  ].join(" \\\n");

/** Run a webhook receiver that prints each request. */
export const RECEIVER_COMMAND = `node -e 'require("http").createServer((q, s) => {
  q.on("data", (d) => console.log(String(d))).on("end", () => s.end("ok"))
}).listen(3000, () => console.log("waiting on http://localhost:3000/hook"))'`;
