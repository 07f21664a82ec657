// Makes assets/vendor of the npm packages; with --check, compares instead. The versions are those of package.json.
import { readFileSync, writeFileSync } from "node:fs";

const root = new URL("../../assets/vendor/", import.meta.url);
const read = (path) => readFileSync(new URL(`node_modules/${path}`, import.meta.url), "utf8");
const version = (name) => JSON.parse(read(`${name}/package.json`)).version;
const plain = (text) => text.replace(/^\/\/# sourceMappingURL.*\n?/gm, "");

const FILES = {
  "preact.js": () =>
    `/*! preact ${version("preact")}, MIT licence, https://preactjs.com: dist/preact.mjs of the npm package */\n${plain(read("preact/dist/preact.mjs"))}`,
  "hooks.js": () =>
    `/*! preact ${version("preact")}, MIT licence, https://preactjs.com: hooks/dist/hooks.mjs of the npm package, its import made relative */\n${plain(read("preact/hooks/dist/hooks.mjs")).replace('from"preact"', 'from"./preact.js"')}`,
  "htm.js": () =>
    `/*! htm ${version("htm")}, Apache-2.0 licence, https://github.com/developit/htm: dist/htm.mjs of the npm package */\n${read("htm/dist/htm.mjs")}\n`,
  "uplot.js": () =>
    `/*! uPlot ${version("uplot")}, MIT licence: dist/uPlot.iife.min.js of the npm package, made a module by its last line */\n${read("uplot/dist/uPlot.iife.min.js")}\nexport default uPlot;\n`,
  "uplot.css": () =>
    `/*! uPlot ${version("uplot")}, MIT licence: dist/uPlot.min.css of the npm package */\n${read("uplot/dist/uPlot.min.css")}`,
};

for (const [name, make] of Object.entries(FILES)) {
  const file = new URL(name, root);
  if (!process.argv.includes("--check")) writeFileSync(file, make());
  else if (readFileSync(file, "utf8") !== make()) {
    console.error(`assets/vendor/${name} is not what its package has; run node tests/dashboard/vendor.js`);
    process.exitCode = 1;
  }
}
