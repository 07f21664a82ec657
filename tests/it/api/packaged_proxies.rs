//! The configurations of packaging/proxy, as they are but for names, addresses and the certificate: each is one that
//! its server accepts, and everything works through it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use mailkite::testing::clock::Clock;
use mailkite::testing::config::{Config, Signup};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::machine::program;
use crate::support::server::{DEADLINE, Server};
use crate::support::smtp::SmtpClient;

const HOST: &str = "mail.mailkite.test";
const PASSWORD: &str = "correct horse battery";

/// The parts of a configuration that an operator edits.
struct Edits {
    folder: PathBuf,
    plain: SocketAddr,
    tls: SocketAddr,
    smtp: SocketAddr,
}

/// A running proxy in front of a server.
struct Proxied {
    server: Server,
    edits: Edits,
    child: Child,
    folder: tempfile::TempDir,
}

/// An answer that curl read.
struct Answer {
    status: u16,
    version: String,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn packaged(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/proxy").join(name)).unwrap()
}

/// Replaces text that has to be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the file");
    text.replace(from, to)
}

fn without_lines(text: &str, with: &str) -> String {
    let rest = text.lines().filter(|line| !line.contains(with)).collect::<Vec<_>>().join("\n") + "\n";
    assert_ne!(rest, text, "{with:?} is not in the file");
    rest
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    output
}

impl Proxied {
    /// Starts a server, writes the edited configuration, has the proxy check it, and starts the proxy.
    async fn start(
        adjust: impl FnOnce(&mut Config),
        configure: impl FnOnce(&Server, &Edits) -> (Command, Command),
    ) -> Self {
        let server = Server::start_with(Clock::System, |config| {
            config.auth.signup = Signup::Open;
            config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
            adjust(config);
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(folder.path().join("cert.pem"), &cert).unwrap();
        std::fs::write(folder.path().join("key.pem"), &key).unwrap();
        std::fs::write(folder.path().join("both.pem"), cert + &key).unwrap();
        let edits = Edits {
            folder: folder.path().to_owned(),
            plain: free_address(),
            tls: free_address(),
            smtp: free_address(),
        };
        let (mut check, mut start) = configure(&server, &edits);
        run(&mut check);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        start.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = tokio::process::Command::from(start).kill_on_drop(true).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(edits.tls).is_err() {
            let said = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none() && started.elapsed() < DEADLINE, "{}", said());
            tokio::task::yield_now().await;
        }
        Self { server, edits, child, folder }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.edits.tls.port())
    }

    fn curl(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("curl");
        let resolve = |port: u16| format!("{HOST}:{port}:127.0.0.1");
        command
            .args(["-sS", "--max-time", "120", "--cacert"])
            .arg(self.folder.path().join("cert.pem"))
            .args(["--resolve", &resolve(self.edits.tls.port()), "--resolve", &resolve(self.edits.plain.port())])
            .args(arguments)
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        command
    }

    /// An exchange with curl; what it cannot read has the status 0.
    async fn ask(&self, url: &str, arguments: &[&str]) -> Answer {
        let head = self.folder.path().join("head");
        let arguments =
            [&["-D", head.to_str().unwrap(), "-w", "\n%{http_version} %{http_code}", url], arguments].concat();
        let mut body = self.curl(&arguments).output().await.unwrap().stdout;
        let last = body.iter().rposition(|byte| *byte == b'\n').unwrap();
        let line = String::from_utf8(body.split_off(last)).unwrap();
        let (version, status) = line.trim().split_once(' ').unwrap();
        Answer {
            status: status.parse().unwrap(),
            version: version.to_owned(),
            head: std::fs::read_to_string(&head).unwrap_or_default().to_lowercase(),
            body,
        }
    }

    async fn post(&self, path: &str, body: &Value, arguments: &[&str]) -> Answer {
        let body = body.to_string();
        self.ask(&self.url(path), &[&["-d", body.as_str()], arguments].concat()).await
    }

