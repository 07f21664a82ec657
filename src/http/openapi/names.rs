//! Names of the document's schemas, and so of the types in generated clients.
//!
//! They stay if a handler's type is renamed. A schema that is not listed keeps the name of its type.

use serde_json::{Map, Value, json};

const PREFIX: &str = "#/components/schemas/";

/// Types of the handlers and their names in the document.
const NAMES: &[(&str, &str)] = &[
    ("AnswerView", "EndpointAnswer"),
    ("AttachmentFields", "AttachmentInput"),
    ("AttachmentView", "Attachment"),
    ("AttemptView", "DeliveryAttempt"),
    ("BatchEntry", "BatchRecipient"),
    ("BatchFields", "BatchRequest"),
    ("BatchResultView", "BatchResult"),
    ("BatchView", "BatchResults"),
    ("BlockedFields", "BlockRequest"),
    ("BlockedView", "BlockedSender"),
    ("Bucket", "OverviewBucket"),
    ("BulkRetry", "RetryRequest"),
    ("CanceledView", "CanceledSend"),
    ("CandidateView", "RouteCandidate"),
    ("CandidatesView", "RouteCandidates"),
    ("CertificateView", "Certificate"),
    ("ChangePassword", "ChangePasswordRequest"),
    ("DeliveryView", "Delivery"),
    ("Detail", "MessageDetail"),
    ("DetailView", "FullMessage"),
    ("DiskView", "Disk"),
    ("DocsView", "DocsMatches"),
    ("DomainView", "Domain"),
    ("EndpointView", "EndpointStats"),
    ("Events", "SendingEvents"),
    ("EventsFields", "WebhookEventsRequest"),
    ("EventsView", "WebhookEvents"),
    ("FullView", "Template"),
    ("GoogleSignIn", "GoogleSignInRequest"),
    ("InjectFields", "InjectRequest"),
    ("InjectedView", "InjectedMessage"),
    ("Key", "ApiKey"),
    ("ListedView", "ListedDelivery"),
    ("LogIn", "LogInRequest"),
    ("LoginView", "SessionInfo"),
    ("Logins", "SessionList"),
    ("MatchView", "RouteMatches"),
    ("Me", "CurrentAccount"),
    ("MessageView", "Message"),
    ("OkView", "Done"),
    ("MetaView", "TemplateSummary"),
    ("NewDomain", "CreateDomainRequest"),
    ("NewRouteFields", "CreateRouteRequest"),
    ("NewScopedKey", "CreateScopedKeyRequest"),
    ("Party", "Mailbox"),
    ("QueueView", "Queue"),
    ("Ready", "Readiness"),
    ("ReadyChecks", "ReadinessChecks"),
    ("RecipientView", "Recipient"),
    ("RecordView", "DnsRecord"),
    ("RegisterView", "DomainAvailability"),
    ("Replay", "DeliverRequest"),
    ("ResultView", "RetryResult"),
    ("Results", "RetryResults"),
    ("RetentionFields", "RetentionRequest"),
    ("RetentionView", "DomainRetention"),
    ("RouteChange", "UpdateRouteRequest"),
    ("RouteView", "Route"),
    ("SendFields", "SendRequest"),
    ("SentView", "SentMessage"),
    ("ServerView", "Server"),
    ("SignUp", "SignUpRequest"),
    ("SizesView", "StoredSizes"),
    ("Status", "DnsRecordStatus"),
    ("StorageView", "Storage"),
    ("SuppressionFields", "SuppressionRequest"),
    ("SuppressionView", "Suppression"),
    ("TemplateFields", "TemplateRequest"),
    ("TestFields", "TestTemplateRequest"),
    ("TrackingFields", "TrackingWebhookRequest"),
    ("TrackingView", "TrackingWebhook"),
    ("TransmissionView", "Transmission"),
    ("UploadFields", "UploadRequest"),
    ("UploadView", "Upload"),
    ("VerifiedView", "DomainVerification"),
    ("WebhookFields", "WebhookRequest"),
    ("WebhookView", "DomainWebhook"),
];

/// Fields that hold an object with any keys: field, name of the schema, types of the values.
const OBJECTS: &[(&str, &str, &[&str])] = &[
    ("headers", "HeaderFields", &["string", "number", "boolean"]),
    ("templateData", "TemplateData", &["string", "number", "boolean", "null"]),
    ("metadata", "Metadata", &["string", "number", "boolean"]),
    ("request_headers", "CapturedHeaders", &["string"]),
    ("response_headers", "CapturedHeaders", &["string"]),
];

/// Renames the schemas of a document.
pub(crate) fn publish(document: &mut Value) {
    name_objects(document);
    rename(document);
    let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") else { return };
    let renamed = std::mem::take(schemas).into_iter().map(|(name, schema)| (published(&name).to_owned(), schema));
    let named = OBJECTS.iter().map(|(_, name, values)| {
        let schema = json!({"type": "object", "additionalProperties": {"type": values}});
        ((*name).to_owned(), schema)
    });
    *schemas = renamed.chain(named).collect();
}

fn published(name: &str) -> &str {
    NAMES.iter().find(|(own, _)| *own == name).map_or(name, |(_, published)| published)
}

fn rename(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                match inner {
                    Value::String(text) if key == "$ref" => {
                        if let Some(name) = text.strip_prefix(PREFIX).map(published) {
                            *text = format!("{PREFIX}{name}");
                        }
                    }
                    _ => rename(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rename),
        _ => {}
    }
}

/// Turns objects with any keys into references, so that no client has an unnamed type.
fn name_objects(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                for (field, component, _) in OBJECTS {
                    if let Some(property) = properties.get_mut(*field) {
                        refer(property, component);
                    }
                }
            }
            object.values_mut().for_each(name_objects);
        }
        Value::Array(items) => items.iter_mut().for_each(name_objects),
        _ => {}
    }
}

fn refer(property: &mut Value, component: &str) {
    let kinds = match property.get("type") {
        Some(Value::Array(kinds)) => kinds.clone(),
        Some(kind) => vec![kind.clone()],
        None => return,
    };
    if !kinds.contains(&json!("object")) || property.get("properties").is_some() {
        return;
    }
    let reference = json!({"$ref": format!("{PREFIX}{component}")});
    let mut named = Map::new();
    named.extend(property.get("description").map(|about| ("description".to_owned(), about.clone())));
    if kinds.contains(&json!("null")) {
        named.insert("oneOf".to_owned(), json!([{"type": "null"}, reference]));
    } else {
        named.extend(reference.as_object().cloned().unwrap_or_default());
    }
    *property = Value::Object(named);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_names_a_type_and_no_two_types_have_one_name() {
        let table = crate::http::table();
        let parts = table.iter().flat_map(|one| one.components.iter().chain(&one.response_components));
        let types: BTreeSet<&str> = parts.map(|(name, _)| name.as_str()).collect();
        for (own, _) in NAMES {
            assert!(types.contains(own), "{own} is no type of the handlers any more");
        }
        let all: Vec<&str> = types.iter().map(|name| published(name)).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        for name in all {
            assert!(!name.ends_with("View") && !name.ends_with("Fields"), "{name} needs a row");
        }
    }
}
