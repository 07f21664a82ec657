// Every screen and its actions; each is accessible, violates no policy and fits a phone. Screenshots of all are kept.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { dev, receiver, signedIn, settled, mail, plainMail, call, until, browse, PICTURES } from "./support.js";

const LONG = "a-rather-long-domain-name-for-a-department-of-something.international.test";
const encodedWord = (text) => `=?utf-8?B?${Buffer.from(text).toString("base64")}?=`;

let server, app, htmlId, hugeId;
before(async () => {
  server = await dev();
  app = await receiver((_count, body) =>
    /first actual case/.test(body) ? { status: 503, body: "busy" } : { status: 200, body: "ok" },
  );
  await call(server, "PUT", "/api/domains/inbox.test/webhook", { url: app.url });
  await call(server, "POST", "/api/domains/inbox.test/verify");
  await call(server, "POST", "/api/domains", { domain: "acme.test" });
  const people = [
    ["Ada Lovelace", "ada@example.com", "Engine question"],
    ["Grace Hopper", "grace@example.com", "Re: The first actual case of a bug being found"],
    ["ליאור כהן", "lior@example.com", "שלום: חשבונית 2044"],
    ["Katherine Johnson", "kj@example.com", "Trajectories, checked by hand 🚀"],
    ["Billing", "billing@supplier.example", "Invoice 2044"],
    [
      "Radia Perlman",
      "radia@example.com",
      "I think that I shall never see a graph more lovely than a tree, " +
        "and a subject that goes on for rather longer than any row has room",
    ],
  ];
  for (let n = 0; n < 24; n++) {
    const [name, address, subject] = people[n % people.length];
    await mail(
      server.smtp,
      [
        `From: ${encodedWord(name)} <${address}>`,
        "To: hello@inbox.test",
        `Subject: ${encodedWord(n < 6 ? subject : `${subject} (${n})`)}`,
        "",
        "Does it branch?\n",
      ].join("\n"),
      { from: address },
    );
  }
  htmlId = await mail(
    server.smtp,
    [
      'From: "Kite Works" <orders@kite.example>',
      "To: Hello <hello@inbox.test>",
      "Subject: Your order 1017 is on its way",
      "MIME-Version: 1.0",
      "Content-Type: multipart/alternative; boundary=b",
      "",
      "--b",
      "Content-Type: text/plain",
      "",
      "Your order is on its way.",
      "--b",
      "Content-Type: text/html",
      "",
      [
        '<div style="max-width:520px;margin:auto;font-family:Georgia,serif">',
        '<h1 style="color:#ad4318;font-weight:normal">Your kite is on its way</h1>',
        "<p>Dear Ada,</p>",
        "<p>we have handed your order to the wind. It should land by <b>Thursday</b>.</p>",
        '<table style="width:100%;border-collapse:collapse">',
        '<tr><td style="border-top:1px solid #ddd;padding:8px 0">Delta kite, red</td>',
        '<td style="border-top:1px solid #ddd;text-align:right">€ 49.00</td></tr>',
        '<tr><td style="border-top:1px solid #ddd;padding:8px 0">Line, 50 m</td>',
        '<td style="border-top:1px solid #ddd;text-align:right">€ 9.00</td></tr></table>',
        "<p>",
        '<a href="https://kite.example/track" ' +
          'style="display:inline-block;background:#ad4318;color:#fff;padding:10px 18px;' +
          'border-radius:6px;text-decoration:none">Track it</a></p>',
        '<img src="https://kite.example/pixel.gif" width="1" height="1"></div>',
      ].join(""),
      "--b--\n",
    ].join("\n"),
  );
  hugeId = await mail(
    server.smtp,
    [
      "From: Ada <ada@example.com>",
      "To: hello@inbox.test",
      `Subject: ${"Supercalifragilisticexpialidocious".repeat(20)}`,
      `X-Huge: ${"a long value ".repeat(300)}`,
      "",
      `${"x".repeat(900)}\n`,
    ].join("\n"),
  );
  await call(server, "POST", "/api/domains", { domain: LONG });
  for (const to of ["grace@example.com", "radia@example.com"])
    await call(server, "POST", "/v1/send", {
      from: "Acme <hello@inbox.test>",
      to,
      subject: "It branches",
      text: "Yes.",
      html: "<p>Yes.</p>",
    });
  await call(server, "POST", "/api/contacts/suppressions", { email: "gone@example.com", reason: "bounce" });
  await call(server, "POST", "/api/routes", { match: "support@inbox.test", action: "webhook", destination: app.url });
});
after(async () => {
  await server.stop();
  app.stop();
});

