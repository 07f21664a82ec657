//! The router's whole table: every path, method and credential class of the API, chapter by chapter.

use super::api::{
    account, auth, deliveries, delivery_list, domain_settings, domain_webhook, domains, forwards, inject, logins,
    messages, overview, replay, route_match, routes, send, server, stubs, suppressions, templates, transmissions,
    uploads,
};
use super::endpoint::Class::{Account, Public, Session};
use super::endpoint::Endpoint;
use super::error::Code;
use super::{dashboard, files, pages, realtime, service};

/// Every endpoint.
pub fn table() -> Vec<Endpoint> {
    [
        service(),
        sign_in(),
        account(),
        domains(),
        domain_settings(),
        forwards(),
        routes(),
        messages(),
        deliveries(),
        realtime(),
        uploads(),
        sending(),
        recipients_lists(),
        templates(),
        stubs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn service() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/", dashboard::index).who(Public),
        Endpoint::post("/frame", dashboard::frame).who(Public),
        Endpoint::get("/assets/{version}/{*name}", pages::asset).who(Public),
        Endpoint::get("/metrics", service::metrics_with_token).who(Public),
        Endpoint::get("/api/health", service::health)
            .who(Public)
            .about("Service", "Does the process serve?")
            .gives::<service::Health>(200),
        Endpoint::get("/api/ready", service::ready)
            .who(Public)
            .about("Service", "Can mail be taken and webhooks be made?")
            .gives::<service::Ready>(200)
            .fails(&[Code::NotReady]),
        Endpoint::get("/api/overview", overview::overview)
            .who(Account)
            .about(
                "Service",
                "How the account's mail goes: counts over time, latency, endpoints, what needs somebody",
            )
            .more("An answer serves for two seconds.")
            .query::<overview::OverviewQuery>()
            .gives::<overview::Overview>(200),
        Endpoint::get("/api/server", server::facts)
            .who(Account)
            .about("Service", "Facts about this server")
            .gives::<server::ServerView>(200),
        Endpoint::get("/api/openapi.json", service::openapi)
            .who(Public)
            .about("Service", "This document")
            .gives_media("application/json"),
        Endpoint::get("/att/{mid}/{idx}", files::download)
            .who(Public)
            .about("Attachments", "Download an attachment by its signed link")
            .more("`mid` is a message id without `msg_`, or an upload id. A single byte range is honoured.")
            .query::<files::Signed>()
            .gives_media("*/*")
            .fails(&[Code::BadSignature, Code::LinkExpired, Code::ContentDamaged, Code::BadRange]),
    ]
}

