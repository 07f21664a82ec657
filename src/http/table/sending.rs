//! Sending, uploads, templates, suppressions and blocked senders.

use crate::http::api::{send, suppressions, templates, uploads};
use crate::http::body::OkView;
use crate::http::endpoint::Class::Account;
use crate::http::endpoint::{Endpoint, Header};
use crate::http::error::Code;

const IDEMPOTENCY_KEY: Header = Header {
    name: "Idempotency-Key",
    about: "1 to 255 visible ASCII characters; an empty one counts as absent. A request with a key that was seen \
            within 24 hours is answered as the first.",
    example: "order-1017",
};

pub(super) fn sending() -> Vec<Endpoint> {
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
            .summary(TAG, "send", "Send a message")
            .description(
                "202 is a promise: the message is composed, DKIM-signed and on disk. With `Idempotency-Key` the \
                 request may be repeated for 24 hours.",
            )
            .header(IDEMPOTENCY_KEY)
            .request::<send::SendFields>()
            .large()
            .needs(&["from", "to"])
            .response::<send::SentView>(202)
            .replays()
            .errors(GATES),
        Endpoint::post("/v1/send/batch", send::send_batch)
            .summary(TAG, "sendBatch", "Send a message to each of up to 50 recipients")
            .header(IDEMPOTENCY_KEY)
            .request::<send::BatchFields>()
            .large()
            .needs(&["from", "recipients"])
            .response::<send::BatchView>(200)
            .replays()
            .errors(GATES),
        Endpoint::delete("/v1/scheduled/{id}", send::cancel)
            .summary(TAG, "cancelScheduled", "Cancel a scheduled send")
            .response::<send::CanceledView>(200)
            .errors(&[Code::AlreadySent]),
    ]
}

pub(super) fn uploads() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/attachments", uploads::create)
            .verified_email()
            .summary("Attachments", "uploadAttachment", "Upload a file, or have it fetched")
            .description("As JSON, or with the file as the body and its name in the query.")
            .query::<uploads::UploadQuery>()
            .choice("retentionDays", &[7, 30, 90, 365])
            .request::<uploads::UploadFields>()
            .needs(&[])
            .takes_bytes()
            .response::<uploads::UploadView>(201)
            .errors(&[
                Code::LimitReached,
                Code::BadAttachment,
                Code::AttachmentTooLarge,
                Code::BadUrl,
                Code::AttachmentFetchFailed,
                Code::BadRetention,
            ]),
    ]
}

pub(super) fn recipients_lists() -> Vec<Endpoint> {
    const TAG: &str = "Suppressions and blocked senders";
    vec![
        Endpoint::get("/api/contacts/suppressions", suppressions::list)
            .auth(Account)
            .summary(TAG, "listSuppressions", "Addresses that nothing is sent to, newest first")
            .query::<suppressions::ListQuery>()
            .limit(1000, 1000)
            .response::<suppressions::SuppressionList>(200),
        Endpoint::post("/api/contacts/suppressions", suppressions::add)
            .auth(Account)
            .summary(TAG, "addSuppression", "Send nothing to an address")
            .description("200 when it was suppressed before; then it is replaced.")
            .request::<suppressions::SuppressionFields>()
            .needs(&["email"])
            .response::<suppressions::SuppressionAdded>(201)
            .also(200)
            .errors(&[Code::LimitReached, Code::BadAddress]),
        Endpoint::delete("/api/contacts/suppressions/{email}", suppressions::remove)
            .auth(Account)
            .summary(TAG, "removeSuppression", "Send to an address again")
            .response::<OkView>(200),
        Endpoint::get("/api/blocked-senders", suppressions::list_blocked)
            .auth(Account)
            .summary(TAG, "listBlockedSenders", "Senders whose mail is stored as spam and calls no webhook")
            .gives_list::<suppressions::BlockedView>(),
        Endpoint::post("/api/blocked-senders", suppressions::block)
            .auth(Account)
            .summary(TAG, "blockSender", "Block a sender")
            .description("200 when it was blocked before.")
            .request::<suppressions::BlockedFields>()
            .needs(&["email"])
            .response::<suppressions::BlockedView>(201)
            .also(200)
            .errors(&[Code::LimitReached, Code::BadAddress]),
        Endpoint::delete("/api/blocked-senders/{email}", suppressions::unblock)
            .auth(Account)
            .summary(TAG, "unblockSender", "Unblock a sender")
            .response::<OkView>(200),
    ]
}

pub(super) fn templates() -> Vec<Endpoint> {
    const TAG: &str = "Templates";
    vec![
        Endpoint::get("/api/templates", templates::list)
            .summary(TAG, "listTemplates", "List your templates, newest first")
            .gives_list::<templates::MetaView>(),
        Endpoint::get("/api/templates/base", templates::list_base)
            .summary(TAG, "listBaseTemplates", "List built-in templates")
            .gives_list::<templates::MetaView>(),
        Endpoint::get("/api/templates/{id}", templates::detail)
            .summary(TAG, "getTemplate", "One template")
            .response::<templates::FullView>(200),
        Endpoint::post("/api/templates", templates::create)
            .auth(Account)
            .verified_email()
            .summary(TAG, "createTemplate", "Create a template")
            .description("With `baseId` it is a copy of that template; given fields take precedence.")
            .request::<templates::TemplateFields>()
            .needs(&[])
            .response::<templates::FullView>(201)
            .errors(&[Code::LimitReached, Code::TemplateNotFound]),
        Endpoint::put("/api/templates/{id}", templates::update)
            .auth(Account)
            .verified_email()
            .resource(templates::exists)
            .summary(TAG, "updateTemplate", "Change a template")
            .request::<templates::TemplateFields>()
            .response::<templates::FullView>(200)
            .errors(&[Code::LimitReached]),
        Endpoint::delete("/api/templates/{id}", templates::delete)
            .auth(Account)
            .resource(templates::exists)
            .summary(TAG, "deleteTemplate", "Remove a template")
            .response::<OkView>(200),
        Endpoint::post("/api/templates/test", send::send_test)
            .auth(Account)
            .summary(TAG, "testTemplate", "Send a template to yourself")
            .request::<send::TestFields>()
            .needs(&["to"])
            .response::<send::SentView>(202)
            .errors(&[
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
