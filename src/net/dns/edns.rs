//! Whether the servers to ask know EDNS (RFC 6891). Some home routers and old servers answer such a question with an
//! error, and some drop it; §7 has them asked again without.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

/// How long is believed what was found out.
const BELIEVED: Duration = Duration::from_secs(600);

/// What is known of the servers.
#[derive(Default)]
pub(crate) struct Support(Mutex<Known>);

#[derive(Clone, Copy, Default)]
enum Known {
    #[default]
    Nothing,
    Works(Instant),
    Fails(Instant),
}

impl Support {
    /// Whether to ask without EDNS.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.known(), Known::Fails(since) if since.elapsed() < BELIEVED)
    }

    /// Whether a question with EDNS was answered not long ago.
    pub(crate) fn works(&self) -> bool {
        matches!(self.known(), Known::Works(since) if since.elapsed() < BELIEVED)
    }

    /// Whether a question has to be asked before it is known.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.known(), Known::Nothing)
    }

    /// Takes the answer to a question with EDNS; whether it has to be asked again without.
    pub(crate) fn is_refused<T>(&self, answer: &Result<T, NetError>) -> bool {
        let works = self.works();
        match answer {
            Err(error) if is_refusal(error) => true,
            // RFC 2671 §5.3 named SERVFAIL too; but that is mostly said of one domain alone.
            Err(error) if self.is_unknown() && is_failure(error) => true,
            // Servers that do not answer at all are asked twice only until they are known.
            Err(error) if is_silence(error) => !works,
            Err(NetError::Dns(DnsError::ResponseCode(_))) => false,
            Ok(_) | Err(NetError::Dns(_)) => {
                self.set(Known::Works(Instant::now()));
                false
            }
            Err(_) => false,
        }
    }

    /// Takes note that a question was answered, with EDNS, or without after it had been refused with.
    pub(crate) fn note(&self, with: bool, refused: bool) {
        match (with, refused) {
            (true, _) => self.set(Known::Works(Instant::now())),
            (false, true) => self.set(Known::Fails(Instant::now())),
            (false, false) => {}
        }
    }

    /// Takes the answer to the same question without EDNS.
    pub(crate) fn note_without<T>(&self, answer: &Result<T, NetError>) {
        if matches!(answer, Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_)))) {
            self.set(Known::Fails(Instant::now()));
        }
    }

    fn known(&self) -> Known {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Whether a response code says that EDNS is not understood (RFC 6891 §7).
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

const fn is_silence(error: &NetError) -> bool {
    matches!(error, NetError::Timeout | NetError::NoConnections | NetError::Io(_))
}
