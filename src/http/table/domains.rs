//! Domains and their settings, routes, and addresses that mail is forwarded to.

use crate::http::api::{
    account, deliveries, domain_settings, domain_webhook, domains, forwards, replay, route_match, routes,
};
use crate::http::body::OkView;
use crate::http::endpoint::Class::{Account, Public};
use crate::http::endpoint::Endpoint;
use crate::http::error::Code;

pub(super) fn domains() -> Vec<Endpoint> {
    const TAG: &str = "Domains";
    vec![
        Endpoint::get("/api/domains", domains::list)
            .summary(TAG, "listDomains", "List domains, oldest first")
            .gives_list::<domains::DomainView>(),
        Endpoint::post("/api/domains", domains::add)
            .auth(Account)
            .summary(TAG, "createDomain", "Add a domain")
            .description("It is pending until its DNS records are found; its DKIM keys are generated now.")
            .request::<domains::NewDomain>()
            .needs(&["domain"])
            .response::<domains::DomainWithRecords>(201)
            .errors(&[Code::LimitReached, Code::BadDomain, Code::DomainExists, Code::DomainTaken]),
        Endpoint::get("/api/domains/{id}", domains::detail)
            .summary(TAG, "getDomain", "One domain with its DNS records")
            .description("`id` is the domain's id or its name, here and below.")
            .response::<domains::DomainWithRecords>(200),
        Endpoint::delete("/api/domains/{id}", domains::delete)
            .auth(Account)
            .resource(domains::exists)
            .summary(TAG, "deleteDomain", "Remove a domain")
            .description("Its webhook, keys and routes go with it; stored messages stay until their retention ends.")
            .response::<OkView>(200),
        Endpoint::post("/api/domains/{id}/verify", domains::verify)
            .summary(TAG, "verifyDomain", "Check the domain's DNS records")
            .response::<domains::VerifiedView>(200)
            .errors(&[Code::DomainTaken]),
        Endpoint::post("/api/domains/{id}/dkim/rotate", domains::rotate_dkim)
            .auth(Account)
            .resource(domains::exists)
            .summary(TAG, "rotateDkim", "Replace the domain's DKIM keys")
            .description(
                "The new keys sign once their record is found; the former ones stay published for at least 7 days.",
            )
            .response::<domains::DomainWithRecords>(200)
            .errors(&[Code::RotationInProgress]),
        Endpoint::put("/api/domains/{id}/webhook", domain_webhook::put)
            .summary(TAG, "setWebhook", "Set the domain's webhook")
            .request::<domain_webhook::WebhookFields>()
            .needs(&["url"])
            .response::<domain_webhook::WebhookView>(200)
            .errors(&[Code::LimitReached, Code::BadUrl, Code::DomainNotVerified]),
        Endpoint::delete("/api/domains/{id}/webhook", domain_webhook::delete)
            .summary(TAG, "deleteWebhook", "Remove the domain's webhook")
            .response::<OkView>(200),
        Endpoint::get("/api/domains/{id}/webhook/secret", domain_webhook::secret)
            .summary(TAG, "getWebhookSecret", "The signing secret of the domain's webhook")
            .response::<account::Secret>(200)
            .errors(&[Code::NoWebhook]),
        Endpoint::post("/api/domains/{id}/webhook/secret/rotate", domain_webhook::rotate_secret)
            .summary(TAG, "rotateWebhookSecret", "Replace the signing secret of the domain's webhook")
            .description("For 24 hours both secrets sign.")
            .response::<account::RotatedSecret>(200)
            .errors(&[Code::NoWebhook]),
        Endpoint::post("/api/domains/{id}/webhook/test", domain_webhook::test)
            .verified_email()
            .resource(domains::exists)
            .summary(TAG, "testWebhook", "Post one signed test event to the domain's webhook")
            .response::<deliveries::AnswerView>(200)
            .errors(&[Code::NoWebhookToTest, Code::RouteGone, Code::DeliveryFailed]),
    ]
}

