// Rotating the DKIM keys of a domain on its page: what to publish, what to keep.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { call, dns, PICTURES, serve, settled, signedIn } from "./support.js";

test("a domain's page says which records to add and which to keep while keys are rotated", async () => {
  const names = await dns({});
  const server = await serve(names.port);
  const account = { email: "you@kite.test", password: "correct horse battery", setupToken: server.token };
  const { token } = await call(server, "POST", "/api/auth/signup", account);
  Object.assign(server, { session: token, key: token });
  const publish = (records) => {
    for (const { type, name, value } of records) {
      names.records[name] = [...(names.records[name] || []), type === "MX" ? { mx: value } : { txt: value }];
    }
  };
  const added = await call(server, "POST", "/api/domains", { domain: "acme.dev" });
  publish(added.dns);
  await call(server, "POST", "/api/domains/acme.dev/verify");
  try {
    const view = await signedIn(server);
    await view.screen("#/domains/acme.dev");
    await view.page.getByRole("button", { name: "Rotate DKIM keys" }).click();
    await view.page.getByRole("button", { name: "Make new keys" }).click();
    await view.page.getByText("Publish it beside the present one.").first().waitFor();
    assert.equal(await view.page.getByRole("button", { name: "Rotate DKIM keys" }).count(), 0, "one at a time");
    const look = async (state) => {
      for (const [width, colorScheme] of [
        [1360, "light"],
        [1360, "dark"],
        [390, "light"],
        [390, "dark"],
      ]) {
        await view.page.setViewportSize({ width, height: 860 });
        await view.page.emulateMedia({ colorScheme });
        await settled(view.page);
        await view.page.locator(".record").nth(5).scrollIntoViewIfNeeded();
        await view.page.screenshot({
          path: join(PICTURES, `keys-${state}-${width}-${colorScheme}.png`),
        });
        assert.deepEqual(await view.axe(), [], `${state} ${width} ${colorScheme}`);
        const wide = await view.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.ok(!wide, "nothing to scroll sideways for");
      }
    };
    await look("next");
    const { dns: waiting } = await call(server, "GET", "/api/domains/acme.dev");
    publish(waiting.slice(5));
    await view.page.getByRole("button", { name: "Check now" }).click();
    await view.page.getByText("It signs no more").first().waitFor();
    await look("retiring");
    assert.equal(await view.page.getByRole("button", { name: "Rotate DKIM keys" }).count(), 0, "not until they retire");
    assert.deepEqual(await view.check(), []);
    await view.close();
  } finally {
    await server.stop();
    names.stop();
  }
});
