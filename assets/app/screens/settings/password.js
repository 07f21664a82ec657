// Change the password.
import { html, useState } from "../../lib/preact.js";
import { post, session } from "../../lib/api.js";
import { Button, Card, Field, Notice, toast, useAction } from "../../ui/index.js";

export function Password() {
  const [form, setForm] = useState({ currentPassword: "", newPassword: "" });
  const [error, setError] = useState(null);
  const [busy, runAction] = useAction();
  const inputProps = (name) => ({
    value: form[name],
    onInput: (event) => {
      setError(null);
      setForm({ ...form, [name]: event.target.value });
    },
  });
  const submit = (event) => {
    event.preventDefault();
    runAction(async () => {
      const { token } = await post("/api/auth/password", {
        currentPassword: form.currentPassword || undefined,
        newPassword: form.newPassword,
      });
      session.token = token;
      setForm({ currentPassword: "", newPassword: "" });
      toast("Password changed; every other session has ended");
    }, setError);
  };
  const currentError =
    error?.code === "wrong_password" || error?.field === "currentPassword" ? error.message : undefined;
  const newError = error?.field === "newPassword" ? error.message : undefined;
  return html`
    <${Card} title="Password">
      <form class="stack" onSubmit=${submit}>
        ${error && !currentError && !newError && html`<${Notice} tone="bad">${error.message}<//>`}
        <div class="form-grid">
          <${Field}
            label="Current password"
            error=${currentError}
            hint="Empty if the account has none yet."
          >
            <input type="password" autocomplete="current-password" ...${inputProps("currentPassword")} />
          <//>
          <${Field} label="New password" error=${newError} hint="At least 10 characters.">
            <input
              type="password"
              autocomplete="new-password"
              minlength="10"
              required
              ...${inputProps("newPassword")}
            />
          <//>
        </div>
        <div>
          <${Button} type="submit" busy=${busy}>Change password<//>
        </div>
      </form>
    <//>
  `;
}
