// The layout of a screen: a page with a header, and cards.
import { html, useEffect } from "../lib/preact.js";
import { Icon } from "./icons.js";

export const Page = ({ title, lead, actions, children, back, narrow }) => {
  useEffect(() => {
    document.title = `${typeof title === "string" ? title : "mailkite"} · mailkite`;
  }, [title]);
  return html`
    <div class=${`page ${narrow ? "narrow" : ""}`}>
      <header class="page-head">
        <div>
          ${
            back &&
            html`
              <a class="back" href=${back[0]}>
                <${Icon} name="back" size="16" />
                ${back[1]}
              </a>
            `
          }
          <h1 tabindex="-1">${title}</h1>
          ${lead && html`<p class="lead">${lead}</p>`}
        </div>
        ${actions && html`<div class="actions">${actions}</div>`}
      </header>
      ${children}
    </div>
  `;
};

export const Card = ({ title, actions, children, class: extra = "", id }) =>
  html`
    <section class=${`card ${extra}`} id=${id}>
      ${
        (title || actions) &&
        html`
          <header>
            <h2>${title}</h2>
            ${actions && html`<div class="actions">${actions}</div>`}
          </header>
        `
      }
      ${children}
    </section>
  `;
