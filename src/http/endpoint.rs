//! One row of the endpoint table: method, path, credential class, request, response and errors.
//!
//! The router, the OpenAPI document and the tests of all endpoints are built from the same rows.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Caller;
use super::error::{ApiError, Code};

/// Media types of files: unknown, and any.
pub(crate) const FILES: &[&str] = &["application/octet-stream", "*/*"];

/// Credentials that an endpoint accepts (contract 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// None is needed.
    Public,
    /// Session, account key, scoped key within its domain.
    Any,
    /// Session or account key.
    Account,
    /// Session only.
    Session,
    /// As `Any`, or a one-use token in the query (contract 10), which the handler redeems itself.
    Stream,
}

/// The body that a handler reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    None,
    /// JSON of up to 1 MiB (contract 1.9).
    Json,
    /// JSON of up to 35 MiB.
    LargeJson,
    /// A file, or JSON that contains one.
    File,
}

/// Looks up the resource of the path: 404 if the caller's account has none, 403 beyond a scoped key's domain.
pub(super) type FindResource =
    Arc<dyn Fn(AppState, Caller, String) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>> + Send + Sync>;

/// An optional request header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) example: &'static str,
}

/// A row of the table.
pub struct Endpoint {
    /// `GET` includes `HEAD`.
    pub method: Method,
    /// The path, with `{name}` for each parameter.
    pub path: &'static str,
    /// Credentials that it accepts.
    pub class: Class,
    /// Chapter of the document.
    pub tag: &'static str,
    /// Operation id, and so the function's name in generated clients.
    pub id: &'static str,
    /// A few words.
    pub summary: &'static str,
    pub(crate) description: &'static str,
    /// Codes in addition to the common ones (contract 1.6).
    pub errors: Vec<Code>,
    /// Required fields of the body; `None` if the body is optional.
    pub(crate) needs: Option<&'static [&'static str]>,
    /// Requires an account with a verified e-mail.
    pub(super) needs_verified_email: bool,
    pub(super) body_kind: BodyKind,
    pub(super) find_resource: Option<FindResource>,
    pub(super) query: Vec<Value>,
    pub(super) headers: Vec<Header>,
    pub(super) body: Option<Value>,
    pub(super) status: u16,
    pub(super) also: Option<u16>,
    pub(super) response: Value,
    pub(super) response_headers: Vec<(&'static str, &'static str)>,
    pub(super) components: Vec<(String, RefOr<Schema>)>,
    pub(super) response_components: Vec<(String, RefOr<Schema>)>,
    pub(super) handler: MethodRouter<AppState>,
}

impl Endpoint {
    fn new<H, T>(method: Method, filter: MethodFilter, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Self {
            method,
            path,
            class: Class::Any,
            tag: "",
            id: "",
            summary: "",
            description: "",
            errors: Vec::new(),
            needs: None,
            needs_verified_email: false,
            body_kind: BodyKind::None,
            find_resource: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            status: 200,
            also: None,
            response: Value::Null,
            response_headers: Vec::new(),
            components: Vec::new(),
            response_components: Vec::new(),
            handler: on(filter, handler),
        }
    }

