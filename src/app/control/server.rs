//! The server's end of the control socket: few connections, one request at a time on each.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Operations;
use super::protocol::{MAX_BATCH, MAX_BATCH_OCTETS, MAX_LINE, MailHead, Reply, Request};
use crate::inbound::import::{ImportTarget, ImportedMail, MAX_MAIL};
use crate::process::control_socket::ControlSocket;

const MAX_CONNECTIONS: usize = 8;
/// Time for running requests to finish at a stop; a removal or an import goes on when it is run again.
const GRACE: Duration = Duration::from_secs(5);
/// A pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves commands until `stop`.
pub(crate) async fn serve(socket: ControlSocket, operations: Arc<Operations>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // One batch of mails is in memory at a time.
    let turn = Arc::new(Mutex::new(()));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (operations, turn, stop) = (Arc::clone(&operations), Arc::clone(&turn), stop.clone());
        connections.spawn(async move {
            if let Err(error) = converse(stream, &operations, &turn, &stop).await {
                tracing::debug!(%error, "a command on the host went away");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(socket);
    let ended = async { while connections.join_next().await.is_some() {} };
    drop(tokio::time::timeout(GRACE, ended).await);
}

async fn converse(
    stream: UnixStream,
    operations: &Operations,
    turn: &Mutex<()>,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut target = None;
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut stream).take(MAX_LINE);
        tokio::select! {
            read = bounded.read_until(b'\n', &mut line) => read?,
            () = stop.cancelled() => return Ok(()),
        };
        if line.is_empty() {
            return Ok(());
        }
        let Some(request) = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()) else {
            let sentence =
                "the running server does not know this command; restart it so that both are of one version";
            answer(&mut stream, &Reply::Refused(sentence.to_owned())).await?;
            // Mails may follow, and their octets are no requests.
            return Ok(());
        };
        let reply = match request {
            Request::Import { account, domain } => match operations.begin_import(&account, domain.as_deref()).await {
                Ok(found) => {
                    target = Some(found);
                    Reply::Importing
                }
                Err(refusal) => Reply::Refused(refusal),
            },
            Request::Mails(heads) => {
                let _turn = turn.lock().await;
                let mails = read_mails(&mut stream, heads).await?;
                store(operations, target.as_ref(), mails).await
            }
            request => operations.run(request).await,
        };
        answer(&mut stream, &reply).await?;
    }
}

async fn answer(stream: &mut BufReader<UnixStream>, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await
}

async fn store(operations: &Operations, target: Option<&ImportTarget>, mails: Vec<ImportedMail>) -> Reply {
    match target {
        Some(target) => operations.import(target, mails).await,
        None => Reply::Refused("no import was begun".to_owned()),
    }
}

async fn read_mails(stream: &mut BufReader<UnixStream>, heads: Vec<MailHead>) -> std::io::Result<Vec<ImportedMail>> {
    let octets = heads.iter().fold(0_usize, |sum, head| sum.saturating_add(head.octets));
    let most = if heads.len() == 1 { MAX_MAIL } else { MAX_BATCH_OCTETS };
    if heads.len() > MAX_BATCH || octets > most {
        return Err(std::io::Error::other("a batch is too large"));
    }
    let mut mails = Vec::with_capacity(heads.len());
    for head in heads {
        let mut data = vec![0; head.octets];
        stream.read_exact(&mut data).await?;
        mails.push(ImportedMail {
            received_at: head.received_at,
            mail_from: head.mail_from,
            recipient: head.recipient,
            data,
        });
    }
    Ok(mails)
}