    async fn stop(mut self) {
        self.child.kill().await.unwrap();
        self.server.stop_with_any_jobs().await;
    }
}

/// Exercises everything that a proxy may break.
async fn everything_works(proxied: &Proxied) {
    it_speaks_https_to_its_own_name_alone(proxied).await;
    clients_have_their_own_addresses(proxied).await;
    files_go_up_and_down(proxied).await;
    events_come_as_they_happen(proxied).await;
}

async fn it_speaks_https_to_its_own_name_alone(proxied: &Proxied) {
    let health = proxied.ask(&proxied.url("/api/health"), &[]).await;
    assert_eq!((health.status, health.version.as_str()), (200, "2"), "{}", health.head);
    assert!(health.head.contains("strict-transport-security: max-age=31536000"), "{}", health.head);
    let old = proxied.ask(&proxied.url("/api/health"), &["--http1.1"]).await;
    assert_eq!((old.status, old.version.as_str()), (200, "1.1"));
    let plain = format!("http://{HOST}:{}/api/health?a=%2Fb", proxied.edits.plain.port());
    let plain = proxied.ask(&plain, &[]).await;
    assert!(matches!(plain.status, 301 | 308), "{}", plain.status);
    assert!(plain.head.contains(&format!("location: https://{HOST}")), "{}", plain.head);
    assert!(plain.head.contains("/api/health?a=%2fb"), "{}", plain.head);
    for version in ["--http1.1", "--http2"] {
        let foreign = proxied.ask(&proxied.url("/api/health"), &[version, "-H", "Host: evil.example"]).await;
        assert_eq!(foreign.status, 421, "{version}: {}", foreign.head);
    }
    let page = proxied.ask(&proxied.url("/v1/me"), &["-H", "Origin: https://app.example"]).await;
    assert_eq!((page.status, &page.json()["code"]), (401, &json!("unauthorized")), "{}", page.head);
    assert!(page.head.contains("access-control-allow-origin: *"), "{}", page.head);
    let encoded = proxied.ask(&proxied.url("/api/auth%2Fsignup"), &[]).await;
    assert_eq!((encoded.status, &encoded.json()["code"]), (404, &json!("not_found")));
}

async fn clients_have_their_own_addresses(proxied: &Proxied) {
    let login = |password: &str| json!({"email": "ada@acme.test", "password": password});
    proxied.post("/api/auth/signup", &login(PASSWORD), &["--interface", "127.0.0.9"]).await;
    for (guess, wanted) in [401, 401, 401, 401, 401, 429].into_iter().enumerate() {
        let forged = [format!("203.0.113.{guess}"), format!("for=203.0.113.{guess}")];
        let (list, real) = (format!("X-Forwarded-For: {}", forged[0]), format!("X-Real-IP: {}", forged[0]));
        let forwarded = format!("Forwarded: {}", forged[1]);
        let headers = ["-H", &list, "-H", &real, "-H", &forwarded, "-H", "X-Forwarded-Proto: http"];
        let arguments = [&["--interface", "127.0.0.66"][..], &headers].concat();
        let answer = proxied.post("/api/auth/login", &login("a wrong password"), &arguments).await;
        assert_eq!(answer.status, wanted, "guess {guess}: {}", answer.json());
    }
    let signed_in = proxied.post("/api/auth/login", &login(PASSWORD), &["--interface", "127.0.0.9"]).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.json());
    let bearer = format!("Authorization: Bearer {}", signed_in.json()["token"].as_str().unwrap());
    let sessions = proxied.ask(&proxied.url("/api/auth/sessions"), &["-H", &bearer]).await.json();
    assert_eq!(sessions["sessions"][0]["ip"], "127.0.0.9", "{sessions}");
}

