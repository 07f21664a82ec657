// Messages: live updates, search, keyboard, endless scrolling; all forms of a message; retried deliveries.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { dev, receiver, signedIn, settled, mail, plainMail, call, until } from "./support.js";

let server, app, answer;
before(async () => {
  server = await dev();
  answer = { status: 200, body: "ok" };
  app = await receiver(() => answer);
  await call(server, "PUT", "/api/domains/inbox.test/webhook", { url: app.url });
});
after(async () => {
  await server.stop();
  app.stop();
});

const rowOf = (page, text) => page.locator(".row", { hasText: text });

test("new mail slides in, and its delivery shows, without anybody reloading", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/messages");
  await page.waitForSelector("text=No mail yet");
  await mail(server.smtp, plainMail("The first one"));
  await rowOf(page, "The first one").waitFor();
  // By the event stream, not by polling.
  await page.locator(".live.is-live:visible").waitFor();
  await mail(server.smtp, plainMail("The second one"));
  await rowOf(page, "The second one").waitFor();
  await rowOf(page, "The second one").getByText("200").waitFor();
  assert.equal(await page.locator(".row").count(), 2);
  assert.match(await page.locator(".row").first().textContent(), /The second one/);
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("a failing endpoint: the timeline tells why, and a retry by hand delivers", async () => {
  const view = await signedIn(server);
  const { page } = view;
  answer = { status: 500, headers: { "x-why": "maintenance" }, body: '{"error":"database is down"}' };
  const id = await mail(server.smtp, plainMail("Will fail at first"));
  await view.screen(`#/messages/${id}`);
  await page.getByText("Retrying").first().waitFor();
  await page.locator(".attempt summary").first().click();
  await page.getByText("database is down").first().waitFor();
  await page.getByText("x-why: maintenance").first().waitFor();
  await page.getByText("x-mailkite-signature:").first().waitFor();
  assert.deepEqual(await view.axe(), []);
  answer = { status: 200, body: "ok" };
  await page.getByRole("button", { name: "Retry now" }).click();
  await page.getByText("Delivered: your endpoint answered 200.").waitFor();
  await page.locator(".event-head", { hasText: "Delivered" }).waitFor();
  assert.ok(app.got.some((one) => one.headers["x-mailkite-attempt"] !== "1"));
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("every form of a message, its attachment, and deleting it", async () => {
  const view = await signedIn(server);
  const { page } = view;
  const id = await mail(
    server.smtp,
    `From: Grace <grace@example.com>
To: hello@inbox.test
Subject: =?utf-8?B?8J+qgSBLaXRl?=
X-Long: ${"a very long header ".repeat(200)}
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: multipart/related; boundary=r

--r
Content-Type: text/html; charset=utf-8

<p style="color: rgb(1, 2, 3)" id="styled">Styled
<img id="inline" src="cid:dot"><img src="https://canary.invalid/pixel.gif"></p>
<p id="prose" title="on style" onclick="x()">Only one style, on time = now</p>
--r
Content-Type: image/gif
Content-ID: <dot>
Content-Disposition: inline; filename=dot.gif
Content-Transfer-Encoding: base64

R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7
--r--
--b
Content-Type: text/csv
Content-Disposition: attachment; filename="pioneers.csv"

name,year
Ada,1843
--b--
`,
  );
  await view.screen(`#/messages/${id}`);
  const frame = page.frameLocator(".mail-frame iframe");
  await frame.locator("#styled").waitFor();
  assert.equal(
    await frame.locator("#styled").evaluate((element) => getComputedStyle(element).color),
    "rgb(1, 2, 3)",
    "its styles show",
  );
  assert.equal(await frame.locator("#prose").textContent(), "Only one style, on time = now");
  assert.equal(
    await frame.locator("#prose").evaluate((element) => [...element.attributes].map((one) => one.name).join()),
    "id,title",
  );
  assert.equal(await frame.locator("#prose").getAttribute("title"), "on style");
  assert.ok(
    await frame.locator("#inline").evaluate((element) => element.complete && element.naturalWidth === 1),
    "its inline picture shows",
  );
  assert.match(await page.locator(".remote-bar").textContent(), /1 remote picture/);
  assert.equal(view.requests.filter((url) => url.includes("canary.invalid")).length, 0);
  assert.deepEqual(await view.axe(), []);

  // Loaded only once the reader asks for it.
  await page.route("https://canary.invalid/**", (route) =>
    route.fulfill({
      contentType: "image/gif",
      body: Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"),
    }),
  );
  await page.getByRole("button", { name: "Load remote content" }).click();
  await until("the remote picture", () => view.requests.some((url) => url.includes("canary.invalid")));
  assert.equal(await page.locator(".remote-bar").count(), 0);
  const asked = view.troubles.findIndex((one) => one.includes("canary.invalid"));
  view.troubles.splice(asked, 1);

  await page.getByRole("tab", { name: "Headers" }).click();
  await page.getByLabel("Find in headers").fill("x-long");
  assert.equal(await page.locator(".headers dl > div").count(), 1);
  await page.getByRole("tab", { name: "Headers" }).press("ArrowRight");
  await page.getByText("boundary=r").first().waitFor();
  const [saved] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Download .eml" }).click(),
  ]);
  assert.equal(saved.suggestedFilename(), `${id}.eml`);
  const [file] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("link", { name: "Download pioneers.csv" }).click(),
  ]);
  assert.equal(file.suggestedFilename(), "pioneers.csv");
  await page.getByRole("button", { name: "SPF" }).click();
  await page.getByText("may this server send").waitFor();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("Deleted").waitFor();
  await until("the address", () => page.url().endsWith("#/messages"));
  assert.equal((await call(server, "GET", `/api/messages/${id}`)).code, "not_found");
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("the overview counts along, in each range", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/overview");
  await page.locator(".live.is-live:visible").waitFor();
  const received = page.locator(".stat", { hasText: "Received" }).locator("dd").first();
  for (const [button, words] of [
    ["Week", "in the last 7 days"],
    ["Day", "in the last 24 hours"],
    ["Hour", "in the last hour"],
  ]) {
    await page.getByRole("button", { name: button }).click();
    await page.locator(".stat", { hasText: "Received" }).getByText(words).waitFor();
  }
  await page.locator(".chart-plot canvas").waitFor();
  const before = Number(await received.textContent());
  await mail(server.smtp, plainMail("One more to count"));
  await until("the count", async () => Number(await received.textContent()) === before + 1);
  await page.locator(".recent", { hasText: "One more to count" }).waitFor();
  assert.deepEqual(await view.check(), []);
});

