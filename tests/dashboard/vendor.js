// Build assets/vendor from the npm packages in the versions of package.json; with --check, compare instead.
import { readFileSync, writeFileSync } from "node:fs";

const root = new URL("../../assets/vendor/", import.meta.url);
const read = (path) => readFileSync(new URL(`node_modules/${path}`, import.meta.url), "utf8");
const version = (name) => JSON.parse(read(`${name}/package.json`)).version;
const plain = (text) => text.replace(/^\/\/# sourceMappingURL.*\n?/gm, "");

const withBanner = (about, code) => `/*! ${about} */\n${code}`;

const FILES = {
  "preact.js": () =>
    withBanner(
      `preact ${version("preact")}, MIT licence, https://preactjs.com: dist/preact.mjs of the npm package`,
      plain(read("preact/dist/preact.mjs")),
    ),
  "hooks.js": () =>
    withBanner(
      `preact ${version("preact")}, MIT licence, https://preactjs.com: ` +
        "hooks/dist/hooks.mjs of the npm package, its import made relative",
      plain(read("preact/hooks/dist/hooks.mjs")).replace('from"preact"', 'from"./preact.js"'),
    ),
  "htm.js": () =>
    withBanner(
      `htm ${version("htm")}, Apache-2.0 licence, https://github.com/developit/htm: dist/htm.mjs of the npm package`,
      `${read("htm/dist/htm.mjs")}\n`,
    ),
  "uplot.js": () =>
    withBanner(
      `uPlot ${version("uplot")}, MIT licence: dist/uPlot.iife.min.js of the npm package, ` +
        "made a module by its last line",
      `${read("uplot/dist/uPlot.iife.min.js")}\nexport default uPlot;\n`,
    ),
  "uplot.css": () =>
    withBanner(
      `uPlot ${version("uplot")}, MIT licence: dist/uPlot.min.css of the npm package`,
      read("uplot/dist/uPlot.min.css"),
    ),
};

for (const [name, make] of Object.entries(FILES)) {
  const file = new URL(name, root);
  if (!process.argv.includes("--check")) writeFileSync(file, make());
  else if (readFileSync(file, "utf8") !== make()) {
    console.error(`assets/vendor/${name} is not what its package has; run node tests/dashboard/vendor.js`);
    process.exitCode = 1;
  }
}
