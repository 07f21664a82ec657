//! `mailkite dev`: everything on loopback, from nothing to a verified webhook in one command.
//!
//! Runs the same services as `serve`, with an account, a key, the domain `inbox.test` and a webhook receiver that
//! verifies both signatures. Prints what happens line by line, as prose or as JSON: `screen` formats it, `sample`
//! sends the first mail, `receiver` gets the webhooks.

mod receiver;
mod sample;
mod screen;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{logs, serve};
use crate::app::{self, Bound};
use crate::bootstrap;
use crate::clock::Clock;
use crate::config::{Config, Log, LogFormat};
use crate::net::egress::{Policy, Target};
use crate::process::sockets::Sockets;
use crate::store;
use receiver::Receiver;
use screen::Screen;

const DOMAIN: &str = "inbox.test";
const OWNER: &str = "owner@inbox.test";
/// Ports tried after one that is in use.
const PORTS_TRIED: u16 = 50;
/// A shutdown that takes longer is explained.
const SHORT_STOP: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Directory of mail, keys and the database
    #[arg(long, value_name = "DIR", default_value = "./mailkite-data")]
    data_dir: PathBuf,
    /// Address of the API; loopback only; if it is in use, the next free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Address that receives mail; loopback only; if it is in use, the next free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2525")]
    smtp: SocketAddr,
    /// Submission address for mail programs; loopback only; if it is in use, the next free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2587")]
    submission: SocketAddr,
    /// Your own app, which receives the webhooks instead of the built-in receiver
    #[arg(long, value_name = "URL")]
    forward: Option<String>,
    /// Do not send a first mail at the start
    #[arg(long)]
    no_sample: bool,
    /// Print JSON lines instead of prose: one when ready, then one for each event
    #[arg(long)]
    json: bool,
}

/// The facts that a program that starts us needs, in this order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    http: String,
    smtp: String,
    /// Programs set it themselves, with `--submission`.
    #[serde(skip)]
    submission: String,
    api_key: String,
    domain: &'static str,
    webhook_secret: String,
    /// The dashboard's address, which signs in whoever opens it first; for people at their terminal.
    #[serde(skip)]
    dashboard: String,
}

/// Runs until a signal.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let level = Log { level: "warn".to_owned(), format: LogFormat::Human };
    let _logs = logs::init(&level);
    let addresses = [("--http", options.http), ("--smtp", options.smtp), ("--submission", options.submission)];
    for (name, address) in addresses {
        if !address.ip().is_loopback() {
            bail!(
                "{name} {address} is not a loopback address; mailkite dev serves this machine alone (see \
                 mailkite serve)"
            );
        }
    }
    if let Some(url) = &options.forward {
        let policy = Policy { allow_localhost: true, allow_networks: Vec::new() };
        Target::parse(url, &policy).with_context(|| {
            format!("webhooks cannot be sent to {url}; use an https:// URL, or http:// on localhost or 127.0.0.1")
        })?;
    }
    super::serve_on_threads(start(options))
}

async fn start(options: &Options) -> anyhow::Result<()> {
    // Catch signals before anything is printed: who reads that it is ready may stop it at once.
    let stop = serve::stop_on_signal()?;
    let is_new = !options.data_dir.join(store::FILE_NAME).exists();
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("binding the built-in receiver")?;
    let built_in = format!("http://{}/hook", receiver.local_addr()?);
    let webhook = options.forward.clone().unwrap_or(built_in);
    let mut ports = free_ports([options.http, options.smtp, options.submission])?;
    let bound = loop {
        let [http, smtp, submission] = ports;
        let mut config = Config::dev(options.data_dir.clone(), http, smtp);
        config.submission.listen = vec![submission];
        match app::bind(config, Clock::System, &Sockets::default()).await {
            Ok(bound) => break bound,
            // If no port was taken meanwhile, the error has another cause.
            Err(error) => match free_ports(ports)? {
                same if same == ports => return Err(error.into()),
                others => ports = others,
            },
        }
    };
    let [http, smtp, submission] = ports;
    let ready = seed(&bound, &webhook).await.context("preparing the first account")?;
    let mut screen = Screen::new(options.json);
    screen.ready(&ready, options, is_new);
    let ports = [
        (options.http, http, "the API uses"),
        (options.smtp, smtp, "SMTP uses"),
        (options.submission, submission, "submission uses"),
    ];
    for (wanted, taken, what) in ports {
        if wanted != taken && wanted.port() != 0 {
            screen.note(&format!("port {} is in use; {what} {} instead", wanted.port(), taken.port()));
        }
    }
    let receiver = Receiver::start(receiver, ready.webhook_secret.clone());
    let mut activity = bound.publisher().listen();
    let mut serving = tokio::spawn(bound.run(stop.clone()));
    let reporting = async {
        if !options.no_sample && !options.json {
            sample::show(smtp, &mut activity, &receiver, &mut screen).await;
        } else if !options.no_sample
            && let Err(error) = sample::send(smtp).await
        {
            tracing::warn!("the first mail was not sent: {error:#}");
        }
        screen.next_steps(&ready);
        loop {
            match activity.recv().await {
                Ok(event) => screen.activity(&event),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => screen.missed(missed),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    };
    tokio::select! {
        () = reporting => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
    let served = match tokio::time::timeout(SHORT_STOP, &mut serving).await {
        Ok(served) => served,
        Err(_) => {
            screen.note(
                "waiting for running work to finish; press Ctrl-C again to quit at once, nothing stored is lost",
            );
            serving.await
        }
    };
    served.context("the server task ended")??;
    screen.stopped();
    Ok(())
}

async fn seed(bound: &Bound, webhook: &str) -> anyhow::Result<Ready> {
    let (secrets, now, url) = (bound.secrets().clone(), bound.clock().now(), webhook.to_owned());
    // After the first start there is nothing to write, and a full disk must not prevent the next.
    let seeded = bound.db().write_removal(move |tx| {
        let (account, api_key) = bootstrap::owner(tx, &secrets, OWNER, now)?;
        let domain = bootstrap::verified_domain(tx, account.id, DOMAIN, now)?;
        let (_, secret) = bootstrap::domain_webhook(tx, &secrets, &domain, &url, now)?;
        Ok((account, api_key, secret))
    });
    let (account, api_key, webhook_secret) = seeded.await?;
    let smtp = bound.smtp_addresses().first().context("no SMTP address")?.to_string();
    let [submission, _] = bound.submission_addresses();
    let submission = submission.first().context("no submission address")?.to_string();
    let http = bound.config().public_url.clone();
    // In the fragment, which browsers do not send.
    let dashboard = format!("{http}/#/ticket/{}", bound.accounts().tickets.issue(account));
    Ok(Ready { http, smtp, submission, api_key, domain: DOMAIN, webhook_secret, dashboard })
}

/// Returns the addresses, each with the next free port; no two are the same.
fn free_ports([http, smtp, submission]: [SocketAddr; 3]) -> anyhow::Result<[SocketAddr; 3]> {
    let (http, smtp, submission) = (free_port(http)?, free_port(smtp)?, free_port(submission)?);
    Ok([http.local_addr()?, smtp.local_addr()?, submission.local_addr()?])
}

/// Listens on the address, or on its next free port.
fn free_port(wanted: SocketAddr) -> anyhow::Result<TcpListener> {
    for step in 0..=PORTS_TRIED {
        let Some(port) = wanted.port().checked_add(step) else { break };
        match TcpListener::bind((wanted.ip(), port)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("binding {wanted}")),
        }
    }
    bail!("no free port from {} on", wanted.port())
}