const SCREENS = () => ({
  overview: "#/overview",
  messages: "#/messages",
  message: `#/messages/${htmlId}`,
  send: "#/send",
  domains: "#/domains",
  domain: "#/domains/inbox.test",
  pending: "#/domains/acme.test",
  routes: "#/routes?address=support@inbox.test",
  deliveries: "#/deliveries",
  templates: "#/templates",
  template: "#/templates/base_receipt",
  suppressions: "#/suppressions",
  keys: "#/keys",
  settings: "#/settings",
  huge: `#/messages/${hugeId}`,
  long: `#/domains/${LONG}`,
  absent: "#/domains/absent.test",
  nothing: "#/deliveries?since=4000000000000",
});
/** Dialogs: the screen, and the button that opens it. */
const DIALOGS = {
  "add-domain": ["#/domains", "Add domain"],
  "delete-domain": ["#/domains/acme.test", "Delete"],
  "new-route": ["#/routes", "New route"],
  "edit-route": ["#/routes", "Edit"],
  replay: ["#/routes", "Replay"],
  "new-key": ["#/keys", "New key"],
  "rotate-key": ["#/keys", "Replace"],
};

const SIZES = {
  desktop: { width: 1360, height: 860 },
  tablet: { width: 820, height: 1100 },
  phone: { width: 390, height: 844 },
};
for (const [form, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of form === "tablet" ? ["light"] : ["light", "dark"]) {
    test(`every screen, ${form}, ${colorScheme}: accessible, within its width, no violation`, async () => {
      const view = await signedIn(server, { viewport, colorScheme });
      await view.page.evaluate(() => localStorage.setItem("mailkite.started", "hidden"));
      await view.page.reload();
      const wrong = [];
      view.expected.push(/404.*absent/);
      const look = async (name) => {
        await view.page.screenshot({ path: join(PICTURES, `${name}-${form}-${colorScheme}.png`) });
        for (const one of await view.axe()) wrong.push(`${name}: ${one}`);
        const wide = await view.page.evaluate(() =>
          Math.max(
            ...[document.documentElement, ...document.querySelectorAll("main, .messages-open, .dialog-body")].map(
              (element) => element.scrollWidth - element.clientWidth,
            ),
          ),
        );
        if (wide > 0) wrong.push(`${name}: ${wide} px too wide`);
      };
      for (const [name, address] of Object.entries(SCREENS())) {
        await view.screen(address);
        await look(name);
      }
      for (const [name, [address, button]] of Object.entries(DIALOGS)) {
        await view.screen(address);
        await view.page.getByRole("button", { name: button, exact: true }).first().click();
        await view.page.getByRole("dialog").waitFor();
        await settled(view.page);
        await look(name);
        await view.page.keyboard.press("Escape");
        await view.page.getByRole("dialog").waitFor({ state: "detached" });
      }
      if (form === "phone") {
        await view.page.getByRole("button", { name: "Menu" }).click();
        await view.page.getByRole("link", { name: "Settings" }).click();
        await view.page.locator("h1", { hasText: "Settings" }).waitFor();
      }
      assert.deepEqual(wrong, []);
      assert.deepEqual(await view.check(), []);
      await view.close();
      const gate = await browse(server, { viewport, colorScheme });
      await gate.page.goto(server.base);
      await gate.page.waitForSelector("h1");
      await gate.page.screenshot({ path: join(PICTURES, `gate-${form}-${colorScheme}.png`) });
      assert.deepEqual(await gate.axe(), []);
      assert.deepEqual(await gate.check(), []);
      await gate.close();
    });
  }
}

