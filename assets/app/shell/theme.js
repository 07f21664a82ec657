// Switch between light and dark.
import { html, useState } from "../lib/preact.js";
import { Icon } from "../ui/index.js";

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