fn sign_in() -> Vec<Endpoint> {
    const TAG: &str = "Signing in";
    vec![
        Endpoint::post("/api/auth/signup", auth::sign_up)
            .who(Public)
            .about(TAG, "Make an account")
            .more("With `signup = \"first\"` the first account needs the setup token, except in dev mode.")
            .takes::<auth::SignUp>()
            .gives::<auth::Session>(201)
            .fails(&[
                Code::BadAddress,
                Code::WeakPassword,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::post("/api/auth/login", auth::log_in)
            .who(Public)
            .about(TAG, "Sign in")
            .takes::<auth::LogIn>()
            .gives::<auth::Session>(200)
            .fails(&[Code::BadLogin, Code::RateLimited]),
        Endpoint::post("/api/auth/google", auth::google)
            .who(Public)
            .about(TAG, "Sign in with Google")
            .takes::<auth::GoogleSignIn>()
            .gives::<auth::Session>(200)
            .fails(&[
                Code::GoogleNotConfigured,
                Code::GoogleRejected,
                Code::GoogleUnreachable,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::get("/api/auth/sessions", logins::list)
            .who(Session)
            .about(TAG, "Where the account is signed in")
            .gives::<logins::Logins>(200),
        Endpoint::delete("/api/auth/sessions/{id}", logins::end)
            .who(Session)
            .about(TAG, "End one of the account's sessions")
            .gives::<super::body::Done>(200)
            .fails(&[Code::NotFound]),
        Endpoint::post("/api/auth/logout", auth::log_out)
            .who(Session)
            .about(TAG, "End this session")
            .gives::<super::body::Done>(200),
        Endpoint::post("/api/auth/password", auth::change_password)
            .who(Session)
            .about(TAG, "Change the password")
            .more("Every earlier session ends; keys stay.")
            .takes::<auth::ChangePassword>()
            .gives::<auth::PasswordChanged>(200)
            .fails(&[Code::WeakPassword, Code::WrongPassword]),
        Endpoint::post("/api/auth/verify/send", auth::send_verification)
            .who(Account)
            .about(TAG, "Mail a link that proves the account's e-mail")
            .gives::<auth::VerificationStatus>(200),
        Endpoint::get("/api/auth/verify", auth::verify_page)
            .who(Public)
            .about(TAG, "The page behind that link")
            .more("It asks for a button to be pressed and changes nothing.")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/auth/verify", auth::verify)
            .who(Public)
            .about(TAG, "Prove the account's e-mail")
            .more("Posted by the page behind the link, which it answers with a page.")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
    ]
}

fn account() -> Vec<Endpoint> {
    const TAG: &str = "Account";
    vec![
        Endpoint::get("/v1/me", account::me).about(TAG, "Who am I?").gives::<account::Me>(200),
        Endpoint::get("/api/billing/usage", account::usage)
            .about(TAG, "Messages sent this month")
            .gives::<account::Usage>(200),
        Endpoint::get("/api/keys", account::key)
            .who(Account)
            .about(TAG, "The account's API key, made if there is none")
            .gives::<account::Key>(200),
        Endpoint::post("/api/keys/rotate", account::rotate_key)
            .who(Account)
            .about(TAG, "Replace the account's API key")
            .more("The old key is dead at once.")
            .gives::<account::Key>(200),
        Endpoint::get("/api/keys/scoped", account::scoped_keys)
            .who(Account)
            .about(TAG, "Keys that are limited to one domain, newest first")
            .gives_list::<account::ScopedKey>(),
        Endpoint::post("/api/keys/scoped", account::new_scoped_key)
            .who(Account)
            .about(TAG, "Make a key for one domain")
            .takes::<account::NewScopedKey>()
            .gives::<account::ScopedKey>(201)
            .fails(&[Code::LimitReached, Code::DomainNotOwned]),
        Endpoint::delete("/api/keys/scoped/{id}", account::delete_scoped_key)
            .who(Account)
            .about(TAG, "End a scoped key")
            .gives::<super::body::Done>(200),
        Endpoint::get("/api/webhooks/secret", account::webhook_secret)
            .who(Account)
            .about(TAG, "The secret of tracking webhooks, made if there is none")
            .gives::<account::Secret>(200),
        Endpoint::post("/api/webhooks/secret/rotate", account::rotate_webhook_secret)
            .who(Account)
            .about(TAG, "Replace the secret of tracking webhooks")
            .more("For 24 hours both secrets sign.")
            .gives::<account::RotatedSecret>(200),
    ]
}

fn messages() -> Vec<Endpoint> {
    const TAG: &str = "Messages";
    vec![
        Endpoint::get("/api/messages", messages::list)
            .about(TAG, "List messages, newest first")
            .query::<messages::ListQuery>()
            .gives_list::<messages::MessageView>(),
        Endpoint::get("/api/messages/{id}", messages::detail)
            .about(TAG, "One message with its deliveries and attachments")
            .gives::<messages::Detail>(200),
        Endpoint::get("/api/messages/{id}/raw", messages::raw)
            .about(TAG, "The bytes as received")
            .gives_media("message/rfc822")
            .fails(&[Code::RawExpired, Code::ContentDamaged]),
        Endpoint::get("/api/messages/{id}/transmissions", transmissions::list)
            .about(TAG, "Which remote hosts took it, with the SMTP dialog of the last attempt")
            .more("One entry for each destination; empty for mail that nobody was sent.")
            .gives_list::<transmissions::TransmissionView>(),
        Endpoint::delete("/api/messages/{id}", messages::delete)
            .about(TAG, "Remove a message with everything of it")
            .gives::<super::body::Done>(200)
            .fails(&[Code::MessageInQueue]),
        Endpoint::post("/v1/route", inject::inject)
            .about(TAG, "Hand a message to a route as if it had arrived by mail")
            .takes::<inject::InjectFields>()
            .gives::<inject::InjectedView>(202)
            .fails(&[
                Code::LimitReached,
                Code::NotFound,
                Code::EmailNotVerified,
                Code::DomainNotOwned,
                Code::KeyScope,
                Code::FromDomain,
            ]),
    ]
}

fn deliveries() -> Vec<Endpoint> {
    const TAG: &str = "Deliveries";
    vec![
        Endpoint::post("/api/deliveries/{id}/retry", deliveries::retry)
            .about(TAG, "Attempt a delivery now")
            .gives::<deliveries::AnswerView>(200)
            .fails(&[
                Code::DeliveryFailed,
                Code::MessageExpired,
                Code::ContentDamaged,
                Code::RouteGone,
                Code::AttemptInProgress,
                Code::LimitReached,
            ]),
        Endpoint::post("/api/deliveries/retry", deliveries::retry_many)
            .about(TAG, "Attempt several deliveries now")
            .more("1 to 50 ids in all, and at most 50 attempts.")
            .takes::<deliveries::BulkRetry>()
            .gives::<deliveries::Results>(200)
            .fails(&[Code::LimitReached]),
        Endpoint::get("/api/deliveries", delivery_list::list)
            .about(TAG, "List deliveries of all messages, newest first")
            .query::<delivery_list::ListQuery>()
            .gives::<delivery_list::DeliveryPage>(200),
        Endpoint::get("/api/deliveries/{id}/attempts", deliveries::attempts)
            .about(TAG, "The attempts of a delivery, newest first")
            .gives_list::<deliveries::AttemptView<'_>>(),
    ]
}

fn realtime() -> Vec<Endpoint> {
    const TAG: &str = "Realtime";
    vec![
        Endpoint::post("/v1/realtime/token", realtime::token)
            .about(TAG, "A token that opens one stream")
            .more("For five minutes and one use, with the rights of the credential that asks.")
            .gives::<realtime::StreamToken>(200),
        Endpoint::get("/v1/realtime", realtime::stream)
            .about(TAG, "The account's events as they happen, as server-sent events")
            .more(
                "`email.received`, `email.sent`, `email.bounced` and `delivery.updated`, each with its id. With \
                 `Last-Event-ID` those after it come first, of the last 1,000; `stream.gap` says that it is not known any \
                 more. At most 20 streams for an account.",
            )
            .query::<realtime::StreamQuery>()
            .gives_media("text/event-stream"),
    ]
}

fn forwards() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    vec![
        Endpoint::get("/api/forwards/confirm", forwards::show_confirm)
            .who(Public)
            .about(TAG, "Ask an address whether it wants what is forwarded to it")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/forwards/confirm", forwards::confirm)
            .who(Public)
            .about(TAG, "Confirm that forwarded mail is wanted")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::get("/api/forwards/decline", forwards::show_decline)
            .who(Public)
            .about(TAG, "Ask an address whether it declines")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/forwards/decline", forwards::decline)
            .who(Public)
            .about(TAG, "Decline forwarded mail")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
    ]
}

fn routes() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    vec![
        Endpoint::get("/api/routes", routes::list)
            .about(TAG, "List routes, oldest first")
            .gives_list::<routes::RouteView>(),
        Endpoint::get("/api/routes/match", route_match::find)
            .about(TAG, "Which routes an address reaches")
            .query::<route_match::MatchQuery>()
            .gives::<route_match::MatchView>(200),
        Endpoint::post("/api/routes", routes::create)
            .about(TAG, "Make a route")
            .takes::<routes::NewRouteFields>()
            .gives::<routes::CreatedRoute>(201)
            .fails(&[
                Code::LimitReached,
                Code::MatchRequired,
                Code::BadMatch,
                Code::BadUrl,
                Code::BadAddress,
                Code::AgentNotSupported,
                Code::DomainNotOwned,
                Code::DomainNotVerified,
                Code::RouteExists,
            ]),
        Endpoint::patch("/api/routes/{id}", routes::change)
            .about(TAG, "Change, pause or resume a route")
            .takes::<routes::RouteChange>()
            .gives::<routes::RouteView>(200)
            .fails(&[
                Code::LimitReached,
                Code::MatchRequired,
                Code::BadMatch,
                Code::BadUrl,
                Code::BadAddress,
                Code::DomainNotOwned,
                Code::DomainNotVerified,
                Code::RouteExists,
                Code::DomainWebhookRoute,
            ]),
        Endpoint::delete("/api/routes/{id}", routes::delete)
            .about(TAG, "Remove a route")
            .more("Its pending deliveries end as failed.")
            .gives::<super::body::Done>(200),
        Endpoint::post("/api/routes/{id}/secret/rotate", routes::rotate_secret)
            .about(TAG, "Replace a webhook's secret")
            .more("For 24 hours both secrets sign.")
            .gives::<super::api::account::RotatedSecret>(200)
            .fails(&[Code::RouteAction]),
        Endpoint::get("/api/routes/{id}/candidates", replay::candidates)
            .about(TAG, "Stored messages that a webhook route covers")
            .query::<replay::CandidatesQuery>()
            .gives::<replay::CandidatesView>(200)
            .fails(&[Code::RouteAction]),
        Endpoint::post("/api/routes/{id}/deliver", replay::deliver)
            .about(TAG, "Post stored messages to a webhook route")
            .takes::<replay::Replay>()
            .gives::<deliveries::Results>(200)
            .fails(&[Code::RouteAction, Code::LimitReached]),
    ]
}

fn uploads() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/attachments", uploads::create)
            .about("Attachments", "Upload a file, or have it fetched")
            .more("As JSON, or with the file as the body and its name in the query.")
            .query::<uploads::UploadQuery>()
            .takes::<uploads::UploadFields>()
            .takes_bytes()
            .gives::<uploads::UploadView>(201)
            .fails(&[
                Code::EmailNotVerified,
                Code::LimitReached,
                Code::BadAttachment,
                Code::AttachmentTooLarge,
                Code::BadUrl,
                Code::AttachmentFetchFailed,
                Code::BadRetention,
            ]),
    ]
}

