// Load a screen and show it; one that fails shows its error, and the rest of the page works on.
import { Component, html, useEffect, useState } from "../lib/preact.js";
import { get } from "../lib/api.js";
import { LoadError, Skeleton } from "../ui/index.js";
import { loadedScreens, SCREENS } from "./screens.js";

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
