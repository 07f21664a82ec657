//! Sending a template as a test (contract 11): one recipient, tags not filled in.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::content::ContentFields;
use super::log::Accepted;
use super::{SentView, fields};
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient};
use crate::http::client::ClientAddress;
use crate::http::error::{ApiError, Code};
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::submit::submission::Submission;
use crate::store::accounts::domains;

/// `POST /api/templates/test`
#[derive(Deserialize, ToSchema)]
pub(crate) struct TestFields {
    /// One mailbox.
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "you@example.com")]
    to: Lenient<String>,
    /// This or `text`.
    html: Option<String>,
    text: Option<String>,
    subject: Option<String>,
    /// By default `preview@` the oldest domain that is verified for sending.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    from: Lenient<String>,
}

/// `POST /api/templates/test`
///
/// # Errors
/// As `POST /v1/send`.
pub(crate) async fn send_test(
    State(app): State<AppState>,
    caller: Caller,
    client: ClientAddress,
    body: Body,
) -> Result<(StatusCode, Json<SentView>), ApiError> {
    let given: TestFields = body.fields()?;
    let (now, began) = (app.clock.now(), Instant::now());
    let to = fields::mailbox(&given.to.required(|| ApiError::at(Code::BadAddress, "to"))?, "to")?;
    let subject = given.subject.filter(|subject| !subject.trim().is_empty());
    let content = ContentFields {
        subject: Some(subject.unwrap_or_else(|| "Template preview".to_owned())),
        html: given.html,
        text: given.text,
        template_id: None,
        data: None,
    };
    content.check()?;
    let from = match given.from {
        Lenient::Absent => preview_sender(&app, &caller).await?,
        from => fields::sender(from)?,
    };
    let submission = Submission { to: vec![to], ..Submission::new(caller.submitter(), from) };
    let (logged, status) = (Accepted::of(&submission), StatusCode::ACCEPTED);
    let loading = async { content.fill(None) };
    let submitted = app.outbound.submit(submission, loading, |_| None, now).await?;
    if let Some(accepted) = logged {
        accepted.log(&client, &submitted, status, began);
    }
    Ok((status, Json(SentView::from(&submitted))))
}

/// Returns `preview@` the account's oldest domain that can send (contract 11).
async fn preview_sender(app: &AppState, caller: &Caller) -> Result<NamedMailbox, ApiError> {
    let account = caller.id();
    let names = app.db.read(move |connection| domains::list_sending(connection, account, None)).await?;
    let oldest = names.first().ok_or(Code::DomainNotVerified)?;
    fields::mailbox(&format!("preview@{oldest}"), "from")
}