test("a sender is blocked, unblocked by undo, answered", async () => {
  const view = await signedIn(server);
  const { page } = view;
  const asked = plainMail("Please answer", "Well?", "Mallory <mallory@example.com>");
  const id = await mail(server.smtp, `Message-ID: <asked@example.com>\n${asked}`);
  await view.screen(`#/messages/${id}`);
  const blocked = async () => (await call(server, "GET", "/api/blocked-senders")).length;
  await page.getByRole("button", { name: "Block sender" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.equal(await blocked(), 0);
  await page.getByRole("button", { name: "Block sender" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Block" }).click();
  await page.getByText("mallory@example.com is blocked").waitFor();
  assert.equal(await blocked(), 1);
  await page.getByRole("button", { name: "Undo" }).click();
  await until("unblocking", async () => (await blocked()) === 0);
  await page.getByRole("link", { name: "Reply" }).click();
  await page.locator("h1", { hasText: "Send" }).waitFor();
  assert.equal(await page.getByLabel("To", { exact: true }).inputValue(), "mallory@example.com");
  assert.equal(await page.getByLabel("Subject").inputValue(), "Re: Please answer");
  await page.getByLabel("Text", { exact: true }).fill("Well.");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("Accepted and stored").waitFor();
  const [reply] = await call(server, "GET", "/api/messages?direction=outbound");
  const { message } = await call(server, "GET", `/api/messages/${reply.id}`);
  assert.match(message.headers_json, /"in-reply-to":"<asked@example.com>"/i);
  assert.deepEqual(await view.check(), []);
});

test("hundreds of messages: endless scrolling, few elements, instant search, filters", async () => {
  for (let n = 0; n < 260; n++) await mail(server.smtp, plainMail(`Order ${1000 + n} confirmed`));
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/messages");
  await rowOf(page, "Order 1259").waitFor();
  const list = page.locator("[data-list]");
  for (let step = 0; step < 40; step++) {
    await list.evaluate((element) => {
      element.scrollTop = element.scrollHeight;
    });
    await settled(page);
    assert.ok((await page.locator(".row").count()) < 60, "only what is in view is drawn");
    if (await rowOf(page, "The first one").count()) break;
  }
  await rowOf(page, "The first one").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("order 1077");
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 1);
  await rowOf(page, "Order 1077").waitFor();
  assert.match(page.url(), /search=order\+1077/);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelectorAll(".row").length > 5);
  await page.getByLabel("State").selectOption("bounced");
  await page.getByText("No matches").waitFor();
  await page.getByRole("button", { name: "Clear" }).click();
  await rowOf(page, "Order 1259").waitFor();
  assert.deepEqual(await view.axe(), []);
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("by keyboard: down, open, next, back", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/messages");
  await rowOf(page, "Order 1259").waitFor();
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.waitForFunction(() => document.activeElement.dataset.row === "1");
  await page.keyboard.press("Enter");
  await page.locator(".message h2", { hasText: "Order 1258" }).waitFor();
  await page.keyboard.press("j");
  await page.locator(".message h2", { hasText: "Order 1257" }).waitFor();
  await page.keyboard.press("k");
  await page.locator(".message h2", { hasText: "Order 1258" }).waitFor();
  await page.keyboard.press("Escape");
  await until("the list", async () => (await page.locator(".message").count()) === 0);
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.locator("h1", { hasText: "Routes" }).waitFor();
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await page.keyboard.press("Escape");
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("a server that restarts: the page says so, and comes back by itself", async () => {
  const view = await signedIn(server);
  const { page } = view;
  view.expected.push(/ERR_/, /502/);
  await view.screen("#/suppressions");
  await page.context().setOffline(true);
  await page.getByLabel("Address").first().fill("bob@example.com");
  await page.getByRole("button", { name: "Add" }).first().click();
  await page.getByText("The server does not answer").waitFor();
  await page.context().setOffline(false);
  await page.getByRole("button", { name: "Add" }).first().click();
  await page.locator("td", { hasText: "bob@example.com" }).waitFor();
  assert.deepEqual(await view.check(), []);
  await view.close();
});
