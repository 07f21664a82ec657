//! A small DNS server on loopback whose answers a test decides.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TLSA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

const TTL: u32 = 60;
/// A longer answer goes over TCP.
const MAX_UDP: usize = 1232;

/// Answer for a name.
enum Answer {
    Records(Vec<RData>),
    /// SERVFAIL.
    Failure,
    /// No answer.
    Silence,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Answer>,
    /// Names whose answers have the AD bit.
    signed: HashSet<String>,
    asked: Vec<String>,
    over_tcp: Vec<String>,
    silent: bool,
    edns: Edns,
    /// Names whose answers are truncated in their last record.
    broken_off: HashSet<String>,
}

/// Answer to a question with EDNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Edns {
    #[default]
    Known,
    /// Answered with this error.
    Refused(ResponseCode),
    /// Not answered.
    Dropped,
}

impl Zone {
    /// The answer for a name, or for the wildcard that covers it.
    fn find(&self, name: &str) -> Option<&Answer> {
        let mut rest = name;
        let mut found = self.names.get(name);
        while let (None, Some((_, parent))) = (found, rest.split_once('.')) {
            found = self.names.get(&format!("*.{parent}"));
            rest = parent;
        }
        found
    }
}

/// The server; it stops when it is dropped. A name that was not added does not exist; `*.name` stands for all below it.
pub(crate) struct DnsServer {
    /// Listens over UDP and TCP.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    tasks: [JoinHandle<()>; 2],
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be somebody's over TCP.
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let udp = tokio::spawn(serve(socket, Arc::clone(&zone)));
        let tcp = tokio::spawn(serve_tcp(listener, Arc::clone(&zone)));
        Self { address, zone, tasks: [udp, tcp] }
    }

    /// Adds a TXT record, cut into strings of 255 bytes as it must be.
    pub(crate) fn txt(&self, name: &str, text: &str) -> &Self {
        let strings = text.as_bytes().chunks(255).collect();
        self.record(name, RData::TXT(TXT::from_bytes(strings)))
    }

    /// Adds a TXT record of these strings.
    pub(crate) fn strings(&self, name: &str, strings: &[&str]) -> &Self {
        self.record(name, RData::TXT(TXT::from_bytes(strings.iter().map(|text| text.as_bytes()).collect())))
    }

    /// Adds a CNAME record.
    pub(crate) fn cname(&self, name: &str, target: &str) -> &Self {
        self.record(name, RData::CNAME(CNAME(Name::from_ascii(target).unwrap())))
    }

    /// Removes all records of a name.
    pub(crate) fn remove(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().names.remove(&key(name));
        self
    }

    /// Removes a name's records of one type, also a failure or silence.
    pub(crate) fn without(&self, name: &str, kind: RecordType) -> &Self {
        let mut zone = self.zone.lock().unwrap();
        match zone.names.get_mut(&key(name)) {
            Some(Answer::Records(records)) => records.retain(|data| data.record_type() != kind),
            _ => drop(zone.names.remove(&key(name))),
        }
        drop(zone);
        self
    }

    /// Adds an A or AAAA record.
    pub(crate) fn address(&self, name: &str, address: &str) -> &Self {
        self.record(
            name,
            match address.parse().unwrap() {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            },
        )
    }

    /// Adds an MX record.
    pub(crate) fn mx(&self, name: &str, preference: u16, host: &str) -> &Self {
        self.record(name, RData::MX(MX::new(preference, Name::from_ascii(host).unwrap())))
    }

    /// Adds a TLSA record.
    pub(crate) fn tlsa(&self, name: &str, usage: u8, selector: u8, matching: u8, data: &[u8]) -> &Self {
        self.record(name, RData::TLSA(TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec())))
    }

    /// Sets the AD bit in every answer for `name`, also a negative one, to questions with the AD or the DO bit.
    pub(crate) fn sign(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().signed.insert(key(name));
        self
    }

    /// Answers every question for `name` with SERVFAIL.
    pub(crate) fn fail(&self, name: &str) -> &Self {
        self.set(name, Answer::Failure)
    }

    /// Answers for `name` break off in their last record.
    pub(crate) fn break_off(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().broken_off.insert(key(name));
        self
    }

    /// Never answers a question for `name`.
    pub(crate) fn silence(&self, name: &str) -> &Self {
        self.set(name, Answer::Silence)
    }

    /// Answers nothing from now on.
    pub(crate) fn silence_all(&self) -> &Self {
        self.zone.lock().unwrap().silent = true;
        self
    }

    /// Sets the answer to questions with EDNS.
    pub(crate) fn edns(&self, edns: Edns) -> &Self {
        self.zone.lock().unwrap().edns = edns;
        self
    }

    /// The questions so far, as `name TYPE`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.zone.lock().unwrap().asked.clone()
    }

    /// The questions so far that came over TCP, as `name TYPE`.
    pub(crate) fn asked_over_tcp(&self) -> Vec<String> {
        self.zone.lock().unwrap().over_tcp.clone()
    }

    fn set(&self, name: &str, answer: Answer) -> &Self {
        self.zone.lock().unwrap().names.insert(key(name), answer);
        self
    }

    fn record(&self, name: &str, data: RData) -> &Self {
        let mut zone = self.zone.lock().unwrap();
        let answer = zone.names.entry(key(name)).or_insert_with(|| Answer::Records(Vec::new()));
        match answer {
            Answer::Records(records) => records.push(data),
            other => *other = Answer::Records(vec![data]),
        }
        drop(zone);
        self
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        if let Some(answer) = answer(&question, &zone) {
            let mut bytes = octets(&answer, &zone);
            if bytes.len() > MAX_UDP {
                let mut cut = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
                cut.metadata.truncation = true;
                cut.add_query(answer.queries[0].clone());
                bytes = cut.to_vec().unwrap();
            }
            // The other side may have given up already.
            let _ = socket.send_to(&bytes, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        tokio::spawn(async move { converse(tcp, &zone).await });
    }
}

async fn converse(mut tcp: TcpStream, zone: &Mutex<Zone>) -> std::io::Result<()> {
    loop {
        let mut bytes = vec![0; tcp.read_u16().await?.into()];
        tcp.read_exact(&mut bytes).await?;
        let Ok(question) = Message::from_vec(&bytes) else { continue };
        if let Some(query) = question.queries.first() {
            let asked = format!("{} {}", key(&query.name.to_ascii()), query.query_type);
            zone.lock().unwrap().over_tcp.push(asked);
        }
        if let Some(answer) = answer(&question, zone) {
            let bytes = octets(&answer, zone);
            tcp.write_u16(bytes.len().try_into().unwrap()).await?;
            tcp.write_all(&bytes).await?;
        }
    }
}

/// The answer as it goes out.
fn octets(answer: &Message, zone: &Mutex<Zone>) -> Vec<u8> {
    let mut octets = answer.to_vec().unwrap();
    if zone.lock().unwrap().broken_off.contains(&key(&answer.queries[0].name.to_ascii())) {
        octets.truncate(octets.len() - 3);
    }
    octets
}

fn answer(question: &Message, zone: &Mutex<Zone>) -> Option<Message> {
    let query: &Query = question.queries.first()?;
    let name = key(&query.name.to_ascii());
    let mut zone = zone.lock().unwrap();
    zone.asked.push(format!("{name} {}", query.query_type));
    if zone.silent {
        return None;
    }
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    match (question.edns.is_some(), zone.edns) {
        (true, Edns::Dropped) => return None,
        (true, Edns::Refused(code)) => {
            message.add_query(query.clone());
            message.metadata.response_code = code;
            return Some(message);
        }
        _ => {}
    }
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_query(query.clone());
    let wants_proof =
        question.metadata.authentic_data || question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    message.metadata.authentic_data = wants_proof && zone.signed.contains(&name);
    match zone.find(&name) {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => message.metadata.response_code = ResponseCode::ServFail,
        Some(Answer::Records(records)) => {
            let fitting = records.iter().filter(|data| data.record_type() == query.query_type);
            message.add_answers(fitting.map(|data| Record::from_rdata(query.name.clone(), TTL, data.clone())));
            let alias = records.iter().find_map(|data| match data {
                RData::CNAME(CNAME(target)) if query.query_type != RecordType::CNAME => Some(target),
                _ => None,
            });
            if let Some(target) = alias {
                let alias = RData::CNAME(CNAME(target.clone()));
                message.add_answer(Record::from_rdata(query.name.clone(), TTL, alias));
                if let Some(Answer::Records(records)) = zone.find(&key(&target.to_ascii())) {
                    let fitting = records.iter().filter(|data| data.record_type() == query.query_type);
                    message.add_answers(fitting.map(|data| Record::from_rdata(target.clone(), TTL, data.clone())));
                }
            }
        }
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    if message.answers.is_empty() && query.query_type != RecordType::SOA {
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 60, 60, 60, 60);
        message.add_authority(Record::from_rdata(root, TTL, RData::SOA(soa)));
    }
    Some(message)
}
