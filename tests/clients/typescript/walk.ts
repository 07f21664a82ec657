// README's walk by the functions that were generated of the server's OpenAPI document, and by nothing else.
//
// walk.js HTTP-URL SMTP-HOST:PORT
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { createInterface } from "node:readline";
import { createClient } from "./client/client/index.js";
import * as api from "./client/sdk.gen.js";

type Result<T> = { data?: T; error?: unknown; response?: Response };

/** What an answer of this status holds. */
function done<T>(result: Result<T>, status: number): NonNullable<T> {
  assert.equal(result.response?.status, status, JSON.stringify(result.error));
  assert.ok(result.data);
  return result.data;
}

/** Looks at the error that an answer holds. */
function refused(result: Result<unknown> & { error?: { code: string } }, status: number, code: string) {
  assert.equal(result.response?.status, status);
  assert.equal(result.error?.code, code);
}

/** Hands a mail in by SMTP. */
async function mail(address: string, to: string, text: string[]) {
  const [host, port] = address.split(":");
  const socket = connect(Number(port), host);
  const replies = createInterface({ input: socket })[Symbol.asyncIterator]();
  const said = async (code: string) => {
    for (;;) {
      const line = String((await replies.next()).value);
      assert.ok(line.startsWith(code), line);
      if (line[3] === " ") return;
    }
  };
  await said("220");
  for (const [command, code] of [
    ["EHLO client.example", "250"],
    ["MAIL FROM:<ada@example.com>", "250"],
    [`RCPT TO:<${to}>`, "250"],
    ["DATA", "354"],
    [[...text, "."].join("\r\n"), "250"],
    ["QUIT", "221"],
  ] as const) {
    socket.write(`${command}\r\n`);
    await said(code);
  }
  socket.end();
}

const [baseUrl, smtp] = process.argv.slice(2);
assert.ok(baseUrl && smtp);

const posted: string[] = [];
const hook = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  response.end(() => {
    posted.push(body);
    hook.emit("posted");
  });
}).listen(0, "127.0.0.1");
await once(hook, "listening");
const came = async (count: number) => {
  while (posted.length < count) await once(hook, "posted", { signal: AbortSignal.timeout(30_000) });
};
const url = `http://127.0.0.1:${(hook.address() as AddressInfo).port}/hook`;

const anybody = createClient({ baseUrl });
assert.equal(done(await api.getHealth({ client: anybody }), 200).ok, true);

// An account and its key.
const login = { email: "you@example.com", password: "correct horse battery" };
refused(await api.logIn({ client: anybody, body: login }), 401, "bad_login");
const made = done(await api.signUp({ client: anybody, body: login }), 201);
assert.equal(made.user.email, login.email);
const session = createClient({ baseUrl, auth: made.token });
const { key } = done(await api.getApiKey({ client: session }), 200);
const client = createClient({ baseUrl, auth: key });
refused(await api.listSessions({ client }), 403, "session_required");

// A domain, with the DNS records to publish; then the check.
const added = done(await api.createDomain({ client, body: { domain: "acme.test" } }), 201);
assert.deepEqual([added.domain.status, added.dns[0]?.type], ["pending", "MX"]);
const id = "acme.test";
assert.equal(done(await api.verifyDomain({ client, path: { id } }), 200).status, "verified");

// Where its mail goes.
const webhook = done(await api.setWebhook({ client, path: { id }, body: { url } }), 200);
assert.match(webhook.signingSecret, /^whsec_/);

// A mail, and what arrived.
await mail(smtp, "you@acme.test", ["Subject: Hi", "", "Does it branch?"]);
await came(1);
const [message, ...more] = done(await api.listMessages({ client, query: { direction: "inbound" } }), 200);
assert.ok(message && more.length === 0);
const detail = done(await api.getMessage({ client, path: { id: message.id } }), 200);
assert.deepEqual([detail.message.subject, detail.message.text_body?.trim()], ["Hi", "Does it branch?"]);

// Its delivery: once more now, and every attempt.
const delivery = detail.deliveries[0];
assert.ok(delivery);
const end = Date.now() + 30_000;
const delivered = async () => done(await api.listDeliveries({ client, query: { status: "delivered" } }), 200).deliveries;
while (!(await delivered()).some((one) => one.id === delivery.id)) assert.ok(Date.now() < end, "never delivered");
const again = done(await api.retryDelivery({ client, path: { id: delivery.id } }), 200);
assert.deepEqual([again.ok, again.status], [true, 200]);
await came(2);
assert.equal(posted[0], posted[1]);
const attempts = done(await api.listDeliveryAttempts({ client, path: { id: delivery.id } }), 200);
assert.deepEqual(
  attempts.map((one) => [one.attempt, one.manual, one.status_code]),
  [
    [2, true, 200],
    [1, false, 200],
  ],
);

// A message, and once more with the same key.
const body = { from: "Acme <hello@acme.test>", to: "ada@example.com", subject: "Hi", text: "It branches." };
const headers = { "Idempotency-Key": "order-1017" };
const [first, second] = [await api.send({ client, body, headers }), await api.send({ client, body, headers })];
assert.equal(done(first, 202).id, done(second, 202).id);
assert.equal(second.response?.headers.get("idempotent-replayed"), "true");

// A built-in template, tomorrow; and not after all.
const later = { from: "hello@acme.test", to: ["ada@example.com"], templateId: "base_welcome", scheduledAt: "tomorrow" };
const scheduled = done(await api.send({ client, body: { ...later, templateData: { name: "Ada" } } }), 202);
const canceled = done(await api.cancelScheduled({ client, path: { id: scheduled.id } }), 200);
assert.equal(canceled.status, "canceled");

// A file up, and down by its signed link.
const file = { content: "SGVsbG8=", filename: "hello.txt", contentType: "text/plain" };
const uploaded = new URL(done(await api.uploadAttachment({ client, body: file }), 201).url);
const [, , mid, idx] = uploaded.pathname.split("/");
const { exp, sig } = Object.fromEntries(uploaded.searchParams);
assert.ok(mid && idx && exp && sig);
const link = { client: anybody, path: { mid, idx }, parseAs: "text" } as const;
assert.equal(done<unknown>(await api.downloadAttachment({ ...link, query: { exp, sig } }), 200), "Hello");
const part = await api.downloadAttachment({ ...link, query: { exp, sig }, headers: { Range: "bytes=1-2" } });
assert.equal(done<unknown>(part, 206), "el");

// What a client of the document may not say does not compile.
// @ts-expect-error a domain is needed
refused(await api.createDomain({ client, body: {} }), 400, "bad_domain");
// @ts-expect-error no such direction
refused(await api.listMessages({ client, query: { direction: "sideways" } }), 400, "bad_query");

hook.close();
hook.closeAllConnections();
