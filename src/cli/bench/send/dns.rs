//! The DNS server of the benchmark: each recipient domain has one mail host, on this machine, and nothing else.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use hickory_resolver::proto::op::{Message, MessageType, OpCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// The host of [`TARPIT_DOMAIN`]; all others are at 127.0.0.1.
pub(crate) const TARPIT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The domain whose host never answers.
pub(crate) const TARPIT_DOMAIN: &str = "tarpit.test";

const TTL_SECONDS: u32 = 3_600;

/// Returns the name of a recipient domain.
pub(crate) fn domain(number: u64) -> String {
    format!("d{number}.sink.test")
}

/// Starts the server and returns its address.
pub(crate) async fn start() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.context("binding the DNS server")?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = buffer.get(..length).and_then(|bytes| Message::from_vec(bytes).ok());
            if let Some(answer) = question.and_then(|question| answer(&question)?.to_vec().ok()) {
                drop(socket.send_to(&answer, peer).await);
            }
        }
    });
    Ok(address)
}

fn answer(question: &Message) -> Option<Message> {
    let query = question.queries.first()?;
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_query(query.clone());
    let name = query.name.to_ascii().to_ascii_lowercase();
    let data = match query.query_type {
        RecordType::MX if !name.starts_with("mx.") => {
            Some(RData::MX(MX::new(10, Name::from_ascii(format!("mx.{name}")).ok()?)))
        }
        RecordType::A if name.starts_with("mx.") => {
            Some(RData::A(A(if name.contains(TARPIT_DOMAIN) { TARPIT } else { Ipv4Addr::LOCALHOST })))
        }
        _ => None,
    };
    message.add_answers(data.map(|data| Record::from_rdata(query.name.clone(), TTL_SECONDS, data)));
    Some(message)
}
