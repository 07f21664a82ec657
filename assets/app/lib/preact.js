// Preact, its hooks and htm: the only module that imports them from vendor/.
import htm from "../../vendor/htm.js";
import { Component, Fragment, h, render } from "../../vendor/preact.js";

export { Component, Fragment, h, render };
export * from "../../vendor/hooks.js";
export const html = htm.bind(h);