pub(super) fn domain_settings() -> Vec<Endpoint> {
    const TAG: &str = "Domains";
    vec![
        Endpoint::put("/api/domains/{id}/tracking-webhook", domain_settings::put_tracking)
            .summary(TAG, "setTrackingWebhook", "Set the webhook for sending events")
            .request::<domain_settings::TrackingFields>()
            .needs(&["url"])
            .response::<domain_settings::TrackingView>(200)
            .errors(&[Code::BadUrl]),
        Endpoint::delete("/api/domains/{id}/tracking-webhook", domain_settings::delete_tracking)
            .summary(TAG, "deleteTrackingWebhook", "Remove the webhook for sending events")
            .response::<OkView>(200),
        Endpoint::put("/api/domains/{id}/webhook-events", domain_settings::put_events)
            .summary(TAG, "setWebhookEvents", "Choose the sending events that the domain's webhook gets")
            .request::<domain_settings::EventsFields>()
            .needs(&["events"])
            .response::<domain_settings::EventsView>(200)
            .errors(&[Code::BadEvents]),
        Endpoint::delete("/api/domains/{id}/webhook-events", domain_settings::delete_events)
            .summary(TAG, "deleteWebhookEvents", "The domain's webhook gets no sending events")
            .response::<OkView>(200),
        Endpoint::put("/api/domains/{id}/retention", domain_settings::put_retention)
            .summary(TAG, "setRetention", "Set how long the domain's messages are kept")
            .description(
                "With `zeroRetention` its mail is not stored: one attempt per webhook, with attachments inline.",
            )
            .request::<domain_settings::RetentionFields>()
            .needs(&[])
            .response::<domain_settings::RetentionView>(200)
            .errors(&[Code::BadRetention]),
    ]
}

pub(super) fn routes() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    const ROUTE_ERRORS: &[Code] = &[
        Code::LimitReached,
        Code::MatchRequired,
        Code::BadMatch,
        Code::BadUrl,
        Code::BadAddress,
        Code::DomainNotOwned,
        Code::DomainNotVerified,
        Code::RouteExists,
    ];
    vec![
        Endpoint::get("/api/routes", routes::list)
            .summary(TAG, "listRoutes", "List routes, oldest first")
            .gives_list::<routes::RouteView>(),
        Endpoint::get("/api/routes/match", route_match::find)
            .summary(TAG, "matchRoutes", "List the routes that an address reaches")
            .query::<route_match::MatchQuery>()
            .response::<route_match::MatchView>(200),
        Endpoint::post("/api/routes", routes::create)
            .summary(TAG, "createRoute", "Create a route")
            .request::<routes::NewRouteFields>()
            .needs(&["match"])
            .response::<routes::CreatedRoute>(201)
            .errors(ROUTE_ERRORS)
            .errors(&[Code::AgentNotSupported]),
        Endpoint::patch("/api/routes/{id}", routes::change)
            .summary(TAG, "updateRoute", "Change, pause or resume a route")
            .request::<routes::RouteChange>()
            .response::<routes::RouteView>(200)
            .errors(ROUTE_ERRORS)
            .errors(&[Code::DomainWebhookRoute]),
        Endpoint::delete("/api/routes/{id}", routes::delete)
            .summary(TAG, "deleteRoute", "Remove a route")
            .description("Its pending deliveries fail.")
            .response::<OkView>(200),
        Endpoint::post("/api/routes/{id}/secret/rotate", routes::rotate_secret)
            .summary(TAG, "rotateRouteSecret", "Replace a webhook's secret")
            .description("For 24 hours both secrets sign.")
            .response::<account::RotatedSecret>(200)
            .errors(&[Code::RouteAction]),
        Endpoint::get("/api/routes/{id}/candidates", replay::candidates)
            .summary(TAG, "listRouteCandidates", "List stored messages that a webhook route covers")
            .query::<replay::CandidatesQuery>()
            .limit(100, 50)
            .response::<replay::CandidatesView>(200)
            .errors(&[Code::RouteAction]),
        Endpoint::post("/api/routes/{id}/deliver", replay::deliver)
            .summary(TAG, "deliverToRoute", "Post stored messages to a webhook route")
            .request::<replay::Replay>()
            .needs(&["messageIds"])
            .response::<deliveries::Results>(200)
            .errors(&[Code::RouteAction, Code::LimitReached]),
    ]
}

pub(super) fn forwards() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    vec![
        Endpoint::get("/api/forwards/confirm", forwards::show_confirm)
            .auth(Public)
            .summary(TAG, "showForwardConfirmation", "Page on which an address confirms forwarded mail")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/forwards/confirm", forwards::confirm)
            .auth(Public)
            .summary(TAG, "confirmForward", "Confirm that forwarded mail is wanted")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::get("/api/forwards/decline", forwards::show_decline)
            .auth(Public)
            .summary(TAG, "showForwardRefusal", "Page on which an address declines forwarded mail")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/forwards/decline", forwards::decline)
            .auth(Public)
            .summary(TAG, "declineForward", "Decline forwarded mail")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
    ]
}
