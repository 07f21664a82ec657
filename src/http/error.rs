//! API errors (contract 1.6): a code, which fixes the status, a sentence, and the field at fault.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::event_bus::mail_log::{self, Via};
use crate::store;

/// `Retry-After` of 503 answers.
const UNAVAILABLE_SECS: u64 = 5;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $word:literal $sentence:literal;)*) => {
        /// Error codes; each belongs to one status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the value of the field `code`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Returns the HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Returns the default sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    /// The body is not a JSON object, or is nested too deep.
    BadJson = 400 "bad_json" "the body must be a JSON object";
    /// A query parameter.
    BadQuery = 400 "bad_query" "a query parameter is not valid";
    /// A field, where no narrower code applies.
    BadRequest = 400 "bad_request" "a field is missing or not valid";
    /// A URL (contract 9.1).
    BadUrl = 400 "bad_url" "a valid https url is required";
    /// A route without match.
    MatchRequired = 400 "match_required" "match required";
    /// A malformed match.
    BadMatch = 400 "bad_match" "the match is not valid";
    /// A domain name.
    BadDomain = 400 "bad_domain" "a domain name such as example.com is required";
    /// A mailbox.
    BadAddress = 400 "bad_address" "a valid e-mail address is required";
    /// A header name or value.
    BadHeader = 400 "bad_header" "a header name or value is not valid";
    /// `to` is empty.
    NoRecipients = 400 "no_recipients" "at least one recipient is required";
    /// Over 50.
    TooManyRecipients = 400 "too_many_recipients" "a message has at most 50 recipients";
    /// No subject or no body.
    MissingContent = 400 "missing_content" "a subject and a body (text or html) are required";
    /// An illegal `scheduledAt`.
    BadSchedule = 400 "bad_schedule" "scheduledAt must be a time at most 365 days ahead";
    /// Illegal metadata.
    BadMetadata = 400 "bad_metadata"
        "metadata has at most 20 keys of 64 characters, with text of at most 512 characters, numbers or booleans";
    /// The route action `agent`.
    AgentNotSupported = 400 "agent_not_supported" "this server has no agents";
    /// The operation needs a webhook route.
    RouteAction = 400 "route_action" "this needs a route with the action webhook";
    /// A file to upload.
    BadAttachment = 400 "bad_attachment" "the attachment is not valid";
    /// A file over the limit.
    AttachmentTooLarge = 400 "attachment_too_large" "an attachment has at most 25 MiB";
    /// A file that could not be fetched.
    AttachmentFetchFailed = 400 "attachment_fetch_failed" "the attachment could not be fetched";
    /// Event names.
    BadEvents = 400 "bad_events" "events must be \"all\" or a list of sending events";
    /// A retention.
    BadRetention = 400 "bad_retention" "the retention is not valid";
    /// A password that is too short, too long or the e-mail itself.
    WeakPassword = 400 "weak_password" "the password is too weak";
    /// A link that sets a password.
    BadLink = 400 "bad_link" "this link is not valid: it was used, is older than an hour, or was not copied whole";
    /// No or malformed credential.
    Unauthorized = 401 "unauthorized" "missing or invalid credential";
    /// Unknown or revoked key.
    BadKey = 401 "bad_key" "unknown or revoked key";
    /// Expired, revoked or forged session token.
    SessionExpired = 401 "session_expired" "this session has ended; sign in again";
    /// Login refused.
    BadLogin = 401 "bad_login" "invalid email or password";
    /// Google's identity token is not accepted.
    GoogleRejected = 401 "google_rejected" "the Google sign-in was not accepted";
    /// A scoped key outside its domain.
    KeyScope = 403 "key_scope" "this key is limited to one domain and does not reach this";
    /// A key where a session is needed.
    SessionRequired = 403 "session_required" "this needs a session; sign in";
    /// Sign-up is closed.
    SignupClosed = 403 "signup_closed" "sign-up is closed on this server";
    /// The first account needs the setup token.
    SetupToken = 403 "setup_token" "the setup token of this server is required; print it with: mailkite setup-token";
    /// The current password is wrong.
    WrongPassword = 403 "wrong_password" "the current password is wrong";
    /// The account's e-mail address is not verified.
    EmailNotVerified = 403 "email_not_verified" "verify the e-mail address of this account first";
    /// The From domain is not verified for sending.
    FromDomain = 403 "from_domain"
        "the From domain is not verified for sending: its SPF and DKIM records must be found";
    /// An attachment link that was changed.
    BadSignature = 403 "bad_signature" "the signature of this link is not valid";
    /// Plain HTTP from another machine.
    HttpsRequired = 403 "https_required" "https is required";
    /// Over loopback, a host name that is not this server's.
    ForeignHost = 403 "foreign_host"
        "over loopback this server answers to localhost, the host of public_url and hostname alone";
    /// Over loopback, a page of another origin.
    ForeignOrigin = 403 "foreign_origin" "over loopback this server answers no page of another origin";
    /// An unknown resource, another account's, or an unknown path.
    NotFound = 404 "not_found" "not found";
    /// A feature that this server does not have (contract 12).
    NotSupported = 404 "not_supported" "not supported by this server";
    /// The domain is not the account's.
    DomainNotOwned = 404 "domain_not_owned" "this account has no such domain";
    /// No webhook, so no secret to show.
    NoWebhook = 404 "no_webhook" "this domain has no webhook";
    /// The raw message has expired.
    RawExpired = 404 "raw_expired" "the raw copy of this message is gone";
    /// An account with this e-mail exists.
    AccountExists = 409 "account_exists" "an account with this e-mail exists";
    /// The account already has the domain.
    DomainExists = 409 "domain_exists" "this account has this domain already";
    /// Another account has verified the domain.
    DomainTaken = 409 "domain_taken" "another account has verified this domain";
    /// Keys that were replaced are still needed.
    RotationInProgress = 409 "rotation_in_progress" "the keys replaced last are still needed; see dns for how long";
    /// All recipients are suppressed.
    RecipientSuppressed = 409 "recipient_suppressed" "every recipient is on the suppression list";
    /// Too late to cancel.
    AlreadySent = 409 "already_sent" "this message was sent already";
    /// No such template, neither own nor built in.
    TemplateNotFound = 404 "template_not_found" "there is no such template";
    /// An illegal value of a merge tag.
    BadTemplateData = 400 "bad_template_data" "templateData must be an object of text, numbers and booleans";
    /// One entry of a batch failed.
    SendFailed = 502 "send_failed" "the message could not be composed";
    /// The same route exists.
    RouteExists = 409 "route_exists" "a route with this match, action and destination exists";
    /// The domain is not verified.
    DomainNotVerified = 409 "domain_not_verified" "the domain is not verified yet; check its DNS records";
    /// No webhook to test.
    NoWebhookToTest = 409 "no_webhook" "this domain has no webhook to test";
    /// Google sign-in has no client id.
    GoogleNotConfigured = 409 "google_not_configured" "Google sign-in is not configured on this server";
    /// An outbound message that is still queued.
    MessageInQueue = 409 "message_in_queue" "this message is still to be sent; cancel it or wait";
    /// The message's content has expired.
    MessageExpired = 409 "message_expired" "the content of this message is gone";
    /// The route was deleted or is inactive.
    RouteGone = 409 "route_gone" "the route of this delivery was deleted or is inactive";
    /// Another attempt is in progress.
    AttemptInProgress = 409 "attempt_in_progress" "an attempt of this delivery is being made right now";
    /// The domain's webhook is managed at the domain.
    DomainWebhookRoute = 409 "domain_webhook_route" "the match of the domain's webhook is fixed";
    /// The account has reached a limit (contract 1.9).
    LimitReached = 409 "limit_reached" "this account has as many of these as it may";
    /// An idempotency key reused with another body.
    IdempotencyConflict = 409 "idempotency_conflict" "this Idempotency-Key was used with another body";
    /// A genuine link that has expired.
    LinkExpired = 410 "link_expired" "this link has expired";
    /// An object that is missing, or differs from what was stored.
    ContentDamaged = 410 "content_damaged" "the stored content is missing or damaged; the operator was alarmed";
    /// A body over the limit.
    BodyTooLarge = 413 "body_too_large" "the request body is too large";
    /// A range beyond the end.
    BadRange = 416 "bad_request" "the range lies beyond the end";
    /// Too many requests.
    RateLimited = 429 "rate_limited" "too many requests; wait a little";
    /// Internal error.
    Internal = 500 "internal" "internal error";
    /// No HTTP response from the webhook's endpoint.
    DeliveryFailed = 502 "delivery_failed" "the webhook endpoint gave no HTTP answer";
    /// Google cannot be reached.
    GoogleUnreachable = 502 "google_unreachable" "Google could not be reached";
    /// Disk full, or shutting down.
    Unavailable = 503 "unavailable" "storage is unavailable at the moment";
    /// Not ready.
    NotReady = 503 "not_ready" "not ready";
}