fn stubs() -> Vec<Endpoint> {
    const TAG: &str = "For compatibility";
    vec![
        Endpoint::get("/api/domains/register/check", stubs::register_check)
            .about(TAG, "Can a domain be bought here? No.")
            .query::<stubs::RegisterQuery>()
            .gives::<stubs::RegisterView>(200)
            .fails(&[Code::BadRequest]),
        Endpoint::get("/v1/docs/search", stubs::docs_search)
            .who(Public)
            .about(TAG, "Search the documentation; finds nothing")
            .query::<stubs::DocsQuery>()
            .gives::<stubs::DocsView>(200),
    ]
}

fn domains() -> Vec<Endpoint> {
    const TAG: &str = "Domains";
    vec![
        Endpoint::get("/api/domains", domains::list)
            .about(TAG, "List domains, oldest first")
            .gives_list::<domains::DomainView>(),
        Endpoint::post("/api/domains", domains::add)
            .who(Account)
            .about(TAG, "Add a domain")
            .more("It is pending until its DNS records are found; its DKIM keys are made now.")
            .takes::<domains::NewDomain>()
            .gives::<domains::DomainWithRecords>(201)
            .fails(&[Code::LimitReached, Code::BadDomain, Code::DomainExists, Code::DomainTaken]),
        Endpoint::get("/api/domains/{id}", domains::detail)
            .about(TAG, "One domain with its DNS records")
            .more("`id` is the domain's id or its name, here and below.")
            .gives::<domains::DomainWithRecords>(200),
        Endpoint::delete("/api/domains/{id}", domains::delete)
            .who(Account)
            .about(TAG, "Remove a domain")
            .more("Its webhook, keys and routes go with it; stored messages stay until their retention ends.")
            .gives::<super::body::Done>(200),
        Endpoint::post("/api/domains/{id}/verify", domains::verify)
            .about(TAG, "Look the domain's DNS records up")
            .gives::<domains::VerifiedView>(200)
            .fails(&[Code::DomainTaken]),
        Endpoint::put("/api/domains/{id}/webhook", domain_webhook::put)
            .about(TAG, "Set the domain's webhook")
            .takes::<domain_webhook::WebhookFields>()
            .gives::<domain_webhook::WebhookView>(200)
            .fails(&[Code::LimitReached, Code::BadUrl, Code::DomainNotVerified]),
        Endpoint::delete("/api/domains/{id}/webhook", domain_webhook::delete)
            .about(TAG, "Remove the domain's webhook")
            .gives::<super::body::Done>(200),
        Endpoint::get("/api/domains/{id}/webhook/secret", domain_webhook::secret)
            .about(TAG, "The signing secret of the domain's webhook")
            .gives::<account::Secret>(200)
            .fails(&[Code::NoWebhook]),
        Endpoint::post("/api/domains/{id}/webhook/secret/rotate", domain_webhook::rotate_secret)
            .about(TAG, "Replace the signing secret of the domain's webhook")
            .more("For 24 hours both secrets sign.")
            .gives::<account::RotatedSecret>(200)
            .fails(&[Code::NoWebhook]),
        Endpoint::post("/api/domains/{id}/webhook/test", domain_webhook::test)
            .about(TAG, "Post one signed test event to the domain's webhook")
            .gives::<deliveries::AnswerView>(200)
            .fails(&[Code::EmailNotVerified, Code::NoWebhookToTest, Code::RouteGone, Code::DeliveryFailed]),
    ]
}

