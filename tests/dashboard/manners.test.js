// Robustness: no input is lost, Back restores the place, the end of a session or a restart of the server is survived, a
// reverse proxy changes nothing.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browse, call, dev, mail, plainMail, reverseProxy, settled, signedIn, until } from "./support.js";

const LOGIN = { email: "kite@example.com", password: "correct horse battery" };
let server;
before(async () => {
  server = await dev();
  for (let n = 0; n < 40; n++) await mail(server.smtp, plainMail(`Order ${1000 + n} confirmed`));
});
after(() => server.stop());

const row = (page, text) => page.locator(".row", { hasText: text });
const focused = (page) =>
  page.evaluate(() => `${document.activeElement.localName} ${document.activeElement.textContent}`);

test("a draft outlives leaving its screen, and is thrown away only with a way back", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/send");
  const text = page.getByLabel("Text", { exact: true });
  await text.fill("Half a thought");
  await page
    .locator("input[type=file]")
    .setInputFiles({ name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("a") });
  await page.getByRole("link", { name: "Domains" }).click();
  await page.locator("h1", { hasText: "Domains" }).waitFor();
  await page.goBack();
  await page.locator(".file-list", { hasText: "a.txt" }).waitFor();
  assert.equal(await text.inputValue(), "Half a thought");
  await page.getByRole("button", { name: "Start over" }).click();
  await until("an empty form", async () => (await text.inputValue()) === "");
  await page.getByRole("button", { name: "Undo" }).click();
  await until("the draft", async () => (await text.inputValue()) === "Half a thought");
  await page.getByLabel("To", { exact: true }).fill("ada@example.com");
  await page.getByLabel("Subject").fill("Whole");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("Accepted and stored").waitFor();
  assert.equal(await page.getByRole("button", { name: "Start over" }).count(), 0, "what is sent is no draft");

  const template = await call(server, "POST", "/api/templates", { name: "Kept", html: "<p>Old</p>" });
  await view.screen(`#/templates/${template.id}`);
  const source = page.getByLabel("HTML", { exact: true });
  await source.fill("<p>New</p>");
  await view.screen("#/keys");
  await view.screen(`#/templates/${template.id}`);
  assert.equal(await source.inputValue(), "<p>New</p>");
  await page.getByRole("button", { name: "Undo changes" }).click();
  await until("the saved one", async () => (await source.inputValue()) === "<p>Old</p>");
  assert.deepEqual(await view.check(), []);
});

test("a message sent again because no answer came is sent once", async () => {
  const view = await signedIn(server);
  const { page } = view;
  view.expected.push(/ERR_FAILED/);
  await view.screen("#/send");
  await page.getByLabel("To", { exact: true }).fill("ada@example.com");
  await page.getByLabel("Subject").fill("Only once");
  await page.getByLabel("Text", { exact: true }).fill("Once.");
  // The request arrives, and its answer is lost.
  await page.route("**/v1/send", async (route) => {
    await route.fetch();
    await route.abort();
  });
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("The server does not answer").waitFor();
  await page.unroute("**/v1/send");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("Accepted and stored").waitFor();
  assert.equal((await call(server, "GET", "/api/messages?search=Only+once")).length, 1);
  assert.deepEqual(await view.check(), []);
});

test("another screen begins at its head, with the focus there; going back leads to where one was", async () => {
  const view = await signedIn(server, { viewport: { width: 1280, height: 420 } });
  const { page } = view;
  const top = () => page.locator("main").evaluate((element) => Math.round(element.scrollTop));
  await view.screen("#/domains/inbox.test");
  await page.locator("main").evaluate((element) => element.scrollTo(0, 500));
  await until("scrolling", async () => (await top()) === 500);
  await page.getByRole("link", { name: "Settings" }).click();
  await page.locator("h1", { hasText: "Settings" }).waitFor();
  await settled(page);
  assert.equal(await top(), 0);
  assert.match(await focused(page), /^(h1 Settings|main )/);
  await page.goBack();
  await page.locator("h1", { hasText: "inbox.test" }).waitFor();
  await until("where it was", async () => (await top()) === 500);
  assert.deepEqual(await view.check(), []);
});

