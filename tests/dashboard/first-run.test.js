// From a fresh server to "my app received its first webhook", with the keyboard alone, guided by the screen.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import {
  PICTURES,
  browse,
  call,
  dev,
  dns,
  google,
  mail,
  mailHost,
  plainMail,
  receiver,
  serve,
  signedIn,
  until,
} from "./support.js";

/** Press Tab until the focused element matches. */
async function tabTo(page, wanted, limit = 60) {
  for (let presses = 0; presses < limit; presses++) {
    const focused = await page.evaluate(() => {
      const element = document.activeElement;
      const label = element.labels?.[0]?.textContent || element.getAttribute("aria-label") || element.textContent;
      const ring = getComputedStyle(element);
      return {
        label: label.trim(),
        tag: element.localName,
        ring: ring.outlineStyle !== "none" && parseFloat(ring.outlineWidth) >= 1,
      };
    });
    if (wanted.test(focused.label) && focused.tag !== "body") {
      assert.ok(focused.ring, `a focus ring on ${focused.label}`);
      return focused;
    }
    await page.keyboard.press("Tab");
  }
  throw new Error(`no way by Tab to ${wanted}`);
}

test("a fresh server: keyboard alone, from the setup token to the first webhook", async () => {
  const names = await dns({});
  const app = await receiver();
  const server = await serve(names.port);
  const view = await browse(server);
  const { page } = view;
  const began = Date.now();
  try {
    await page.goto(server.base);
    await page.waitForSelector("text=Make this server yours");
    assert.deepEqual(await view.axe(), []);
    await tabTo(page, /^E-mail$/);
    await page.keyboard.type("you@kite.test");
    await tabTo(page, /^Password$/);
    await page.keyboard.type("short");
    await tabTo(page, /^Setup token$/);
    await page.keyboard.type("not the token at all");
    // The browser itself refuses a password that is too short, and focuses it.
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.name), "password");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("correct horse battery");
    view.expected.push(/403.*signup/);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".hint.bad");
    await tabTo(page, /^Setup token$/);
    await page.keyboard.press("Control+a");
    await page.keyboard.type(server.token);
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=Get your first webhook");

    await tabTo(page, /^Domain$/);
    await page.keyboard.type("kite.test");
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=Publish its DNS records");
    await tabTo(page, /^Records to copy$/);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".record");
    assert.equal(await page.locator(".record").count(), 5);
    // DNS data is shown as text, whatever it contains.
    names.records["kite.test"] = [{ txt: "v=spf1 include:<img/src=x/onerror=pwned=1> ~all" }];
    await tabTo(page, /^Check now$/);
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=There is an SPF record, without this server");
    assert.match(await page.locator(".record-problem code").first().textContent(), /<img/);
    assert.deepEqual(await view.axe(), []);
    names.records["kite.test"] = [{ mx: "mx.kite.test" }];
    await tabTo(page, /^Check now$/, 90);
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=Receiving >> nth=0");
    await tabTo(page, /^Webhook URL$/, 90);
    await page.keyboard.type("ftp://nowhere");
    view.expected.push(/400.*webhook/);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#webhook .hint.bad");
    await page.keyboard.press("Control+a");
    await page.keyboard.type(app.url);
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=Signing secret");
    await page.keyboard.press("Escape");
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("g");
    await page.keyboard.press("o");
    await page.waitForSelector("text=Receive the first webhook");
    await tabTo(page, /^Send a test event$/);
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=Your app has received its first webhook");
    assert.equal(app.got.length, 1);
    assert.match(app.got[0].headers["x-mailkite-signature"], /^t=\d+,v1=[0-9a-f]{64}$/);
    assert.ok(Date.now() - began < 120000, "in under two minutes");

    await mail(server.smtp, plainMail("The first real mail"), { to: "hello@kite.test" });
    await until("the webhook of a real mail", () => app.got.some((one) => one.body.includes("The first real mail")));
    await page.waitForSelector("text=The first real mail");
    assert.deepEqual(await view.check(), []);
  } finally {
    await view.close();
    await server.stop();
    app.stop();
    names.stop();
  }
});

