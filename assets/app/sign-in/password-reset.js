// A forgotten password: ask for a link by mail, and set a new password by that link.
import { html, useEffect, useState } from "../lib/preact.js";
import { post } from "../lib/api.js";
import { Button, Field, Notice, useAction } from "../ui/index.js";

const SwitchBack = ({ onBack }) => html`
  <p class="mode-switch">
    <button type="button" class="link" onClick=${onBack}>Back to sign in</button>
  </p>
`;

export function ForgotPassword({ email: initialEmail, onBack }) {
  const [email, setEmail] = useState(initialEmail);
  const [error, setError] = useState(null);
  const [sent, setSent] = useState(false);
  const [busy, runAction] = useAction();
  useEffect(() => {
    document.title = "Forgot password · mailkite";
  }, []);
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      await post("/api/auth/password/forgot", { email }, { public: true });
      setSent(true);
    }, setError);
  };
  if (sent)
    return html`
      <h1>Look into your mail</h1>
      <p class="lead">
        If <bdi>${email}</bdi> has an account here, a link is on its way. It sets a new password, once, within an hour.
      </p>
      <p class="hint">Nothing came? Look into the spam folder, or ask whoever runs this server for a sign-in link.</p>
      <${SwitchBack} onBack=${onBack} />
    `;
  return html`
    <h1>Forgot password</h1>
    <p class="lead">A link to set a new one is mailed to you.</p>
    ${error && error.field !== "email" && html`<${Notice} tone="bad">${error.message}<//>`}
    <form onSubmit=${submit} class="stack">
      <${Field} label="E-mail" error=${error?.field === "email" ? error.message : undefined}>
        <input
          type="email"
          name="email"
          autocomplete="username"
          required
          autofocus
          value=${email}
          onInput=${(event) => {
            setError(null);
            setEmail(event.target.value);
          }}
        />
      <//>
      <${Button} type="submit" variant="primary wide" busy=${busy}>Mail me a link<//>
    </form>
    <${SwitchBack} onBack=${onBack} />
  `;
}

export function ResetPassword({ token, onDone, onAskAgain }) {
  const [password, setPassword] = useState("");
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  useEffect(() => {
    document.title = "New password · mailkite";
  }, []);
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      await post("/api/auth/password/reset", { token, password }, { public: true });
      onDone();
    }, setError);
  };
  const fieldError = error?.field === "password" ? error.message : undefined;
  return html`
    <h1>Choose a new password</h1>
    <p class="lead">Every session of your account ends.</p>
    ${error && !fieldError && html`<${Notice} tone="bad">${error.message}<//>`}
    <form onSubmit=${submit} class="stack">
      <${Field} label="New password" error=${fieldError} hint="At least 10 characters.">
        <input
          type="password"
          name="password"
          minlength="10"
          autocomplete="new-password"
          required
          autofocus
          value=${password}
          onInput=${(event) => {
            setError(null);
            setPassword(event.target.value);
          }}
        />
      <//>
      <${Button} type="submit" variant="primary wide" busy=${busy}>Set password<//>
    </form>
    <p class="mode-switch">
      <button type="button" class="link" onClick=${onAskAgain}>Ask for a new link</button>
    </p>
  `;
}
