//! Verifies the origin of a message: SPF, DKIM, DMARC and ARC, all within one time budget; a verdict never refuses a
//! message, never delays it beyond the budget, and a check that DNS did not answer by then is `temperror`. Uses
//! `net::dns`, `domain::name`, the `mail` formats and the library for e-mail authentication; authentication results
//! that a message brings along are not read here. A change of the choice of signatures belongs in `signatures`, of keys
//! in `keys`, of DMARC records in `policy`, of SPF records in `spf`, of lookups in `records`, and of the words for
//! results in `verdicts`.

mod keys;
mod policy;
mod records;
mod signatures;
mod spf;
mod tags;
mod verdicts;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use mail_auth::dkim::Signature;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcOutput, MessageAuthenticator, Parameters, SpfOutput, SpfResult,
};
use tokio::time::timeout;

use self::records::Records;
use self::verdicts::{best, dkim_checks, dkim_verdict, dmarc_verdict, is_good, nothing, spf_verdict};
use crate::domain::name::organizational;
use crate::mail::address::Domain;
use crate::mail::envelope::Peer;
use crate::mail::mime::{Fields, Limits, Mail};
use crate::mail::trace::{self, ResInfo, Verdict};
pub(crate) use crate::mail::verification::Verdicts;
pub use crate::mail::verification::Verification;
use crate::net::dns::Resolver;
use crate::net::dns::budget::Budget;

/// Time budget for all checks of one message together.
pub(crate) const BUDGET: Duration = Duration::from_secs(10);
/// DNS queries that an SPF policy may cost. With five signatures, ten seals and the tree walk for a DMARC policy a
/// message costs some fifty at most.
const SPF_QUESTIONS: usize = 25;
/// From this size on hashing the body is announced to the runtime as blocking work.
const LARGE_BYTES: usize = 1024 * 1024;

/// Verifies messages on behalf of a host.
#[derive(Clone)]
pub struct Verifier {
    resolver: Option<Resolver>,
    hostname: String,
    budget: Duration,
}

impl Verifier {
    /// Creates a verifier that asks `resolver` and spends at most `budget` (in production [`BUDGET`]) on a message.
    pub const fn new(resolver: Resolver, hostname: String, budget: Duration) -> Self {
        Self { resolver: Some(resolver), hostname, budget }
    }

    /// Creates a verifier that checks nothing and sends no DNS query, for dev mode.
    pub const fn skip(hostname: String) -> Self {
        Self { resolver: None, hostname, budget: Duration::ZERO }
    }

    /// Verifies a message that `peer` submits with the envelope sender `mail_from` ("" for the null reverse-path).
    ///
    /// Loopback peers are this machine: nothing is checked for them.
    pub async fn verify(&self, peer: &Peer, mail_from: &str, raw: &[u8], mail: &Mail) -> Verification {
        let Some(resolver) = self.resolver.as_ref().filter(|_| !peer.address.to_canonical().is_loopback()) else {
            return Verification::unchecked(&self.hostname);
        };
        let mut found = CheckResults::default();
        let check = Check { resolver, hostname: &self.hostname, peer, mail_from, raw, mail };
        // On a timeout or a panic in a library the results found until then count, and the rest is `temperror`.
        let finished = timeout(self.budget, caught(check.run(&mut found))).await;
        if !matches!(finished, Ok(Some(()))) {
            tracing::debug!(peer = %peer.address, "authentication of a message did not finish in time");
        }
        found.verification(&self.hostname, mail.author_domain())
    }
}

/// Results of the checks until they ended or were interrupted. Each is a list: DKIM has one entry for each signature.
#[derive(Default)]
struct CheckResults {
    spf: Option<ResInfo>,
    dkim: Option<Vec<ResInfo>>,
    dmarc: Option<ResInfo>,
    /// True if the applicable policy wants failing mail quarantined or rejected.
    enforced: bool,
    arc: Option<ResInfo>,
    /// True if the library finds the same header as our own reader.
    same_header: bool,
}