fn domain_settings() -> Vec<Endpoint> {
    const TAG: &str = "Domains";
    vec![
        Endpoint::put("/api/domains/{id}/tracking-webhook", domain_settings::put_tracking)
            .about(TAG, "Set where sending events go")
            .takes::<domain_settings::TrackingFields>()
            .gives::<domain_settings::TrackingView>(200)
            .fails(&[Code::BadUrl]),
        Endpoint::delete("/api/domains/{id}/tracking-webhook", domain_settings::delete_tracking)
            .about(TAG, "Sending events go nowhere of their own")
            .gives::<super::body::Done>(200),
        Endpoint::put("/api/domains/{id}/webhook-events", domain_settings::put_events)
            .about(TAG, "Choose the sending events that the domain's webhook gets")
            .takes::<domain_settings::EventsFields>()
            .gives::<domain_settings::EventsView>(200)
            .fails(&[Code::BadEvents]),
        Endpoint::delete("/api/domains/{id}/webhook-events", domain_settings::delete_events)
            .about(TAG, "The domain's webhook gets no sending events")
            .gives::<super::body::Done>(200),
        Endpoint::put("/api/domains/{id}/retention", domain_settings::put_retention)
            .about(TAG, "Set how long the domain's messages are kept")
            .more("With `zeroRetention` nothing of its mail is stored: one attempt for each webhook, attachments inside.")
            .takes::<domain_settings::RetentionFields>()
            .gives::<domain_settings::RetentionView>(200)
            .fails(&[Code::BadRetention]),
    ]
}