test("dev: its link signs in once; the screen leads to one's own app", async () => {
  const server = await dev();
  const app = await receiver();
  const view = await browse(server);
  const { page } = view;
  try {
    await page.goto(server.ticket);
    await page.waitForSelector("text=Choose where its mail goes");
    assert.ok(!page.url().includes("ticket"), "nothing of it is left in the address");
    await page.getByLabel("Webhook URL").fill(app.url.replace("127.0.0.1", "localhost"));
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("button", { name: "Send a test event" }).click();
    await page.waitForSelector("text=Your app has received its first webhook");

    // The link is used a second time in another browser.
    const other = await browse(server);
    other.expected.push(/401.*login/);
    await other.page.goto(server.ticket);
    await other.page.waitForSelector("text=That link was used already");
    assert.deepEqual(await other.check(), []);
    // Sign-up is open in dev mode; two tabs of one browser share the session.
    await other.page.getByRole("button", { name: "Create one" }).click();
    await other.page.getByLabel("E-mail").fill("second@kite.test");
    await other.page.getByLabel("Password").fill("correct horse battery");
    await other.page.getByRole("button", { name: "Create account" }).click();
    await other.page.waitForSelector("text=Add a domain");
    await other.page.getByRole("button", { name: "Sign out" }).click();
    await other.page.waitForSelector("h1:has-text('Sign in')");
    other.expected.push(/401.*login/);
    await other.page.getByLabel("E-mail").fill("second@kite.test");
    await other.page.getByLabel("Password").fill("wrong password");
    await other.page.getByRole("button", { name: "Sign in" }).click();
    await other.page.waitForSelector("text=invalid email or password");
    await other.page.getByLabel("Password").fill("correct horse battery");
    await other.page.getByRole("button", { name: "Sign in" }).click();
    await other.page.waitForSelector("text=Add a domain");
    assert.deepEqual(await other.check(), []);
    await other.close();
    assert.deepEqual(await view.check(), []);
  } finally {
    await view.close();
    await server.stop();
    app.stop();
  }
});

test("Google: offered only if configured; an answer that this tab did not ask for is refused", async () => {
  const names = await dns({});
  const accounts = await google("mallory@example.com");
  for (const config of ["", accounts.config]) {
    const server = await serve(names.port, config);
    const view = await browse(server);
    const { page } = view;
    try {
      await page.goto(server.base);
      await page.waitForSelector("h1");
      assert.equal(await page.getByRole("button", { name: "Continue with Google" }).count(), config ? 1 : 0);
      for (const [stored, answer] of [
        [null, "code=stolen"],
        [null, "code=stolen&state="],
        [null, "code=stolen&state=null"],
        [null, "code=stolen&state=undefined"],
        ["{}", "code=stolen&state=undefined"],
        ['{"state":""}', "code=stolen&state="],
        ['{"state":"mine"}', "code=stolen"],
        ['{"state":"mine"}', "code=stolen&state="],
        ['{"state":"mine"}', "code=stolen&state=guess"],
        ['{"state":"mine"}', "code=stolen&state=guess&state=mine"],
        ['{"state":"mine"}', "code=&state=mine"],
        ['{"state":"mine"}', "error=access_denied&state=mine"],
      ]) {
        await page.evaluate((value) => {
          value === null
            ? sessionStorage.removeItem("mailkite.google")
            : sessionStorage.setItem("mailkite.google", value);
        }, stored);
        await page.goto(`${server.base}/?${answer}`);
        if (config) {
          await page.getByText("did not begin in this tab").waitFor();
          assert.ok(!/code=|state=|error=/.test(page.url()), "nothing of it is left in the address");
          assert.equal(await page.evaluate(() => sessionStorage.getItem("mailkite.google")), null, "one answer a try");
        }
        await page.waitForSelector("h1:has-text('Make this server yours')");
      }
      assert.equal(view.requests.filter((url) => url.includes("/api/auth/google")).length, 0);
      assert.deepEqual(await view.check(), []);
    } finally {
      await view.close();
      await server.stop();
    }
  }
  accounts.stop();
  names.stop();
});