async fn files_go_up_and_down(proxied: &Proxied) {
    let bearer = format!("Authorization: Bearer {}", proxied.server.api_key().await);
    let mail = json!({"from": "a@inbox.test", "to": "b@example.com", "subject": "Hi", "text": "It branches."});
    let sent = proxied.post("/v1/send", &mail, &["-H", &bearer]).await;
    assert_eq!(sent.status, 202, "{}", sent.json());

    let file: Vec<u8> = (0..20_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let path = proxied.folder.path().join("file");
    std::fs::write(&path, &file).unwrap();
    let from = format!("@{}", path.display());
    let raw = ["-H", &bearer, "-H", "Content-Type: application/octet-stream", "--data-binary", &from];
    let uploaded = proxied.ask(&proxied.url("/v1/attachments?filename=a%2Fb%20c.bin"), &raw).await;
    assert_eq!((uploaded.status, &uploaded.json()["size"]), (201, &json!(20_000_000)), "{}", uploaded.json());
    let link = uploaded.json()["url"].as_str().unwrap().to_owned();
    let link = proxied.url(link.strip_prefix(&format!("https://{HOST}")).unwrap());
    let whole = proxied.ask(&link, &[]).await;
    assert!(whole.status == 200 && whole.body == file, "{} of {}", whole.body.len(), file.len());
    let part = proxied.ask(&link, &["-r", "1000-1999"]).await;
    assert_eq!((part.status, &part.body[..]), (206, &file[1000..2000]));
    assert!(part.head.contains("content-range: bytes 1000-1999/20000000"), "{}", part.head);
    let changed = proxied.ask(&link.replace("sig=", "sig=0"), &[]).await;
    assert_eq!((changed.status, &changed.json()["code"]), (403, &json!("bad_signature")));

    std::fs::write(&path, vec![b' '; 36_700_161]).unwrap();
    let large = ["-H", &bearer, "-H", "Expect:", "--data-binary", &from];
    let refused = proxied.ask(&proxied.url("/v1/send"), &large).await;
    assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("body_too_large")), "{}", refused.head);
}

async fn events_come_as_they_happen(proxied: &Proxied) {
    let bearer = format!("Authorization: Bearer {}", proxied.server.api_key().await);
    let url = proxied.url("/v1/realtime");
    let mut curl = proxied.curl(&["-N", "-H", &bearer, &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let first = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(first.as_deref(), Some("retry: 3000"));
    for subject in ["one", "two"] {
        proxied.server.accepted("a@inbox.test", subject).await;
        let event = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the stream ended");
                if let Some(data) = line.strip_prefix("data: ") {
                    break serde_json::from_str::<Value>(data).unwrap();
                }
            }
        };
        // The stream stays open: whatever waits for its end would not bring the event.
        let event = timeout(DEADLINE, event).await.unwrap();
        assert_eq!((&event["type"], &event["subject"]), (&json!("email.received"), &json!(subject)));
    }
    curl.kill().await.unwrap();
}

fn nginx(nginx: &Path, server: &Server, edits: &Edits) -> (Command, Command) {
    let mut site = without_lines(&packaged("nginx.conf"), "listen [::]");
    for (from, to) in [
        ("mail.example.com/fullchain.pem", "cert.pem"),
        ("mail.example.com/privkey.pem", "key.pem"),
        ("/etc/letsencrypt/live", edits.folder.to_str().unwrap()),
        ("mail.example.com", HOST),
        ("listen 80", &format!("listen {}", edits.plain)),
        ("listen 443", &format!("listen {}", edits.tls)),
        ("127.0.0.1:8080", &server.http.to_string()),
    ] {
        site = replaced(&site, from, to);
    }
    let folder = edits.folder.display();
    std::fs::write(edits.folder.join("site.conf"), site).unwrap();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .join(" ");
    let main = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr warn; events {{}} http {{ access_log off; \
         {temporary} include {folder}/site.conf; }}"
    );
    std::fs::write(edits.folder.join("nginx.conf"), main).unwrap();
    let command = |more: &[&str]| {
        let mut command = Command::new(nginx);
        command.args(more).args(["-e", "stderr", "-c"]).arg(edits.folder.join("nginx.conf"));
        command
    };
    (command(&["-t"]), command(&[]))
}

