// Commands to copy: what somebody runs in a terminal to go on.

const { dev, hostname, url } = document.body.dataset;

/** The public port of a door, out of what it listens on. */
const port = (listening, otherwise) => listening?.[0]?.match?.(/:(\d+)$/)?.[1] || otherwise;

/** Hands a mail in over SMTP; `server` holds the server's facts, once they are known. */
export const mailCommand = (domain, server) =>
  `printf 'Subject: Hi\\r\\n\\r\\nDoes it branch?\\r\\n' |\n  curl -s smtp://${dev ? "127.0.0.1" : hostname}:${port(server?.smtp, dev ? "2525" : "25")} -T - \\\n  --mail-from you@example.com --mail-rcpt hello@${domain}`;

/** A request to the API, with the key from the environment. */
export const apiCommand = (path, body) =>
  `curl -s ${url}${path} \\\n  -H "Authorization: Bearer $MAILKITE_API_KEY"${body ? ` \\\n  -d '${JSON.stringify(body)}'` : ""}`;

/** A webhook receiver that prints what arrives. */
export const RECEIVER = `node -e 'require("http").createServer((q, s) => {
  q.on("data", (d) => console.log(String(d))).on("end", () => s.end("ok"))
}).listen(3000, () => console.log("waiting on http://localhost:3000/hook"))'`;