impl CheckResults {
    fn verification(self, hostname: &str, author: Option<&str>) -> Verification {
        let unanswered = |method| ResInfo { method, verdict: Verdict::TempError, properties: Vec::new() };
        let spf = self.spf.unwrap_or_else(|| unanswered("spf"));
        let dkim = self.dkim.unwrap_or_else(|| vec![unanswered("dkim")]);
        let dmarc = self.dmarc.unwrap_or_else(|| unanswered("dmarc"));
        let arc = self.arc.unwrap_or_else(|| unanswered("arc"));
        let verdicts = Verdicts {
            spf: Some(spf.verdict),
            dkim: Some(best(&dkim)),
            dmarc: Some(dmarc.verdict),
            arc: Some(arc.verdict),
        };
        let author = author.filter(|_| self.same_header);
        let aligned =
            author.is_some_and(|author| dkim.iter().chain([&spf]).any(|checked| is_aligned(checked, author)));
        let mut checks = vec![spf];
        checks.extend(dkim);
        checks.push(dmarc);
        checks.extend(Some(arc).filter(|arc| arc.verdict != Verdict::None));
        let authentication_results = trace::authentication_results(hostname, &checks);
        Verification { verdicts, authentication_results, aligned, enforced: self.enforced }
    }
}

/// True if a check passed for the organizational domain of an author.
fn is_aligned(checked: &ResInfo, author: &str) -> bool {
    let identifier = checked
        .properties
        .iter()
        .find(|(property, _)| matches!(*property, "header.d" | "smtp.mailfrom" | "smtp.helo"));
    let domain = identifier.map(|(_, value)| value.rsplit_once('@').map_or(value.as_str(), |(_, domain)| domain));
    checked.verdict == Verdict::Pass
        && domain.is_some_and(|domain| organizational(&domain.to_lowercase()) == organizational(author))
}

/// A message as the library reads it.
struct Read<'m> {
    message: AuthenticatedMessage<'m>,
    /// True if it finds the same header as our own reader.
    same_header: bool,
    /// True if it finds nobody in From but the author whom every reader finds.
    same_author: bool,
}

struct Check<'c> {
    resolver: &'c Resolver,
    hostname: &'c str,
    peer: &'c Peer,
    mail_from: &'c str,
    raw: &'c [u8],
    mail: &'c Mail,
}

