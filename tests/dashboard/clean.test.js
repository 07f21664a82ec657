// HTML of a mail contacts nobody before the reader asks for it: a server counts connections, and the browser's network
// log lists the names that it looked up.
import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browse, dev, drawn, htmlMail, mail, settled, until } from "./support.js";

/** Payloads that try to reach URL. */
const TRICKS = [
  `<img src="URL">`,
  `<img src=URL width=1 height=1>`,
  `<IMG SRC="URL">`,
  `<img src="\n\tURL">`,
  `<img src="&#104;ttp&colon;BARE">`,
  `<img src="//HOST">`,
  `<img src="\\\\HOST">`,
  `<img src="http:\\\\HOST">`,
  `<img src="http:HOST">`,
  `<img/src="URL"/onerror=x>`,
  `<image src="URL">`,
  `<img srcset="URL 1x, URL 2x">`,
  `<img src="data:image/png;base64,AA" srcset="URL 2x">`,
  `<img sizes=1px srcset="URL 1w">`,
  `<img lowsrc="URL" dynsrc="URL" longdesc="URL">`,
  `<picture><source srcset="URL"><img src="data:image/png;base64,AA"></picture>`,
  `<picture><source type=image/png media=all srcset="URL"></picture>`,
  `<input type=image src="URL">`,
  `<form action="URL"><input type=image src="URL"><button formaction="URL">x</button></form>`,
  `<form><input name=nextSibling><input name=firstChild><input name=attributes></form><img src="URL">`,
  `<video src="URL" autoplay></video>`,
  `<video poster="URL"></video>`,
  `<video><source src="URL"><track src="URL" default></video>`,
  `<audio src="URL" autoplay></audio>`,
  `<iframe src="URL"></iframe>`,
  `<iframe srcdoc="<img src='URL'>"></iframe>`,
  `<frameset><frame src="URL"></frameset>`,
  `<object data="URL"></object><embed src="URL"><applet codebase="URL" archive="URL"></applet>`,
  `<object data="data:text/html,<img src='URL'>"></object>`,
  `<link rel=stylesheet href="URL">`,
  `<link rel=preload as=image href="URL" imagesrcset="URL 1x">`,
  `<link rel=prefetch href="URL"><link rel=prerender href="URL"><link rel=modulepreload href="URL">`,
  `<link rel="dns-prefetch preconnect" href="URL">`,
  `<link rel=icon href="URL"><link rel=manifest href="URL"><link rel=import href="URL">`,
  `<meta http-equiv=refresh content="0;url=URL">`,
  `<meta http-equiv="Refresh" content="0; URL"><meta http-equiv="x-dns-prefetch-control" content="on"><a href="URL">x</a>`,
  `<meta http-equiv=link content="<URL>; rel=preload; as=image">`,
  `<base href="URL/"><img src="x.png"><a href="y">y</a>`,
  `<base target=_self href="URL/"><link rel=stylesheet href=z.css>`,
  `<body background="URL">x</body>`,
  `<table background="URL"><tr background="URL"><td background="URL">x</table>`,
  `<p style="background:url(URL)">x</p>`,
  `<p style='background-image:url("URL")'>x</p>`,
  `<p style="background:url('URL')">x</p>`,
  `<p style="background:u\\72l(URL)">x</p>`,
  `<p style="background:\\75\\52\\4c(URL)">x</p>`,
  `<p style="background:\\000075rl(URL)">x</p>`,
  `<p style="background:\\75 rl( URL )">x</p>`,
  `<p style="back\\67round:url(URL)">x</p>`,
  `<p style="background:/**/url(/**/URL)">x</p>`,
  `<p style="background:url(&quot;URL&quot;)">x</p>`,
  `<p style="background:URL(URL)">x</p>`,
  `<p style="background:url(\\68ttp://BARE)">x</p>`,
  `<p style="background-image:image-set('URL' 1x)">x</p>`,
  `<p style="background-image:-webkit-image-set(url(URL) 1x)">x</p>`,
  `<p style="background-image:im\\61ge-set('URL' 1x, 'URL' 2x)">x</p>`,
  `<p style="background-image:cross-fade(url(URL),url(URL),50%)">x</p>`,
  `<p style="background-image:-webkit-cross-fade(url(URL),url(URL),.5)">x</p>`,
  `<p style="--a:url(URL);background:var(--a)">x</p>`,
  `<p style="--a:\\75rl(URL);background:\\76 ar(--a)">x</p>`,
  `<p style="background:var(--b, url(URL))">x</p>`,
  `<p style="background-image:if(else: url(URL))">x</p>`,
  `<ul style="list-style:url(URL)"><li style="list-style-image:url(URL)">x</ul>`,
  `<p style="cursor:url(URL),auto;border-image:url(URL) 1;mask:url(URL);-webkit-mask-image:url(URL)">x</p>`,
  `<p style="filter:url(URL#a);clip-path:url(URL#b);shape-outside:url(URL);offset-path:url(URL#c)">x</p>`,
  `<p style="content:url(URL)">x</p><style>p::before{content:url(URL)}p::marker{content:url(URL)}</style>`,
  `<p style="}*{background:url(URL)}">x</p>`,
  `<style>p{background:url(URL)}</style><p>x</p>`,
  `<style>@import url(URL);</style><p>x</p>`,
  `<style>@import "URL";</style><style>@\\69mport "URL";</style><p>x</p>`,
  `<style>@import url(URL) layer(a) supports(display:block) all;</style><p>x</p>`,
  `<style>@charset "x";@layer a;@import 'URL';</style><p>x</p>`,
  `<style>@namespace url(URL);p{color:red}</style><p>x</p>`,
  `<style>@font-face{font-family:f;src:url(URL)}p{font-family:f}</style><p>x</p>`,
  `<style>@media all{p{background:url(URL)}@media screen{p{color:red;background:\\75rl(URL)}}}</style><p>x</p>`,
  `<style>@supports (display:block){p{background:url(URL)}}@layer{p{background:url(URL)}}@container (width>0px){p{background:url(URL)}}</style><p>x</p>`,
  `<style>p{&:hover,&{background:url(URL)}}@keyframes k{from,to{background:url(URL)}}p{animation:k 1s infinite}</style><p>x</p>`,
  `<style>@property --u{syntax:'<url>';inherits:true;initial-value:url(URL)}p{background:var(--u)}</style><p>x</p>`,
  `<style>@cursor{}a{}b{background:url(URL)}</style><style media="all">b{background:url(URL)}</style><b>x</b>`,
  `<style>p[title="</style><img src=URL>"]{color:red}</style><p>x</p>`,
  `<style>p::after{content:"<\\2fstyle><img src=URL>"}</style><p>x</p>`,
  `<style><!-- p{background:url(URL)} --></style><p>x</p>`,
  `<xmp><style>p{background:url(URL)}</style></xmp><noscript><img src=URL></noscript><p>x</p>`,
  `<noembed><img src=URL></noembed><noframes><img src=URL></noframes><template><img src=URL></template>`,
  `<svg><image href="URL" width=9 height=9 /><image xlink:href="URL" width=9 height=9 /></svg>`,
  `<svg><use href="URL#a" /><use xlink:href="URL#a" /></svg>`,
  `<svg><style>@import url(URL);*{background:url(URL)}</style><rect fill="url(URL#a)" /></svg>`,
  `<svg><filter id=f><feImage href="URL" /></filter><rect filter="url(#f)" width=9 height=9 /></svg>`,
  `<svg><foreignObject><img src="URL"></foreignObject><a href="URL"><text>x</text></a></svg>`,
  `<svg><set attributeName=href to="URL" /><animate attributeName=href values="URL" /><script href="URL" /></svg>`,
  `<math><mtext><img src="URL"></mtext><mi href="URL" xlink:href="URL">x</mi><annotation-xml encoding="text/html"><img src=URL></annotation-xml></math>`,
  `<svg></p><style><img src="URL"></style></svg>`,
  `<a href="URL" ping="URL" id=a>x</a><a href="URL" attributionsrc="URL">y</a>`,
  `<img src="data:image/png;base64,AA" attributionsrc="URL"><script src="URL"></script><script>fetch("URL")</script>`,
  `<script type=speculationrules>{"prefetch":[{"source":"list","urls":["URL"]}]}</script><a href="URL">x</a>`,
  `<html manifest="URL"><head profile="URL"><body style="background:url(URL)">x`,
  `<portal src="URL"></portal><fencedframe src="URL"></fencedframe><bgsound src="URL"><layer src="URL"></layer>`,
  `<img src="cid:x" onerror="this.src='URL'"><body onload="new Image().src='URL'">`,
  `<div style="behavior:url(URL);-moz-binding:url(URL#x)">x</div><xml src="URL" id=i></xml>`,
  `<img src="blob:URL"><img src="filesystem:URL"><img src="view-source:URL"><img src="jar:URL!/x">`,
  `<img src="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><image href='URL'/></svg>">`,
  `<p style="background:url(data:image/svg+xml,%3Csvg%20xmlns=%22http://www.w3.org/2000/svg%22%3E%3Cimage%20href=%22URL%22/%3E%3C/svg%3E)">x</p>`,
  `${"<div>".repeat(600)}<img src="URL">${"</div>".repeat(600)}`,
];

