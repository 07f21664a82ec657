// Start the dashboard.
import { html, render } from "./lib/preact.js";
import { ConfirmDialog, Toasts } from "./ui/index.js";
import { App } from "./shell/app.js";

render(
  html`
    <${App} />
    <${Toasts} />
    <${ConfirmDialog} />
  `,
  document.getElementById("app"),
);
