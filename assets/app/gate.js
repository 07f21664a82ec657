// Signing up and in.
import { html, useState, useEffect } from "./lib.js";
import { api } from "./api.js";
import { Field, Button, Notice, Code, useBusy } from "./ui.js";

/** 64 characters that nobody guesses. */
const secret = () =>
  [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** RFC 7636 §4.2: S256. */
async function challenge(verifier) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(digest)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export default function Gate({ route, entered, googleRedirect, theme }) {
  const { signup, google, hostname, dev } = document.body.dataset;
  const given = route.parts[0] === "setup" ? route.parts[1] || "" : "";
  const first = signup === "setup";
  const [mode, setMode] = useState(first || given || route.parts[0] === "sign-up" ? "up" : "in");
  const [form, set] = useState({ email: "", password: "", setupToken: given });
  const [error, fail] = useState(null);
  const [busy, act] = useBusy();
  const up = mode === "up" && signup !== "closed";
  useEffect(() => {
    document.title = `${up ? "Sign up" : "Sign in"} · mailkite`;
  }, [up]);
  const input = (name) => ({
    value: form[name],
    name,
    onInput: (event) => {
      fail(null);
      set({ ...form, [name]: event.target.value });
    },
  });
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      const { email, password, setupToken } = form;
      const answer = up
        ? await api(
            "POST",
            "/api/auth/signup",
            { email, password, setupToken: setupToken.trim() || undefined },
            { public: true },
          )
        : await api("POST", "/api/auth/login", { email, password }, { public: true });
      entered(answer.token, answer.user);
    }, fail);
  };
  const withGoogle = () => {
    act(async () => {
      const [state, verifier] = [secret(), secret()];
      const params = new URLSearchParams({
        client_id: google,
        redirect_uri: googleRedirect(),
        response_type: "code",
        scope: "openid email profile",
        state,
      });
      // Browsers digest only over HTTPS and on this machine.
      if (crypto.subtle) {
        params.set("code_challenge", await challenge(verifier));
        params.set("code_challenge_method", "S256");
      }
      const setupToken = form.setupToken.trim() || undefined;
      const codeVerifier = crypto.subtle ? verifier : undefined;
      sessionStorage.setItem("mailkite.google", JSON.stringify({ state, codeVerifier, setupToken }));
      location.href = `https://accounts.google.com/o/oauth2/v2/auth?${params}`;
    }, fail);
  };
  const at = (field) => (error?.field === field ? error.message : undefined);
  const tokenError = error?.code === "setup_token" ? error.message : undefined;
  const shownAtField = ["email", "password"].includes(error?.field) || tokenError;
  return html`
    <main class="gate">
      <div class="gate-theme">${theme}</div>
      <div class="gate-box">
        <p class="brand">
          <span class="mark" aria-hidden="true"></span>
          mailkite
        </p>
        <h1>${up ? (first ? "Make this server yours" : "Create an account") : "Sign in"}</h1>
        <p class="lead">
          ${
            up && first
              ? html`
                <bdi>${hostname}</bdi> is running and has no owner yet. The first account owns it.
              `
              : html`to <bdi>${hostname}</bdi>`
          }
        </p>
        ${error && !shownAtField && html`<${Notice} kind="bad">${error.message}<//>`}
        <form onSubmit=${submit} class="stack">
          <${Field} label="E-mail" error=${at("email")}>
            <input type="email" autocomplete="username" required autofocus ...${input("email")} />
          <//>
          <${Field} label="Password" error=${at("password")} hint=${up ? "At least 10 characters." : undefined}>
            <input
              type="password"
              minlength=${up ? 10 : undefined}
              autocomplete=${up ? "new-password" : "current-password"}
              required
              ...${input("password")}
            />
          <//>
          ${
            up &&
            (first || given) &&
            html`
              <${Field}
                label="Setup token"
                error=${tokenError}
                hint=${
                  given
                    ? "From the link you opened."
                    : "Printed in the server's log at its start. Or ask for it on the server:"
                }
              >
                <input autocomplete="off" spellcheck="false" class="mono" required ...${input("setupToken")} />
              <//>
              ${
                !given &&
                html`
                  <${Code} label="on the server">
                    sudo -u mailkite mailkite setup-token --config /etc/mailkite/mailkite.toml
                  <//>
                `
              }
            `
          }
          <${Button} type="submit" kind="primary wide" busy=${busy}>${up ? "Create account" : "Sign in"}<//>
        </form>
        ${
          google &&
          html`
            <p class="or">
              <span>or</span>
            </p>
            <${Button} kind="wide" onClick=${withGoogle}>Continue with Google<//>
          `
        }
        ${
          dev &&
          !up &&
          html`
            <${Notice}>In dev mode, <code>mailkite dev</code> prints a link that signs you in to its own account.<//>
          `
        }
        ${
          signup === "open" &&
          html`
            <p class="switch">
              ${up ? "You have an account?" : "No account yet?"}${" "}
              <button
                type="button"
                class="link"
                onClick=${() => {
                  fail(null);
                  setMode(up ? "in" : "up");
                }}
              >
                ${up ? "Sign in" : "Create one"}
              </button>
            </p>
          `
        }
        ${
          first &&
          html`
            <p class="switch">
              ${up ? "Set up already?" : "Not set up yet?"}${" "}
              <button
                type="button"
                class="link"
                onClick=${() => {
                  fail(null);
                  setMode(up ? "in" : "up");
                }}
              >
                ${up ? "Sign in" : "Set up"}
              </button>
            </p>
          `
        }
      </div>
    </main>
  `;
}
