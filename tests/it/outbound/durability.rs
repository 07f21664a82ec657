//! The promise of a 202, kept by the real binary over kill -9 while messages are accepted and delivered.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::audit::assert_audited;
use crate::support::database::{assert_sound, open_database};
use crate::support::dns::DnsServer;
use crate::support::remote_host::RemoteHost;
use crate::support::serve_process::{ServeProcess, verify_domain};

const CYCLES: usize = 20;
const CLIENTS: usize = 6;
/// Concurrent messages to one recipient domain: as many may be in flight at a kill.
const LANE_WIDTH: usize = 4;

/// A server whose mail for remote.test goes to `remote`, in a folder that outlives its processes.
struct PersistentServer {
    folder: tempfile::TempDir,
    sections: String,
    key: String,
    _dns: DnsServer,
}

impl PersistentServer {
    /// Creates the account and its domain, with the records in DNS.
    async fn new(remote: &RemoteHost) -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        dns.address("mx.mailkite.test", "192.0.2.1");
        let sections = format!(
            "[dns]\nservers = [\"{}\"]\n[outbound]\nport = {}\nlane_width = {LANE_WIDTH}\n\
             allow_networks = [\"127.0.0.0/8\"]\n",
            dns.address,
            remote.address.port()
        );
        let folder = tempfile::tempdir().unwrap();
        let mut served = ServeProcess::start_with(folder.path(), &sections).await;
        let owner = served.sign_up_owner().await;
        verify_domain(&owner, &dns, "acme.test").await;
        let key = owner.credential.unwrap();
        served.child.kill().await.unwrap();
        Self { folder, sections, key, _dns: dns }
    }

    async fn served(&self) -> ServeProcess {
        ServeProcess::start_with(self.folder.path(), &self.sections).await
    }
}

/// Messages that the server acknowledged to the clients.
#[derive(Default)]
struct Ledger {
    next: AtomicUsize,
    promised: Mutex<HashSet<String>>,
    refused: Mutex<Vec<String>>,
    changed: Notify,
}

impl Ledger {
    fn count(&self) -> usize {
        self.promised.lock().unwrap().len()
    }

    async fn until_promised(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.count() >= count {
                return;
            }
            changed.await;
        }
    }
}

/// Sends until the server is killed.
async fn load(address: SocketAddr, key: String, ledger: Arc<Ledger>) {
    loop {
        let subject = format!("load-{}", ledger.next.fetch_add(1, Ordering::SeqCst));
        let body = json!({"from": "hi@acme.test", "to": "ada@remote.test", "subject": subject, "text": "Hello"});
        match post(address, &key, &body).await {
            Some((202, _)) => {
                ledger.promised.lock().unwrap().insert(subject);
                ledger.changed.notify_one();
            }
            Some((status, answer)) => ledger.refused.lock().unwrap().push(format!("{subject}: {status} {answer}")),
            None => return,
        }
    }
}

/// Status and body, if there is an answer.
async fn post(address: SocketAddr, key: &str, body: &Value) -> Option<(u16, String)> {
    let mut tcp = TcpStream::connect(address).await.ok()?;
    let body = body.to_string();
    let request = format!(
        "POST /v1/send HTTP/1.1\r\nHost: mx.mailkite.test\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_during_delivery_lose_nothing_that_was_promised_and_repeat_at_most_what_was_in_flight() {
    let mut remote = RemoteHost::start().await;
    let setup = PersistentServer::new(&remote).await;
    let ledger = Arc::new(Ledger::default());
    for cycle in 0..CYCLES {
        let served = setup.served().await;
        let address = served.http;
        let mut child = served.into_child();
        let load = |_| tokio::spawn(load(address, setup.key.clone(), Arc::clone(&ledger)));
        let clients: Vec<_> = (0..CLIENTS).map(load).collect();
        // A different moment each time.
        let wanted = ledger.count() + 5 + (cycle * 17) % 60;
        assert!(timeout(Duration::from_secs(60), ledger.until_promised(wanted)).await.is_ok(), "no progress");
        child.kill().await.unwrap();
        for client in clients {
            client.await.unwrap();
        }
    }
    let refused = ledger.refused.lock().unwrap().clone();
    assert!(refused.is_empty(), "{refused:?}");

    let mut last = setup.served().await.into_child();
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut missing = ledger.promised.lock().unwrap().clone();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{} of {} never arrived", missing.len(), ledger.count());
        let data = String::from_utf8(remote.next_mail().await.data()).unwrap();
        let subject = data.split("Subject: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        missing.remove(&subject);
        *taken.entry(subject).or_default() += 1;
    }
    settled(setup.folder.path(), deadline).await;
    last.kill().await.unwrap();
    while let Some(more) = remote.try_next_mail() {
        let data = String::from_utf8(more.data()).unwrap();
        *taken
            .entry(data.split("Subject: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned())
            .or_default() += 1;
    }
    let repeated: usize = taken.values().map(|count| count - 1).sum();
    assert!(repeated <= CYCLES * LANE_WIDTH, "{repeated} repeated over {CYCLES} kills");
    assert_sound(&setup.folder.path().join("data"));
    assert_audited(&setup.folder.path().join("data"));
    println!("{} messages promised over {CYCLES} kills, {repeated} delivered twice", ledger.count());
}

/// Waits until nothing is queued any more.
async fn settled(folder: &Path, deadline: Instant) {
    loop {
        let connection = open_database(&folder.join("data"));
        let queued: u64 = connection
            .query_row("SELECT count(*) FROM recipient WHERE status IN ('queued', 'deferred')", [], |row| row.get(0))
            .unwrap();
        if queued == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{queued} recipients are still queued");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
