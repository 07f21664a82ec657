//! Enforces the credential class of each endpoint (contract 1.5), so that no handler has to remember it.
//!
//! Contract 1.7 puts errors of the body and of the path's id before the 403. Both are checked here only for a refused
//! credential; for others the handler finds them, in the same order.

use std::sync::Arc;

use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;

use super::AppState;
use super::auth::{Caller, Credential, authenticate};
use super::body::{Body, LargeBody};
use super::endpoint::{BodyKind, Class, Endpoint, FindResource};
use super::error::{ApiError, Code};
use super::extract::Path;

/// Requirements of an endpoint on its callers.
struct Rule {
    class: Class,
    needs_verified_email: bool,
    body_kind: BodyKind,
    find_resource: Option<FindResource>,
}

/// Wraps the endpoint's handler in the check of its class.
pub(super) fn authorized(endpoint: Endpoint, app: &AppState) -> MethodRouter<AppState> {
    // The stream's handler authenticates by itself: redeeming a token invalidates it.
    if matches!(endpoint.class, Class::Public | Class::Stream) {
        return endpoint.handler;
    }
    let rule = Rule {
        class: endpoint.class,
        needs_verified_email: endpoint.needs_verified_email,
        body_kind: endpoint.body_kind,
        find_resource: endpoint.find_resource,
    };
    endpoint.handler.route_layer(from_fn_with_state((Arc::clone(app), Arc::new(rule)), apply))
}

async fn apply(State((app, rule)): State<(AppState, Arc<Rule>)>, request: Request, next: Next) -> Response {
    match rule.admit(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl Rule {
    /// Authenticates a request and adds the caller to it, for the handler.
    async fn admit(&self, app: &AppState, request: Request) -> Result<Request, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = authenticate(&mut parts, app).await?;
        let mut request = Request::from_parts(parts, body);
        if let Err(refusal) = self.check(&caller) {
            self.check_request(app, caller, request).await?;
            return Err(refusal);
        }
        request.extensions_mut().insert(caller);
        Ok(request)
    }

    fn check(&self, caller: &Caller) -> Result<(), ApiError> {
        match (self.class, &caller.credential) {
            (Class::Session, Credential::AccountKey(_) | Credential::ScopedKey { .. }) => {
                Err(Code::SessionRequired.into())
            }
            (Class::Account, Credential::ScopedKey { .. }) => Err(Code::KeyScope.into()),
            _ if self.needs_verified_email && !caller.account.email_verified => Err(Code::EmailNotVerified.into()),
            _ => Ok(()),
        }
    }

    /// Returns the error that takes precedence over a refusal: of the body, then of the path's id.
    async fn check_request(&self, app: &AppState, caller: Caller, request: Request) -> Result<(), ApiError> {
        let (mut parts, body) = request.into_parts();
        let resource = match &self.find_resource {
            Some(find) => Some((find, Path::<String>::from_request_parts(&mut parts, app).await?)),
            None => None,
        };
        let request = Request::from_parts(parts, body);
        match self.body_kind {
            BodyKind::Json => drop(Body::from_request(request, app).await?),
            BodyKind::LargeJson => drop(LargeBody::from_request(request, app).await?),
            // A file is not received only to be refused.
            BodyKind::None | BodyKind::File => {}
        }
        match resource {
            Some((find, Path(id))) => find(Arc::clone(app), caller, id).await,
            None => Ok(()),
        }
    }
}
