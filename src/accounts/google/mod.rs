//! Signing in with Google (contract 2.4): exchanges a code for an id token and verifies that token into an identity. It
//! uses `net` for outgoing HTTP, whose guard accepts both URLs wherever they lead because the operator configures them,
//! and knows nothing of accounts: the caller maps the identity to one. A change of the code exchange or of the claims
//! belongs here, caching and choice of Google's keys in `jwks`.

mod jwks;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::timeout;
use url::form_urlencoded::Serializer;

use crate::clock::Timestamp;
use crate::config;
use crate::mail::address::Mailbox;
use crate::net::dns::Resolver;
use crate::net::egress::{BadUrl, Egress, EgressError, Guard, Limits, Policy, Target};
use jwks::Keys;

/// For a whole sign-in, and for each of its two requests: 10 s, and 64 KiB of response.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), max_answer_bytes: 64 * 1024 };
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Longer codes and redirect URIs are not passed on.
const MAX_PARAMETER_BYTES: usize = 2048;
/// Tolerated difference between Google's clock and this one.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Id tokens live for an hour; one issued earlier does not come from the code just exchanged.
const MAX_TOKEN_AGE: Duration = Duration::from_secs(3600);
const MAX_SUBJECT_BYTES: usize = 255;
const MAX_EMAIL_CHARS: usize = 254;
const MAX_PICTURE_BYTES: usize = 2048;

/// Exchanges codes and verifies the id tokens; caches Google's keys for as long as Google says.
pub struct Google {
    settings: config::Google,
    egress: Egress,
    token: Target,
    keys: Keys,
}

/// The result of Google's consent page, and the parameters it was called with.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The authorization code.
    pub code: &'a str,
    /// Redirect URI that the sign-in page was called with; the configured one if `None`.
    pub redirect_uri: Option<&'a str>,
    /// Proves that the bearer of the code is the client that asked for it, if the page sent a challenge (RFC 7636).
    pub code_verifier: Option<&'a str>,
}

impl<'a> Grant<'a> {
    /// Creates a grant for a code that was requested with the configured redirect URI and no challenge.
    pub const fn new(code: &'a str) -> Self {
        Self { code, redirect_uri: None, code_verifier: None }
    }
}

/// A person's identity as asserted by Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleIdentity {
    /// Google's id of the person, which never changes: 1 to 255 visible ASCII characters.
    pub subject: String,
    /// The verified address, in lower case; at most 254 characters.
    pub email: String,
    /// Display name without control characters; never empty.
    pub name: Option<String>,
    /// The `https` URL of a picture.
    pub picture: Option<String>,
}

/// Reason why there is no identity. The sentences contain no secret and no text of the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoogleError {
    /// No client is configured: 409 `google_not_configured`.
    #[error("signing in with Google is not configured")]
    NotConfigured,
    /// Google refused the code, or its token does not prove the required claims: 401 `google_rejected`.
    #[error("Google rejected the sign-in: {0}")]
    Rejected(String),
    /// Google gave no usable response: 502 `google_unreachable`.
    #[error("Google could not be reached: {0}")]
    Unreachable(String),
}

impl GoogleError {
    fn rejected(why: &str) -> Self {
        Self::Rejected(why.to_owned())
    }
}

impl From<EgressError> for GoogleError {
    fn from(error: EgressError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// The fields used of the token endpoint's response.
#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
}

/// The fields used of its error response (RFC 6749 §5.2).
#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
}

/// The claims used; a claim of another type than this makes the token invalid.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    azp: Option<String>,
    sub: String,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    email: Option<String>,
    email_verified: Option<Flag>,
    name: Option<String>,
    picture: Option<String>,
}

/// Boolean or string: Google has sent both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Truth(bool),
    Word(String),
}

impl Flag {
    fn is_true(&self) -> bool {
        match self {
            Self::Truth(truth) => *truth,
            Self::Word(word) => word == "true",
        }
    }
}

impl Google {
    /// Creates the sign-in from `settings`, over connections that trust the roots of `tls`.
    ///
    /// # Errors
    /// Outgoing HTTP does not accept one of the configured URLs.
    pub fn new(settings: config::Google, tls: &ClientConfig, resolver: Arc<Resolver>) -> Result<Self, BadUrl> {
        let policy = Policy::allow_all();
        let token = Target::parse(&settings.token_url, &policy)?;
        let keys = Keys::new(Target::parse(&settings.jwks_url, &policy)?);
        let egress = Egress::new(Guard { policy, own_listeners: Vec::new() }, tls, resolver);
        Ok(Self { settings, egress, token, keys })
    }

    /// True if a client is configured.
    pub const fn is_configured(&self) -> bool {
        self.settings.client_id.is_some() && self.settings.client_secret.is_some()
    }

    /// Exchanges a code for an id token and verifies it as of `now`; takes 10 s at most.
    ///
    /// # Errors
    /// See [`GoogleError`].
    pub async fn sign_in(&self, grant: Grant<'_>, now: Timestamp) -> Result<GoogleIdentity, GoogleError> {
        let (Some(client_id), Some(secret)) = (&self.settings.client_id, &self.settings.client_secret) else {
            return Err(GoogleError::NotConfigured);
        };
        let redirect_uri = grant.redirect_uri.or(self.settings.redirect_uri.as_deref());
        let grant = Grant { redirect_uri, ..grant };
        let sign_in = async {
            let form = form(grant, client_id, secret)?;
            let token = self.exchange(form).await?;
            let claims = self.verified(&token, now).await?;
            identity(claims, client_id, now)
        };
        timeout(LIMITS.timeout, sign_in).await.unwrap_or_else(|_| Err(EgressError::Timeout.into()))
    }

