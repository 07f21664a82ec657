// Hostile text in all input from outside, on every screen that shows it. A canary detects scripts that run, windows
// that open, requests to elsewhere, and policy violations.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { dev, receiver, signedIn, settled, htmlMail, mail, call, drawn, until } from "./support.js";

const RUN = "window.top.pwned='NAME';window.pwned='NAME';parent.pwned='NAME'";
const BEACON = "https://canary.invalid/NAME";

/** Text that would run if it were taken for markup. */
const TEXTS = [
  `<script>${RUN}</script>`,
  `"><img src=x onerror="${RUN}">`,
  `'><svg onload='${RUN.replace(/'/g, '"')}'>`,
  `</title></textarea></style></script><iframe srcdoc="<script>${RUN}</script>">`,
  `javascript:${RUN}`,
  `{{constructor.constructor("${RUN}")()}}\${${RUN}}`,
  `<a href="javascript:${RUN}" autofocus onfocus="${RUN}">x</a>`,
  `\u202e\u2066<b>moc.live\u2069 \u0000 \u{1f9a0}`,
];

/** Hostile HTML bodies. */
const HTML = [
  `<style><a id="</style><img src=x onerror="${RUN}" style="background:url(${BEACON})">"><p id='"'onclick=${RUN} style=color:red>quotes</p>`,
  `<svg/onload=${RUN}><p\fonclick=${RUN}\nstyle\n=\n"background:url(${BEACON})">odd blanks</p><b -onclick=x :style=y data-onclick=z ONCLICK=${RUN} STYLE="background:URL(${BEACON})">case</b>`,
  `<script>${RUN}</script><script src="${BEACON}"></script>`,
  `<img src=x onerror="${RUN}"><img src="${BEACON}"><img srcset="${BEACON} 1x"><picture><source srcset="${BEACON}"><img></picture>`,
  `<svg onload="${RUN}"><script>${RUN}</script><image href="${BEACON}" xlink:href="${BEACON}"/><use href="${BEACON}#x"/><animate onbegin="${RUN}" attributeName=x dur=1s></svg>`,
  `<body onload="${RUN}" background="${BEACON}"><table background="${BEACON}"><td background="${BEACON}">x</td></table>`,
  `<iframe src="${BEACON}"></iframe><iframe srcdoc="<script>${RUN}</script>"></iframe><object data="${BEACON}"></object><embed src="${BEACON}"><frameset><frame src="${BEACON}"></frameset>`,
  `<link rel=stylesheet href="${BEACON}"><link rel=preconnect href="${BEACON}"><link rel=dns-prefetch href="${BEACON}"><link rel=prefetch href="${BEACON}"><link rel=icon href="${BEACON}">`,
  `<meta http-equiv=refresh content="0;url=${BEACON}"><meta http-equiv=Content-Security-Policy content="default-src *"><base href="${BEACON}/"><img src="relative.png"><p>based</p>`,
  `<style>@import url(${BEACON});@import "${BEACON}";body{background:url(${BEACON})}@font-face{font-family:x;src:url(${BEACON})}p{font-family:x;list-style:url("${BEACON}")}</style><p>styled</p>`,
  `<style>p{background:u\\72l(${BEACON})}q{background:\\75\\72\\6c(${BEACON})}</style><p style="background:\\75 rl(${BEACON});background-image:image-set('${BEACON}' 1x)">escaped</p>`,
  `<style><\\41 /style><img src=${BEACON} onerror="${RUN}"></style><style></sty\\6ce><img src=x onerror="${RUN}">`,
  `<p style="background-image:url('${BEACON}')">x</p><p style='background:url("${BEACON}")'>y</p><p style=background:url(${BEACON})>z</p><p title="a style=b" style = "color:red">w</p>`,
  `<form action="${BEACON}"><input name=x autofocus onfocus="${RUN}"><button formaction="javascript:${RUN}">go</button></form><p>form</p>`,
  `<a href="javascript:${RUN}" id=js>js</a><a href="  java\nscript:${RUN}">js2</a><a href="data:text/html,<script>${RUN}</script>">data</a><a ping="${BEACON}" href="https://example.com/">fine</a>`,
  `<video src="${BEACON}" poster="${BEACON}" autoplay onplay="${RUN}"></video><audio src="${BEACON}" autoplay></audio><p>media</p>`,
  `<math><mi//xlink:href="data:x,<script>${RUN}</script>"><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=${RUN}&gt;">`,
  `<noscript><p title="</noscript><img src=x onerror=${RUN}>"></noscript><p>mxss</p>`,
  `<svg></p><style><a id="</style><img src=1 onerror=${RUN}>"></svg><p>mxss2</p>`,
  `<template><script>${RUN}</script></template><dialog open onclose="${RUN}"><p>dialog</p></dialog><details open ontoggle="${RUN}"><p>details</p></details>`,
  `<div ${"a".repeat(10)}=<img src=x onerror=${RUN}> <img src=\`x\` onerror=${RUN}><x onclick=${RUN} tabindex=1 id=x>x</x><p>odd</p>`,
  `${"<div>".repeat(3000)}deep${"</div>".repeat(3000)}`,
  `<plaintext><script>${RUN}</script>`,
  `<!--><img src=x onerror=${RUN}>--><!--[if IE]><img src=x onerror=${RUN}><![endif]--><p>comment</p>`,
  `<html manifest="${BEACON}"><body><p contenteditable autofocus onfocus="${RUN}">doc</p><marquee onstart="${RUN}">m</marquee>`,
];