test("a screen whose file arrives just after its place was drawn is shown", async () => {
  const view = await signedIn(server);
  const { page } = view;
  let release;
  const held = new Promise((resolve) => {
    release = resolve;
  });
  await page.route(/\/domains[^/]*\.js$/, async (route) => {
    await held;
    await route.continue();
  });
  // Effects run late, as on a busy machine.
  await page.evaluate(() => {
    const later = window.setTimeout.bind(window);
    window.requestAnimationFrame = (act) => later(act, 1500);
    window.setTimeout = (act, wait, ...rest) => later(act, wait >= 20 && wait <= 200 ? 1500 : wait, ...rest);
  });
  const link = page.getByRole("link", { name: "Domains" });
  await link.hover();
  const arrived = page.waitForResponse(/\/domains[^/]*\.js$/);
  await link.click();
  await page.locator("main .skeleton").first().waitFor();
  release();
  await (await arrived).finished();
  await page.locator("h1", { hasText: "Domains" }).waitFor();
  assert.deepEqual(await view.check(), []);
});

test("a message opened from deep in the list, on a phone: back is at its row", async () => {
  const view = await signedIn(server, { viewport: { width: 390, height: 844 } });
  const { page } = view;
  await view.screen("#/messages");
  await row(page, "Order 1039").waitFor();
  await page.locator("[data-list]").evaluate((element) => element.scrollTo(0, 1200));
  const far = row(page, "Order 1019").locator("a");
  await far.click();
  await page.locator(".message h2", { hasText: "Order 1019" }).waitFor();
  await until("the focus in the message", async () => /^h2 Order 1019/.test(await focused(page)));
  await page.goBack();
  await far.waitFor();
  await until("the focus on its row", async () => /^a .*Order 1019/s.test(await focused(page)));
  assert.equal(await page.locator("[data-list]").evaluate((element) => element.scrollTop), 1200);
  assert.deepEqual(await view.check(), []);
});

test("back from a message, its row has the focus before the next frame too", async () => {
  const view = await signedIn(server, { viewport: { width: 390, height: 844 } });
  const { page } = view;
  await view.screen("#/messages");
  await row(page, "Order 1039").waitFor();
  await page.locator("[data-list]").evaluate((element) => element.scrollTo(0, 1200));
  await row(page, "Order 1019").locator("a").click();
  await until("the focus in the message", async () => /^h2 Order 1019/.test(await focused(page)));
  await settled(page);
  // Effects run before the next frame, as on a machine with slow frames.
  await page.evaluate(() => {
    const later = window.setTimeout.bind(window);
    window.setTimeout = (act, wait, ...rest) => later(act, wait >= 20 && wait <= 200 ? 0 : wait, ...rest);
    window.requestAnimationFrame = (act) => later(act, 1500);
  });
  await page.goBack();
  await until("the focus on its row", async () => /^a .*Order 1019/s.test(await focused(page)), 5000);
  assert.equal(await page.locator("[data-list]").evaluate((element) => element.scrollTop), 1200);
  assert.deepEqual(await view.check(), []);
});

test("messages up to a day", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/messages");
  const day = (shift) => new Date(Date.now() + shift * 86400000).toISOString().slice(0, 10);
  await page.getByLabel("Up to").fill(day(-1));
  await page.getByText("No matches").waitFor();
  await page.getByLabel("Up to").fill(day(1));
  await row(page, "Order 1039").waitFor();
  assert.match(page.url(), /until=\d{4}-\d\d-\d\d/);
  assert.deepEqual(await view.check(), []);
});