fn sending() -> Vec<Endpoint> {
    const TAG: &str = "Sending";
    const GATES: &[Code] = &[
        Code::LimitReached,
        Code::BadAddress,
        Code::NoRecipients,
        Code::TooManyRecipients,
        Code::MissingContent,
        Code::BadHeader,
        Code::BadAttachment,
        Code::AttachmentTooLarge,
        Code::AttachmentFetchFailed,
        Code::BadTemplateData,
        Code::BadSchedule,
        Code::BadMetadata,
        Code::EmailNotVerified,
        Code::DomainNotOwned,
        Code::FromDomain,
        Code::TemplateNotFound,
        Code::RecipientSuppressed,
        Code::IdempotencyConflict,
    ];
    vec![
        Endpoint::post("/v1/send", send::send)
            .about(TAG, "Send a message")
            .more(
                "202 is a promise: the message is composed, DKIM-signed and on disk. With `Idempotency-Key` the request \
                 may be repeated for 24 hours.",
            )
            .takes::<send::SendFields>()
            .gives::<send::SentView>(202)
            .fails(GATES),
        Endpoint::post("/v1/send/batch", send::send_batch)
            .about(TAG, "Send a message to each of up to 50 recipients")
            .takes::<send::BatchFields>()
            .gives::<send::BatchView>(200)
            .fails(GATES),
        Endpoint::delete("/v1/scheduled/{id}", send::cancel)
            .about(TAG, "Cancel a scheduled send")
            .gives::<send::CanceledView>(200)
            .fails(&[Code::AlreadySent]),
    ]
}

