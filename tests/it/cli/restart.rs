//! Restarts under systemd: nobody is refused, nothing is lost, and a hanging webhook keeps no listener closed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::audit::assert_ledger;
use crate::support::database::open_database;
use crate::support::receiver::{Receiver, Reply};
use crate::support::serve_process::{ServeProcess, configure};
use crate::support::server::message;
use crate::support::service_manager::ServiceManager;
use crate::support::smtp::SmtpClient;
use crate::support::wait::until;

const DEADLINE: Duration = Duration::from_secs(60);

/// Configures a folder to receive mail and serve HTTP at these addresses.
fn configured(folder: &Path, smtp: SocketAddr, http: SocketAddr) -> std::path::PathBuf {
    let sections = format!(
        "[http]\nmax_connections_per_address = 1000\nlisten = [\"{http}\"]\n[webhook]\nallow_localhost = true\n"
    );
    let path = configure(folder, &sections);
    let any = "[smtp]\nlisten = [\"127.0.0.1:0\"]";
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(any));
    std::fs::write(
        &path,
        text.replace(any, &format!("[smtp]\nmax_sessions_per_address = 1000\nlisten = [\"{smtp}\"]")),
    )
    .unwrap();
    path
}

/// A data directory with an owner, and a route of inbox.test to `url`.
async fn seeded(folder: &Path, url: &str) {
    let (served, owner) = ServeProcess::start_owned(folder, "[webhook]\nallow_localhost = true\n").await;
    let route = json!({"match": "*@inbox.test", "action": "webhook", "destination": url});
    owner.post("/api/routes", route).await.expect(201);
    stop(served.into_child()).await;
}

async fn stop(mut child: Child) {
    ServiceManager::begin_stop(&child);
    let ended = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}

/// One mail over a connection of its own; the reply to its data.
async fn hand_over(address: SocketAddr, subject: &str) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
    let mut client = SmtpClient::over(stream);
    let failed = |error: std::io::Error| format!("{subject}: {error}");
    for (line, wanted) in [("", 220), ("EHLO client.test\r\n", 250)] {
        client.try_send(line.as_bytes()).await.map_err(failed)?;
        let reply = client.try_reply().await.map_err(failed)?;
        if reply.code != wanted {
            return Err(format!("{subject}: {reply:?}"));
        }
    }
    let reply = client.try_mail("ada@example.com", "load@inbox.test", message(subject).as_bytes()).await;
    let reply = reply.map_err(failed)?;
    if reply.code == 250 { Ok(reply.text()) } else { Err(format!("{subject}: {reply:?}")) }
}

