//! The facade for the tests under `tests/`: clocks, configurations, pure parts and the rows behind a test.
//!
//! It is no interface for programs: names follow the modules, and change with them.

pub mod accounts {
    pub use crate::accounts::Accounts;
    pub mod google {
        pub use crate::accounts::google::{Google, GoogleError, GoogleIdentity, Grant};
    }
}
pub mod app {
    pub use crate::app::{StartError, bind};
    pub use crate::process::sockets::Sockets;
}
pub mod bootstrap {
    pub use crate::bootstrap::{domain_webhook, owner, verified_domain, webhook_route};
}
pub mod clock {
    pub use crate::clock::{Clock, Timestamp};
}
pub mod config {
    pub use crate::config::{
        Config, Google, Limits, Outbound, Signup, Smarthost, SmarthostSecurity, UnknownRecipients,
    };
}
pub mod content {
    pub mod uploads {
        pub use crate::content::uploads::{RETENTION_DAYS, Upload, Uploads};
    }
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
        pub use crate::domain::records::{Kind, PublicKey, Status, Wanted};
    }
}
pub mod event_bus {
    pub use crate::event_bus::Activity;
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
        AccountId, AccountRowId, AttemptId, AttemptRowId, DeliveryId, DeliveryRowId, DispatchRowId, DomainId,
        DomainRowId, EventId, EventRowId, JobRowId, JobSubjectId, KeyId, KeyRowId, MailDataRowId, MessageId,
        MessageRowId, NoticeRowId, RouteId, RouteRowId, RowId, ScheduledId, ScheduledSendRowId, TemplateId,
        TemplateRowId, UploadId, UploadRowId, ZeroRetentionRowId,
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
            Decoder, Headers, Mail, NamedAddress, Part, TextReader, decode_part, display_name, field_values, parse,
            parse_streaming, to_seven_bit,
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
    pub use crate::memory_budget::Consumer;
}
pub mod net {
    pub mod dns {
        pub use crate::net::dns::{DnsError, Resolver};
    }
    pub mod egress {
        pub use crate::net::egress::{
            Answer, BadUrl, Body, Egress, EgressError, FILE_LIMITS, FetchError, Fetched, Guard, Limits, Policy,
            Target, fetch_file,
        };
    }
    pub mod tls {
        pub use crate::net::tls::client_config;
    }
}
pub mod outbound {
    pub use crate::outbound::{DeliveryRequest, DeliveryResult, Destination, Host, TlsRule, Unroutable, Verdict};
    pub mod client {
        pub use crate::outbound::client::{MAX_TRANSCRIPT, Timeouts};
    }
    pub mod message {
        pub mod compose {
            pub use crate::outbound::message::compose::{Attachment, Content, compose};
        }
        pub mod dkim {
            pub use crate::outbound::message::dkim::{DomainKeys, PrivateKey};
        }
    }
    pub mod return_path {
        pub use crate::outbound::return_path::{BounceTag, ReturnPath, ReturnPaths};
    }
    pub mod submit {
        pub use crate::outbound::submit::RELEASE_LANE;
    }
    pub mod transport {
        pub use crate::outbound::transport::Transport;
        pub mod dane {
            pub use crate::outbound::transport::dane::Tlsa;
        }
        pub mod mta_sts {
            pub use crate::outbound::transport::mta_sts::MtaSts;
        }
        pub mod mx {
            pub use crate::outbound::transport::mx::MxResolver;
        }
        pub mod tls {
            pub use crate::outbound::transport::tls::ClientTls;
        }
    }
}
pub mod process {
    pub mod host {
        pub use crate::process::host::{file_limit, raise_file_limit};
    }
}
pub mod retention {
    pub use crate::retention::{Retention, Swept, delete_message};
}
pub mod secrets {
    pub use crate::secrets::{Secrets, new_api_key, new_webhook_secret, token_hash};
    pub mod session_tokens {
        pub use crate::secrets::session_tokens::Tokens;
    }
    pub mod signed_links {
        pub use crate::secrets::signed_links::Links;
    }
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
        pub mod domains {
            pub use crate::store::accounts::domains::{DomainRow, Flags, find_of_account, insert};
        }
        pub mod keys {
            pub use crate::store::accounts::keys::{PURPOSE, insert, insert_scoped};
        }
        pub mod notices {
            pub use crate::store::accounts::notices::PURPOSE;
        }
        pub mod sessions {
            pub use crate::store::accounts::sessions::{NewSession, insert};
        }
        pub mod verifications {
            pub use crate::store::accounts::verifications::insert;
        }
    }
    pub mod blobs {
        pub mod objects {
            pub use crate::store::blobs::objects::Objects;
        }
    }
    pub mod jobs {
        pub use crate::store::jobs::{JobSubject, insert};
    }
    pub mod messages {
        pub use crate::store::messages::find;
        pub mod replay_candidates {
            pub use crate::store::messages::replay_candidates::{Candidates, Query, SCAN_MAX, list};
        }
    }
    pub mod search {
        pub use crate::store::search::{fill, list_thread};
    }
    pub mod webhooks {
        pub mod deliveries {
            pub use crate::store::webhooks::deliveries::delete_detached;
        }
        pub mod routes {
            pub use crate::store::webhooks::routes::{
                AckMode, Action, NewRoute, SECRET_PURPOSE, find, insert, rotate_secret, set_active, set_destination,
            };
        }
    }
    pub mod writer {
        pub mod faults {
            pub use crate::store::writer::faults::Fault;
        }
    }
}
pub mod webhook {
    pub use crate::webhook::{Webhooks, flow_of};
    pub mod events {
        pub mod email_received {
            pub use crate::webhook::events::email_received::{
                Attachment, AttachmentBytes, Auth, EmailReceived, Party, Text,
            };
        }
    }
    pub mod manual {
        pub mod replay {
            pub use crate::webhook::manual::replay::{BulkError, BulkResult, Item, Scope};
        }
        pub mod retry_now {
            pub use crate::webhook::manual::retry_now::{Manual, Refused};
        }
    }
}