fn recipients_lists() -> Vec<Endpoint> {
    const TAG: &str = "Suppressions and blocked senders";
    vec![
        Endpoint::get("/api/contacts/suppressions", suppressions::list)
            .who(Account)
            .about(TAG, "Addresses that nothing is sent to, newest first")
            .query::<suppressions::ListQuery>()
            .gives::<suppressions::SuppressionList>(200),
        Endpoint::post("/api/contacts/suppressions", suppressions::add)
            .who(Account)
            .about(TAG, "Send nothing to an address")
            .more("200 when it was suppressed before; then it is replaced.")
            .takes::<suppressions::SuppressionFields>()
            .gives::<suppressions::SuppressionAdded>(201)
            .also(200)
            .fails(&[Code::LimitReached, Code::BadAddress]),
        Endpoint::delete("/api/contacts/suppressions/{email}", suppressions::remove)
            .who(Account)
            .about(TAG, "Send to an address again")
            .gives::<super::body::Done>(200),
        Endpoint::get("/api/blocked-senders", suppressions::list_blocked)
            .who(Account)
            .about(TAG, "Senders whose mail is stored as spam and calls no webhook")
            .gives_list::<suppressions::BlockedView>(),
        Endpoint::post("/api/blocked-senders", suppressions::block)
            .who(Account)
            .about(TAG, "Block a sender")
            .more("200 when it was blocked before.")
            .takes::<suppressions::BlockedFields>()
            .gives::<suppressions::BlockedView>(201)
            .also(200)
            .fails(&[Code::LimitReached, Code::BadAddress]),
        Endpoint::delete("/api/blocked-senders/{email}", suppressions::unblock)
            .who(Account)
            .about(TAG, "Unblock a sender")
            .gives::<super::body::Done>(200),
    ]
}

fn templates() -> Vec<Endpoint> {
    const TAG: &str = "Templates";
    vec![
        Endpoint::get("/api/templates", templates::list)
            .about(TAG, "Your templates, newest first")
            .gives_list::<templates::MetaView>(),
        Endpoint::get("/api/templates/base", templates::list_base)
            .about(TAG, "Templates that are built in")
            .gives_list::<templates::MetaView>(),
        Endpoint::get("/api/templates/{id}", templates::detail)
            .about(TAG, "One template")
            .gives::<templates::FullView>(200),
        Endpoint::post("/api/templates", templates::create)
            .who(Account)
            .about(TAG, "Make a template")
            .more("With `baseId` it begins as a copy of that; given fields win.")
            .takes::<templates::TemplateFields>()
            .gives::<templates::FullView>(201)
            .fails(&[Code::EmailNotVerified, Code::LimitReached, Code::TemplateNotFound]),
        Endpoint::put("/api/templates/{id}", templates::update)
            .who(Account)
            .about(TAG, "Change a template")
            .takes::<templates::TemplateFields>()
            .gives::<templates::FullView>(200)
            .fails(&[Code::EmailNotVerified, Code::LimitReached]),
        Endpoint::delete("/api/templates/{id}", templates::delete)
            .who(Account)
            .about(TAG, "Remove a template")
            .gives::<super::body::Done>(200),
        Endpoint::post("/api/templates/test", templates::test)
            .who(Account)
            .about(TAG, "Send a template to yourself")
            .takes::<templates::TestFields>()
            .gives::<send::SentView>(202)
            .fails(&[
                Code::LimitReached,
                Code::BadAddress,
                Code::BadHeader,
                Code::MissingContent,
                Code::EmailNotVerified,
                Code::DomainNotOwned,
                Code::FromDomain,
                Code::RecipientSuppressed,
                Code::DomainNotVerified,
            ]),
    ]
}