fn caddy(caddy: &Path, server: &Server, edits: &Edits) -> (Command, Command) {
    let mut file = packaged("Caddyfile");
    let ports = format!(
        "admin off\n\thttp_port {}\n\thttps_port {}\n\tdefault_bind 127.0.0.1\n\tskip_install_trust",
        edits.plain.port(),
        edits.tls.port()
    );
    let certificate = format!("tls {0}/cert.pem {0}/key.pem", edits.folder.display());
    for (from, to) in [
        ("# tls /etc/ssl/mail.example.com.pem /etc/ssl/private/mail.example.com.key", certificate.as_str()),
        ("mail.example.com", HOST),
        ("email postmaster@example.com", &ports),
        ("127.0.0.1:8080", &server.http.to_string()),
    ] {
        file = replaced(&file, from, to);
    }
    let path = edits.folder.join("Caddyfile");
    std::fs::write(&path, file).unwrap();
    let command = |word: &str| {
        let mut command = Command::new(caddy);
        command.args([word, "--adapter", "caddyfile", "--config"]).arg(&path);
        command.env("HOME", &edits.folder).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        command
    };
    (command("validate"), command("run"))
}

fn haproxy(haproxy: &Path, server: &Server, edits: &Edits) -> (Command, Command) {
    let (web, mail) =
        packaged("haproxy.cfg").split_once("#frontend smtp\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let mail: String = mail.lines().map(|line| line.strip_prefix('#').unwrap().to_owned() + "\n").collect();
    let mut file = without_lines(&format!("{web}frontend smtp\n{mail}"), "bind [::]");
    for (from, to) in [
        ("/etc/haproxy/mailkite.pem", edits.folder.join("both.pem").to_str().unwrap()),
        ("mail.example.com", HOST),
        ("bind :80", &format!("bind {}", edits.plain)),
        ("bind :443", &format!("bind {}", edits.tls)),
        ("bind :25", &format!("bind {}", edits.smtp)),
        ("bind :587", &format!("bind {}", free_address())),
        ("bind :465", &format!("bind {}", free_address())),
        ("127.0.0.1:8080", &server.http.to_string()),
        ("127.0.0.1:2525 send", &format!("{} send", server.smtp)),
    ] {
        file = replaced(&file, from, to);
    }
    let path = edits.folder.join("haproxy.cfg");
    std::fs::write(&path, file).unwrap();
    let command = |more: &[&str]| {
        let mut command = Command::new(haproxy);
        command.args(more).arg("-f").arg(&path);
        command
    };
    (command(&["-c"]), command(&["-db"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_behind_nginx() {
    let Some(program) = program("nginx") else { return };
    let proxied = Proxied::start(|_| {}, |server, edits| nginx(&program, server, edits)).await;
    everything_works(&proxied).await;
    proxied.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_behind_caddy() {
    let Some(program) = program("caddy") else { return };
    let proxied = Proxied::start(|_| {}, |server, edits| caddy(&program, server, edits)).await;
    everything_works(&proxied).await;
    proxied.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_behind_haproxy() {
    let Some(program) = program("haproxy") else { return };
    let proxied = Proxied::start(|_| {}, |server, edits| haproxy(&program, server, edits)).await;
    everything_works(&proxied).await;
    proxied.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_mail_comes_from_its_senders() {
    let Some(program) = program("haproxy") else { return };
    let proxies = |config: &mut Config| config.smtp.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    let proxied = Proxied::start(proxies, |server, edits| haproxy(&program, server, edits)).await;
    let mut client = SmtpClient::open_from("127.0.0.66", proxied.edits.smtp).await;
    assert_eq!(client.reply().await.code, 220);
    client.expect("EHLO client.example", 250).await;
    let message = "From: ada@example.com\r\nSubject: Hi\r\n\r\nDoes it branch?\r\n";
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message).await.code, 250);
    let trace: String = proxied.server.query("SELECT CAST(trace AS TEXT) FROM message").await;
    assert!(trace.contains("[127.0.0.66]"), "{trace}");
    proxied.stop().await;
}