test("Google, where it is configured: it makes the first account, with the setup token", async () => {
  const names = await dns({});
  const accounts = await google("ada@example.com");
  const server = await serve(names.port, accounts.config);
  const view = await browse(server);
  const { page } = view;
  let asked;
  try {
    await page.route("https://accounts.google.com/**", (route) => {
      asked = new URL(route.request().url()).searchParams;
      route.fulfill({
        status: 302,
        headers: { location: `${asked.get("redirect_uri")}?code=c&state=${asked.get("state")}` },
      });
    });
    await page.goto(server.base);
    await page.getByLabel("Setup token").fill(server.token);
    await page.getByRole("button", { name: "Continue with Google" }).click();
    await page.getByText("Get your first webhook").waitFor();
    assert.equal(asked.get("client_id"), "client");
    assert.match(asked.get("state"), /^[0-9a-f]{64}$/);
    assert.equal(asked.get("code_challenge_method"), "S256");
    const verifier = accounts.exchanged[0].get("code_verifier");
    assert.match(verifier, /^[0-9a-f]{64}$/);
    assert.equal(createHash("sha256").update(verifier).digest("base64url"), asked.get("code_challenge"));
    assert.ok(!/code=|state=/.test(page.url()), "nothing of it is left in the address");
    await page.getByRole("link", { name: "ada@example.com" }).waitFor();
    const elsewhere = view.troubles.filter((one) => !one.includes("https://accounts.google.com/"));
    assert.deepEqual(elsewhere, []);
  } finally {
    await server.stop();
    accounts.stop();
    names.stop();
  }
});

test("sent mail: who took it, how, and what was said", async () => {
  const names = await dns({});
  const relay = await mailHost();
  const server = await serve(
    names.port,
    `[outbound.smarthost]\nhost = "127.0.0.1"\nport = ${relay.port}\nsecurity = "none"\n`,
  );
  const account = { email: "you@kite.test", password: "correct horse battery", setupToken: server.token };
  server.session = (await call(server, "POST", "/api/auth/signup", account)).token;
  server.key = server.session;
  const { dns: records } = await call(server, "POST", "/api/domains", { domain: "kite.test" });
  for (const { name, type, value } of records) {
    names.records[name] = [...(names.records[name] || []), type === "MX" ? { mx: value } : { txt: value }];
  }
  await call(server, "POST", "/api/domains/kite.test/verify");
  const view = await signedIn(server);
  const { page } = view;
  try {
    const to = ["ada@example.com", "grace@example.com"];
    const sent = await call(server, "POST", "/v1/send", {
      from: "hi@kite.test",
      to,
      subject: "It branches",
      text: "Yes.",
    });
    await view.screen(`#/messages/${sent.id}`);
    await page.locator(".verdicts", { hasText: "Bounced" }).waitFor();
    const of = (address) => page.locator(".event", { has: page.getByText(address, { exact: true }) });
    const took = of("ada@example.com");
    await took.getByText("by 127.0.0.1 · not encrypted").waitFor();
    await took.getByText("2.0.0 taken").first().waitFor();
    await took.getByText("SMTP dialog").click();
    await took.getByText("MAIL FROM:<").waitFor();
    const refused = of("grace@example.com");
    await refused.getByText("5.1.1 nobody of that name").first().waitFor();
    assert.deepEqual(await view.axe(), []);
    await page.screenshot({ path: join(PICTURES, "sent-desktop-light.png") });
    await view.screen("#/suppressions");
    await page.locator("td", { hasText: "grace@example.com" }).waitFor();
    assert.deepEqual(await view.check(), []);
  } finally {
    await server.stop();
    relay.stop();
    names.stop();
  }
});
