// The list of screens, and how one is loaded and shown. The first one is fetched while the session is checked, others
// when they are shown or when the pointer or the focus is on their link.
import { Component, html, useEffect, useState } from "../lib/preact.js";
import { get } from "../lib/api.js";
import { LoadError, Skeleton } from "../ui/index.js";

/** Title, module and shortcut key of each screen. */
export const SCREENS = {
  overview: ["Overview", () => import("../screens/overview/overview.js"), "o"],
  messages: ["Messages", () => import("../screens/messages/messages.js"), "m"],
  send: ["Send", () => import("../screens/send/send.js"), "s"],
  domains: ["Domains", () => import("../screens/domains/domains.js"), "d"],
  routes: ["Routes", () => import("../screens/routes/routes.js"), "r"],
  deliveries: ["Deliveries", () => import("../screens/deliveries/deliveries.js"), "w"],
  templates: ["Templates", () => import("../screens/templates.js"), "t"],
  suppressions: ["Suppressions", () => import("../screens/suppressions.js"), "x"],
  keys: ["Keys", () => import("../screens/keys.js"), "k"],
  settings: ["Settings", () => import("../screens/settings/settings.js"), ","],
};

const loadedScreens = new Map();

/** Fetch a screen that is likely to be opened next. */
export const prefetch = (key) =>
  SCREENS[key][1]().then(
    (module) => loadedScreens.set(key, module.default),
    () => {},
  );

export const GROUPS = [
  ["overview", "messages", "send"],
  ["domains", "routes", "deliveries"],
  ["templates", "suppressions", "keys", "settings"],
];

export const screenName = (route) => (SCREENS[route.parts[0]] ? route.parts[0] : "overview");

/** Show the error of a screen that throws; the shell keeps working. */
class ErrorBoundary extends Component {
  static getDerivedStateFromError(error) {
    return { error };
  }
  componentDidCatch(error) {
    console.error(error);
  }
  componentDidUpdate(before) {
    if (before.name !== this.props.name && this.state.error) this.setState({ error: null });
  }
  render({ children }) {
    return this.state.error
      ? html`<${LoadError} error=${this.state.error} retry=${() => this.setState({ error: null })} />`
      : children;
  }
}

export function Screen({ name, route, user, setUser }) {
  const [, forceUpdate] = useState(0);
  const [error, setError] = useState(null);
  const fetchScreen = async () => {
    try {
      loadedScreens.set(name, (await SCREENS[name][1]()).default);
      setError(null);
      forceUpdate((n) => n + 1);
    } catch {
      // Either the server is down, or it was updated while this tab was open and its files have new URLs.
      const updated = Object.assign(new Error("The server was updated. Reload the page."), { reload: true });
      await get("/api/health").then(() => setError(updated), setError);
    }
  };
  const ScreenComponent = loadedScreens.get(name);
  useEffect(() => {
    setError(null);
    // Checked against this render: the module may have arrived since, and nothing else would render it.
    if (!ScreenComponent) fetchScreen();
  }, [name]);
  if (error) return html`<${LoadError} error=${error} retry=${error.reload ? () => location.reload() : fetchScreen} />`;
  if (!ScreenComponent)
    return html`
      <div class="page">
        <${Skeleton} lines="6" />
      </div>
    `;
  return html`
    <${ErrorBoundary} name=${name}>
      <${ScreenComponent} key=${name} route=${route} user=${user} setUser=${setUser} />
    <//>
  `;
}
