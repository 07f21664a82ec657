// Starts the dashboard: who is signed in, which screen, the frame around it.
import { html, render, useState, useEffect, useLayoutEffect, useRef, Component } from "./lib.js";
import { api, get, post, session, forget } from "./api.js";
import { to } from "./paths.js";
import { useRoute, read, go, replace } from "./router.js";
import { forgetDrafts } from "./drafts.js";
import * as live from "./live.js";
import { Icon, Toasts, Confirms, Failure, Skeleton, Dialog, say, complain } from "./ui.js";

// Screens are fetched when they are first shown; the one asked for is fetched while the session is checked.
const SCREENS = {
  overview: ["Overview", () => import("./overview.js"), "o"],
  messages: ["Messages", () => import("./messages.js"), "m"],
  send: ["Send", () => import("./send.js"), "s"],
  domains: ["Domains", () => import("./domains.js"), "d"],
  routes: ["Routes", () => import("./routes.js"), "r"],
  deliveries: ["Deliveries", () => import("./deliveries.js"), "w"],
  templates: ["Templates", () => import("./templates.js"), "t"],
  suppressions: ["Suppressions", () => import("./suppressions.js"), "x"],
  keys: ["Keys", () => import("./keys.js"), "k"],
  settings: ["Settings", () => import("./settings.js"), ","],
};
const loaded = new Map();
/** What the pointer or the focus is on may be asked for next. */
const fetchAhead = (key) =>
  SCREENS[key][1]().then(
    (module) => loaded.set(key, module.default),
    () => {},
  );
const GROUPS = [
  ["overview", "messages", "send"],
  ["domains", "routes", "deliveries"],
  ["templates", "suppressions", "keys", "settings"],
];

const screenOf = (route) => (SCREENS[route.parts[0]] ? route.parts[0] : "overview");

// Who is signed in and the screen are asked for before anything is drawn.
const asked = session.token ? get("/v1/me") : null;
if (asked) {
  asked.catch(() => {});
  fetchAhead(screenOf(read()));
}

// --- Light and dark

const THEMES = ["auto", "light", "dark"];
const theme = () =>
  THEMES.includes(localStorage.getItem("mailkite.theme")) ? localStorage.getItem("mailkite.theme") : "auto";
function paint(value) {
  value === "auto"
    ? document.documentElement.removeAttribute("data-theme")
    : document.documentElement.setAttribute("data-theme", value);
  dispatchEvent(new Event("themechange"));
}
paint(theme());

function ThemeSwitch() {
  const [value, set] = useState(theme);
  const next = THEMES[(THEMES.indexOf(value) + 1) % THEMES.length];
  const icon = { auto: "auto", light: "sun", dark: "moon" }[value];
  const click = () => {
    localStorage.setItem("mailkite.theme", next);
    paint(next);
    set(next);
  };
  return html`
    <button
      type="button"
      class="nav-button"
      onClick=${click}
      aria-label=${`Colours: ${value}. Switch to ${next}`}
      title=${`Colours: ${value}`}
    >
      <${Icon} name=${icon} />
    </button>
  `;
}

function LiveDot() {
  const state = live.useLiveState();
  const words = {
    live: ["Live", "What happens shows at once."],
    connecting: ["Reconnecting", "The event stream is being opened again."],
    off: ["Paused", "The event stream is closed."],
  }[state];
  return html`
    <span class=${`live is-${state}`} title=${words[1]} role="status">
      <i aria-hidden="true"></i>
      ${words[0]}
    </span>
  `;
}

// --- The frame

