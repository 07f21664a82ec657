//! What the tests under `tests/` reach beside the doors: clocks, configurations, pure parts and the rows behind a test.
//!
//! It is no interface for programs: names follow the modules, and change with them.

pub mod accounts {
    pub use crate::accounts::Accounts;
}
pub mod activity {
    pub use crate::event_bus::Activity;
}
pub mod app {
    pub use crate::app::{StartError, bind};
}
pub mod clock {
    pub use crate::clock::{Clock, Timestamp};
}
pub mod config {
    pub use crate::config::{
        Config, Google, Limits, Outbound, Signup, Smarthost, SmarthostSecurity, UnknownRecipients,
    };
}
pub mod dns {
    pub use crate::dns::{DnsError, Resolver};
}
pub mod domain {
    pub use crate::domain::Domains;
    pub mod check {
        pub use crate::domain::check::Checker;
    }
    pub mod keys {
        pub use crate::domain::keys::{KeyMaker, PURPOSE};
    }
    pub mod recheck {
        pub use crate::domain::recheck::round;
    }
    pub mod records {
        pub use crate::domain::records::{Kind, Status, Wanted};
    }
}
pub mod egress {
    pub use crate::egress::{
        Answer, BadUrl, Body, Egress, EgressError, FILE_LIMITS, FetchError, Fetched, Guard, Limits, Policy, Target,
        fetch_file,
    };
}
pub mod google {
    pub use crate::google::{Google, GoogleError, GoogleIdentity, Grant};
}
pub mod host {
    pub use crate::host::{file_limit, raise_file_limit};
}
pub mod http {
    pub use crate::http::table;
    pub mod endpoint {
        pub use crate::http::endpoint::{Class, Endpoint};
    }
    pub mod error {
        pub use crate::http::error::Code;
    }
}
pub mod id {
    pub use crate::id::{
        AccountId, AttemptId, DeliveryId, DomainId, EventId, KeyId, MessageId, RouteId, ScheduledId, TemplateId,
        UploadId,
    };
}
pub mod inbound {
    pub mod route {
        pub use crate::inbound::route::Pattern;
    }
    pub mod verify {
        pub use crate::inbound::verify::{Verification, Verifier};
    }
}
pub mod jobs {
    pub use crate::jobs::{Flow, Jobs, mail_flow};
}
pub mod limits {
    pub use crate::limits::Limits;
}
pub mod links {
    pub use crate::signed_links::Links;
}
pub mod mail {
    pub mod address {
        pub use crate::mail::address::{Domain, ForwardPath, Mailbox, ReversePath};
    }
    pub mod envelope {
        pub use crate::mail::envelope::Peer;
    }
    pub mod mailbox_list {
        pub use crate::mail::mailbox_list::{parse_list, parse_one};
    }
    pub mod mime {
        pub use crate::mail::mime::{
            Decoder, Headers, Mail, NamedAddress, Part, TextReader, decode_part, field_values, name_for, outline,
            parse, to_seven_bit,
        };
    }
    pub mod report {
        pub use crate::mail::report::{Report, enclosed_ids, read};
    }
    pub mod trace {
        pub use crate::mail::trace::Verdict;
    }
}
pub mod memory_budget {
    pub use crate::memory_budget::Door;
}
pub mod outbound {
    pub use crate::outbound::{Destination, Host, Parcel, TlsRule, Transmitted, Unroutable, Verdict};
    pub mod client {
        pub use crate::outbound::client::Timeouts;
    }
    pub mod compose {
        pub use crate::outbound::compose::{Attachment, Letter, compose};
    }
    pub mod dane {
        pub use crate::outbound::dane::Tlsa;
    }
    pub mod mta_sts {
        pub use crate::outbound::mta_sts::MtaSts;
    }
    pub mod mx {
        pub use crate::outbound::mx::Hosts;
    }
    pub mod return_path {
        pub use crate::outbound::return_path::{BounceTag, ReturnPath, ReturnPaths};
    }
    pub mod sign {
        pub use crate::outbound::dkim::DomainKeys;
    }
    pub mod submit {
        pub use crate::outbound::submit::RELEASE_LANE;
    }
    pub mod tls {
        pub use crate::outbound::tls::ClientTls;
    }
    pub mod transport {
        pub use crate::outbound::transport::{MAX_TRANSCRIPT, Transport};
    }
}
pub mod retention {
    pub use crate::retention::{Retention, Swept, delete_message};
}
pub mod secrets {
    pub use crate::secrets::{Secrets, new_api_key, new_webhook_secret, token_hash};
}
pub mod session {
    pub use crate::session_tokens::Tokens;
}
pub mod setup {
    pub use crate::bootstrap::{domain_webhook, owner, verified_domain, webhook_route};
}
pub mod smtp_server {
    pub mod command {
        pub use crate::smtp_server::command::{Command, Refusal, parse};
    }
    pub mod data {
        pub use crate::smtp_server::data::{DataReader, Progress};
    }
}
pub mod store {
    pub use crate::store::{Db, FILE_NAME, Result};
    pub mod accounts {
        pub use crate::store::accounts::{NewAccount, find_by_email, find_owner, insert, set_password_hash};
    }
    pub mod candidates {
        pub use crate::store::candidates::{Candidates, Query, SCAN_MAX, list};
    }
    pub mod deliveries {
        pub use crate::store::deliveries::delete_parted;
    }
    pub mod domains {
        pub use crate::store::domains::{DomainRow, Flags, find_of_account, insert};
    }
    pub mod faults {
        pub use crate::store::faults::Fault;
    }
    pub mod jobs {
        pub use crate::store::jobs::{Kind, insert};
    }
    pub mod keys {
        pub use crate::store::keys::{PURPOSE, insert, insert_scoped};
    }
    pub mod messages {
        pub use crate::store::messages::find;
    }
    pub mod notices {
        pub use crate::store::notices::PURPOSE;
    }
    pub mod objects {
        pub use crate::store::objects::Objects;
    }
    pub mod routes {
        pub use crate::store::routes::{
            Action, NewRoute, SECRET_PURPOSE, find, insert, rotate_secret, set_active, set_destination,
        };
    }
    pub mod search {
        pub use crate::store::search::{fill, list_thread};
    }
    pub mod sessions {
        pub use crate::store::sessions::{NewSession, insert};
    }
    pub mod verifications {
        pub use crate::store::verifications::insert;
    }
}
pub mod tls {
    pub use crate::tls::client_config;
}
pub mod uploads {
    pub use crate::uploads::{RETENTION_DAYS, Upload, Uploads};
}
pub mod webhook {
    pub use crate::webhook::flow_of;
    pub mod deliver {
        pub use crate::webhook::deliver::Webhooks;
    }
    pub mod event {
        pub use crate::webhook::email_received::{Attachment, AttachmentBytes, Auth, EmailReceived, Party, Text};
    }
    pub mod manual {
        pub use crate::webhook::retry_now::{Manual, Refused};
    }
    pub mod replay {
        pub use crate::webhook::replay::{BulkError, BulkResult, Item, Scope};
    }
}
