// The shell around every screen: navigation, shortcuts, theme, connection status, sign-out.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/preact.js";
import { useConnectionState } from "../lib/live.js";
import { href } from "../lib/paths.js";
import { navigate } from "../lib/router.js";
import { Dialog, Icon } from "../ui/index.js";
import { GROUPS, prefetch, SCREENS } from "./screens.js";

const THEMES = ["auto", "light", "dark"];

const storedTheme = () =>
  THEMES.includes(localStorage.getItem("mailkite.theme")) ? localStorage.getItem("mailkite.theme") : "auto";

function applyTheme(value) {
  value === "auto"
    ? document.documentElement.removeAttribute("data-theme")
    : document.documentElement.setAttribute("data-theme", value);
  dispatchEvent(new Event("themechange"));
}

applyTheme(storedTheme());

export function ThemeSwitch() {
  const [theme, setTheme] = useState(storedTheme);
  const nextTheme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const icon = { auto: "auto", light: "sun", dark: "moon" }[theme];
  const onClick = () => {
    localStorage.setItem("mailkite.theme", nextTheme);
    applyTheme(nextTheme);
    setTheme(nextTheme);
  };
  return html`
    <button
      type="button"
      class="nav-button"
      onClick=${onClick}
      aria-label=${`Colours: ${theme}. Switch to ${nextTheme}`}
      title=${`Colours: ${theme}`}
    >
      <${Icon} name=${icon} />
    </button>
  `;
}

function ConnectionStatus() {
  const state = useConnectionState();
  const label = {
    live: ["Live", "Changes show immediately."],
    connecting: ["Reconnecting", "The event stream is being opened again."],
    off: ["Paused", "The event stream is closed."],
  }[state];
  return html`
    <span class=${`live is-${state}`} title=${label[1]} role="status">
      <i aria-hidden="true"></i>
      ${label[0]}
    </span>
  `;
}

/** Scroll positions of history entries, by the name in their state. */
const scrollPositions = new Map();

let lastStep = 0;

/**
 * Scroll a new location to its top and focus its heading; return to the old position on a location gone back to.
 * `locationKey` changes with what the page shows, not with its filters.
 */
function useScrollAndFocus(main, locationKey) {
  const firstRender = useRef(true);
  useLayoutEffect(() => {
    let step = history.state?.step;
    const revisited = step !== undefined;
    if (!revisited) {
      step = `${performance.timeOrigin} ${++lastStep}`;
      history.replaceState({ step }, "");
    }
    const element = main.current;
    if (!firstRender.current) {
      element.scrollTop = 0;
      if (!document.querySelector("dialog[open]"))
        (element.querySelector("h1") || element).focus({ preventScroll: true });
      // Cached data is rendered by the next frame.
      if (revisited) requestAnimationFrame(() => (element.scrollTop = scrollPositions.get(step) || 0));
    }
    firstRender.current = false;
    const saveScroll = () => scrollPositions.set(step, element.scrollTop);
    element.addEventListener("scroll", saveScroll, { passive: true });
    return () => element.removeEventListener("scroll", saveScroll);
  }, [locationKey]);
}

function ShortcutsDialog({ onClose }) {
  const everywhere = [
    [["/"], "Search messages"],
    [["j", "↓"], "Next message"],
    [["k", "↑"], "Previous message"],
    [["Enter"], "Open it"],
    [["Esc"], "Back to the list"],
    [["?"], "This help"],
  ];
  const screens = Object.values(SCREENS).map(([name, , key]) => [["g", key], name]);
  const list = (rows, between) =>
    html`
      <dl class="shortcuts">
        ${rows.map(
          ([keys, text]) => html`
            <div key=${text}>
              <dt>
                ${keys.map(
                  (key, index) => html`
                    ${index ? between : ""}
                    <kbd>${key}</kbd>
                  `,
                )}
              </dt>
              <dd>${text}</dd>
            </div>
          `,
        )}
      </dl>
    `;
  return html`
    <${Dialog} title="Keyboard" onClose=${onClose}>
      <div class="shortcut-columns">
        <div>
          <h3>Go to</h3>
          ${list(screens, " then ")}
        </div>
        <div>
          <h3>Everywhere</h3>
          ${list(everywhere, " or ")}
        </div>
      </div>
    <//>
  `;
}

export function Shell({ user, name, locationKey, signOut, children }) {
  const [menuOpen, setMenuOpen] = useState(false);
  const [helpOpen, setHelpOpen] = useState(false);
  const prefixPressedAt = useRef(0);
  const main = useRef(null);
  useScrollAndFocus(main, locationKey);
  useEffect(() => {
    setMenuOpen(false);
  }, [name]);
  useEffect(() => {
    const onKeyDown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.key === "Escape") return setMenuOpen(false);
      if (event.target.closest("input, textarea, select, dialog, [contenteditable]")) return;
      if (Date.now() - prefixPressedAt.current < 1200) {
        const target = Object.entries(SCREENS).find(([, [, , key]]) => key === event.key);
        prefixPressedAt.current = 0;
        if (target) {
          event.preventDefault();
          navigate(href(target[0]));
        }
      } else if (event.key === "g") prefixPressedAt.current = Date.now();
      else if (event.key === "?") setHelpOpen(true);
      else if (event.key === "/" && !document.querySelector("[data-search]")) {
        event.preventDefault();
        navigate(href("messages", { focus: "search" }));
      }
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <div class=${`shell ${menuOpen ? "menu-open" : ""}`}>
      <a class="skip-link" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="topbar">
        <button
          type="button"
          class="nav-button"
          aria-label="Menu"
          aria-expanded=${menuOpen ? "true" : "false"}
          onClick=${() => setMenuOpen(!menuOpen)}
        >
          <${Icon} name="menu" size="22" />
        </button>
        <a class="brand" href="#/overview">
          <span class="logo" aria-hidden="true"></span>
          mailkite
        </a>
        <${ConnectionStatus} />
      </header>
      <aside class="sidebar">
        <a class="brand" href="#/overview">
          <span class="logo" aria-hidden="true"></span>
          mailkite
        </a>
        <nav aria-label="Screens">
          ${GROUPS.map(
            (group, index) => html`
              <ul key=${index}>
                ${group.map(
                  (key) => html`
                    <li key=${key}>
                      <a
                        href=${href(key)}
                        aria-current=${key === name ? "page" : undefined}
                        onPointerEnter=${() => prefetch(key)}
                        onFocus=${() => prefetch(key)}
                        onClick=${() => setMenuOpen(false)}
                      >
                        <${Icon} name=${key} />
                        ${SCREENS[key][0]}
                      </a>
                    </li>
                  `,
                )}
              </ul>
            `,
          )}
        </nav>
        <div class="sidebar-footer">
          <${ConnectionStatus} />
          <div class="account">
            <a href="#/settings" title=${user.email}>${user.email}</a>
            <button
              type="button"
              class="nav-button"
              aria-label="Keyboard shortcuts"
              title="Keyboard shortcuts"
              onClick=${() => setHelpOpen(true)}
            >
              <${Icon} name="help" />
            </button>
            <${ThemeSwitch} />
            <button type="button" class="nav-button" aria-label="Sign out" title="Sign out" onClick=${signOut}>
              <${Icon} name="out" />
            </button>
          </div>
        </div>
      </aside>
      <div class="backdrop" onClick=${() => setMenuOpen(false)}></div>
      <main id="main" ref=${main} tabindex="-1">${children}</main>
      ${helpOpen && html`<${ShortcutsDialog} onClose=${() => setHelpOpen(false)} />`}
    </div>
  `;
}
