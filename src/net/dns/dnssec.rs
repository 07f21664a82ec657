//! Authenticated DNS answers (DNSSEC): queries set the AD bit, and a validating server sets it in answers that it
//! validated (RFC 6840 §5.7).
//!
//! The bit is trusted only from a server on this machine: anybody on the path from another could set it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use moka::sync::Cache;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::edns::{self, Support};
use super::{ATTEMPTS, DnsError, MAX_NEGATIVE_TTL, MAX_TTL, TIMEOUT};

const MAX_CACHED: u64 = 4_096;
/// The largest datagram that passes every path (the DNS flag day's 1,232).
const MAX_PAYLOAD: u16 = 1_232;

/// The records of a name, possibly none, and the validation result.
#[derive(Clone, Debug)]
pub(crate) struct Validated {
    pub(crate) records: Vec<RData>,
    pub(crate) authentic: bool,
    response_code: ResponseCode,
}

/// A cache of answers, each with the end of its lifetime.
pub(crate) struct Answers(Cache<(String, RecordType), (Instant, Validated)>);

impl Default for Answers {
    fn default() -> Self {
        Self(Cache::new(MAX_CACHED))
    }
}

impl Answers {
    fn get(&self, key: &(String, RecordType)) -> Option<Validated> {
        self.0.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, proven)| proven)
    }

    fn put(&self, key: (String, RecordType), proven: Validated, ttl: Duration) {
        self.0.insert(key, (Instant::now() + ttl, proven));
    }
}

/// Queries `servers` in turn; only those on this machine can authenticate. A name without such records gives none.
pub(crate) async fn query(
    servers: &[SocketAddr],
    edns: &Support,
    cache: &Answers,
    name: &str,
    kind: RecordType,
) -> Result<Validated, DnsError> {
    let key = (name.to_ascii_lowercase(), kind);
    if let Some(known) = cache.get(&key) {
        return check_exists(name, known);
    }
    let asked = Name::from_ascii(format!("{}.", name.trim_end_matches('.')));
    let asked = asked.map_err(|_| DnsError::BadName(name.to_owned()))?;
    let mut reason = "no name server".to_owned();
    // Try EDNS first, then without for servers that refuse it or stay silent (RFC 6891 §7).
    let mut attempts: Vec<(SocketAddr, bool)> = Vec::with_capacity(servers.len() * ATTEMPTS);
    let is_missing = edns.is_missing();
    (0..ATTEMPTS).for_each(|attempt| {
        attempts.extend(servers.iter().map(|server| (*server, attempt == 0 && !is_missing)));
    });
    let mut refused = false;
    for (server, with_edns) in attempts {
        let answer = match timeout(TIMEOUT, exchange(server, &asked, kind, with_edns)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                reason = format!("{server}: {error}");
                continue;
            }
            Err(_) => {
                refused |= with_edns && !edns.works();
                reason = format!("{server} is silent");
                continue;
            }
        };
        let response_code = answer.metadata.response_code;
        if !matches!(response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
            refused |= with_edns && edns::is_refused_by(response_code);
            reason = format!("{server}: {response_code}");
            continue;
        }
        edns.record(with_edns, refused);
        let records: Vec<RData> = answer
            .answers
            .iter()
            .filter(|record| record.record_type() == kind)
            .map(|record| record.data.clone())
            .collect();
        let ttl = answer.answers.iter().map(|record| Duration::from_secs(record.ttl.into())).min();
        let ttl = if records.is_empty() { MAX_NEGATIVE_TTL } else { ttl.unwrap_or(MAX_NEGATIVE_TTL).min(MAX_TTL) };
        let authentic = answer.metadata.authentic_data && server.ip().to_canonical().is_loopback();
        let proven = Validated { records, authentic, response_code };
        cache.put(key, proven.clone(), ttl);
        return check_exists(name, proven);
    }
    Err(DnsError::NoAnswer { name: name.to_owned(), reason })
}

fn check_exists(name: &str, proven: Validated) -> Result<Validated, DnsError> {
    if proven.records.is_empty() && proven.response_code == ResponseCode::NXDomain {
        return Err(DnsError::NoSuchName(name.to_owned()));
    }
    Ok(proven)
}

async fn exchange(server: SocketAddr, name: &Name, kind: RecordType, with_edns: bool) -> std::io::Result<Message> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.metadata.authentic_data = true;
    question.add_query(Query::query(name.clone(), kind));
    if with_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        question.set_edns(edns);
    }
    let octets = question.to_vec().map_err(std::io::Error::other)?;
    let answer = over_udp(server, &octets, &question).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(octets.len()).unwrap_or(u16::MAX)).await?;
    stream.write_all(&octets).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    read(&answer, &question).ok_or_else(|| std::io::Error::other("the answer does not match the query"))
}

async fn over_udp(server: SocketAddr, octets: &[u8], question: &Message) -> std::io::Result<Message> {
    let here = if server.is_ipv6() {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    };
    let socket = UdpSocket::bind(here).await?;
    socket.connect(server).await?;
    socket.send(octets).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A datagram that does not answer this query may be forged.
        if let Some(answer) = read(buffer.get(..length).unwrap_or_default(), question) {
            return Ok(answer);
        }
    }
}

fn read(octets: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(octets).ok()?;
    let same = answer.metadata.id == question.metadata.id && answer.queries == question.queries;
    same.then_some(answer)
}