const marked = (text, name) => text.replaceAll("NAME", name);
const encoded = (text) =>
  `=?utf-8?B?${Buffer.from(text)
    .toString("base64")
    .match(/.{1,44}/g)
    .join("?=\n =?utf-8?B?")}?=`;

let server, app;
const ids = [];
before(async () => {
  server = await dev();
  app = await receiver((count) => ({
    status: 500,
    headers: { "x-hostile": TEXTS[count % 5].replace(/[\r\n]/g, "").replace(/[^\x20-\x7e]/g, "") },
    body: marked(TEXTS.join("\n"), "webhook-answer"),
  }));
  await call(server, "PUT", "/api/domains/inbox.test/webhook", {
    url: `${app.url}?q=%3Cscript%3E&x='"><img/src=x/onerror=pwned=1>`,
  });
});
after(async () => {
  await server.stop();
  app.stop();
});

test("hostile text in every field of a mail stays text", async () => {
  for (const [n, text] of TEXTS.entries()) {
    const body = marked(text, `text-${n}`);
    ids.push(
      await mail(
        server.smtp,
        `From: ${encoded(body)} <ada@example.com>
To: ${encoded(body)} <hello@inbox.test>
Subject: ${encoded(body)}
Message-ID: <x${n}@example.com>
X-Hostile: ${body.replace(/[\r\n\u0000]/g, " ").replace(/[^\x20-\x7e]/g, "?")}
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8

${body.replace(/\u0000/g, "")}
--b
Content-Type: application/${n}"><img/src=x>; name="x"
Content-Disposition: attachment; filename="${encodeURI("a").repeat(2)}.txt";
 filename*=UTF-8''${encodeURIComponent(body)}
Content-Transfer-Encoding: base64

PHNjcmlwdD4=
--b--
`,
      ),
    );
  }
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/messages");
  await until("all rows", async () => (await page.locator(".row").count()) >= TEXTS.length);
  for (const id of ids) {
    await view.screen(`#/messages/${id}`);
    await page.locator(".message h2").waitFor();
    for (const tab of ["Text", "Headers", "Raw"]) {
      await page.getByRole("tab", { name: tab }).click();
      await settled(page);
    }
    await until("an attempt", async () => (await page.locator(".attempt summary").count()) > 0);
    await page.locator(".attempt summary").first().click();
    assert.deepEqual(await view.check(), [], id);
  }
  await view.screen("#/overview");
  await view.screen(`#/messages?search=${encodeURIComponent(marked(TEXTS[1], "search"))}`);
  await view.screen(`#/messages/${encodeURIComponent(marked(TEXTS[1], "id"))}`);
  view.expected.push(/404.*api\/(messages|domains|templates)/, /400 .*\/api\//);
  await view.screen(`#/domains/${encodeURIComponent(marked(TEXTS[1], "domain"))}`);
  await view.screen(`#/templates/${encodeURIComponent("../..")}`);
  await view.screen(
    `#/send?to=${encodeURIComponent(marked(TEXTS[1], "to"))}&subject=${encodeURIComponent(marked(TEXTS[0], "subject"))}`,
  );
  view.troubles.splice(
    0,
    view.troubles.length,
    ...view.troubles.filter((one) => !/status of 404|status of 400/.test(one)),
  );
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("hostile HTML runs nothing and asks nobody, in a mail and in a preview", async () => {
  const view = await signedIn(server);
  const { page } = view;
  for (const [n, html] of HTML.entries()) {
    const id = await mail(server.smtp, htmlMail(`html ${n}`, marked(html, `html-${n}`)));
    await view.screen(`#/messages/${id}`);
    const frame = await (await page.waitForSelector(".mail-frame iframe")).contentFrame();
    await settled(page);
    assert.equal(await frame.evaluate(() => globalThis.origin), "null", "no origin");
    for (const link of await frame.locator("a[href]").all()) assert.match(await link.getAttribute("href"), /^https?:/);
    assert.deepEqual(await view.check(), [], html);
  }
  assert.equal(view.requests.filter((url) => url.includes("canary.invalid")).length, 0);
  await view.screen("#/send");
  await page.getByRole("tab", { name: "HTML" }).click();
  await page.getByLabel("HTML", { exact: true }).fill(marked(HTML.join("\n"), "preview"));
  await page.getByRole("tab", { name: "Preview" }).click();
  await page.waitForSelector(".mail-frame iframe");
  await settled(page);
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("even uncleaned, the frame lets nothing run or leave", async () => {
  const view = await signedIn(server);
  const { page } = view;
  // Post unsanitized HTML; violations are reported for the frame, and mean that its policy holds.
  for (const [n, html] of HTML.entries()) {
    await page.evaluate(
      ({ source }) => {
        document.querySelector("#raw")?.remove();
        const frame = Object.assign(document.createElement("iframe"), { name: "raw", id: "raw" });
        frame.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox");
        document.body.append(frame);
        const form = Object.assign(document.createElement("form"), {
          method: "post",
          enctype: "text/plain",
          action: "/frame",
          target: "raw",
        });
        const field = Object.assign(document.createElement("textarea"), { name: "html", value: source });
        form.append(field);
        document.body.append(form);
        const loaded = new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
        form.submit();
        form.remove();
        return loaded.then(() => undefined);
      },
      { source: marked(html, `raw-${n}`) },
    );
    await drawn(page);
  }
  assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
  // A request that the policy refuses is reported to the developer tools but never sent.
  assert.equal(view.troubles.filter((one) => /dialog|window was opened/.test(one)).length, 0);
  await view.close();
});

test("an address that names no id asks the server for nothing", async () => {
  const view = await signedIn(server);
  const { page } = view;
  await view.screen("#/overview");
  const ids = [
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fauth%2flogout",
    "msg_x",
    "msg_0000000000000000%2fraw",
    "msg_00000000000000000",
  ];
  ids.push(
    "msg_000000000000000%3f",
    "%00",
    "me%23",
    "//evil.example",
    "dom_0000000000000000?x=1",
    "tpl_000000000000000%c3%bc",
  );
  for (const screen of ["messages", "templates"])
    for (const id of ids) {
      await view.screen(`#/${screen}`);
      const before = view.requests.length;
      await view.screen(`#/${screen}/${id}`);
      await drawn(page);
      const asked = view.requests.slice(before).map((url) => new URL(url).pathname);
      const wanted = /^\/(api\/(messages|domains|templates|templates\/base|routes)|v1\/realtime|assets\/.*)$/;
      assert.deepEqual(
        asked.filter((path) => !wanted.test(path)),
        [],
        `${screen}/${id}`,
      );
    }
  for (const id of ["..", ".", "%2e%2e"]) {
    const before = view.requests.length;
    await view.screen(`#/domains/${id}`);
    await page.getByText("There is nothing here.").waitFor();
    assert.deepEqual(
      view.requests.slice(before).filter((url) => !url.includes("/assets/")),
      [],
      id,
    );
  }
  assert.deepEqual(await view.check(), []);
  await view.close();
});

test("hostile names of things of one's own stay text", async () => {
  const name = marked(TEXTS[1], "own");
  const template = await call(server, "POST", "/api/templates", {
    name,
    subject: name,
    html: marked(HTML[1], "template"),
    text: name,
  });
  await call(server, "POST", "/api/contacts/suppressions", { email: "x@example.com", note: name });
  await call(server, "POST", "/api/keys/scoped", { domainId: "inbox.test", name: name.slice(0, 100) });
  await call(server, "POST", "/api/routes", { match: "/<img src=x onerror=pwned=1>/", action: "store" });
  const sent = await call(server, "POST", "/v1/send", {
    from: "hello@inbox.test",
    to: "hello@inbox.test",
    subject: name,
    text: name,
    metadata: { note: name },
  });
  const view = await signedIn(server);
  for (const screen of [
    "#/templates",
    `#/templates/${template.id}`,
    "#/suppressions",
    "#/keys",
    "#/routes?address=a@inbox.test",
    "#/settings",
    "#/deliveries",
    "#/domains",
    "#/domains/inbox.test",
    `#/messages/${sent.id}`,
  ]) {
    await view.screen(screen);
    assert.deepEqual(await view.check(), [], screen);
  }
  await view.close();
});