impl<'c> Check<'c> {
    fn asks(&self) -> &'c MessageAuthenticator {
        self.resolver.authenticator()
    }

    async fn run(&self, found: &mut CheckResults) {
        if self.mail.header_truncated {
            // A header beyond our limits is not passed to a library that has none.
            let refused = |method| ResInfo { method, verdict: Verdict::PermError, properties: Vec::new() };
            found.dkim = Some(vec![refused("dkim")]);
            found.dmarc = Some(refused("dmarc"));
            found.arc = Some(refused("arc"));
            found.spf = Some(self.spf().await.1);
            return;
        }
        let Some(read) = catch_unwind(AssertUnwindSafe(|| self.read())).ok().flatten() else {
            // Without a header there is nothing that could have been signed.
            let limits = Limits::default();
            let has_fields = Fields::new(self.raw, 0, &limits).next(|_| false).is_some();
            let verdict = if has_fields { Verdict::PermError } else { Verdict::None };
            let unread = |method| ResInfo { method, verdict, properties: Vec::new() };
            found.dkim = Some(vec![unread("dkim")]);
            found.arc = Some(unread("arc"));
            let (spf_output, checked) = self.spf().await;
            found.spf = Some(checked);
            let message = AuthenticatedMessage { from: self.authors(), ..AuthenticatedMessage::default() };
            let read = Read { message, same_header: false, same_author: false };
            let (checked, policy) = self.dmarc(&read, &spf_output, &[]).await;
            (found.dmarc, found.enforced) = (Some(checked), is_enforced(policy));
            return;
        };
        found.same_header = read.same_header;
        self.resolver.detect_edns().await;
        let CheckResults { spf, dkim, dmarc, enforced, arc, .. } = found;
        let keys = Records::default();
        let (spf_output, dkim_output, ()) = tokio::join!(
            async {
                let (output, checked) = self.spf().await;
                *spf = Some(checked);
                output
            },
            async {
                let (output, refused) = self.dkim(&read.message, &keys).await;
                *dkim = Some(dkim_checks(&read.message, &output, &refused));
                output
            },
            async {
                let verdict = self.arc(&read.message, &keys).await;
                *arc = Some(ResInfo { method: "arc", verdict, properties: Vec::new() });
            },
        );
        let (checked, policy) = self.dmarc(&read, &spf_output, &dkim_output).await;
        (*dmarc, *enforced) = (Some(checked), is_enforced(policy));
    }

    /// Returns the message as the library reads it from the start of the header that our own reader finds, with our own
    /// reading of From: a display name never yields an author there.
    fn read(&self) -> Option<Read<'_>> {
        let Mail { header_offset, body_offset, has_stray_lines, .. } = *self.mail;
        let raw = self.raw.get(header_offset..)?;
        let (mut message, same_header) = blocking(raw.len(), || {
            let mut message = AuthenticatedMessage::parse(raw)?;
            let same_header = {
                let body_offset = body_offset.saturating_sub(header_offset);
                signatures::prepare(&mut message, body_offset, has_stray_lines)
            };
            Some((message, same_header))
        })?;
        let same_author = self.mail.author_domain().is_some_and(|author| {
            let mut domains = message.from.iter().filter_map(|address| address.rsplit_once('@'));
            domains.all(|(_, domain)| is_domain(domain, author))
        });
        message.from = self.authors();
        Some(Read { message, same_header, same_author })
    }

    /// Returns all authors named in From, under any of several readings.
    fn authors(&self) -> Vec<String> {
        self.mail.header_from.iter().map(|named| named.address.to_lowercase()).collect()
    }

    /// Returns the signatures that were verified, and those whose key must not be used for them (RFC 6376 §6.1.2): of
    /// another service, hash or type, revoked, or malformed.
    async fn dkim<'m>(
        &self,
        message: &'m AuthenticatedMessage<'m>,
        keys: &'m Records,
    ) -> (Vec<DkimOutput<'m>>, Vec<&'m Signature>) {
        let mut refused = Vec::new();
        for header in &message.dkim_headers {
            if !keys.find_key(self.resolver, &header.header).await {
                refused.push(&header.header);
            }
        }
        let mut output = self.asks().verify_dkim(Parameters::new(message).with_txt_cache(keys)).await;
        let is_refused = |signature: &Signature| refused.iter().any(|refused| std::ptr::eq(*refused, signature));
        output.retain(|output| !output.signature().is_some_and(is_refused));
        (output, refused)
    }

    /// Verifies the chain of seals; their keys are keys of signatures (RFC 8617 §4.1).
    async fn arc(&self, message: &AuthenticatedMessage<'_>, keys: &Records) -> Verdict {
        if signatures::has_too_many_seals(message) {
            return Verdict::PermError;
        }
        let newest = message.ams_headers.iter().max_by_key(|seal| seal.header.i);
        let mut fit = match newest {
            Some(seal) => keys.find_key(self.resolver, &seal.header).await,
            None => true,
        };
        for seal in message.as_headers.iter().filter(|_| newest.is_some()) {
            fit = fit && keys.find_key(self.resolver, &seal.header).await;
        }
        if !fit {
            return Verdict::PermError;
        }
        dkim_verdict(self.asks().verify_arc(Parameters::new(message).with_txt_cache(keys)).await.result())
    }

    /// Looks up the policies of the author's domain and of those that may be aligned with it.
    async fn policies(
        &self,
        message: &AuthenticatedMessage<'_>,
        spf: &SpfOutput,
        dkim: &[DkimOutput<'_>],
    ) -> Records {
        let records = Records::default();
        let domain_of =
            |address: &String| address.rsplit_once('@').and_then(|(_, domain)| Domain::parse(domain).ok());
        let Some(author) = message.from.iter().find_map(domain_of) else { return records };
        records.find_policies(self.resolver, author.as_str()).await;
        let signers = dkim.iter().filter(|output| is_good(output.result())).filter_map(DkimOutput::signature);
        let sender = self.mail_from_domain().unwrap_or(&self.peer.helo);
        let sender = Some(sender).filter(|_| matches!(spf.result(), SpfResult::Pass | SpfResult::TempError));
        for domain in signers.map(|signature| signature.d.as_str()).chain(sender) {
            if let Ok(domain) = Domain::parse(domain)
                && top(domain.as_str()) == top(author.as_str())
            {
                records.find_policies(self.resolver, domain.as_str()).await;
            }
        }
        records
    }

    /// Returns the domain of the envelope sender. A local part alone (`"a@b"`) has none.
    fn mail_from_domain(&self) -> Option<&str> {
        self.mail_from.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| !domain.ends_with('"'))
    }

    /// RFC 7208 §2.4: without an envelope sender the HELO name is checked; a sender without a domain cannot be checked.
    async fn spf(&self) -> (SpfOutput, ResInfo) {
        if !self.mail_from.is_empty() && self.mail_from_domain().is_none() {
            return (SpfOutput::default(), nothing("spf"));
        }
        let (address, helo) = (self.peer.address.to_canonical(), self.peer.helo.as_str());
        // RFC 7208 §2.3: a HELO name that is no domain, such as an address literal, cannot be checked.
        if self.mail_from.is_empty()
            && !helo.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        {
            return (SpfOutput::default(), nothing("spf"));
        }
        let (parameters, property) = if self.mail_from.is_empty() {
            (SpfParameters::verify_ehlo(address, helo, self.hostname), ("smtp.helo", helo.to_owned()))
        } else {
            let sender = SpfParameters::verify_mail_from(address, helo, self.hostname, self.mail_from);
            (sender, ("smtp.mailfrom", self.mail_from.to_owned()))
        };
        let domain = self.mail_from_domain().unwrap_or(helo);
        let output = match self.resolver.texts(domain).await {
            Ok(texts) if spf::are_malformed(&texts) => SpfOutput::default().with_result(SpfResult::PermError),
            // The answer is in the resolver's cache now.
            Ok(_) | Err(_) => Budget::new(SPF_QUESTIONS).verify_spf(self.asks(), parameters).await,
        };
        let checked = ResInfo { method: "spf", verdict: spf_verdict(output.result()), properties: vec![property] };
        (output, checked)
    }

    /// A message with two From fields is invalid (RFC 5322 §3.6): `permerror`. So is one whose author not every reader
    /// finds, as the verified author may not be the one shown: only `fail` counts then.
    async fn dmarc(&self, read: &Read<'_>, spf: &SpfOutput, dkim: &[DkimOutput<'_>]) -> (ResInfo, Policy) {
        if self.mail.from_fields > 1 {
            let refused = ResInfo { method: "dmarc", verdict: Verdict::PermError, properties: Vec::new() };
            return (refused, Policy::Unspecified);
        }
        let mail_from_domain = self.mail_from_domain().unwrap_or(&self.peer.helo);
        let records = self.policies(&read.message, spf, dkim).await;
        let parameters = Parameters::new(DmarcParameters {
            message: &read.message,
            dkim_output: dkim,
            dkim2_output: None,
            rfc5321_mail_from_domain: mail_from_domain,
            spf_output: spf,
        });
        let output: DmarcOutput = self.asks().verify_dmarc(parameters.with_txt_cache(&records)).await;
        let judged = output.domain();
        let is_author = self.mail.author_domain().is_some_and(|author| is_domain(judged, author));
        let verdict = match dmarc_verdict(&output.result()) {
            Verdict::Pass | Verdict::None if !(is_author && read.same_author && read.same_header) => {
                Verdict::PermError
            }
            verdict => verdict,
        };
        let domain = Some(judged.to_owned()).filter(|domain| !domain.is_empty());
        let properties = domain.map(|domain| ("header.from", domain)).into_iter().collect();
        (ResInfo { method: "dmarc", verdict, properties }, output.policy())
    }
}

/// True if a domain, in either spelling, is `author`.
fn is_domain(domain: &str, author: &str) -> bool {
    domain.eq_ignore_ascii_case(author) || Domain::parse(domain).is_ok_and(|domain| domain.as_str() == author)
}

/// True if a policy wants failing mail quarantined or rejected.
const fn is_enforced(policy: Policy) -> bool {
    matches!(policy, Policy::Quarantine | Policy::Reject)
}

/// Returns the last two labels of a domain.
fn top(domain: &str) -> &str {
    let start = domain.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    domain.get(start..).unwrap_or(domain)
}

/// Runs `work`, which takes long for a large message, without blocking the runtime's other tasks.
fn blocking<T>(size: usize, work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Handle::current().runtime_flavor();
    if size >= LARGE_BYTES && runtime == tokio::runtime::RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Returns the output of `future`, or `None` if it panicked: a bug in a check must not cost the message.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