test("the first load is small and quick", async () => {
  await (await signedIn(server)).close();
  const view = await browse(server);
  const { page } = view;
  const client = await view.context.newCDPSession(page);
  await client.send("Network.enable");
  let bytes = 0;
  client.on("Network.loadingFinished", (event) => {
    bytes += event.encodedDataLength;
  });
  await page.addInitScript((token) => {
    localStorage.setItem("mailkite.session", token);
    const watch = new MutationObserver(() => {
      if (!document.querySelector("h1")) return;
      globalThis.usable = performance.now();
      watch.disconnect();
    });
    watch.observe(document, { childList: true, subtree: true });
  }, server.session);
  const usable = async () => {
    await page.locator("h1", { hasText: "Overview" }).waitFor();
    await settled(page);
    return page.evaluate(() => Math.round(globalThis.usable));
  };
  await page.goto(server.base);
  const cold = await usable();
  assert.ok(bytes < 100_000, `${bytes} bytes`);
  await page.reload();
  console.log(`first load: ${bytes} bytes, Overview after ${cold} ms, again after ${await usable()} ms`);
});

test("domains: add, records to copy, check, retention, events, delete", async () => {
  const view = await signedIn(server);
  const { page } = view;
  view.expected.push(/400.*domains/, /409.*domains/);
  await view.screen("#/domains");
  await page.getByRole("button", { name: "Add domain" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Domain").fill("not a domain");
  await dialog.getByRole("button", { name: "Add domain" }).click();
  await dialog.locator(".hint.bad").waitFor();
  await dialog.getByLabel("Domain").fill("kite.test");
  await dialog.getByRole("button", { name: "Add domain" }).click();
  await page.locator(".record").first().waitFor();
  await page.getByText("Not verified").first().waitFor();
  await page.locator(".record-value").nth(1).getByRole("button", { name: "Copy" }).click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^v=spf1 /);
  await page.getByLabel("Your DNS provider").selectOption("cloudflare");
  assert.equal(await page.locator(".record").first().locator("dd").nth(1).textContent(), "@");
  await page.getByRole("button", { name: "Copy all as zone file" }).click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /kite\.test\.\s+MX\s+10 /);
  await page.getByRole("button", { name: "Check now" }).click();
  await page.getByText("All records were found.").waitFor();
  await page.getByLabel("Webhook URL").fill(app.url);
  await page.getByRole("button", { name: "Set" }).click();
  const secret = page.locator("#webhook .facts code").first();
  await page.getByRole("button", { name: "Show the signing secret" }).click();
  await until("the secret", async () => /^whsec_/.test(await secret.textContent()));
  const before = await secret.textContent();
  await page.getByRole("button", { name: "Rotate", exact: true }).click();
  await page.getByRole("button", { name: "Make a new one" }).click();
  await page.getByText("The secret was rotated").waitFor();
  await page.getByRole("button", { name: "Show the signing secret" }).click();
  await until(
    "another secret",
    async () => /^whsec_/.test(await secret.textContent()) && (await secret.textContent()) !== before,
  );
  await page.getByRole("button", { name: "Acknowledged" }).click();
  await page.getByText("2xx, and a body with").waitFor();
  await until(
    "the mode",
    async () => (await call(server, "GET", "/api/domains/kite.test")).domain.webhookAckMode === "ack",
  );
  await page.getByRole("button", { name: "Send a test event" }).click();
  await page.getByText(/Your endpoint answered \d+, which does not count/).waitFor();
  await page.getByLabel("Bounced").check();
  await until(
    "the events",
    async () => (await call(server, "GET", "/api/domains/kite.test")).domain.webhookEvents.length === 1,
  );
  await page.getByLabel("Tracking webhook").fill(`${app.url}/events`);
  await page.locator("section", { hasText: "Events of sent mail" }).getByRole("button", { name: "Save" }).click();
  await until(
    "the tracking webhook",
    async () => (await call(server, "GET", "/api/domains/kite.test")).domain.trackingWebhookUrl === `${app.url}/events`,
  );
  await page.getByLabel("Keep messages for").fill("7");
  await page.locator("section", { hasText: "Retention" }).getByRole("button", { name: "Save" }).click();
  await until(
    "the retention",
    async () => (await call(server, "GET", "/api/domains/kite.test")).domain.retention_days === 7,
  );
  await page.getByLabel("Zero retention").click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.equal(await page.getByLabel("Zero retention").isChecked(), false);
  await page.getByRole("button", { name: "Remove webhook" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.getByText("Webhook removed").waitFor();
  await page.getByRole("button", { name: "Delete" }).click();
  const really = page.getByRole("dialog").getByRole("button", { name: "Delete" });
  assert.ok(await really.isDisabled(), "only who types the name");
  await page.getByRole("dialog").getByRole("textbox").fill("kite.test");
  await really.click();
  await page.getByText("kite.test is deleted").waitFor();
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("routes: create, test an address, pause, edit, replay, delete", async () => {
  const view = await signedIn(server);
  const { page } = view;
  view.expected.push(/40[49].*routes/);
  await view.screen("#/routes");
  await page.getByRole("button", { name: "New route" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Address").fill("x@elsewhere.test");
  await dialog.getByLabel("Webhook URL").fill(app.url);
  await dialog.getByRole("button", { name: "Create route" }).click();
  await dialog.locator(".hint.bad").waitFor();
  await dialog.getByLabel("Address").fill("ticket+*@inbox.test");
  await dialog.getByRole("button", { name: "Create route" }).click();
  await page.getByText("whsec_").waitFor();
  await page.getByRole("button", { name: "Done" }).click();
  const line = page.locator("li.item-card", { hasText: "ticket+*@inbox.test" });
  await page.getByRole("textbox", { name: "Address" }).fill("ticket+42@inbox.test");
  await page.getByText("2 routes would run").waitFor();
  await line.getByRole("button", { name: "Pause" }).click();
  await line.getByText("Paused").waitFor();
  await until("pausing", async () => (await call(server, "GET", "/api/routes")).some((one) => !one.active));
  await line.getByRole("button", { name: "Resume" }).click();
  await line.getByRole("button", { name: "Edit" }).click();
  await dialog.getByLabel("Address").fill("hello@inbox.test");
  await dialog.getByRole("button", { name: "Save" }).click();
  const edited = page.locator("li.item-card", { hasText: /^hello@inbox\.test/ });
  await edited.getByRole("button", { name: "Replay" }).click();
  await dialog.getByLabel("Select those not delivered here").check();
  await dialog.getByText(/^\d+ selected$/).click();
  await dialog.locator(".pick-list input").first().check();
  await dialog.getByRole("button", { name: "Deliver 1" }).click();
  await dialog.getByText("Delivered here").first().waitFor();
  await dialog.getByRole("button", { name: "Close" }).last().click();
  await edited.getByRole("button", { name: "New secret" }).click();
  await page.getByRole("button", { name: "Make a new one" }).click();
  await edited.getByText("whsec_").waitFor();
  await edited.getByRole("button", { name: "Delete" }).click();
  await dialog.getByRole("button", { name: "Delete" }).click();
  await page.getByText("Route deleted").waitFor();
  view.troubles.splice(0, view.troubles.length, ...view.troubles.filter((one) => !one.includes("/api/routes")));
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("send: refused in the server's words, sent, scheduled, canceled; with a file, a template, as code", async () => {
  const view = await signedIn(server);
  const { page } = view;
  view.expected.push(/40\d.*\/v1\/send/);
  await view.screen("#/send");
  await page.getByLabel("From").fill("me@elsewhere.test");
  await page.getByLabel("To", { exact: true }).fill("ada@example.com");
  await page.getByLabel("Subject").fill("It branches");
  await page.getByLabel("Text", { exact: true }).fill("Yes, it does.");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.locator(".hint.bad").waitFor();
  await page.getByLabel("From").fill("Acme <hello@inbox.test>");
  await page
    .locator("input[type=file]")
    .setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("notes") });
  await page.locator(".file-list").getByText("notes.txt").waitFor();
  assert.match(await page.locator(".snippet code").textContent(), /"subject": "It branches"/);
  for (const tab of ["SDK", "fetch", "Python"]) {
    await page.getByRole("tab", { name: tab }).click();
    assert.match(await page.locator(".snippet code").textContent(), /It branches/);
  }
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("Accepted and stored").waitFor();
  await page.getByRole("link", { name: "Follow it" }).click();
  await page.locator(".event", { hasText: "ada@example.com" }).getByText("Sent").waitFor();
  await page.getByText("notes.txt").first().waitFor();

  await view.screen("#/send?templateId=base_welcome");
  await page.getByLabel("{{name}}").fill("Ada");
  await page.getByLabel("To", { exact: true }).fill("ada@example.com");
  await page.getByRole("tab", { name: "Preview" }).click();
  await page.frameLocator(".mail-frame iframe").getByText("Ada").first().waitFor();
  await page.getByRole("button", { name: "Later" }).click();
  await page.getByLabel("At", { exact: true }).fill(new Date(Date.now() + 86400000).toISOString().slice(0, 16));
  await page.getByRole("button", { name: "Schedule" }).click();
  await page.getByText("Scheduled for").waitFor();
  await page.getByRole("link", { name: "Follow it" }).click();
  await page.getByRole("button", { name: "Cancel sending" }).click();
  await page.locator(".verdicts", { hasText: "Canceled" }).waitFor();
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("templates: from a built-in one, edited with its preview, tested, deleted", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/templates");
  await page.getByRole("link", { name: "Open" }).first().click();
  await page.getByRole("button", { name: "Make it my own" }).click();
  await page.getByRole("button", { name: "Duplicate" }).waitFor();
  await page.getByLabel("HTML", { exact: true }).fill("<h1 id=shown>Hello {{name}}</h1>");
  await page.frameLocator(".mail-frame iframe").locator("#shown").waitFor();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved").waitFor();
  await page.getByLabel("To", { exact: true }).fill("ada@example.com");
  await page.getByRole("button", { name: "Send test" }).click();
  await page.getByText("On its way to ada@example.com").waitFor();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("Template deleted").waitFor();
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("suppressions, blocked senders: add, remove, undo", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/suppressions");
  await page.getByLabel("Address").first().fill("bob@example.com");
  await page.getByRole("button", { name: "Add" }).first().click();
  await page.locator("td", { hasText: "bob@example.com" }).waitFor();
  await page.getByRole("button", { name: "Remove bob@example.com" }).click();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.locator("td", { hasText: "bob@example.com" }).waitFor();
  await page.getByLabel("Address").last().fill("spam@example.com");
  await page.getByRole("button", { name: "Add" }).last().click();
  await page.getByRole("button", { name: "Unblock spam@example.com" }).click();
  await until("unblocking", async () => (await call(server, "GET", "/api/blocked-senders")).length === 0);
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("keys: shown when asked for, made for a domain, revoked, replaced", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/keys");
  assert.ok(!(await page.content()).includes(server.key), "not on the page unasked");
  await page.getByRole("button", { name: "Show the account key" }).click();
  await page.getByText(server.key).waitFor();
  await page.getByRole("button", { name: "New key" }).click();
  await page.getByLabel("Name").fill("blog");
  await page.getByRole("button", { name: "Create key" }).click();
  await page.getByText("This is the only time it is shown.").waitFor();
  await page.getByRole("button", { name: "I have copied it" }).click();
  const row = page.locator("tr", { hasText: "blog" });
  await row.getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByText("None yet.").waitFor();
  await page.getByRole("button", { name: "Replace" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Replace it" }).click();
  await page.getByText("The key was replaced").waitFor();
  await page.getByRole("button", { name: "Show the account key" }).click();
  const key = page.locator(".card").first().locator(".value code").first();
  await until("the new key", async () => /^mk_live_/.test(await key.textContent()));
  server.key = await key.textContent();
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("deliveries: filtered, selected, sent again", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/deliveries");
  // An endpoint counts as failing by its latest answer.
  await mail(server.smtp, plainMail("The first actual case, again"));
  const failing = page.locator(".card", { hasText: "Failing endpoints" });
  await failing.getByText("last answer 503").waitFor();
  await failing.getByRole("button", { name: "Show" }).click();
  await page.getByRole("button", { name: "Waiting", pressed: true }).waitFor();
  await page.locator("tbody tr", { hasText: "503" }).first().waitFor();
  await page.getByRole("button", { name: "Delivered" }).click();
  await page.locator("tbody .badge", { hasText: /^200$/ }).first().waitFor();
  await page.getByRole("checkbox", { name: "Select Invoice 2044 (22)" }).check();
  await page.getByText("1 selected").waitFor();
  await page.getByRole("button", { name: "Send again" }).click();
  await page.getByText("1 delivery made").waitFor();
  // By time: none from tomorrow on, all pending ones of today.
  await page.getByRole("button", { name: "Waiting" }).click();
  await page.getByLabel("From").fill(new Date(Date.now() + 86400000).toISOString().slice(0, 16));
  await page.getByRole("heading", { name: "No deliveries" }).waitFor();
  await page.getByRole("button", { name: "Attempt all now" }).click();
  await page.getByText("Nothing to send again").waitFor();
  await page.getByLabel("From").fill(new Date(Date.now() - 86400000).toISOString().slice(0, 16));
  await page.locator("tbody tr", { hasText: "503" }).first().waitFor();
  const before = app.got.length;
  await page.getByRole("button", { name: "Attempt all now" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Send again" }).click();
  await page.getByText(/0 of \d+ delivered/).waitFor();
  assert.ok(app.got.length > before);
  assert.deepEqual(await view.check(), []);
});

test("settings: facts about the server; another session is listed and ended", async () => {
  await call(server, "POST", "/api/auth/signup", { email: "two@kite.test", password: "correct horse battery" });
  const login = { email: "two@kite.test", password: "correct horse battery" };
  const [mine, other] = [
    await call(server, "POST", "/api/auth/login", login),
    await call(server, "POST", "/api/auth/login", login),
  ];
  const view = await signedIn({ ...server, session: mine.token });
  const { page } = view;
  await view.screen("#/settings");
  await page.getByText("two@kite.test").first().waitFor();
  const rows = page.locator(".card", { hasText: "Sessions" }).locator("li");
  await until("three sessions", async () => (await rows.count()) === 3);
  await rows.filter({ hasNotText: "This one" }).first().getByRole("button", { name: "End" }).click();
  await until("two sessions", async () => (await rows.count()) === 2);
  const me = () => fetch(`${server.base}/v1/me`, { headers: { authorization: `Bearer ${other.token}` } });
  assert.equal((await me()).status, 401, "the newest of the others was ended");
  assert.equal(await page.getByText("free of").count(), 0, "the disk is the owner's business");
  const stored = (of) => of.locator(".facts > div", { hasText: "Stored" });
  assert.match(await stored(page).textContent(), / of 2/, "so much may be stored");
  assert.equal(await stored(page).locator(".meter").count(), 1);
  assert.deepEqual(await view.check(), []);
  await view.close();
  const owner = await signedIn(server);
  await owner.screen("#/settings");
  await owner.page.getByText("free of").waitFor();
  await owner.page.getByText("Self-signed").waitFor();
  assert.doesNotMatch(await stored(owner.page).textContent(), / of /, "the owner has no limit");
});

test("colours by switch; a password; signing out ends the session", async () => {
  const view = await signedIn(server, { colorScheme: "light" });
  const { page } = view;
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole("button", { name: /Colours: auto/ }).click();
  await page.getByRole("button", { name: /Colours: light/ }).click();
  assert.notEqual(await ground(), light);
  await page.getByRole("button", { name: /Colours: dark/ }).click();
  await view.screen("#/settings");
  await page.getByLabel("New password").fill("correct horse battery");
  await page.getByRole("button", { name: "Change password" }).click();
  await page.getByText("Password changed").waitFor();
  const token = await page.evaluate(() => localStorage.getItem("mailkite.session"));
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.locator("h1", { hasText: "Sign in" }).waitFor();
  const answer = await fetch(`${server.base}/v1/me`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(answer.status, 401);
  assert.deepEqual(await view.check(), []);
  await view.close();
});
