//! mailkite: mail in over SMTP, parsed, stored durably, posted as signed JSON to your webhook. One binary, one TOML
//! file, one data directory. This page is the map; start here.
//!
//! `docs/contract.md` is normative: what clients, webhook receivers and mail peers can observe ("contract 5.1" is its
//! section). `docs/hazards.md` lists what the server has to survive, and how.
//!
//! # Five ideas
//!
//! 1. **Door → accept → job → attempt.** Mail enters by a door ([`smtp_server`]), is *accepted* in one transaction that
//!    also leaves the jobs it causes ([`inbound`], [`outbound`]), and is *attempted* later by a worker. No
//!    file both accepts and attempts; the job table is the only bridge.
//! 2. **One transaction per promise.** `250` after DATA is a promise: an object file is written, fsynced, renamed and
//!    its folder fsynced first, then one commit and the fsync of its WAL, then the reply.
//! 3. **Levels.** A module uses only modules of a lower level (the table below); a test reads the `use` lines.
//! 4. **SQL in one folder, sockets in few files.** Only [`store`] contains SQL. Sockets are opened only in `host.rs`
//!    (those that listen), `egress.rs`, `outbound/client.rs`, `dns.rs` and its `authentic.rs`, and, for the benchmark's own
//!    clients, `cli`.
//! 5. **Values, not side channels.** Replies, verdicts and "now" are values. The pure parts need no runtime.
//!
//! # An inbound message, from TCP to your webhook
//!
//! 1. `smtp_server/listener.rs` limits sessions per peer address and spawns a session for each.
//! 2. `smtp_server/session.rs` reads lines; `command.rs` parses one, `phase.rs` judges it without I/O. At RCPT it asks
//!    [`inbound::Inbound::resolve`]. At DATA, `data.rs` takes the strict dot-terminated stream: small mail in memory,
//!    large mail in a draft of the object store.
//! 3. [`inbound::Inbound::receive`]: [`mail::mime::parse`] → [`inbound::verify`] (SPF, DKIM, DMARC, ARC within one
//!    budget) → trace fields → **one** [`store::Db::write`]: per recipient the message, its attachments and, for each
//!    matching webhook route, a delivery with its job ([`jobs::Jobs::enqueue`]). The writer thread commits all that wait
//!    together: one fsync for many sessions. Then `250 2.0.0 Ok: msg_…`, and [`jobs::EnqueuedJob::notify_committed`].
//! 4. [`jobs::Worker`] claims (a lease is committed before the attempt; of an idle flow, by the transaction that leaves the
//!    job) → [`webhook::attempt::deliver`] makes the payload of the stored message, or of what was accepted a moment ago
//!    ([`webhook::attempt::first_attempt_cache`]), signs it twice and posts it through [`net::egress`] → a [`jobs::Verdict`] → settled in one
//!    transaction with the attempt's row. A large [`webhook::attempt::payload`] is never held whole: it is written from the mail
//!    data in pieces, once to sign it and once to send it.
//!
//! On a domain with zero retention `passing` rows stand in for messages and deliveries: [`webhook::attempt::zero_retention`] posts each
//! once and removes it, and the mail data with the last.
//!
//! # An API request, from its connection to the answer
//!
//! 1. `http/listener.rs` tells TLS from plain HTTP by the first octet. `http/conventions.rs` gives the request its id and
//!    refuses plain HTTP from afar.
//! 2. [`http::table()`] is every endpoint: method, path, credential class, schemas, errors. The router, the OpenAPI
//!    document and the tests that walk over all endpoints are made of it.
//! 3. `http/auth.rs` finds the caller and counts against its rate; `http/body.rs` reads the JSON object.
//! 4. The handler in `http/api/`, one file per resource, checks in the contract's order: is the thing the caller's (404),
//!    may this credential (403), are the fields right (400), does anything stand against it (409). Reading and plain
//!    changes are `store`'s; what means more is [`accounts`]', [`domain`]'s, [`webhook`]'s, [`inbound`]'s or [`content::uploads`]'.
//!
//! # A sent message, from the request to the remote MX
//!
//! 1. `http/api/send/` reads the fields in the contract's order; `smtp_server` takes the same from a mail program
//!    ([`outbound::submit::smtp_submission`]). Both ask [`outbound::submit::sender`]: whose domain, which keys.
//! 2. [`outbound::message::compose`] → [`outbound::message::dkim`] → [`outbound::submit`]: **one** [`store::Db::write`] with the message, a
//!    dispatch for each recipient with a bounce address of its own, and a job for each dispatch. Then `202`. A scheduled
//!    message leaves one job instead, which [`outbound::submit::scheduled`] attempts when its time comes.
//! 3. [`jobs::Worker`] claims → [`outbound::queue::deliver`] → [`outbound::transport`]: [`outbound::transport::mx`] finds the hosts,
//!    [`outbound::transport::mta_sts`] and [`outbound::transport::dane`] say what TLS has to prove, [`outbound::client`] speaks SMTP → a verdict
//!    for each recipient and a receipt.
//! 4. [`outbound::queue::settle`] writes both down in the transaction that settles the job, with the events that webhooks get
//!    ([`webhook::events::sending`]) and the suppression that a dead mailbox earns. What is deferred for three days bounces.
//! 5. What comes back, a DSN or an abuse report at the authenticated bounce address, enters by the inbound door and
//!    settles the one recipient whose address it is ([`outbound::reports::incoming`]).
//!
//! Mail to a domain that is received here goes in by [`inbound`] at once. Forward routes leave a dispatch of the received
//! message ([`outbound::forward`]). In dev mode nothing leaves the machine.
//!
//! # Modules and levels
//!
//! | level | modules | what they are |
//! | --- | --- | --- |
//! | 0 | [`clock`] [`fair_semaphore`] [`id`] [`mail`] | vocabulary, pure |
//! | 1 | [`config`] [`event_bus`] [`limits`] [`memory_budget`] [`metrics`] [`net`] [`process`] [`rate_limit`] [`secrets`] [`store`] | one outside thing each |
//! | 2 | [`accounts`] [`bootstrap`] [`content`] [`domain`] [`jobs`] | accounts and sign-in; the owner and first domain; a stored message's content; domains and their DNS; the job engine |
//! | 3 | [`retention`] [`webhook`] | the sweep; events, signatures, attempts |
//! | 4 | [`outbound`] | sending: compose, sign, deliver, bounces |
//! | 5 | [`inbound`] | recipients, routes, verification, acceptance |
//! | 6 | [`smtp_server`] [`http`] | the doors |
//! | 7 | [`app`], then [`cli`] | everything together |
//! | 8 | [`testing`] | what the tests reach beside the doors |
//!
//! # What durability means here
//!
//! Two kinds of commits share the one writer. [`store::Db::write`] is fsynced before it returns; every promise is made
//! of it. [`store::Db::write_nosync`] survives the end of the process but perhaps not a power cut: claims and settlements
//! of jobs, which are safely done again. Settlements ([`store::Db::write_lazy`]) wait up to 50 ms for a commit that
//! is made anyway. Commits keep their order, so an fsynced one makes all before it durable, and nobody is answered before
//! what was promised earlier is durable.
//!
//! SQLite writes the frames of a commit; the fsync of the WAL is the writer's own, on threads beside it, so that the next
//! transactions run meanwhile and a slow disk costs waiting, not throughput. Readers may see a commit some milliseconds
//! before its fsync; an answer that promises again what a reader found waits for [`store::Db::until_durable`]. The WAL is
//! moved into the database file in the background, sooner when the disk has little room.
//!
//! After a failed fsync nothing is believed any more: the writer refuses everything, nothing moves the WAL (SQLite would,
//! when the last connection closes), and the process ends, so that a restart reads what the disk really holds.
//!
//! After each fsynced commit [`store::writer::mark`] notes how far the database has come, in a file of its own. A start that finds
//! less refuses: SQLite takes a database without its WAL for the whole truth.
//!
//! Each object's row has its length and checksum, and every reader compares ([`store::blobs::objects`]): what is damaged is told,
//! never passed on.
//!
//! # Where this differs from what was planned
//!
//! * MIME is read by our own walk ([`mail::mime`]), with `mail-parser`'s charset tables: an attachment has to be a slice
//!   of the raw bytes, limits have to hold before anything is decoded, and a 25 MiB mail may cost three times its size.
//! * SMTP commands are read by our own `command.rs` rather than `smtp-proto`: nearly every line of it is policy (what is
//!   refused, and how), and closing a library's gaps around that was more code than the grammar.
//! * The raw copy is the bytes as received; Received and Authentication-Results stand beside it in `message.trace` and go
//!   before it in `headers_json` and whenever the message leaves again; results that a mail brought along in this host's name
//!   are left out of both.
//! * Substring search reads blocks of folded text, one account's own, newest first ([`store::search`]), where an FTS5
//!   trigram index was planned. Over a million messages the index had to gather every hit of a frequent word before the
//!   first page (p99 257 ms), knew nothing of needles of one or two letters (1 s), and mixed all accounts; the blocks
//!   answer in 4 to 32 ms.
//! * Within a lane accounts take turns. Their flows start with two attempts at a time and earn the lane's full width; ailing
//!   ones share three quarters of all slots, one that fails five times in a row pauses and is probed.
//!
//! # Standards
//!
//! | RFC | what it rules here |
//! | --- | --- |
//! | RFC 1468 | ISO-2022-JP |
//! | RFC 1557 | ISO-2022-KR |
//! | RFC 1843 | HZ-GB-2312 |
//! | RFC 1870 | SIZE |
//! | RFC 1950 | zlib: `deflate` in HTTP |
//! | RFC 1912 | names of hosts in DNS |
//! | RFC 2034 | ENHANCEDSTATUSCODES |
//! | RFC 1847 | multipart/signed, multipart/encrypted |
//! | RFC 2045 | MIME: bodies, transfer encodings |
//! | RFC 2046 | MIME: media types, multiparts |
//! | RFC 2047 | MIME: encoded words |
//! | RFC 2142 | abuse@ and the like |
//! | RFC 2152 | UTF-7 |
//! | RFC 2183 | Content-Disposition |
//! | RFC 2231 | MIME: parameter values and continuations |
//! | RFC 2369 | List-* fields |
//! | RFC 2387 | multipart/related |
//! | RFC 2397 | `data:` URLs |
//! | RFC 2671 | EDNS, as it was at first |
//! | RFC 2781 | UTF-16 |
//! | RFC 2919 | List-Id |
//! | RFC 2920 | PIPELINING |
//! | RFC 3207 | STARTTLS |
//! | RFC 3339 | time stamps |
//! | RFC 3461 | DSN: the SMTP extension |
//! | RFC 3462 | multipart/report |
//! | RFC 3463 | enhanced status codes |
//! | RFC 3464 | DSN: the report |
//! | RFC 3834 | automatic responses |
//! | RFC 3848 | the protocol words of Received |
//! | RFC 3986 | URIs |
//! | RFC 3987 | URIs beyond ASCII |
//! | RFC 4291 | IPv6 addresses |
//! | RFC 4616 | AUTH PLAIN |
//! | RFC 4648 | base64 for URLs |
//! | RFC 4954 | AUTH |
//! | RFC 5214 | ISATAP addresses |
//! | RFC 5233 | subaddresses: `user+detail` |
//! | RFC 5248 | which enhanced status codes there are |
//! | RFC 5321 | SMTP |
//! | RFC 5322 | the message format |
//! | RFC 5598 | roles in mail |
//! | RFC 5965 | ARF: abuse reports |
//! | RFC 6152 | 8BITMIME |
//! | RFC 6266 | Content-Disposition in HTTP |
//! | RFC 6376 | DKIM |
//! | RFC 6409 | submission |
//! | RFC 6522 | multipart/report |
//! | RFC 6531 | SMTPUTF8 |
//! | RFC 6533 | reports with international addresses |
//! | RFC 6591 | ARF: reports of failed authentication |
//! | RFC 6598 | shared addresses of providers |
//! | RFC 6698 | DANE: TLSA |
//! | RFC 6749 | OAuth 2.0: codes for tokens |
//! | RFC 6761 | special-use names: localhost |
//! | RFC 6797 | HSTS |
//! | RFC 6838 | length of media type names |
//! | RFC 6857 | international fields for old hosts |
//! | RFC 6890 | special-purpose addresses |
//! | RFC 6891 | EDNS |
//! | RFC 6840 | DNSSEC: the AD bit |
//! | RFC 7208 | SPF |
//! | RFC 7239 | the Forwarded field |
//! | RFC 7301 | ALPN |
//! | RFC 7372 | status codes of failed authentication |
//! | RFC 7435 | opportunistic security |
//! | RFC 7489 | DMARC |
//! | RFC 7505 | null MX |
//! | RFC 7517 | JSON Web Key sets |
//! | RFC 7518 | RSA keys in them |
//! | RFC 7636 | OAuth 2.0: PKCE |
//! | RFC 7672 | DANE for SMTP |
//! | RFC 7932 | brotli |
//! | RFC 8058 | List-Unsubscribe-Post |
//! | RFC 8187 | extended parameters in HTTP |
//! | RFC 8259 | JSON |
//! | RFC 8301 | DKIM: key sizes |
//! | RFC 8305 | trying addresses in turn |
//! | RFC 8314 | submission over TLS |
//! | RFC 8446 | TLS 1.3 |
//! | RFC 8461 | MTA-STS |
//! | RFC 8463 | DKIM: Ed25519 |
//! | RFC 8551 | S/MIME |
//! | RFC 8601 | Authentication-Results |
//! | RFC 8617 | ARC |
//! | RFC 9110 | HTTP |
//! | RFC 9111 | how long an answer is fresh |
//! | RFC 9112 | HTTP/1.1 |
//! | RFC 9113 | HTTP/2 |
//! | RFC 9989 | DMARC, the successor |

mod accounts;
mod app;
mod bootstrap;
mod cli;
mod clock;
mod config;
mod content;
mod domain;
mod event_bus;
mod fair_semaphore;
mod http;
mod id;
mod inbound;
mod jobs;
mod limits;
mod mail;
mod memory_budget;
mod metrics;
mod net;
mod outbound;
mod process;
mod rate_limit;
mod retention;
mod secrets;
mod smtp_server;
mod store;
#[doc(hidden)]
pub mod testing;
mod webhook;

pub use cli::Cli;