    /// Requests the id token for a code (RFC 6749 §4.1.3).
    async fn exchange(&self, form: String) -> Result<String, GoogleError> {
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let answer = self.egress.post(&self.token, headers, Bytes::from(form), LIMITS).await?;
        match answer.status {
            200 => {
                let answer: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| {
                    GoogleError::Unreachable("the answer of the token endpoint cannot be read".to_owned())
                })?;
                answer
                    .id_token
                    .ok_or_else(|| GoogleError::rejected("there is no id token; is the scope openid missing?"))
            }
            status @ 400..=499 => {
                let refusal = serde_json::from_slice::<TokenRefusal>(&answer.body).ok();
                let word = refusal.map(|refusal| refusal.error).filter(|word| is_error_word(word));
                Err(GoogleError::Rejected(word.unwrap_or_else(|| format!("status {status}"))))
            }
            status => Err(GoogleError::Unreachable(format!("the token endpoint answered with status {status}"))),
        }
    }

    /// Returns the claims of a token once its signature is known to be Google's.
    async fn verified(&self, token: &str, now: Timestamp) -> Result<Claims, GoogleError> {
        let header = decode_header(token).map_err(|_| GoogleError::rejected("the id token cannot be read"))?;
        if header.alg != Algorithm::RS256 {
            return Err(GoogleError::rejected("the id token is not signed with RS256"));
        }
        let kid = header.kid.ok_or_else(|| GoogleError::rejected("the id token names no key"))?;
        let key = self.keys.find(&self.egress, &kid, now).await?;
        // Verifies the signature alone: the library's own claim checks ignore claims of a wrong type, and read the
        // clock.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = decode::<Claims>(token, &key, &validation);
        Ok(decoded.map_err(|_| GoogleError::rejected("the id token's signature or claims are not valid"))?.claims)
    }
}

fn form(grant: Grant<'_>, client_id: &str, secret: &str) -> Result<String, GoogleError> {
    let Grant { code, redirect_uri, code_verifier } = grant;
    if code.is_empty() || code.len() > MAX_PARAMETER_BYTES {
        return Err(GoogleError::rejected("the code is empty or too long"));
    }
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code");
    form.append_pair("client_id", client_id);
    form.append_pair("client_secret", secret);
    form.append_pair("code", code);
    if let Some(redirect_uri) = redirect_uri {
        if redirect_uri.len() > MAX_PARAMETER_BYTES {
            return Err(GoogleError::rejected("the redirect URI is too long"));
        }
        form.append_pair("redirect_uri", redirect_uri);
    }
    if let Some(verifier) = code_verifier {
        if !is_code_verifier(verifier) {
            return Err(GoogleError::rejected("the code verifier is malformed"));
        }
        form.append_pair("code_verifier", verifier);
    }
    Ok(form.finish())
}

/// RFC 7636 §4.1.
fn is_code_verifier(text: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (43..=128).contains(&text.len()) && text.bytes().all(is_unreserved)
}

/// Accepts `invalid_grant` and the like; any other text is not repeated.
fn is_error_word(word: &str) -> bool {
    (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn identity(claims: Claims, client_id: &str, now: Timestamp) -> Result<GoogleIdentity, GoogleError> {
    let Claims { iss, aud, azp, sub, exp, iat, nbf, email, email_verified, name, picture } = claims;
    let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let lives = now < at(exp);
    let is_fresh = now.minus(MAX_TOKEN_AGE).minus(CLOCK_SKEW) <= at(iat);
    let has_begun = [Some(iat), nbf].into_iter().flatten().all(|start| at(start) <= now.plus(CLOCK_SKEW));
    let is_subject = (1..=MAX_SUBJECT_BYTES).contains(&sub.len()) && sub.bytes().all(|byte| byte.is_ascii_graphic());
    for (holds, why) in [
        (ISSUERS.contains(&iss.as_str()), "the id token is not issued by Google"),
        (aud == client_id, "the id token is meant for another client"),
        (azp.is_none_or(|azp| azp == client_id), "the id token was issued to another client"),
        (lives, "the id token has expired"),
        (has_begun, "the id token is of the future"),
        (is_fresh, "the id token was issued long ago"),
        (is_subject, "the id token names nobody"),
        (email_verified.as_ref().is_some_and(Flag::is_true), "Google has not verified the e-mail address"),
    ] {
        if !holds {
            return Err(GoogleError::rejected(why));
        }
    }
    let email = email.filter(|email| email.chars().count() <= MAX_EMAIL_CHARS);
    let email = email.and_then(|email| Mailbox::parse(&email).ok()).filter(|email| !email.has_invisible_characters());
    let email = email.ok_or_else(|| GoogleError::rejected("the id token holds no usable e-mail address"))?;
    let name = name.map(|name| name.chars().filter(|c| !c.is_control()).take(255).collect::<String>());
    Ok(GoogleIdentity {
        subject: sub,
        email: email.canonical(),
        name: name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()),
        picture: picture.filter(|url| url.len() <= MAX_PICTURE_BYTES && is_https(url)),
    })
}

fn is_https(text: &str) -> bool {
    Target::parse(text, &Policy::default()).is_ok()
}