    /// `GET`, and with it `HEAD`.
    pub(crate) fn get<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::GET, MethodFilter::GET, path, handler)
    }

    /// `POST`
    pub(crate) fn post<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::POST, MethodFilter::POST, path, handler)
    }

    /// `PUT`
    pub(crate) fn put<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::PUT, MethodFilter::PUT, path, handler)
    }

    /// `PATCH`
    pub(crate) fn patch<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::PATCH, MethodFilter::PATCH, path, handler)
    }

    /// `DELETE`
    pub(crate) fn delete<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::DELETE, MethodFilter::DELETE, path, handler)
    }

    /// Sets the credential class, which is `Any` by default.
    pub(crate) const fn auth(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Refuses accounts whose e-mail is not verified: 403 `email_not_verified`.
    pub(crate) const fn verified_email(mut self) -> Self {
        self.needs_verified_email = true;
        self
    }

    /// Looks up the path's resource before a credential is refused: an unknown id is 404 to every credential
    /// (contract 1.7).
    pub(crate) fn resource<F, R>(mut self, find: F) -> Self
    where
        F: Fn(AppState, Caller, String) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        self.find_resource = Some(Arc::new(move |app, caller, id| Box::pin(find(app, caller, id))));
        self
    }

    pub(crate) const fn summary(mut self, tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        self.tag = tag;
        self.id = id;
        self.summary = summary;
        self
    }

    pub(crate) const fn description(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Adds query parameters.
    pub(crate) fn query<T: IntoParams>(mut self) -> Self {
        let parameters = T::into_params(|| Some(ParameterIn::Query));
        self.query.extend(parameters.iter().map(|one| without_null(serde_json::to_value(one).unwrap_or_default())));
        self
    }

    /// Lists the values of a query parameter.
    pub(crate) fn choice<T: Serialize>(self, name: &str, values: &[T]) -> Self {
        self.parameter(name, &[("enum", json!(values))])
    }

    /// Sets the maximum and default of `limit`; values out of range are clamped.
    pub(crate) fn limit(self, most: u32, default: u32) -> Self {
        self.parameter("limit", &[("minimum", json!(1)), ("maximum", json!(most)), ("default", json!(default))])
    }

    fn parameter(mut self, name: &str, words: &[(&str, Value)]) -> Self {
        let named = self.query.iter_mut().filter(|one| one.get("name").is_some_and(|known| known == name));
        for schema in named.filter_map(|one| one.get_mut("schema")?.as_object_mut()) {
            schema.extend(words.iter().map(|(word, value)| ((*word).to_owned(), value.clone())));
        }
        self
    }

    /// Adds a request header.
    pub(crate) fn header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// Sets the JSON body.
    pub(crate) fn request<T: ToSchema>(mut self) -> Self {
        self.body = Some(json!({"application/json": {"schema": reference::<T>()}}));
        self.body_kind = BodyKind::Json;
        add::<T>(&mut self.components);
        self
    }

    /// Allows a JSON body of up to 35 MiB.
    pub(crate) const fn large(mut self) -> Self {
        self.body_kind = BodyKind::LargeJson;
        self
    }

    /// Requires a body with these fields; with an empty list, which ones depends on the request.
    pub(crate) const fn needs(mut self, fields: &'static [&'static str]) -> Self {
        self.needs = Some(fields);
        self
    }

    /// Accepts a file as the body, too.
    pub(crate) fn takes_bytes(mut self) -> Self {
        let mut content = self.body.take().unwrap_or_else(|| json!({}));
        if let Value::Object(kinds) = &mut content {
            for kind in FILES {
                kinds.insert((*kind).to_owned(), json!({"schema": {"type": "string", "format": "binary"}}));
            }
        }
        self.body = Some(content);
        self.body_kind = BodyKind::File;
        self
    }

    /// Adds another status for the same response.
    pub(crate) const fn also(mut self, status: u16) -> Self {
        self.also = Some(status);
        self
    }

    /// Sets the JSON of the response.
    pub(crate) fn response<T: ToSchema>(mut self, status: u16) -> Self {
        self.status = status;
        self.response = json!({"application/json": {"schema": reference::<T>()}});
        add::<T>(&mut self.response_components);
        self
    }

    /// Responds with a JSON array.
    pub(crate) fn gives_list<T: ToSchema>(mut self) -> Self {
        self.response = json!({"application/json": {"schema": {"type": "array", "items": reference::<T>()}}});
        add::<T>(&mut self.response_components);
        self
    }

    /// Responds with the OpenAPI document.
    pub(crate) fn gives_document(mut self) -> Self {
        self.response = json!({"application/json": {"schema": {"$ref": "#/components/schemas/OpenApiDocument"}}});
        self
    }

    /// Responds with text of another media type.
    pub(crate) fn gives_media(mut self, media_type: &'static str) -> Self {
        self.response = json!({media_type: {"schema": {"type": "string"}}});
        self
    }

    /// Responds with a file of one of these media types.
    pub(crate) fn gives_file(mut self, media_types: &[&'static str]) -> Self {
        let kinds = media_types
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "string", "format": "binary"}})));
        self.response = Value::Object(kinds.collect());
        self.response_headers.push(("Content-Disposition", "The name to save it under."));
        self
    }

    /// Allows partial responses.
    pub(crate) fn partial(mut self) -> Self {
        self.also = Some(206);
        self.response_headers.push(("Content-Range", "On 206, which part it is."));
        self
    }

    /// Marks replayed responses.
    pub(crate) fn replays(mut self) -> Self {
        self.response_headers.push(("Idempotent-Replayed", "`true` when this answers an earlier request."));
        self
    }

    /// Adds codes to the common ones (contract 1.6).
    pub(crate) fn errors(mut self, errors: &[Code]) -> Self {
        self.errors.extend(errors);
        self
    }
}

/// Parameters are present or absent, never null.
fn without_null(mut parameter: Value) -> Value {
    if let Some(kind) = parameter.pointer_mut("/schema/type")
        && let Some(first) = kind.as_array().and_then(|kinds| kinds.iter().find(|one| *one != "null")).cloned()
    {
        *kind = first;
    }
    parameter
}

fn reference<T: ToSchema>() -> Value {
    json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

fn add<T: ToSchema>(components: &mut Vec<(String, RefOr<Schema>)>) {
    components.push((T::name().into_owned(), T::schema()));
    T::schemas(components);
}
