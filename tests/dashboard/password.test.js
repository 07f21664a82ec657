// A forgotten password: from "Forgot password?" to a sign-in with the new one, in every size and colour scheme.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PICTURES, browse, call, dev, until } from "./support.js";

const OWNER = "owner@inbox.test";
const LOOKS = [
  ["desktop-light", { viewport: { width: 1360, height: 860 }, colorScheme: "light" }],
  ["desktop-dark", { viewport: { width: 1360, height: 860 }, colorScheme: "dark" }],
  ["phone-light", { viewport: { width: 360, height: 740 }, colorScheme: "light" }],
  ["phone-dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark" }],
];

let server;
before(async () => {
  server = await dev();
});
after(() => server.stop());

/** The link in the newest mail, which the owner of inbox.test gets here. */
const mailedLink = (earlier) =>
  until("the mail with a link", async () => {
    for (const { id, subject } of await call(server, "GET", "/api/messages")) {
      if (subject !== "Choose a new password") continue;
      const { message } = await call(server, "GET", `/api/messages/${id}`);
      const [link] = /http:\S+#\/reset-password\/\w+/.exec(message.text_body);
      return link !== earlier && link;
    }
    return null;
  });

test("a mailed link sets a new password, once", async () => {
  const view = await browse(server);
  const { page } = view;
  await page.goto(server.base);
  await page.getByRole("button", { name: "Forgot password?" }).click();
  await page.getByRole("heading", { name: "Forgot password" }).waitFor();
  await page.getByLabel("E-mail").fill(OWNER);
  await page.getByRole("button", { name: "Mail me a link" }).click();
  await page.getByRole("heading", { name: "Look into your mail" }).waitFor();
  assert.deepEqual(await view.axe(), []);

  const link = await mailedLink();
  await page.goto(link);
  await page.getByRole("heading", { name: "Choose a new password" }).waitFor();
  assert.ok(!page.url().includes("reset-password"), "nothing of it is left in the address");
  view.expected.push(/400.*reset/);
  await page.getByLabel("New password").fill(OWNER);
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByText("a password is not the e-mail address").waitFor();
  await page.getByLabel("New password").fill("staple battery horse");
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByText("Your password is set. Sign in with it.").waitFor();
  await page.getByLabel("E-mail").fill(OWNER);
  await page.getByLabel("Password").fill("staple battery horse");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("button", { name: "Sign out" }).waitFor();

  // In a browser that is signed in, the spent link says so and leads to a new one.
  await page.goto(link);
  await page.reload();
  await page.goto(link);
  await page.getByLabel("New password").fill("another long password");
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByText("this link is not valid").waitFor();
  await page.getByRole("button", { name: "Ask for a new link" }).click();
  await page.getByRole("heading", { name: "Forgot password" }).waitFor();
  await page.getByRole("button", { name: "Back to sign in" }).click();
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("its pages are accessible and fit, in light and dark, on desktop and phone", async () => {
  for (const [look, options] of LOOKS) {
    const view = await browse(server, options);
    const { page } = view;
    const shot = async (name) => {
      assert.deepEqual(await view.axe(), [], `${name}, ${look}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      assert.ok(!wide, `${name} is wider than the window, ${look}`);
      await page.screenshot({ path: join(PICTURES, `${name}-${look}.png`) });
    };
    await page.goto(server.base);
    await page.getByRole("button", { name: "Forgot password?" }).waitFor();
    await shot("sign-in");
    await page.getByRole("button", { name: "Forgot password?" }).click();
    await page.getByLabel("E-mail").waitFor();
    await shot("forgot-password");
    await page.getByLabel("E-mail").fill("nobody@example.com");
    await page.getByRole("button", { name: "Mail me a link" }).click();
    await page.getByRole("heading", { name: "Look into your mail" }).waitFor();
    await shot("forgot-password-sent");
    await page.goto(`${server.base}/#/reset-password/unknown`);
    await page.getByLabel("New password").fill("staple battery horse");
    await shot("reset-password");
    view.expected.push(/400.*reset/);
    await page.getByRole("button", { name: "Set password" }).click();
    await page.getByText("this link is not valid").waitFor();
    await shot("reset-password-refused");
    assert.deepEqual(await view.check(), []);
    await view.close();
  }
});