/// An error as the client sees it; its cause is logged, never sent.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    code: Code,
    pub(super) message: Cow<'static, str>,
    pub(super) field: Option<Cow<'static, str>>,
    retry_after_secs: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self { code, message: Cow::Borrowed(code.sentence()), field: None, retry_after_secs: None }
    }
}

impl ApiError {
    /// Creates an error with a sentence of its own.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::from(code) }
    }

    /// Creates a 400 for one field.
    pub(crate) fn field(
        code: Code,
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: Some(field.into()), ..Self::new(code, message) }
    }

    /// Creates a 400 for one field, with the code's default sentence.
    pub(crate) fn at(code: Code, field: &'static str) -> Self {
        Self { field: Some(Cow::Borrowed(field)), ..Self::from(code) }
    }

    /// Creates a 404 for a resource that is unknown or another account's.
    pub(crate) fn not_found() -> Self {
        Code::NotFound.into()
    }

    /// Creates a 429 with `Retry-After`.
    pub(crate) fn rate_limited(retry_after_secs: u64) -> Self {
        Self { retry_after_secs: Some(retry_after_secs.max(1)), ..Self::from(Code::RateLimited) }
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }
}

impl store::TransactionError for ApiError {
    fn storage(&self) -> Option<&store::Error> {
        None
    }
}