let server, sender, base;
let connections = 0;
const asked = [];
before(async () => {
  server = await dev();
  sender = http.createServer((request, response) => {
    asked.push(request.url);
    response.writeHead(200, { "content-type": "image/gif" });
    response.end(Buffer.from("R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=", "base64"));
  });
  sender.on("connection", () => connections++);
  await new Promise((resolve) => {
    sender.listen(0, "127.0.0.1", resolve);
  });
  base = `127.0.0.1:${sender.address().port}`;
});
after(async () => {
  await server.stop();
  sender.closeAllConnections();
  sender.close();
});

const aimed = (html, host) => html.replace(/URL(?=[^(]|$)/g, `http://${host}`).replace(/BARE|HOST/g, host);

const send = (html, subject) => mail(server.smtp, htmlMail(subject, html));

/** Sign in, in a browser with these arguments. */
async function signedInWith(args) {
  const view = await browse(server, { args });
  if (!server.session) {
    await view.page.goto(server.ticket);
    await view.page.waitForSelector(".shell");
    server.session = await view.page.evaluate(() => localStorage.getItem("mailkite.session"));
    return view;
  }
  await view.page.addInitScript((token) => {
    if (globalThis === globalThis.top) localStorage.setItem("mailkite.session", token);
  }, server.session);
  await view.page.goto(`${server.base}/`);
  await view.page.waitForSelector(".shell");
  return view;
}

async function open(view, id) {
  await view.screen(`#/messages/${id}`);
  const frame = await (await view.page.waitForSelector(".mail-frame iframe")).contentFrame();
  await settled(view.page);
  await drawn(view.page);
  return frame;
}

test("before the reader asks for them no remote things are loaded, whatever the trick", async () => {
  assert.ok(TRICKS.length >= 60);
  const view = await signedInWith([]);
  for (const [n, trick] of TRICKS.entries()) {
    const frame = await open(view, await send(aimed(trick, `${base}/${n}`), `trick ${n}`));
    const left = await frame.evaluate(() => ({
      origin: globalThis.origin,
      names: [...document.querySelectorAll("*")].map((one) => one.localName),
      attributes: [...document.querySelectorAll("*")].flatMap((one) => [...one.attributes].map(({ name }) => name)),
      links: [...document.querySelectorAll("a")].map((one) => [one.protocol, one.target, one.rel]),
    }));
    assert.equal(left.origin, "null", "no origin");
    const forbidden = /^(iframe|object|embed|form|input|link|base|script|svg|math|video|audio|source|template|frame)$/;
    assert.deepEqual(
      left.names.filter((name) => forbidden.test(name)),
      [],
      trick,
    );
    assert.deepEqual(
      left.attributes.filter((name) => /^on|ping|srcset|srcdoc|action|attributionsrc/.test(name)),
      [],
      trick,
    );
    for (const [protocol, target, rel] of left.links.filter(([protocol]) => protocol !== ":"))
      assert.deepEqual([/^https?:$/.test(protocol), target, rel], [true, "_blank", "noopener noreferrer"], trick);
    assert.equal(connections, 0, `${trick}: ${asked}`);
    assert.deepEqual(await view.check(), [], trick);
  }
  await view.close();
});

test("not even a name of the sender's is looked up", async () => {
  const log = join(tmpdir(), `mailkite-network-${process.pid}.json`);
  const view = await signedInWith([`--log-net-log=${log}`]);
  for (const [n, trick] of TRICKS.entries())
    await open(view, await send(aimed(trick, `v${n}.canary.invalid`), `name ${n}`));
  await view.close();
  const network = await until("the browser's log", () => {
    const text = readFileSync(log, "utf8");
    return text.trimEnd().endsWith("}") && text;
  });
  rmSync(log);
  assert.ok(network.includes("127.0.0.1"), "it logs the network");
  assert.deepEqual(network.match(/[\w.]*canary\.invalid/g) || [], []);
});

test("asked for, pictures come, and nothing else does", async () => {
  const view = await signedInWith([]);
  const { page } = view;
  const html = aimed(
    `<style>p{background:url(URL/sheet)}@import url(URL/import);@font-face{font-family:f;src:url(URL/font)}</style>
     <p style="background-image:\\75rl(URL/escaped);font-family:f">Hi</p><img src="URL/plain"><img srcset="URL/set 1x">
     <table background="URL/table"><td>x</td></table><video src="URL/video" poster="URL/poster" autoplay></video>
     <iframe src="URL/frame"></iframe><script src="URL/script"></script><link rel=stylesheet href="URL/link">
     <svg><image href="URL/svg" /></svg><object data="URL/object"></object>`,
    `${base}/consent`,
  );
  const id = await send(html, "pictures");
  await open(view, id);
  assert.equal(connections, 0);
  await page.getByRole("button", { name: "Load" }).click();
  const came = () => new Set(asked.map((url) => url.replace("/consent/", "")));
  await until("the pictures", () => ["plain", "set", "table", "escaped"].every((one) => came().has(one)));
  await settled(page);
  await drawn(page);
  assert.deepEqual([...came()].sort(), ["escaped", "plain", "set", "table"]);
  await view.close();
});
