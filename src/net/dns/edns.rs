//! Tracks EDNS support of the servers (RFC 6891). Some home routers and old servers answer a query with EDNS with an
//! error, and some drop it; §7 has the query repeated without.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

/// The lifetime of a result.
const VALID_FOR: Duration = Duration::from_secs(600);

/// The EDNS support of the servers.
#[derive(Default)]
pub(crate) struct Support(Mutex<State>);

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Unknown,
    Works(Instant),
    Fails(Instant),
}

impl Support {
    /// Returns true if queries should go without EDNS.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.state(), State::Fails(since) if since.elapsed() < VALID_FOR)
    }

    /// Returns true if a query with EDNS was answered recently.
    pub(crate) fn works(&self) -> bool {
        matches!(self.state(), State::Works(since) if since.elapsed() < VALID_FOR)
    }

    /// Returns true if a query is needed to find out.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.state(), State::Unknown)
    }

    /// Records the answer to a query with EDNS; returns true if it must be repeated without.
    pub(crate) fn is_refused<T>(&self, answer: &Result<T, NetError>) -> bool {
        let works = self.works();
        match answer {
            Err(error) if is_refusal(error) => true,
            // RFC 2671 §5.3 named SERVFAIL too, but mostly it concerns a single domain.
            Err(error) if self.is_unknown() && is_failure(error) => true,
            // Servers that do not answer at all are queried twice only until their support is known.
            Err(error) if is_no_answer(error) => !works,
            Err(NetError::Dns(DnsError::ResponseCode(_))) => false,
            Ok(_) | Err(NetError::Dns(_)) => {
                self.set(State::Works(Instant::now()));
                false
            }
            Err(_) => false,
        }
    }

    /// Records that a query was answered: with EDNS, or without after one with EDNS had been refused.
    pub(crate) fn record(&self, with: bool, refused: bool) {
        match (with, refused) {
            (true, _) => self.set(State::Works(Instant::now())),
            (false, true) => self.set(State::Fails(Instant::now())),
            (false, false) => {}
        }
    }

    /// Records the answer to the repeated query without EDNS.
    pub(crate) fn record_without<T>(&self, answer: &Result<T, NetError>) {
        if matches!(answer, Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_)))) {
            self.set(State::Fails(Instant::now()));
        }
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, known: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Returns true for the response codes of servers without EDNS (RFC 6891 §7).
pub(crate) const fn is_refused_by(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp)
}

fn is_refusal(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => is_refused_by(*code),
        NetError::Dns(DnsError::NoRecordsFound(none)) => is_refused_by(none.response_code),
        _ => false,
    }
}

fn is_failure(error: &NetError) -> bool {
    let is_failure = |code: ResponseCode| matches!(code, ResponseCode::ServFail | ResponseCode::Refused);
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => is_failure(*code),
        NetError::Dns(DnsError::NoRecordsFound(none)) => is_failure(none.response_code),
        _ => false,
    }
}

const fn is_no_answer(error: &NetError) -> bool {
    matches!(error, NetError::Timeout | NetError::NoConnections | NetError::Io(_))
}