impl ApiError {
    /// Logs that a credential was refused, for which this is the answer.
    pub(super) fn log_credential(&self, via: Via, client: IpAddr) {
        let reply = self.code.status().to_string();
        mail_log::authentication_failed(via, client, self.code.as_str(), &reply);
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Limit { name, most } => {
                Self::new(Code::LimitReached, format!("{name}: this account may have {most}; remove some first"))
            }
            _ if error.is_unreadable() => {
                tracing::error!(%error, "a request could not read the database");
                Code::Unavailable.into()
            }
            _ if error.is_storage_trouble() => {
                tracing::warn!(%error, "a request found storage unavailable");
                Code::Unavailable.into()
            }
            // The operator is alerted once per object, not by each request.
            store::Error::Damaged { .. } => Code::ContentDamaged.into(),
            _ => {
                tracing::error!(%error, "a request failed");
                Code::Internal.into()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let field = self.field.as_deref().filter(|_| status == StatusCode::BAD_REQUEST);
        let body = Body { error: &self.message, code: self.code.as_str(), field };
        let mut response = (status, serde_json::to_vec(&body).unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let unavailable = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(UNAVAILABLE_SECS);
        if let Some(secs) = self.retry_after_secs.or(unavailable) {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        response.extensions_mut().insert(self.code);
        response
    }
}

/// Returns true for paths of features that this server does not have (contract 12).
pub(super) fn is_not_supported(path: &str) -> bool {
    const EXACT: &[&str] = &[
        "/api/lists",
        "/api/contacts",
        "/api/broadcasts",
        "/v1/events",
        "/v1/sequences",
        "/v1/agent",
        "/api/domains/register",
        "/api/domains/subdomain",
        "/api/v1/provision",
        "/.well-known/oauth-authorization-server",
        "/api/app-passwords",
        "/api/auth/signin-link",
        "/api/auth/signin",
        "/api/auth/github",
        "/api/ingest",
        "/api/relay",
    ];
    const BELOW: &[&str] = &[
        "/api/lists/",
        "/api/broadcasts/",
        "/v1/events/",
        "/v1/sequences/",
        "/v1/triggers/",
        "/v1/enrollments/",
        "/api/domains/subdomain/",
        "/oauth/",
        "/api/app-passwords/",
        "/api/mailbox/",
        "/api/mx/",
        "/api/smtp/",
        "/api/imap/",
    ];
    let contacts =
        path.strip_prefix("/api/contacts/").is_some_and(|rest| rest.split('/').next() != Some("suppressions"));
    contacts || EXACT.contains(&path) || BELOW.iter().any(|prefix| path.starts_with(prefix))
}

/// Answers requests for an unknown path, or for a method that a known path does not have.
pub(crate) async fn unknown_path() -> ApiError {
    ApiError::not_found()
}
