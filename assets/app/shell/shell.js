// The shell around every screen: navigation, shortcuts, theme, sign-out.
import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { href } from "../lib/paths.js";
import { navigate } from "../lib/router.js";
import { Icon } from "../ui/index.js";
import { ConnectionStatus } from "./connection-status.js";
import { GROUPS, prefetch, SCREENS } from "./screens.js";
import { useScrollAndFocus } from "./scroll.js";
import { ShortcutsDialog } from "./shortcuts.js";
import { ThemeSwitch } from "./theme.js";

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
