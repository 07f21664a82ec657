//! mailkite receives mail over SMTP, stores it durably and posts it to your webhook as signed JSON; it sends mail with
//! DKIM. One binary, one TOML file, one data directory. This page is the map of the source.
//!
//! `docs/contract.md` is normative: it fixes everything that clients, webhook receivers and mail peers can observe
//! ("contract 5.1" cites its section). `docs/hazards.md` lists the faults and attacks that the server must survive,
//! `docs/durability.md` explains how a promise reaches the disk, `docs/decisions.md` why some parts are built as they
//! are, and `docs/glossary.md` defines the terms. `CONTRIBUTING.md` has recipes for common changes.
//!
//! # Five rules
//!
//! 1. **Accept, then attempt.** A listener takes a message and *accepts* it in one transaction that also enqueues the
//!    jobs it causes ([`inbound`], [`outbound`]). A worker *attempts* them later. No file does both; the job table is
//!    the only link between the two halves.
//! 2. **One transaction per promise.** `250` after DATA is a promise, and so is `202`: write the object file, fsync and
//!    rename it, fsync its folder, commit, fsync the WAL, and only then reply.
//! 3. **Levels.** A module uses only modules of a lower level (see the table below), and files of one folder do not
//!    import each other in a circle.
//! 4. **SQL in one folder, sockets in few files.** Only [`store`] contains SQL. Listening sockets are opened in
//!    `process/sockets.rs` and `process/control_socket.rs`; outgoing ones in `net/egress/connector.rs`, `net/dns/`,
//!    `outbound/client/mod.rs` and, for commands on the host and the benchmark's own clients, in
//!    `process/control_socket.rs` and `cli/`.
//! 5. **Values, not side channels.** Replies, verdicts and the current time are values that functions take and return,
//!    so the pure parts need no runtime and no mocks.
//!
//! `tests/it/house/rules.rs` enforces what can be enforced of these.
//!
//! # An inbound message: from TCP to the webhook
//!
//! 1. `smtp_server/listener.rs` caps connections per peer and in total, and spawns a session for each.
//! 2. `smtp_server/session/` reads command lines. `command.rs` parses a line, `phase.rs` decides without I/O whether it
//!    is allowed now. RCPT is answered by `inbound/recipients.rs`. `smtp_server/data.rs` reads the mail data up to the
//!    strict `CRLF.CRLF`: small mail stays in memory, large mail goes to a pending object on disk.
//! 3. [`inbound`]`/receive/` parses ([`mail::mime`]), verifies SPF, DKIM, DMARC and ARC within one time budget
//!    ([`inbound::verify`]) and makes **one** [`store::Db::write`]: per recipient a message with its attachments and,
//!    for each matching webhook route, a delivery and its job ([`jobs::Jobs::enqueue`]). The writer thread commits all
//!    waiting transactions together, so many sessions share one fsync. Then comes `250 2.0.0 Ok: msg_…`, and the engine
//!    is notified of the committed job.
//! 4. [`jobs::Worker`] claims the job; the lease is committed before the attempt. [`webhook::attempt`] builds the
//!    payload from the stored message (or from [`webhook::attempt::first_attempt_cache`] right after acceptance), signs
//!    it with both schemes and posts it through [`net::egress`]. Result and attempt are recorded in the transaction
//!    that settles the job. A large payload is never in memory as a whole: it is streamed from the mail data twice,
//!    once to sign it and once to send it.
//!
//! A domain with zero retention stores neither message nor delivery: [`webhook::attempt::zero_retention`] makes the one
//! attempt and removes what was kept for it.
//!
//! # An API request: from the connection to the response
//!
//! 1. `http/listener.rs` tells TLS from plain HTTP by the first octet. `http/middleware.rs` assigns the request id and
//!    refuses plain HTTP from remote clients.
//! 2. [`http::table()`] lists every endpoint with method, path, credential class, schemas and errors. The router, the
//!    OpenAPI document and the tests that iterate over all endpoints are built from it.
//! 3. `http/auth.rs` identifies the caller and applies its rate limit, `http/authorize.rs` enforces the credential
//!    class of the endpoint, and `http/body.rs` reads the JSON object.
//! 4. The handler in `http/api/`, one file per resource, checks in the order of the contract: does the caller own it
//!    (404), does the credential allow it (403), are the fields valid (400), does the present state allow it (409).
//!    Reads and simple changes call [`store`]; the rest calls [`accounts`], [`domain`], [`webhook`], [`inbound`],
//!    [`outbound`] or [`content`].
//!
//! # A sent message: from the request to the remote MX
//!
//! 1. `http/api/send/` reads the fields in the order of the contract, `smtp_server/session/` takes the same from a mail
//!    program; both only map the result. All steps of sending are behind [`outbound::submit`]:
//!    [`outbound::submit::sender`] decides whether the account may send from the domain, and with which keys.
//! 2. [`outbound::message`] composes and signs, [`outbound::submit::persist`] stores in **one** [`store::Db::write`]:
//!    the message, a dispatch per recipient with a return path of its own, a job per dispatch, and the answer of an
//!    idempotent request. Then comes `202`. A scheduled message gets a single job instead, which
//!    [`outbound::submit::scheduled`] runs when the time comes.
//! 3. [`jobs::Worker`] claims, [`outbound::queue::deliver`] prepares, [`outbound::transport`] finds the hosts
//!    ([`outbound::transport::mx`]) and the TLS they must prove ([`outbound::transport::mta_sts`],
//!    [`outbound::transport::dane`]), and [`outbound::client`] speaks SMTP.
//! 4. [`outbound::queue::settle`] records each recipient's outcome in the transaction that settles the job, together
//!    with the webhook events ([`webhook::events::sending`]) and, for a mailbox that does not exist, the suppression.
//!    Mail that is still deferred after three days bounces.
//! 5. A DSN or abuse report that comes back to a return path arrives as inbound mail and settles exactly the recipient
//!    that the address was made for ([`outbound::reports::incoming`]).
//!
//! Mail to a domain hosted here goes straight to [`inbound`]. Forward routes enqueue a dispatch of the received message
//! ([`outbound::forward`]). In dev mode nothing leaves the machine.
//!
//! # Modules and levels
//!
//! | level | modules | purpose |
//! | --- | --- | --- |
//! | 0 | [`clock`] [`fair_semaphore`] [`id`] [`mail`] [`metrics`] | time, fair queueing, ids, the mail formats, metrics; pure |
//! | 1 | [`config`] [`event_bus`] [`limits`] [`memory_budget`] [`net`] [`process`] [`rate_limit`] [`secrets`] [`store`] | one resource each: the file, the network, the process, the database, … |
//! | 2 | [`accounts`] [`bootstrap`] [`content`] [`domain`] [`jobs`] | accounts and sign-in; first owner and domain; content of stored messages; domains and their DNS; the job engine |
//! | 3 | [`retention`] [`webhook`] | the sweep; webhook events, attempts and signatures |
//! | 4 | [`outbound`] | sending: submission, queue, transport, bounces, forwarding |
//! | 5 | [`inbound`] | receiving: recipients, routes, verification, acceptance |
//! | 6 | [`http`] [`smtp_server`] | the listeners |
//! | 7 | [`app`] [`cli`] | everything wired together; the commands |
//! | 8 | [`testing`] | what the tests may reach besides the listeners |
//!
//! # Standards
//!
//! | RFC | what it defines here |
//! | --- | --- |
//! | RFC 1468 | ISO-2022-JP |
//! | RFC 1557 | ISO-2022-KR |
//! | RFC 1843 | HZ-GB-2312 |
//! | RFC 1847 | multipart/signed, multipart/encrypted |
//! | RFC 1870 | SIZE |
//! | RFC 1912 | host names in DNS |
//! | RFC 1950 | zlib: `deflate` in HTTP |
//! | RFC 2034 | ENHANCEDSTATUSCODES |
//! | RFC 2045 | MIME: bodies, transfer encodings |
//! | RFC 2046 | MIME: media types, multiparts |
//! | RFC 2047 | MIME: encoded words |
//! | RFC 2142 | role mailboxes: abuse@, postmaster@ |
//! | RFC 2152 | UTF-7 |
//! | RFC 2183 | Content-Disposition |
//! | RFC 2231 | MIME: parameter values and continuations |
//! | RFC 2369 | List-* fields |
//! | RFC 2387 | multipart/related |
//! | RFC 2397 | `data:` URLs |
//! | RFC 2671 | EDNS, first version |
//! | RFC 2781 | UTF-16 |
//! | RFC 2919 | List-Id |
//! | RFC 2920 | PIPELINING |
//! | RFC 3207 | STARTTLS |
//! | RFC 3339 | timestamps |
//! | RFC 3461 | DSN: the SMTP extension |
//! | RFC 3462 | multipart/report, first version |
//! | RFC 3463 | enhanced status codes |
//! | RFC 3464 | DSN: the report |
//! | RFC 3834 | automatic responses |
//! | RFC 3848 | protocol keywords of Received |
//! | RFC 3986 | URIs |
//! | RFC 3987 | internationalized URIs |
//! | RFC 4155 | mbox |
//! | RFC 4291 | IPv6 addresses |
//! | RFC 4616 | AUTH PLAIN |
//! | RFC 4648 | base64 for URLs |
//! | RFC 4954 | AUTH |
//! | RFC 5214 | ISATAP addresses |
//! | RFC 5233 | subaddresses: `user+detail` |
//! | RFC 5248 | registry of enhanced status codes |
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
//! | RFC 6533 | DSNs with international addresses |
//! | RFC 6591 | ARF: authentication failure reports |
//! | RFC 6598 | shared address space of carriers |
//! | RFC 6698 | DANE: TLSA |
//! | RFC 6749 | OAuth 2.0: authorization code |
//! | RFC 6761 | special-use names: localhost |
//! | RFC 6797 | HSTS |
//! | RFC 6838 | media type names |
//! | RFC 6840 | DNSSEC: the AD bit |
//! | RFC 6857 | downgrading international messages |
//! | RFC 6890 | special-purpose addresses |
//! | RFC 6891 | EDNS |
//! | RFC 7208 | SPF |
//! | RFC 7239 | the Forwarded field |
//! | RFC 7301 | ALPN |
//! | RFC 7372 | status codes for failed authentication |
//! | RFC 7435 | opportunistic security |
//! | RFC 7489 | DMARC |
//! | RFC 7505 | null MX |
//! | RFC 7517 | JSON Web Key sets |
//! | RFC 7518 | RSA keys in JSON Web Keys |
//! | RFC 7636 | OAuth 2.0: PKCE |
//! | RFC 7672 | DANE for SMTP |
//! | RFC 7932 | brotli |
//! | RFC 8058 | List-Unsubscribe-Post |
//! | RFC 8187 | extended parameters in HTTP fields |
//! | RFC 8259 | JSON |
//! | RFC 8301 | DKIM: key sizes |
//! | RFC 8305 | Happy Eyeballs |
//! | RFC 8314 | submission over TLS |
//! | RFC 8446 | TLS 1.3 |
//! | RFC 8461 | MTA-STS |
//! | RFC 8463 | DKIM: Ed25519 |
//! | RFC 8551 | S/MIME |
//! | RFC 8601 | Authentication-Results |
//! | RFC 8617 | ARC |
//! | RFC 9110 | HTTP |
//! | RFC 9111 | HTTP caching |
//! | RFC 9112 | HTTP/1.1 |
//! | RFC 9113 | HTTP/2 |
//! | RFC 9989 | DMARC, successor of RFC 7489 |

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
