// The pages behind mailed links: without scripts, in both colours, on a phone.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import {
  PICTURES,
  browse,
  call,
  dns,
  mail,
  mailHost,
  plainMail,
  receiver,
  serve,
  settled,
  signedIn,
  until,
} from "./support.js";

test("a mailed link asks before it proves an address, without scripts", async () => {
  const names = await dns({});
  const relay = await mailHost();
  const smarthost = `[outbound.smarthost]\nhost = "127.0.0.1"\nport = ${relay.port}\nsecurity = "none"\n`;
  const server = await serve(names.port, `[auth]\nsignup = "open"\n${smarthost}`);
  const account = { email: "ada@example.com", password: "correct horse battery" };
  const ask = async (path, token) =>
    (await fetch(server.base + path, { headers: { authorization: `Bearer ${token}` } })).json();
  const signUp = (body) => fetch(`${server.base}/api/auth/signup`, { method: "POST", body: JSON.stringify(body) });
  // The first account owns the server and has nothing to prove.
  await signUp({ ...account, email: "owner@example.com" });
  const { token } = await (await signUp(account)).json();
  const text = await until("the mail", () => relay.got.find((data) => data.includes("/api/auth/verify?token")));
  const link = /http:\S+\/api\/auth\/verify\?token=\w+/.exec(text.replace(/=\r\n/g, "").replace(/=3D/g, "="))[0];
  try {
    for (const [width, colorScheme] of [
      [1360, "light"],
      [1360, "dark"],
      [390, "light"],
      [390, "dark"],
    ]) {
      const view = await browse(server, { viewport: { width, height: 800 }, colorScheme, javaScriptEnabled: false });
      await view.page.goto(link);
      await view.page.getByRole("heading", { name: "Confirm your address" }).waitFor();
      await view.page.screenshot({ path: join(PICTURES, `verify-${width}-${colorScheme}.png`) });
      assert.equal((await ask("/v1/me", token)).emailVerified, false, "opening it changes nothing");
      await view.close();
    }
    const seen = await browse(server, { viewport: { width: 390, height: 800 } });
    await seen.page.goto(link);
    assert.deepEqual(await seen.axe(), []);
    const wide = await seen.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.ok(!wide, "nothing to scroll sideways for");
    assert.deepEqual(await seen.check(), []);
    await seen.close();

    const view = await browse(server, { javaScriptEnabled: false });
    await view.page.goto(link);
    await view.page.getByRole("button", { name: "Confirm" }).click();
    await view.page.getByRole("heading", { name: "Your address is confirmed" }).waitFor();
    assert.equal((await ask("/v1/me", token)).emailVerified, true);
    view.expected.push(/400/);
    await view.page.goto(`${server.base}/api/auth/verify?token=x`);
    await view.page.getByRole("heading", { name: "This link is not valid" }).waitFor();
    await view.close();
  } finally {
    await server.stop();
    relay.stop();
    names.stop();
  }
});

/** Return the link of the first mail with a link to this path. */
async function mailed(relay, path) {
  const plain = (data) => data.replace(/=\r\n/g, "").replace(/=3D/g, "=");
  const find = () => relay.got.map((data) => new RegExp(`http:\\S+${path}\\?token=\\w+`).exec(plain(data))?.[0]);
  return until(`a mail with a link to ${path}`, () => find().find(Boolean));
}

