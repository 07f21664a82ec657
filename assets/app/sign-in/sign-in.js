// Sign up and sign in.
import { html, useEffect, useState } from "../lib/preact.js";
import { api } from "../lib/api.js";
import { Button, CodeBlock, Field, Notice, useAction } from "../ui/index.js";
import { codeChallenge, googleRedirectUri, randomSecret } from "./google.js";
import { ForgotPassword, ResetPassword } from "./password-reset.js";

/** The frame of every page shown to somebody who is not signed in. */
const Box = ({ theme, children }) => html`
  <main class="sign-in">
    <div class="sign-in-theme">${theme}</div>
    <div class="sign-in-box">
      <p class="brand">
        <span class="logo" aria-hidden="true"></span>
        mailkite
      </p>
      ${children}
    </div>
  </main>
`;

export default function SignIn({ route, onSignedIn, theme, resetToken, onReset }) {
  const { signup, google, hostname, dev } = document.body.dataset;
  const tokenFromLink = route.parts[0] === "setup" ? route.parts[1] || "" : "";
  const isSetup = signup === "setup";
  const [mode, setMode] = useState(isSetup || tokenFromLink || route.parts[0] === "sign-up" ? "up" : "in");
  const [form, setForm] = useState({ email: "", password: "", setupToken: tokenFromLink });
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const signingUp = mode === "up" && signup !== "closed";
  const isForgotten = mode === "forgot";
  const isReset = resetToken !== null && !isForgotten;
  useEffect(() => {
    if (!isForgotten && !isReset) document.title = `${signingUp ? "Sign up" : "Sign in"} · mailkite`;
  }, [signingUp, isForgotten, isReset]);
  useEffect(() => {
    if (resetToken !== null) setMode("in");
  }, [resetToken]);
  const inputProps = (name) => ({
    value: form[name],
    name,
    onInput: (event) => {
      setError(null);
      setForm({ ...form, [name]: event.target.value });
    },
  });
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      const { email, password, setupToken } = form;
      const answer = signingUp
        ? await api(
            "POST",
            "/api/auth/signup",
            { email, password, setupToken: setupToken.trim() || undefined },
            { public: true },
          )
        : await api("POST", "/api/auth/login", { email, password }, { public: true });
      onSignedIn(answer.token, answer.user);
    }, setError);
  };
  const signInWithGoogle = () => {
    runAction(async () => {
      const [state, verifier] = [randomSecret(), randomSecret()];
      const params = new URLSearchParams({
        client_id: google,
        redirect_uri: googleRedirectUri(),
        response_type: "code",
        scope: "openid email profile",
        state,
      });
      // Browsers have `crypto.subtle` only over HTTPS and on localhost.
      if (crypto.subtle) {
        params.set("code_challenge", await codeChallenge(verifier));
        params.set("code_challenge_method", "S256");
      }
      const setupToken = form.setupToken.trim() || undefined;
      const codeVerifier = crypto.subtle ? verifier : undefined;
      sessionStorage.setItem("mailkite.google", JSON.stringify({ state, codeVerifier, setupToken }));
      location.href = `https://accounts.google.com/o/oauth2/v2/auth?${params}`;
    }, setError);
  };
  const errorFor = (field) => (error?.field === field ? error.message : undefined);
  const tokenError = error?.code === "setup_token" ? error.message : undefined;
  const shownAtField = ["email", "password"].includes(error?.field) || tokenError;
  const showMode = (next) => {
    setError(null);
    setMode(next);
  };
  if (isReset)
    return html`
      <${Box} theme=${theme}>
        <${ResetPassword}
          token=${resetToken}
          onDone=${() => onReset("Your password is set. Sign in with it.")}
          onAskAgain=${() => showMode("forgot")}
        />
      <//>
    `;
  if (isForgotten)
    return html`
      <${Box} theme=${theme}>
        <${ForgotPassword}
          email=${form.email}
          onBack=${() => {
            onReset();
            showMode("in");
          }}
        />
      <//>
    `;
  return html`
    <${Box} theme=${theme}>
      <h1>${signingUp ? (isSetup ? "Make this server yours" : "Create an account") : "Sign in"}</h1>
      <p class="lead">
        ${
          signingUp && isSetup
            ? html`
              <bdi>${hostname}</bdi> is running and has no owner yet. The first account owns it.
            `
            : html`to <bdi>${hostname}</bdi>`
        }
      </p>
      ${error && !shownAtField && html`<${Notice} tone="bad">${error.message}<//>`}
      <form onSubmit=${submit} class="stack">
        <${Field} label="E-mail" error=${errorFor("email")}>
          <input type="email" autocomplete="username" required autofocus ...${inputProps("email")} />
        <//>
        <${Field}
          label="Password"
          error=${errorFor("password")}
          hint=${signingUp ? "At least 10 characters." : undefined}
        >
          <input
            type="password"
            minlength=${signingUp ? 10 : undefined}
            autocomplete=${signingUp ? "new-password" : "current-password"}
            required
            ...${inputProps("password")}
          />
        <//>
        ${
          signingUp &&
          (isSetup || tokenFromLink) &&
          html`
            <${Field}
              label="Setup token"
              error=${tokenError}
              hint=${
                tokenFromLink
                  ? "From the link you opened."
                  : "Printed in the server's log at its start. Or ask for it on the server:"
              }
            >
              <input autocomplete="off" spellcheck="false" class="mono" required ...${inputProps("setupToken")} />
            <//>
            ${
              !tokenFromLink &&
              html`
                <${CodeBlock} label="on the server">
                  sudo -u mailkite mailkite setup-token --config /etc/mailkite/mailkite.toml
                <//>
              `
            }
          `
        }
        <${Button} type="submit" variant="primary wide" busy=${busy}>${signingUp ? "Create account" : "Sign in"}<//>
      </form>
      ${
        !signingUp &&
        html`
          <p class="mode-switch">
            <button type="button" class="link" onClick=${() => showMode("forgot")}>Forgot password?</button>
          </p>
        `
      }
      ${
        google &&
        html`
          <p class="divider">
            <span>or</span>
          </p>
          <${Button} variant="wide" onClick=${signInWithGoogle}>Continue with Google<//>
        `
      }
      ${
        dev &&
        !signingUp &&
        html`
          <${Notice}>In dev mode, <code>mailkite dev</code> prints a link that signs you in to its own account.<//>
        `
      }
      ${
        signup === "open" &&
        html`
          <p class="mode-switch">
            ${signingUp ? "Have an account?" : "No account yet?"}${" "}
            <button
              type="button"
              class="link"
              onClick=${() => showMode(signingUp ? "in" : "up")}
            >
              ${signingUp ? "Sign in" : "Create one"}
            </button>
          </p>
        `
      }
      ${
        isSetup &&
        html`
          <p class="mode-switch">
            ${signingUp ? "Already set up?" : "Not set up yet?"}${" "}
            <button
              type="button"
              class="link"
              onClick=${() => showMode(signingUp ? "in" : "up")}
            >
              ${signingUp ? "Sign in" : "Set up"}
            </button>
          </p>
        `
      }
    <//>
  `;
}
