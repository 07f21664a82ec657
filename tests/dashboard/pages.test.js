// The pages behind mailed links: without scripts, in both colours, on a phone.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { PICTURES, browse, dns, mailHost, serve, until } from "./support.js";

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
