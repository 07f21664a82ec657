//! Sending, files to send, templates, and whom nothing is sent to.

use crate::http::api::{send, suppressions, templates, uploads};
use crate::http::body::Done;
use crate::http::endpoint::Class::Account;
use crate::http::endpoint::Endpoint;
use crate::http::endpoint::Header;
use crate::http::error::Code;

/// By which a repeated request is known.
const IDEMPOTENCY_KEY: Header = Header {
    name: "Idempotency-Key",
    about: "1 to 255 visible ASCII characters; an empty one counts as absent. A request with a key that was seen within 24 \
            hours is answered as the first.",
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
            .about(TAG, "send", "Send a message")
            .more(
                "202 is a promise: the message is composed, DKIM-signed and on disk. With `Idempotency-Key` the request \
                 may be repeated for 24 hours.",
            )
            .header(IDEMPOTENCY_KEY).takes::<send::SendFields>().needs(&["from", "to"])
            .gives::<send::SentView>(202)
            .replays()
            .fails(GATES),
        Endpoint::post("/v1/send/batch", send::send_batch)
            .about(TAG, "sendBatch", "Send a message to each of up to 50 recipients")
            .header(IDEMPOTENCY_KEY).takes::<send::BatchFields>().needs(&["from", "recipients"])
            .gives::<send::BatchView>(200)
            .replays()
            .fails(GATES),
        Endpoint::delete("/v1/scheduled/{id}", send::cancel)
            .about(TAG, "cancelScheduled", "Cancel a scheduled send")
            .gives::<send::CanceledView>(200)
            .fails(&[Code::AlreadySent]),
    ]
}

pub(super) fn uploads() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/attachments", uploads::create)
            .about("Attachments", "uploadAttachment", "Upload a file, or have it fetched")
            .more("As JSON, or with the file as the body and its name in the query.")
            .query::<uploads::UploadQuery>()
            .choice("retentionDays", &[7, 30, 90, 365])
            .takes::<uploads::UploadFields>()
            .needs(&[])
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

pub(super) fn recipients_lists() -> Vec<Endpoint> {
    const TAG: &str = "Suppressions and blocked senders";
    vec![
        Endpoint::get("/api/contacts/suppressions", suppressions::list)
            .who(Account)
            .about(TAG, "listSuppressions", "Addresses that nothing is sent to, newest first")
            .query::<suppressions::ListQuery>()
            .limit(1000, 1000)
            .gives::<suppressions::SuppressionList>(200),
        Endpoint::post("/api/contacts/suppressions", suppressions::add)
            .who(Account)
            .about(TAG, "addSuppression", "Send nothing to an address")
            .more("200 when it was suppressed before; then it is replaced.")
            .takes::<suppressions::SuppressionFields>()
            .needs(&["email"])
            .gives::<suppressions::SuppressionAdded>(201)
            .also(200)
            .fails(&[Code::LimitReached, Code::BadAddress]),
        Endpoint::delete("/api/contacts/suppressions/{email}", suppressions::remove)
            .who(Account)
            .about(TAG, "removeSuppression", "Send to an address again")
            .gives::<Done>(200),
        Endpoint::get("/api/blocked-senders", suppressions::list_blocked)
            .who(Account)
            .about(TAG, "listBlockedSenders", "Senders whose mail is stored as spam and calls no webhook")
            .gives_list::<suppressions::BlockedView>(),
        Endpoint::post("/api/blocked-senders", suppressions::block)
            .who(Account)
            .about(TAG, "blockSender", "Block a sender")
            .more("200 when it was blocked before.")
            .takes::<suppressions::BlockedFields>()
            .needs(&["email"])
            .gives::<suppressions::BlockedView>(201)
            .also(200)
            .fails(&[Code::LimitReached, Code::BadAddress]),
        Endpoint::delete("/api/blocked-senders/{email}", suppressions::unblock)
            .who(Account)
            .about(TAG, "unblockSender", "Unblock a sender")
            .gives::<Done>(200),
    ]
}

pub(super) fn templates() -> Vec<Endpoint> {
    const TAG: &str = "Templates";
    vec![
        Endpoint::get("/api/templates", templates::list)
            .about(TAG, "listTemplates", "Your templates, newest first")
            .gives_list::<templates::MetaView>(),
        Endpoint::get("/api/templates/base", templates::list_base)
            .about(TAG, "listBaseTemplates", "Templates that are built in")
            .gives_list::<templates::MetaView>(),
        Endpoint::get("/api/templates/{id}", templates::detail)
            .about(TAG, "getTemplate", "One template")
            .gives::<templates::FullView>(200),
        Endpoint::post("/api/templates", templates::create)
            .who(Account)
            .about(TAG, "createTemplate", "Make a template")
            .more("With `baseId` it begins as a copy of that; given fields win.")
            .takes::<templates::TemplateFields>()
            .needs(&[])
            .gives::<templates::FullView>(201)
            .fails(&[Code::EmailNotVerified, Code::LimitReached, Code::TemplateNotFound]),
        Endpoint::put("/api/templates/{id}", templates::update)
            .who(Account)
            .about(TAG, "updateTemplate", "Change a template")
            .takes::<templates::TemplateFields>()
            .gives::<templates::FullView>(200)
            .fails(&[Code::EmailNotVerified, Code::LimitReached]),
        Endpoint::delete("/api/templates/{id}", templates::delete)
            .who(Account)
            .about(TAG, "deleteTemplate", "Remove a template")
            .gives::<Done>(200),
        Endpoint::post("/api/templates/test", templates::test)
            .who(Account)
            .about(TAG, "testTemplate", "Send a template to yourself")
            .takes::<templates::TestFields>()
            .needs(&["to"])
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