/// One request over a connection of its own.
async fn health(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(answer)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_connections_a_second_through_ten_restarts_none_is_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // Every tenth webhook hangs.
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::SeqCst) % 10 {
        3 => Reply::hang(),
        _ => Reply::status(200),
    })
    .await;
    seeded(folder.path(), &receiver.url()).await;
    let mut systemd = ServiceManager::new(folder.path());
    let (smtp, http) = (systemd.open("mailkite.socket"), systemd.open("mailkite-https.socket"));
    let config = configured(folder.path(), smtp, http);
    let mut child = systemd.start(&config, &log);
    systemd.wait_for("READY=1").await;

    let (replies, failures) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let (clients, done) = (Arc::new(Semaphore::new(400)), Arc::new(tokio::sync::Notify::new()));
    let load = tokio::spawn({
        let (replies, failures, clients, done) = (replies.clone(), failures.clone(), clients.clone(), done.clone());
        async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            for number in 0_usize.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = done.notified() => return,
                }
                let client = Arc::clone(&clients).acquire_owned().await.unwrap();
                let (replies, failures) = (replies.clone(), failures.clone());
                tokio::spawn(async move {
                    let ended = if number % 8 == 7 {
                        health(http).await.map(|()| None).map_err(|error| format!("GET {number}: {error}"))
                    } else {
                        hand_over(smtp, &format!("load-{number}")).await.map(Some)
                    };
                    match ended {
                        Ok(reply) => replies.lock().unwrap().extend(reply),
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                    drop(client);
                });
            }
        }
    });
    for _ in 0..10 {
        let before = replies.lock().unwrap().len();
        until(async || replies.lock().unwrap().len() > before + 40).await;
        stop(child).await;
        child = systemd.start(&config, &log);
        systemd.wait_for("READY=1").await;
    }
    done.notify_one();
    load.await.unwrap();
    drop(timeout(DEADLINE, clients.acquire_many(400)).await.unwrap().unwrap());
    let failures = failures.lock().unwrap().clone();
    assert!(failures.is_empty(), "{} of the connections failed, as {:?}", failures.len(), failures.first());
    let replies = replies.lock().unwrap().clone();
    assert!(replies.len() > 400, "{}", replies.len());
    assert_ledger(&folder.path().join("data"), &replies.join("\n"));
    stop(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_hanging_webhook_is_waited_for_mail_is_accepted_and_its_lease_ends() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut receiver = Receiver::start(|_| Reply::hang()).await;
    seeded(folder.path(), &receiver.url()).await;
    let mut systemd = ServiceManager::new(folder.path());
    let (smtp, http) = (systemd.open("mailkite.socket"), systemd.open("mailkite-https.socket"));
    let config = configured(folder.path(), smtp, http);
    let mut child = systemd.start(&config, &log);
    systemd.wait_for("READY=1").await;
    hand_over(smtp, "hangs").await.unwrap();
    let first = receiver.next_request().await;
    ServiceManager::begin_stop(&child);
    systemd.wait_for("STOPPING=1").await;
    hand_over(smtp, "late").await.unwrap();
    assert!(timeout(DEADLINE, child.wait()).await.unwrap().unwrap().success());
    let database = open_database(&folder.path().join("data"));
    let jobs = |condition: &str| -> i64 {
        database.query_row(&format!("SELECT count(*) FROM job WHERE {condition}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((jobs("lease_until IS NULL AND failures = 0"), jobs("lease_until IS NOT NULL")), (2, 0));
    drop(database);
    let child = systemd.start(&config, &log);
    systemd.wait_for("READY=1").await;
    let again = [receiver.next_request().await, receiver.next_request().await].map(|request| request.json());
    assert!(again.iter().any(|event| event["id"] == first.json()["id"]), "{again:?}");
    stop(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_keeps_the_sockets_of_the_configuration_and_is_told_how_the_server_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    seeded(folder.path(), &receiver.url()).await;
    let mut systemd = ServiceManager::new(folder.path());
    // Ports that nobody has now.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (smtp, http, other) = (free(), free(), free());
    let config = configured(folder.path(), smtp, http);
    let child = systemd.start(&config, &log);
    systemd.wait_for("READY=1").await;
    systemd.wait_for("WATCHDOG=1").await;
    let kept = |address: SocketAddr| format!("mailkite-tcp-{}", address.to_string().replace(':', "_"));
    let names = |systemd: &ServiceManager| systemd.sockets.keys().cloned().collect::<Vec<_>>();
    let mut wanted = vec![kept(smtp), kept(http)];
    wanted.sort();
    assert_eq!(names(&systemd), wanted);
    stop(child).await;
    systemd.wait_for("STOPPING=1").await;
    // Between two processes a connection waits.
    let waiting = tokio::spawn(async move { hand_over(smtp, "waits").await });
    let child = systemd.start(&config, &log);
    systemd.wait_for("READY=1").await;
    timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    stop(child).await;
    // A socket of an earlier configuration is given back; one of a unit that nothing serves is complained about.
    let orphan = systemd.open("mailkite.socket");
    let config = configured(folder.path(), smtp, other);
    let child = systemd.start(&config, &log);
    systemd.wait_for("FDSTOREREMOVE=1").await;
    systemd.wait_for("READY=1").await;
    let mut wanted = vec![kept(smtp), kept(other), "mailkite.socket".to_owned()];
    wanted.sort();
    assert_eq!(names(&systemd), wanted);
    stop(child).await;
    let said = std::fs::read_to_string(&log).unwrap();
    let warned = said.lines().filter(|line| line.contains("no listen setting names")).collect::<Vec<_>>();
    assert!(warned.len() == 1 && warned[0].contains(&orphan.to_string()), "{warned:?}");
}
