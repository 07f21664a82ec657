//! The labels of the metrics. Each is an enum, so that the number of series is bounded and no stranger chooses a value.
//!
//! A new value is a variant here; `docs/metrics.md` says what operators need to know of it.

/// A label with all its values.
pub(crate) trait Label: Copy + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// The values, in the order of the variants.
    const WORDS: &'static [&'static str];

    /// Returns the position of the value in `WORDS`.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$about:meta])* $label:ident = $key:literal { $($(#[$doc:meta])* $value:ident = $word:literal,)* })*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $label {
            $($(#[$doc])* $value,)*
        }

        impl Label for $label {
            const KEY: &'static str = $key;
            const WORDS: &'static [&'static str] = &[$($word,)*];

            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

labels! {
    /// The service that a client speaks to, by its name in the registry of ports.
    Service = "service" {
        Smtp = "smtp",
        Submission = "submission",
        /// Submission with implicit TLS (RFC 8314).
        Submissions = "submissions",
        Http = "http",
        /// Mail from here to a domain hosted here.
        Local = "local",
    }

    /// Reason to refuse a recipient.
    RecipientRefused = "reason" {
        Relay = "relay",
        Unknown = "unknown",
        DomainPending = "domain_pending",
        AccountFull = "account_full",
        StorageFull = "storage_full",
        Storage = "storage",
        TooMany = "too_many",
        NoDomain = "no_domain",
    }

    /// Reason to refuse a message.
    MessageRefused = "reason" {
        BareNewline = "bare_newline",
        LineTooLong = "line_too_long",
        TooLarge = "too_large",
        TooSlow = "too_slow",
        Loop = "loop",
        /// Mail to an SRS address that is no report.
        NotAReport = "not_a_report",
        AccountFull = "account_full",
        StorageFull = "storage_full",
        Storage = "storage",
        /// Submitted mail that cannot be read, signed or sent on.
        BadMessage = "bad_message",
        /// The account may not send from this address.
        Sender = "sender",
        /// All recipients are suppressed.
        Suppressed = "suppressed",
    }

    /// A rate limit that was exceeded.
    RateLimit = "limit" {
        /// Requests of a credential.
        Requests = "requests",
        /// Requests and forwarded mail of an account.
        AccountRequests = "account_requests",
        /// Requests with a wrong credential.
        Unauthorized = "unauthorized",
        SignIn = "sign_in",
        SignUp = "sign_up",
        VerificationMail = "verification_mail",
        EventStreams = "event_streams",
        /// AUTH with a wrong password.
        Auth = "auth",
    }

    /// End of a webhook attempt.
    WebhookAnswer = "outcome" {
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
        Timeout = "timeout",
        Dns = "dns",
        Connection = "connection",
        Tls = "tls",
        /// The policy refuses the address.
        Blocked = "blocked",
        /// An answer that is no HTTP, or a status outside of the classes.
        BadResponse = "bad_response",
        /// The stored mail is damaged, and nothing was posted.
        Damaged = "damaged",
    }

    /// End of an attempt to deliver to a recipient elsewhere.
    RemoteOutcome = "outcome" {
        Sent = "sent",
        Deferred = "deferred",
        Bounced = "bounced",
    }

    /// Subject of an enhanced status code (RFC 3463 §3).
    StatusSubject = "subject" {
        /// X.0, or a reply without a code.
        Undefined = "undefined",
        Address = "address",
        Mailbox = "mailbox",
        System = "system",
        Network = "network",
        Protocol = "protocol",
        Content = "content",
        Policy = "policy",
    }
}

impl Service {
    /// Number of services that speak SMTP; they come first.
    pub(super) const SMTP: usize = 3;
}

impl WebhookAnswer {
    /// Returns the class of an HTTP status.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status / 100 {
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::BadResponse,
        }
    }
}

impl StatusSubject {
    /// Returns the subject with this number; `None` is a reply without an enhanced status code.
    pub(crate) const fn of_number(number: Option<u16>) -> Self {
        match number {
            Some(1) => Self::Address,
            Some(2) => Self::Mailbox,
            Some(3) => Self::System,
            Some(4) => Self::Network,
            Some(5) => Self::Protocol,
            Some(6) => Self::Content,
            Some(7) => Self::Policy,
            _ => Self::Undefined,
        }
    }
}
