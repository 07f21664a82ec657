//! Subject, html and text of a message to send: from the request or its template, with their merge tags filled in.

use std::borrow::Cow;

use super::fields::{self, check_subject};
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::Lenient;
use crate::http::error::{ApiError, Code};
use crate::id::TemplateId;
use crate::outbound::message::template;
use crate::outbound::message::template::MergeData;
use crate::outbound::submit::submission::SubmissionContent;
use crate::store::sending::templates;

/// Subject, html and text of one message together, tags filled in (contract 1.9).
const MAX_TEXT_BYTES: usize = 26_214_400;

/// Content fields of a request.
pub(crate) struct ContentFields {
    pub(crate) subject: Option<String>,
    pub(crate) html: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) template_id: Option<String>,
    pub(crate) data: Option<MergeData>,
}

impl ContentFields {
    /// Reads and checks the fields; values of merge tags are added afterwards.
    ///
    /// # Errors
    /// 400 for one of the wrong type, a malformed subject, or a message without subject or body and template.
    pub(super) fn read(
        subject: Lenient<String>,
        html: Lenient<String>,
        text: Lenient<String>,
        template_id: Lenient<String>,
    ) -> Result<Self, ApiError> {
        let content = Self {
            subject: fields::text(subject, "subject")?,
            html: fields::text(html, "html")?,
            text: fields::text(text, "text")?,
            template_id: fields::name(template_id, "templateId")?,
            data: None,
        };
        content.check()?;
        Ok(content)
    }

    /// Returns the octets of the merge tags' values.
    pub(crate) fn data_size(&self) -> usize {
        self.data.as_ref().map_or(0, MergeData::size)
    }

    /// Refuses a message without subject or body, unless it has a template.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        check_subject(self.subject.as_deref())?;
        let empty = |text: &Option<String>| text.as_deref().is_none_or(|text| text.trim().is_empty());
        if self.template_id.is_some() {
            return Ok(());
        }
        if empty(&self.subject) {
            return Err(ApiError::field(Code::MissingContent, "subject", "subject is required"));
        }
        if empty(&self.html) && empty(&self.text) {
            return Err(ApiError::field(Code::MissingContent, "text", "text or html is required"));
        }
        Ok(())
    }

    /// Takes missing fields from the template.
    pub(super) async fn with_template(mut self, app: &AppState, caller: &Caller) -> Result<Self, ApiError> {
        let Some(id) = self.template_id.clone() else { return Ok(self) };
        let not_found = || ApiError::at(Code::TemplateNotFound, "templateId");
        let (subject, html, text) = if let Some(base) = template::find_built_in(&id) {
            (Some(base.subject.to_owned()), Some(base.html.to_owned()), Some(base.text.to_owned()))
        } else {
            let (account, id) = (caller.id(), TemplateId::parse(&id).ok_or_else(not_found)?);
            let found = app.db.read(move |connection| templates::find(connection, account, &id)).await?;
            let row = found.ok_or_else(not_found)?.content;
            (row.subject, row.html, row.text)
        };
        self.subject = self.subject.filter(|subject| !subject.trim().is_empty()).or(subject);
        self.html = self.html.or(html);
        self.text = self.text.or(text);
        Ok(self)
    }

    /// Returns the octets of the texts with the tags filled in from `data` over the shared data.
    ///
    /// # Errors
    /// 413 beyond the limit of a message.
    pub(super) fn length(&self, data: Option<&MergeData>) -> Result<usize, ApiError> {
        let data = self.data_with(data);
        let data = data.as_deref();
        let mut length: usize = 0;
        for text in [&self.subject, &self.html, &self.text].into_iter().flatten() {
            let filled = match data {
                Some(data) => template::filled_length(text, data, MAX_TEXT_BYTES),
                None => Some(text.len()),
            };
            length = filled.map_or(usize::MAX, |filled| length.saturating_add(filled));
        }
        if length <= MAX_TEXT_BYTES {
            return Ok(length);
        }
        let message = "subject, html and text of a message have at most 25 MiB together, their tags filled in";
        Err(ApiError::new(Code::BodyTooLarge, message))
    }

    /// Returns the values of tags; `None` without a template and values.
    fn data_with<'d>(&'d self, own: Option<&'d MergeData>) -> Option<Cow<'d, MergeData>> {
        let data = match (&self.data, own) {
            (Some(shared), Some(own)) => Some(Cow::Owned(shared.merged_with(own))),
            (shared, own) => own.or(shared.as_ref()).map(Cow::Borrowed),
        };
        data.or_else(|| self.template_id.as_ref().map(|_| Cow::Owned(MergeData::default())))
    }

    /// Fills in the tags of the texts from `data` over the shared data; attachments are added afterwards.
    pub(super) fn fill(&self, data: Option<&MergeData>) -> Result<SubmissionContent, ApiError> {
        let missing = |field, message: &'static str| ApiError::field(Code::MissingContent, field, message);
        let data = self.data_with(data);
        let subject = self.subject.as_deref().filter(|subject| !subject.trim().is_empty());
        let subject = subject.ok_or_else(|| missing("subject", "subject is required"))?;
        let body = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (html, text) = (body(&self.html), body(&self.text));
        if html.is_none() && text.is_none() {
            return Err(missing("text", "text or html is required"));
        }
        let Some(data) = data else {
            return Ok(SubmissionContent { subject: subject.to_owned(), html, text, attachments: Vec::new() });
        };
        let subject = template::fill_subject(subject, &data);
        check_subject(Some(&subject))?;
        let html = html.map(|html| template::fill_html(&html, &data));
        let text = text.map(|text| template::fill_text(&text, &data));
        Ok(SubmissionContent { subject, html, text, attachments: Vec::new() })
    }
}
