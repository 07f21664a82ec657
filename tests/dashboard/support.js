// Test support: the real binary, a browser that records everything suspicious, a mail sender, a webhook receiver, a DNS
// server.
import { spawn } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import dgram from "node:dgram";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { afterEach } from "node:test";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BINARY = process.env.MAILKITE || join(ROOT, "target/debug/mailkite");
/** Folder of the screenshots. */
export const PICTURES = join(ROOT, "target/dashboard");
mkdirSync(PICTURES, { recursive: true });
const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

export const until = async (what, probe, ms = 15000) => {
  const end = Date.now() + ms;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function run(args) {
  const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"] });
  const server = { child, output: "" };
  child.stdout.on("data", (data) => {
    server.output += data;
  });
  child.stderr.on("data", (data) => {
    server.output += data;
  });
  server.stop = () =>
    new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.once("exit", resolve);
      child.kill("SIGTERM");
    });
  return server;
}

/** Start `mailkite dev` with the domain inbox.test; `ticket` is the link that signs in. */
export async function dev() {
  const dir = mkdtempSync(join(tmpdir(), "mailkite-dashboard-"));
  const [web, smtp] = [await freePort(), await freePort()];
  const start = async () => {
    const server = run([
      "dev",
      "--data-dir",
      join(dir, "data"),
      "--http",
      `127.0.0.1:${web}`,
      "--smtp",
      `127.0.0.1:${smtp}`,
      "--submission",
      "127.0.0.1:0",
      "--no-sample",
    ]);
    await until(
      "mailkite dev",
      () =>
        /Waiting for mail/.test(server.output) ||
        (server.child.exitCode !== null && Promise.reject(new Error(server.output))),
    );
    return server;
  };
  let running = await start();
  return {
    base: `http://127.0.0.1:${web}`,
    smtp,
    ticket: /http:\/\/\S+#\/ticket\/\w+/.exec(running.output)[0],
    key: /mk_live_\w+/.exec(running.output)[0],
    halt: () => running.stop(),
    resume: async () => {
      running = await start();
    },
    stop: async () => {
      await running.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Start `mailkite serve` on fresh data, without an owner, with its resolver at port `dns`. */
export async function serve(dns, more = "") {
  const dir = mkdtempSync(join(tmpdir(), "mailkite-dashboard-"));
  const [web, smtp] = [await freePort(), await freePort()];
  const config = join(dir, "mailkite.toml");
  writeFileSync(
    config,
    `public_url = "http://127.0.0.1:${web}"
hostname = "mx.kite.test"
data_dir = "${join(dir, "data")}"

[http]
listen = ["127.0.0.1:${web}"]
[smtp]
listen = ["127.0.0.1:${smtp}"]
[dns]
servers = ["127.0.0.1:${dns}"]
[webhook]
allow_localhost = true
[metrics]
listen = "off"
[submission]
listen = []
listen_tls = []
${more}`,
  );
  const server = run(["serve", "--config", config]);
  const token = (
    await until(
      "the setup token",
      () =>
        /setup_token[=":]+\s*"?([0-9a-z]{32})/.exec(server.output.replace(/\x1b\[[0-9;]*m/g, "")) ||
        (server.child.exitCode !== null && Promise.reject(new Error(server.output))),
    )
  )[1];
  const stop = server.stop;
  return {
    ...server,
    base: `http://127.0.0.1:${web}`,
    smtp,
    token,
    stop: async () => {
      await stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** DNS server that answers MX and TXT from a table; other names do not exist. */
export function dns(records) {
  const socket = dgram.createSocket("udp4");
  const name = (text) =>
    Buffer.concat([
      ...text.split(".").map((label) => Buffer.from([label.length, ...Buffer.from(label)])),
      Buffer.from([0]),
    ]);
  socket.on("message", (query, peer) => {
    let at = 12;
    const labels = [];
    while (query[at]) {
      labels.push(query.toString("utf8", at + 1, at + 1 + query[at]));
      at += query[at] + 1;
    }
    const kind = query.readUInt16BE(at + 1);
    const question = query.subarray(12, at + 5);
    const found = (records[labels.join(".").toLowerCase()] || []).filter((one) =>
      kind === 15 ? one.mx : kind === 16 && one.txt,
    );
    const answers = found.map((one) => {
      const data = one.mx
        ? Buffer.concat([Buffer.from([0, 10]), name(one.mx)])
        : Buffer.concat(one.txt.match(/.{1,255}/g).map((part) => Buffer.from([part.length, ...Buffer.from(part)])));
      const head = Buffer.alloc(12);
      head.writeUInt16BE(0xc00c, 0);
      head.writeUInt16BE(kind, 2);
      head.writeUInt16BE(1, 4);
      head.writeUInt32BE(60, 6);
      head.writeUInt16BE(data.length, 10);
      return Buffer.concat([head, data]);
    });
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(records[labels.join(".").toLowerCase()] ? 0x8180 : 0x8183, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(answers.length, 6);
    socket.send(Buffer.concat([head, question, ...answers]), peer.port, peer.address);
  });
  return new Promise((resolve) => {
    socket.bind(0, "127.0.0.1", () => resolve({ port: socket.address().port, records, stop: () => socket.close() }));
  });
}

/** Webhook receiver; `answer` returns its responses. */
export async function receiver(answer = () => ({ status: 200, body: "ok" })) {
  const got = [];
  const server = http.createServer((request, response) => {
    let body = "";
    request
      .on("data", (data) => {
        body += data;
      })
      .on("end", () => {
        got.push({ headers: request.headers, body });
        const { status, headers = {}, body: text = "" } = answer(got.length, body);
        response.writeHead(status, headers).end(text);
      });
  });
  await new Promise((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  return { got, url: `http://127.0.0.1:${server.address().port}/hook`, stop: () => server.close() };
}

/** Google's token endpoint and keys: any code signs `email` in to the client `client`. */
export async function google(email) {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exchanged = [];
  const server = http.createServer((request, response) => {
    let form = "";
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: "https://accounts.google.com", aud: "client", sub: "1", email, email_verified: true };
    const signed = `${part({ alg: "RS256", kid: "k", typ: "JWT" })}.${part({ ...claims, iat: now, exp: now + 300 })}`;
    const token = `${signed}.${sign("sha256", Buffer.from(signed), privateKey).toString("base64url")}`;
    const keys = [{ ...publicKey.export({ format: "jwk" }), kid: "k", alg: "RS256", use: "sig" }];
    response.setHeader("content-type", "application/json");
    request
      .on("data", (data) => {
        form += data;
      })
      .on("end", () => {
        if (request.url !== "/keys") exchanged.push(new URLSearchParams(form));
        response.end(JSON.stringify(request.url === "/keys" ? { keys } : { id_token: token }));
      });
  });
  await new Promise((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const base = `http://127.0.0.1:${server.address().port}`;
  const config = `[auth.google]
client_id = "client"
client_secret = "secret"
token_url = "${base}/token"
jwks_url = "${base}/keys"
`;
  return { config, exchanged, stop: () => server.close() };
}

/** Reverse proxy under another name and port, with HTTP/1.1 to the server. */
export async function reverseProxy(base) {
  const server = http.createServer((request, response) => {
    const onward = http.request(base + request.url, { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { base: `http://localhost:${server.address().port}`, stop };
}

/** Mail host that refuses mail for grace and accepts all other; `got` holds what it accepted. */
export function mailHost() {
  const got = [];
  const server = net.createServer((socket) => {
    let data = false;
    let rest = "";
    let lines = [];
    const say = (line) => socket.write(`${line}\r\n`);
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      rest += bytes;
      for (let end = rest.indexOf("\r\n"); end >= 0; end = rest.indexOf("\r\n")) {
        const line = rest.slice(0, end);
        rest = rest.slice(end + 2);
        if (data) {
          if (line === ".") {
            data = false;
            got.push(lines.join("\r\n"));
            lines = [];
            say("250 2.0.0 taken");
          } else lines.push(line);
        } else if (/^EHLO/i.test(line)) say("250-relay.test\r\n250 8BITMIME");
        else if (/^RCPT TO:<grace@/i.test(line)) say("550 5.1.1 nobody of that name");
        else if (/^DATA/i.test(line)) {
          data = true;
          say("354 go on");
        } else if (/^QUIT/i.test(line)) socket.end("221 2.0.0 bye\r\n");
        else say("250 2.1.0 fine");
      }
    });
    say("220 relay.test ESMTP");
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve({ got, port: server.address().port, stop: () => server.close() }));
  });
}

/** Send one mail over SMTP; LF becomes CRLF. */
export function mail(smtp, raw, { from = "ada@example.com", to = "hello@inbox.test" } = {}) {
  const data = raw.replace(/\r?\n/g, "\r\n").replace(/^\./gm, "..");
  const lines = [
    `EHLO tests.example\r\n`,
    `MAIL FROM:<${from}>\r\n`,
    `RCPT TO:<${to}>\r\n`,
    "DATA\r\n",
    `${data}\r\n.\r\n`,
    "QUIT\r\n",
  ];
  return new Promise((resolve, reject) => {
    const socket = net.connect(smtp, "127.0.0.1");
    let rest = "",
      last = "";
    socket.on("error", reject).on("close", () => resolve(/msg_\w+/.exec(last)?.[0]));
    socket.on("data", (bytes) => {
      rest += bytes;
      let end;
      while ((end = rest.indexOf("\r\n")) >= 0) {
        const line = rest.slice(0, end);
        rest = rest.slice(end + 2);
        if (/^\d{3}-/.test(line)) continue;
        if (/^[45]/.test(line)) {
          socket.destroy();
          reject(new Error(line));
          return;
        }
        if (/msg_/.test(line)) last = line;
        if (lines.length) socket.write(lines.shift());
      }
    });
  });
}

export const plainMail = (subject, body = "Does it branch?", from = "Ada Lovelace <ada@example.com>") =>
  [
    `From: ${from}`,
    "To: Hello <hello@inbox.test>",
    `Subject: ${subject}`,
    "Date: Tue, 28 Jul 2026 00:00:00 +0000",
    "",
    `${body}\n`,
  ].join("\n");

/** A mail whose only body is this HTML. */
export const htmlMail = (subject, html) =>
  [
    "From: mallory@example.com",
    "To: hello@inbox.test",
    `Subject: ${subject}`,
    "MIME-Version: 1.0",
    "Content-Type: text/html; charset=utf-8",
    "Content-Transfer-Encoding: base64",
    "",
    `${Buffer.from(html)
      .toString("base64")
      .match(/.{1,76}/g)
      .join("\n")}\n`,
  ].join("\n");

export async function call(server, method, path, body) {
  const response = await fetch(server.base + path, {
    method,
    headers: server.key ? { authorization: `Bearer ${server.key}` } : {},
    body: body && JSON.stringify(body),
  });
  return response.json();
}

/** Pending requests of each page. */
const loading = new WeakMap();
const open = new Set();
// Close the browsers of failed tests as well.
afterEach(async () => {
  for (const browser of open) await browser.close();
  open.clear();
});

/** Open a browser for this server. `troubles` is empty at the end of a good test. */
export async function browse(server, { args = [], ...options } = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...args,
    ],
  });
  open.add(browser);
  const context = await browser.newContext({
    viewport: { width: 1360, height: 860 },
    reducedMotion: "reduce",
    locale: "en-GB",
    timezoneId: "UTC",
    ...options,
  });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  const troubles = [],
    requests = [],
    expected = [];
  context.on("page", (other) => troubles.push(`a window was opened: ${other.url()}`));
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    const at = message.location().url || "";
    if (expected.some((pattern) => pattern.test(`${message.text()} ${at}`))) return;
    troubles.push(`${message.type()}: ${message.text()} (${at})`);
  });
  page.on("pageerror", (error) => troubles.push(`page error: ${error.stack}`));
  page.on("dialog", (dialog) => {
    troubles.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  const busy = new Set();
  loading.set(page, busy);
  page.on("requestfinished", (request) => busy.delete(request));
  page.on("requestfailed", (request) => busy.delete(request));
  page.on("request", (request) => {
    requests.push(request.url());
    // The event stream never ends.
    if (!request.url().endsWith("/v1/realtime")) busy.add(request);
    if (!request.url().startsWith(server.base) && !/^(data|blob|about):/.test(request.url()))
      troubles.push(`a request elsewhere: ${request.url()}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    addEventListener("securitypolicyviolation", (event) =>
      globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`),
    );
  });
  const check = async () => {
    const violations = await page.evaluate(() => globalThis.violations || []);
    const pwned = await page.evaluate(() => globalThis.pwned);
    return [
      ...troubles,
      ...violations.map((one) => `violation: ${one}`),
      ...(pwned ? [`the canary was set: ${pwned}`] : []),
    ];
  };
  const axe = async () => {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() =>
      globalThis.axe.run(document, {
        iframes: false,
        resultTypes: ["violations"],
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      }),
    );
    return violations.map(
      (one) =>
        `${one.id}: ${one.nodes
          .slice(0, 4)
          .map((node) => `${node.target.join(" ")} ${node.failureSummary.split("\n")[1] || ""}`)
          .join(" | ")}`,
    );
  };
  const screen = async (address) => {
    await page.evaluate((hash) => {
      location.hash = hash;
    }, address);
    await settled(page);
  };
  return { browser, context, page, requests, troubles, expected, check, axe, screen, close: () => browser.close() };
}

/** Open a browser that is signed in by the link that `mailkite dev` prints. */
export async function signedIn(server, options) {
  const view = await browse(server, options);
  if (server.session)
    await view.page.addInitScript((token) => {
      if (globalThis === globalThis.top) localStorage.setItem("mailkite.session", token);
    }, server.session);
  await view.page.goto(server.session ? `${server.base}/` : server.ticket);
  await view.page.waitForSelector(".shell");
  server.session = await view.page.evaluate(() => localStorage.getItem("mailkite.session"));
  return view;
}

/** Wait until nothing loads any more and all data is rendered. */
export async function settled(page) {
  await page.waitForFunction(
    () => !document.querySelector(".skeleton, .splash") && document.querySelector("h1, h2"),
    undefined,
    { timeout: 15000 },
  );
  const busy = loading.get(page);
  await until(`an end of loading ${[...busy].map((one) => one.url())}`, async () => {
    if (busy.size) return false;
    await drawn(page);
    return busy.size === 0;
  });
  for (const frame of page.frames().filter((one) => one !== page.mainFrame())) {
    await until("the frame of a mail", () => frame.isDetached() || frame.url().includes("/frame"));
    if (!frame.isDetached()) await frame.waitForLoadState();
  }
}

/** Wait for two animation frames. */
export const drawn = (page) =>
  page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve()))));