test("a session that ends elsewhere is told at once; signing in leads back to the same place and draft", async () => {
  await call(server, "POST", "/api/auth/signup", LOGIN);
  const view = await browse(server);
  const { page } = view;
  view.expected.push(/401/);
  const signIn = async () => {
    await page.getByLabel("E-mail").fill(LOGIN.email);
    await page.getByLabel("Password").fill(LOGIN.password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator(".live.is-live:visible").waitFor();
  };
  await page.goto(server.base);
  await signIn();
  const mine = { ...server, key: await page.evaluate(() => localStorage.getItem("mailkite.session")) };
  await call(mine, "POST", "/api/domains", { domain: "mine.test" });
  await call(mine, "POST", "/api/domains/mine.test/verify");
  await view.screen("#/send");
  await page.getByLabel("Text", { exact: true }).fill("Not lost");
  await call(mine, "POST", "/api/auth/logout");
  await page.getByText("Your session has ended").waitFor();
  await page.locator("h1", { hasText: "Sign in" }).waitFor();
  await signIn();
  await page.locator("h1", { hasText: "Send" }).waitFor();
  assert.equal(await page.getByLabel("Text", { exact: true }).inputValue(), "Not lost");
  assert.deepEqual(await view.check(), []);
});

test("a server that restarts: what is shown stays, the page says so, and goes on by itself", async () => {
  const view = await signedIn(server);
  const { page } = view;
  view.expected.push(/ERR_/);
  await view.screen("#/messages");
  await page.locator(".live.is-live:visible").waitFor();
  await server.halt();
  await page.locator(".live.is-connecting:visible").waitFor();
  await row(page, "Order 1039").waitFor();
  await page.getByRole("link", { name: "Suppressions" }).click();
  await page.getByText("The server does not answer").first().waitFor();
  await server.resume();
  await page.locator(".live.is-live:visible").waitFor({ timeout: 60000 });
  await page.getByRole("button", { name: "Try again" }).first().click();
  await page.getByText("Never send to").waitFor();
  await page.getByRole("link", { name: "Messages" }).click();
  await mail(server.smtp, plainMail("After the restart"));
  await row(page, "After the restart").waitFor();
  assert.deepEqual(await view.check(), []);
});

test("a stream that falls silent is opened again", async () => {
  const view = await browse(server);
  const { page } = view;
  await page.clock.install();
  await page.addInitScript((token) => localStorage.setItem("mailkite.session", token), server.session);
  await page.goto(server.base);
  await page.locator(".live.is-live:visible").waitFor();
  const opened = () => view.requests.filter((url) => url.endsWith("/v1/realtime")).length;
  assert.equal(opened(), 1);
  await page.clock.fastForward(41000);
  await page.locator(".live.is-connecting:visible").waitFor();
  await page.clock.fastForward(2000);
  await until("another stream", () => opened() === 2);
  await page.locator(".live.is-live:visible").waitFor();
});

test("behind a reverse proxy: another name, another port, the same dashboard, live", async () => {
  const proxy = await reverseProxy(server.base);
  const view = await signedIn({ ...server, base: proxy.base });
  const { page } = view;
  try {
    await view.screen("#/messages");
    await page.locator(".live.is-live:visible").waitFor();
    const id = await mail(
      server.smtp,
      [
        "From: ada@example.com",
        "To: hello@inbox.test",
        "Subject: Through the proxy",
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=b",
        "",
        "--b",
        "Content-Type: text/html",
        "",
        "<p id=shown>Shown</p>",
        "--b",
        "Content-Type: text/csv",
        "Content-Disposition: attachment; filename=a.csv",
        "",
        "a,b",
        "--b--\n",
      ].join("\n"),
    );
    await row(page, "Through the proxy").waitFor();
    await view.screen(`#/messages/${id}`);
    await page.frameLocator(".mail-frame iframe").locator("#shown").waitFor();
    const [file] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Download a.csv" }).click(),
    ]);
    assert.equal(file.suggestedFilename(), "a.csv");
    assert.deepEqual(await view.check(), []);
  } finally {
    await view.close();
    proxy.stop();
  }
});