test("a forward whose destination has to confirm, and an endpoint that is paused, in words", async () => {
  const names = await dns({});
  const relay = await mailHost();
  const app = await receiver(() => ({ status: 503 }));
  const smarthost = `[outbound.smarthost]\nhost = "127.0.0.1"\nport = ${relay.port}\nsecurity = "none"\n`;
  const server = await serve(names.port, `[auth]\nsignup = "open"\n${smarthost}`);
  const signUp = async (email) =>
    (await call(server, "POST", "/api/auth/signup", { email, password: "correct horse battery" })).token;
  try {
    await signUp("owner@example.com");
    const token = await signUp("ada@example.com");
    await fetch(await mailed(relay, "/api/auth/verify"), { method: "POST" });
    server.key = token;
    server.session = token;
    const { dns: records } = await call(server, "POST", "/api/domains", { domain: "kite.test" });
    names.records["kite.test"] = [{ mx: "mx.kite.test" }, { txt: records[1].value }];
    for (const one of records.slice(2)) names.records[one.name.toLowerCase()] = [{ txt: one.value }];
    await call(server, "POST", "/api/domains/kite.test/verify");
    await call(server, "PUT", "/api/domains/kite.test/webhook", { url: app.url });

    const view = await signedIn(server);
    const { page } = view;
    await view.screen("#/routes");
    await page.getByRole("button", { name: "New route" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Address").fill("sales@kite.test");
    await dialog.getByLabel("Action").selectOption("forward");
    await dialog.getByLabel("Forward to").fill("team@example.net");
    await dialog.getByText("is stored and not forwarded").waitFor();
    await dialog.getByLabel("Mail that may be forged").selectOption("rewrite");
    await dialog.getByText("so it has to be verified for sending").waitFor();
    await page.screenshot({ path: join(PICTURES, "new-forward.png") });
    assert.deepEqual(await view.axe(), []);
    await dialog.getByRole("button", { name: "Create route" }).click();
    await dialog.getByText("A link was mailed to team@example.net").waitFor();
    await page.screenshot({ path: join(PICTURES, "forward-made.png") });
    assert.deepEqual(await view.axe(), []);
    await dialog.getByRole("button", { name: "Done" }).click();
    const [made] = (await call(server, "GET", "/api/routes")).filter((one) => one.action === "forward");
    assert.deepEqual([made.on_auth_fail, made.destination_proven], ["rewrite", false]);
    await page.getByText("Not forwarding yet").waitFor();
    await page.getByText("The address can be asked again in 7 days").waitFor();

    for (let n = 0; n < 5; n++) await mail(server.smtp, plainMail(`Fails ${n}`), { to: "sales@kite.test" });
    await until("the pause", async () => (await call(server, "GET", "/api/routes")).some((one) => one.paused_until));
    const id = (await call(server, "GET", "/api/messages?limit=1"))[0].id;
    // A pause ends by itself after a second or so. Freeze it, so that each screen shows it.
    await page.route(/\/api\/(routes|deliveries|messages\/msg_\w+|overview)(\?|$)/, async (route) => {
      const answer = await route.fetch();
      const later = Date.now() + 240_000;
      const stands = (_key, one) => {
        if (one?.action === "forward") return one;
        for (const name of ["paused_until", "pausedUntil", "next_attempt_at"])
          if (name in Object(one)) one[name] = later;
        return one;
      };
      const body = JSON.stringify(JSON.parse(await answer.text(), stands));
      await route.fulfill({ response: answer, body });
    });
    const screens = {
      routes: ["#/routes", "This endpoint is paused."],
      deliveries: ["#/deliveries", "Paused"],
      message: [`#/messages/${id}`, "This endpoint is paused."],
      domain: ["#/domains/kite.test", "This endpoint is paused."],
      overview: ["#/overview", "Paused"],
    };
    await page.evaluate(() => localStorage.setItem("mailkite.started", "hidden"));
    for (const [width, colorScheme] of [
      [1360, "light"],
      [1360, "dark"],
      [390, "light"],
      [390, "dark"],
    ]) {
      await page.setViewportSize({ width, height: 860 });
      await page.emulateMedia({ colorScheme });
      for (const [name, [address, words]] of Object.entries(screens)) {
        await view.screen(address);
        await page.getByText(words).filter({ visible: true }).first().waitFor();
        await settled(page);
        await page.screenshot({ path: join(PICTURES, `paused-${name}-${width}-${colorScheme}.png`), fullPage: true });
        assert.deepEqual(await view.axe(), [], name);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.ok(!wide, `${name}, ${width}: nothing to scroll sideways for`);
      }
    }
    await page.unroute(/\/api\/(routes|deliveries|messages\/msg_\w+|overview)(\?|$)/);

    await fetch(await mailed(relay, "/api/forwards/confirm"), { method: "POST" });
    await view.screen("#/overview");
    await view.screen("#/routes");
    await page.getByText("Not forwarding yet").waitFor({ state: "detached" });
    assert.deepEqual(await view.check(), []);
    await view.close();
  } finally {
    await server.stop();
    relay.stop();
    names.stop();
    app.stop();
  }
});
