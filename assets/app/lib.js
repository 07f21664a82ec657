// The one place that knows where Preact and htm come from.
import { h, render, Fragment, Component } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { h, render, Fragment, Component };
export * from "../vendor/hooks.js";
export const html = htm.bind(h);
