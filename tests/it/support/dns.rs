//! A small DNS server on loopback whose answers a test decides.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, MX, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const TTL: u32 = 60;

/// How a name is answered.
enum Answer {
    Records(Vec<RData>),
    /// SERVFAIL.
    Failure,
    /// No answer at all.
    Silence,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Answer>,
    asked: Vec<String>,
    silent: bool,
}

/// The server; it stops when it is dropped. A name that was not added does not exist.
pub struct DnsServer {
    /// Where it listens, over UDP.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

impl DnsServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let task = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Self { address, zone, task }
    }

    /// Adds a TXT record, cut into strings of 255 bytes as it must be.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        let strings = text.as_bytes().chunks(255).collect();
        self.record(name, RData::TXT(TXT::from_bytes(strings)))
    }

    /// Adds an A or AAAA record.
    pub fn address(&self, name: &str, address: &str) -> &Self {
        self.record(
            name,
            match address.parse().unwrap() {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            },
        )
    }

    /// Adds an MX record.
    pub fn mx(&self, name: &str, preference: u16, host: &str) -> &Self {
        self.record(name, RData::MX(MX::new(preference, Name::from_ascii(host).unwrap())))
    }

    /// Answers every question for `name` with SERVFAIL.
    pub fn fail(&self, name: &str) -> &Self {
        self.set(name, Answer::Failure)
    }

    /// Never answers a question for `name`.
    pub fn silence(&self, name: &str) -> &Self {
        self.set(name, Answer::Silence)
    }

    /// Never answers anything any more.
    pub fn silence_all(&self) -> &Self {
        self.zone.lock().unwrap().silent = true;
        self
    }

    /// The questions so far, as `name TYPE`.
    pub fn asked(&self) -> Vec<String> {
        self.zone.lock().unwrap().asked.clone()
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
        self.task.abort();
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
            // The other side may have given up already.
            let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
        }
    }
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
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_query(query.clone());
    match zone.names.get(&name) {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => message.metadata.response_code = ResponseCode::ServFail,
        Some(Answer::Records(records)) => {
            let fitting = records.iter().filter(|data| data.record_type() == query.query_type);
            message.add_answers(fitting.map(|data| Record::from_rdata(query.name.clone(), TTL, data.clone())));
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
