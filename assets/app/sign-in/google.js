// Sign in with Google (OAuth 2.0 with PKCE).

/**
 * Return the body for `/api/auth/google` from the URL that Google redirects to, or null unless it has the state that
 * this tab started with: a code from elsewhere would sign this browser in to a foreign account.
 */
export function takeGoogleGrant(params) {
  const stored = sessionStorage.getItem("mailkite.google");
  sessionStorage.removeItem("mailkite.google");
  const { state, codeVerifier, setupToken } = stored ? JSON.parse(stored) : {};
  const [code] = params.getAll("code");
  const states = params.getAll("state");
  if (!state || !code || states.length !== 1 || states[0] !== state) return null;
  return { code, redirectUri: googleRedirectUri(), codeVerifier, setupToken };
}

export const googleRedirectUri = () => document.body.dataset.redirect || `${location.origin}/`;

/** Return 256 random bits as hexadecimal digits. */
export const randomSecret = () =>
  [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** RFC 7636 §4.2: code challenge of the method S256. */
export async function codeChallenge(verifier) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(digest)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