function Help({ onClose }) {
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
      <dl class="keys">
        ${rows.map(
          ([keys, text]) => html`
            <div key=${text}>
              <dt>
                ${keys.map(
                  (key, at) => html`
                    ${at ? between : ""}
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
      <div class="key-columns">
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

/** How far each step of the browser's history was scrolled, by the name that its state holds. */
const scrolled = new Map();
let steps = 0;

/**
 * On another place the focus goes to its head and the page to its top; on one that was gone back to, where it was. `place`
 * changes with what the page shows, not with its filters.
 */
function useArrival(main, place) {
  const first = useRef(true);
  useLayoutEffect(() => {
    let step = history.state?.step;
    const known = step !== undefined;
    if (!known) {
      step = `${performance.timeOrigin} ${++steps}`;
      history.replaceState({ step }, "");
    }
    const element = main.current;
    if (!first.current) {
      element.scrollTop = 0;
      if (!document.querySelector("dialog[open]"))
        (element.querySelector("h1") || element).focus({ preventScroll: true });
      // What was loaded before is drawn by now.
      if (known) requestAnimationFrame(() => (element.scrollTop = scrolled.get(step) || 0));
    }
    first.current = false;
    const keep = () => scrolled.set(step, element.scrollTop);
    element.addEventListener("scroll", keep, { passive: true });
    return () => element.removeEventListener("scroll", keep);
  }, [place]);
}

function Shell({ user, name, place, signOut, children }) {
  const [open, setOpen] = useState(false);
  const [help, setHelp] = useState(false);
  const waiting = useRef(0);
  const main = useRef(null);
  useArrival(main, place);
  useEffect(() => {
    setOpen(false);
  }, [name]);
  useEffect(() => {
    const down = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.key === "Escape") return setOpen(false);
      if (event.target.closest("input, textarea, select, dialog, [contenteditable]")) return;
      if (Date.now() - waiting.current < 1200) {
        const found = Object.entries(SCREENS).find(([, [, , key]]) => key === event.key);
        waiting.current = 0;
        if (found) {
          event.preventDefault();
          go(to(found[0]));
        }
      } else if (event.key === "g") waiting.current = Date.now();
      else if (event.key === "?") setHelp(true);
      else if (event.key === "/" && !document.querySelector("[data-search]")) {
        event.preventDefault();
        go(to("messages", { focus: "search" }));
      }
    };
    addEventListener("keydown", down);
    return () => removeEventListener("keydown", down);
  }, []);
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <div class=${`shell ${open ? "open" : ""}`}>
      <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="topbar">
        <button
          type="button"
          class="nav-button"
          aria-label="Menu"
          aria-expanded=${open ? "true" : "false"}
          onClick=${() => setOpen(!open)}
        >
          <${Icon} name="menu" size="22" />
        </button>
        <a class="brand" href="#/overview">
          <span class="mark" aria-hidden="true"></span>
          mailkite
        </a>
        <${LiveDot} />
      </header>
      <aside class="side">
        <a class="brand" href="#/overview">
          <span class="mark" aria-hidden="true"></span>
          mailkite
        </a>
        <nav aria-label="Screens">
          ${GROUPS.map(
            (group, at) => html`
              <ul key=${at}>
                ${group.map(
                  (key) => html`
                    <li key=${key}>
                      <a
                        href=${to(key)}
                        aria-current=${key === name ? "page" : undefined}
                        onPointerEnter=${() => fetchAhead(key)}
                        onFocus=${() => fetchAhead(key)}
                        onClick=${() => setOpen(false)}
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
        <div class="side-foot">
          <${LiveDot} />
          <div class="who">
            <a href="#/settings" title=${user.email}>${user.email}</a>
            <button
              type="button"
              class="nav-button"
              aria-label="Keyboard shortcuts"
              title="Keyboard shortcuts"
              onClick=${() => setHelp(true)}
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
      <div class="veil" onClick=${() => setOpen(false)}></div>
      <main id="main" ref=${main} tabindex="-1">${children}</main>
      ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
    </div>
  `;
}

/** A screen that fails shows its error, and the rest goes on. */
class Guard extends Component {
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
      ? html`<${Failure} error=${this.state.error} retry=${() => this.setState({ error: null })} />`
      : children;
  }
}

function Screen({ name, route, user, setUser }) {
  const [, shown] = useState(0);
  const [error, fail] = useState(null);
  const fetchScreen = async () => {
    try {
      loaded.set(name, (await SCREENS[name][1]()).default);
      fail(null);
      shown((n) => n + 1);
    } catch {
      // The server is away; or it was updated while this tab was open, and its files have other names now.
      const updated = Object.assign(new Error("The server was updated. Reload the page."), { reload: true });
      await get("/api/health").then(() => fail(updated), fail);
    }
  };
  const Loaded = loaded.get(name);
  useEffect(() => {
    fail(null);
    // By what was drawn: the file may have come since, and nothing would draw it.
    if (!Loaded) fetchScreen();
  }, [name]);
  if (error) return html`<${Failure} error=${error} retry=${error.reload ? () => location.reload() : fetchScreen} />`;
  if (!Loaded)
    return html`
      <div class="page">
        <${Skeleton} lines="6" />
      </div>
    `;
  return html`
    <${Guard} name=${name}>
      <${Loaded} key=${name} route=${route} user=${user} setUser=${setUser} />
    <//>
  `;
}

function App() {
  const route = useRoute();
  const [user, setUser] = useState(undefined); // undefined: not known yet; null: nobody
  const [error, setError] = useState(null);
  const name = screenOf(route);

  const lately = useRef(null);
  const entered = (token, who) => {
    forget();
    if (lately.current !== who.id) forgetDrafts();
    lately.current = who.id;
    live.reset();
    session.token = token;
    setUser(who);
    live.start();
    const [first] = route.parts;
    if (!first || ["ticket", "setup", "sign-in", "sign-up"].includes(first)) replace("#/overview");
  };
  const left = () => {
    session.token = null;
    live.reset();
    forget();
    setUser(null);
  };
  const signOut = async () => {
    try {
      await post("/api/auth/logout");
    } catch {
      /* the session is over either way */
    }
    left();
    forgetDrafts();
    go("#/");
  };

  useEffect(() => {
    session.onEnd(() => {
      if (session.token) {
        left();
        say("Your session has ended. Please sign in again.");
      }
    });
    const ticket = route.parts[0] === "ticket" && route.parts[1];
    const params = new URLSearchParams(location.search);
    (async () => {
      if (ticket) {
        replace("#/");
        try {
          const answer = await api("POST", "/api/auth/login", { ticket }, { public: true });
          return entered(answer.token, answer.user);
        } catch (failed) {
          if (!session.token)
            say(
              failed.code === "bad_login"
                ? "That link was used already. Start mailkite dev again for a new one."
                : failed.message,
              { bad: true },
            );
        }
      }
      if (document.body.dataset.google && (params.has("code") || params.has("error"))) {
        history.replaceState(null, "", "/#/");
        const grant = googleGrant(params);
        if (grant) {
          try {
            const answer = await api("POST", "/api/auth/google", grant, { public: true });
            return entered(answer.token, answer.user);
          } catch (failed) {
            complain(failed);
          }
        } else say("The sign-in with Google did not begin in this tab, or was broken off. Try again.", { bad: true });
      }
      if (!session.token) return setUser(null);
      try {
        const me = await asked;
        live.start();
        lately.current = me.id;
        return setUser(me);
      } catch (failed) {
        failed.status === 401 ? session.end() : setError(failed);
        return undefined;
      }
    })();
    // Signed in or out in another tab.
    const other = (event) => {
      if (event.key === "mailkite.session") location.reload();
    };
    addEventListener("storage", other);
    return () => removeEventListener("storage", other);
  }, []);

  if (error)
    return html`
      <main class="gate">
        <${Failure} error=${error} retry=${() => location.reload()} />
      </main>
    `;
  if (user === undefined)
    return html`
      <div class="boot">
        <span class="mark" aria-hidden="true"></span>
      </div>
    `;
  if (user === null) return html`<${Gate} route=${route} entered=${entered} />`;
  return html`
    <${Shell}
      user=${user}
      name=${name}
      place=${name === "messages" ? name : `${name}/${route.parts[1] || ""}`}
      signOut=${signOut}
    >
      <${Screen} name=${name} route=${route} user=${user} setUser=${setUser} />
    <//>
  `;
}

/**
 * What is posted of an answer of Google's: nothing unless it has the state that this tab began with. Somebody else's code
 * would sign this browser in as somebody else.
 */
function googleGrant(params) {
  const begun = sessionStorage.getItem("mailkite.google");
  sessionStorage.removeItem("mailkite.google");
  const { state, codeVerifier, setupToken } = begun ? JSON.parse(begun) : {};
  const [code] = params.getAll("code");
  const answers = params.getAll("state");
  if (!state || !code || answers.length !== 1 || answers[0] !== state) return null;
  return { code, redirectUri: googleRedirect(), codeVerifier, setupToken };
}

const googleRedirect = () => document.body.dataset.redirect || `${location.origin}/`;

function Gate(props) {
  const [Form, set] = useState(null);
  useEffect(() => {
    import("./gate.js").then(
      (module) => set(() => module.default),
      () => location.reload(),
    );
  }, []);
  return Form
    ? html`
      <${Form} ...${props} googleRedirect=${googleRedirect} theme=${html`<${ThemeSwitch} />`} />
    `
    : html`
      <div class="boot">
        <span class="mark" aria-hidden="true"></span>
      </div>
    `;
}

render(
  html`
    <${App} />
    <${Toasts} />
    <${Confirms} />
  `,
  document.getElementById("app"),
);
