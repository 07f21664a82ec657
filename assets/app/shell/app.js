// Decide what the page shows: the sign-in form, or the shell with a screen.
import { html, useEffect, useRef, useState } from "../lib/preact.js";
import { api, clearCache, get, post, session } from "../lib/api.js";
import { clearDrafts } from "../lib/drafts.js";
import * as live from "../lib/live.js";
import { currentRoute, navigate, replaceRoute, useRoute } from "../lib/router.js";
import { LoadError, toast, toastError } from "../ui/index.js";
import { prefetch, Screen, screenName } from "./screens.js";
import { Shell, ThemeSwitch } from "./shell.js";
import { takeGoogleGrant } from "../sign-in/google.js";

// Request the user and the screen before the first render.
const userRequest = session.token ? get("/v1/me") : null;

if (userRequest) {
  userRequest.catch(() => {});
  prefetch(screenName(currentRoute()));
}

export function App() {
  const route = useRoute();
  const [user, setUser] = useState(undefined); // undefined: not known yet; null: signed out
  const [error, setError] = useState(null);
  const [resetToken, setResetToken] = useState(null); // of a mailed link that sets a password
  const name = screenName(route);

  const lastUserId = useRef(null);
  const onSignedIn = (token, signedInUser) => {
    clearCache();
    if (lastUserId.current !== signedInUser.id) clearDrafts();
    lastUserId.current = signedInUser.id;
    live.reset();
    session.token = token;
    setUser(signedInUser);
    live.start();
    const [first] = route.parts;
    if (!first || ["ticket", "setup", "sign-in", "sign-up"].includes(first)) replaceRoute("#/overview");
  };
  const onSignedOut = () => {
    session.token = null;
    live.reset();
    clearCache();
    setUser(null);
  };
  const signOut = async () => {
    try {
      await post("/api/auth/logout");
    } catch {
      /* The session ends here either way. */
    }
    onSignedOut();
    clearDrafts();
    navigate("#/");
  };

  useEffect(() => {
    session.onEnd(() => {
      if (session.token) {
        onSignedOut();
        toast("Your session has ended. Please sign in again.");
      }
    });
    const ticket = route.parts[0] === "ticket" && route.parts[1];
    const params = new URLSearchParams(location.search);
    (async () => {
      if (ticket) {
        replaceRoute("#/");
        try {
          const answer = await api("POST", "/api/auth/login", { ticket }, { public: true });
          return onSignedIn(answer.token, answer.user);
        } catch (failure) {
          if (!session.token)
            toast(
              failure.code === "bad_login"
                ? "That link was used already, or is too old. Ask for a new one where you got it."
                : failure.message,
              { error: true },
            );
        }
      }
      if (document.body.dataset.google && (params.has("code") || params.has("error"))) {
        history.replaceState(null, "", "/#/");
        const grant = takeGoogleGrant(params);
        if (grant) {
          try {
            const answer = await api("POST", "/api/auth/google", grant, { public: true });
            return onSignedIn(answer.token, answer.user);
          } catch (failure) {
            toastError(failure);
          }
        } else
          toast("The sign-in with Google did not begin in this tab, or was broken off. Try again.", { error: true });
      }
      if (!session.token) return setUser(null);
      try {
        const me = await userRequest;
        live.start();
        lastUserId.current = me.id;
        return setUser(me);
      } catch (failed) {
        failed.status === 401 ? session.end() : setError(failed);
        return undefined;
      }
    })();
    // Follow a sign-in or sign-out in another tab.
    const onStorage = (event) => {
      if (event.key === "mailkite.session") location.reload();
    };
    addEventListener("storage", onStorage);
    return () => removeEventListener("storage", onStorage);
  }, []);

  const linkToken = route.parts[0] === "reset-password" ? route.parts[1] || "" : null;
  useEffect(() => {
    if (linkToken === null) return;
    setResetToken(linkToken);
    replaceRoute("#/");
  }, [linkToken]);
  const onReset = (message) => {
    setResetToken(null);
    if (!message) return;
    onSignedOut();
    toast(message);
  };

  if (error)
    return html`
      <main class="sign-in">
        <${LoadError} error=${error} retry=${() => location.reload()} />
      </main>
    `;
  if (user === undefined)
    return html`
      <div class="splash">
        <span class="logo" aria-hidden="true"></span>
      </div>
    `;
  if (user === null || resetToken !== null)
    return html`
      <${LazySignIn} route=${route} onSignedIn=${onSignedIn} resetToken=${resetToken} onReset=${onReset} />
    `;
  return html`
    <${Shell}
      user=${user}
      name=${name}
      locationKey=${name === "messages" ? name : `${name}/${route.parts[1] || ""}`}
      signOut=${signOut}
    >
      <${Screen} name=${name} route=${route} user=${user} setUser=${setUser} />
    <//>
  `;
}

function LazySignIn(props) {
  const [SignIn, setSignIn] = useState(null);
  useEffect(() => {
    import("../sign-in/sign-in.js").then(
      (module) => setSignIn(() => module.default),
      () => location.reload(),
    );
  }, []);
  return SignIn
    ? html`
      <${SignIn} ...${props} theme=${html`<${ThemeSwitch} />`} />
    `
    : html`
      <div class="splash">
        <span class="logo" aria-hidden="true"></span>
      </div>
    `;
}
