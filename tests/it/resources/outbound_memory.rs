//! Peak memory of the real binary for a sent mail of the largest size, from submission to the remote host.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tokio::time::timeout;

use crate::support::api::Api;
use crate::support::remote_host::{HostConfig, RemoteHost};
use crate::support::serve_process::ServeProcess;
use crate::support::smtp::SmtpClient;

const SIZE: usize = 25 * 1024 * 1024;
/// Three times the size of the mail.
const MOST: i64 = 75;
const HEAD: &str = "From: Acme <hi@inbox.test>\r\nTo: ada@remote.test\r\nSubject: Large\r\nMIME-Version: 1.0\r\n";

/// A server whose mail goes to `remote`.
struct MeasuredServer {
    served: ServeProcess,
    submission: std::net::SocketAddr,
    remote: RemoteHost,
    key: String,
    _folder: tempfile::TempDir,
}

impl MeasuredServer {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let remote =
            RemoteHost::with(HostConfig { extensions: vec!["PIPELINING", "8BITMIME"], ..HostConfig::default() })
                .await;
        let sections = format!(
            "[submission]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n\
             [outbound.smarthost]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n",
            remote.address.port()
        );
        let (served, owner) = ServeProcess::start_owned(folder.path(), &sections).await;
        let key = owner.credential.unwrap();
        Self { submission: served.submission, served, remote, key, _folder: folder }
    }

    async fn submission_session(&self) -> SmtpClient {
        let mut client = SmtpClient::connect_and_greet(self.submission).await.starttls().await;
        client.expect("EHLO client.test", 250).await;
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0any\0{}", self.key))), 235).await;
        client
    }

    async fn submit(&self, mail: &[u8]) {
        let reply = self.submission_session().await.mail("hi@inbox.test", &["ada@remote.test"], mail).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// The next message of the remote host, as it came.
    async fn next_data(&mut self) -> Vec<u8> {
        timeout(Duration::from_secs(60), self.remote.next_mail()).await.unwrap().wire
    }

    /// MiB, by the kernel's count.
    fn memory(&self, which: &str) -> i64 {
        i64::try_from(self.served.memory_kib(which)).unwrap() / 1024
    }
}

/// `SIZE` octets of this line below a header.
fn mail(fields: &str, line: &str, end: &str) -> Vec<u8> {
    let mut mail = format!("{HEAD}{fields}\r\n").into_bytes();
    mail.extend_from_slice(&line.as_bytes().repeat((SIZE - mail.len() - end.len()) / line.len()));
    mail.extend_from_slice(end.as_bytes());
    mail
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_the_largest_size_costs_at_most_three_times_its_size() {
    let mut setup = MeasuredServer::start().await;
    setup.submit(format!("{HEAD}\r\nA small one first.\r\n").as_bytes()).await;
    setup.next_data().await;
    let idle = setup.memory("VmRSS");
    let eight_bit = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let file = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/x\r\n\
        Content-Disposition: attachment; filename=a.bin\r\nContent-Transfer-Encoding: base64\r\n";
    for (kind, mail) in [
        ("8 bits", mail(eight_bit, &format!("{}\r\n", "é".repeat(38)), "")),
        ("7 bits", mail("", &format!("{}\r\n", "e".repeat(76)), "")),
        ("a file", mail(file, &format!("{}\r\n", "YWJj".repeat(19)), "--b--\r\n")),
    ] {
        setup.served.reset_peak_memory();
        setup.submit(&mail).await;
        assert!(setup.next_data().await.len() >= mail.len(), "{kind}");
        let peak = setup.memory("VmHWM");
        assert!(peak - idle <= MOST, "{kind}: {idle} MiB idle, {peak} MiB at most");
    }
    let content = BASE64.encode(vec![0; SIZE / 78 * 57]);
    let body = json!({
        "from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Large", "text": "See there.",
        "attachments": [{"filename": "a.bin", "content": content}],
    });
    setup.served.reset_peak_memory();
    Api::anonymous(setup.served.http).with(setup.key.clone()).post("/v1/send", body).await.expect(202);
    setup.next_data().await;
    let peak = setup.memory("VmHWM");
    assert!(peak - idle <= MOST, "sent: {idle} MiB idle, {peak} MiB at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_mails_that_come_at_once_take_turns() {
    const AT_ONCE: usize = 5;
    /// One accepted message, and the mail data of those in delivery meanwhile.
    const MOST_AT_ONCE: i64 = MOST + 96;
    let mut setup = MeasuredServer::start().await;
    let fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let mail = mail(fields, &format!("{}\r\n", "é".repeat(38)), "");
    let idle = setup.memory("VmRSS");
    futures_util::future::join_all((0..AT_ONCE).map(|_| setup.submit(&mail))).await;
    for _ in 0..AT_ONCE {
        setup.next_data().await;
    }
    let peak = setup.memory("VmHWM");
    assert!(peak - idle <= MOST_AT_ONCE, "{idle} MiB idle, {peak} MiB at most");
}
