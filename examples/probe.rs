use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
use std::time::{Duration, Instant};
use mailkite::{app, clock::Clock, config::Config, setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt, AsyncBufReadExt};
use tokio::net::{TcpListener, TcpStream};
async fn receiver() -> (u16, Arc<AtomicU64>) {
    let l = TcpListener::bind("127.0.0.1:0").await.unwrap(); let port = l.local_addr().unwrap().port();
    let n = Arc::new(AtomicU64::new(0)); let n2 = n.clone();
    tokio::spawn(async move { loop { let (mut s, _) = l.accept().await.unwrap(); s.set_nodelay(true).unwrap(); let n = n2.clone();
        tokio::spawn(async move { let mut buf = Vec::new(); loop {
            let head = loop { if let Some(p) = buf.windows(4).position(|w| w == b"\r\n\r\n") { break p }
                let mut t = [0u8; 16384]; match s.read(&mut t).await { Ok(0) | Err(_) => return, Ok(k) => buf.extend_from_slice(&t[..k]) } };
            let h = String::from_utf8_lossy(&buf[..head]).to_lowercase();
            let len: usize = h.lines().find_map(|l| l.strip_prefix("content-length: ").map(|v| v.trim().parse().unwrap())).unwrap();
            while buf.len() < head + 4 + len { let mut t = [0u8; 16384]; match s.read(&mut t).await { Ok(0) | Err(_) => return, Ok(k) => buf.extend_from_slice(&t[..k]) } }
            buf.drain(..head + 4 + len); n.fetch_add(1, Ordering::Relaxed);
            s.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }}); } });
    (port, n)
}
fn main() {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async {
        let args: Vec<String> = std::env::args().collect();
        let total: usize = args.get(1).map_or(20000, |a| a.parse().unwrap()); let sessions: usize = args.get(2).map_or(32, |a| a.parse().unwrap()); let per: usize = args.get(3).map_or(100, |a| a.parse().unwrap());
        let dir = std::path::PathBuf::from(format!("/work/probe-{}", std::process::id()));
        let config = Config::dev(dir.clone(), "127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
        let bound = app::bind(config, Clock::System).await.unwrap();
        let (port, got) = receiver().await;
        let secrets = bound.secrets().clone(); let now = bound.clock().now();
        bound.db().write(move |tx| { let (a, _) = setup::owner(tx, &secrets, "o@inbox.test", now)?; let d = setup::verified_domain(tx, a.id, "inbox.test", now)?; setup::domain_webhook(tx, &secrets, &d, &format!("http://127.0.0.1:{port}/hook"), now)?; Ok(()) }).await.unwrap();
        bound.db().directory_changed();
        let smtp = bound.smtp_addresses()[0]; let db = bound.db().clone();
        let stop = tokio_util::sync::CancellationToken::new();
        let server = tokio::spawn(bound.run(stop.clone()));
        let words = ["alpha","bravo","charlie","delta","echo","foxtrot","golf","hotel","india","juliet","kilo","lima","mike","november"];
        let body: String = (0..).scan(7u64, |s, _| { *s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); Some(words[(*s >> 33) as usize % words.len()].to_string() + &format!("{}", (*s >> 40) % 100)) }).take(480).collect::<Vec<_>>().chunks(8).map(|c| c.join(" ") + "\r\n").collect();
        let start = Instant::now(); let next = Arc::new(AtomicU64::new(0)); let mut tasks = vec![];
        for _ in 0..sessions { let next = next.clone(); let body = body.clone(); tasks.push(tokio::spawn(async move {
            let mut lats = vec![];
            'o: loop {
                let s = TcpStream::connect(smtp).await.unwrap(); s.set_nodelay(true).unwrap(); let (r, mut w) = s.into_split(); let mut r = tokio::io::BufReader::new(r); let mut line = String::new();
                r.read_line(&mut line).await.unwrap(); w.write_all(b"EHLO x.test\r\n").await.unwrap();
                loop { line.clear(); r.read_line(&mut line).await.unwrap(); if line.as_bytes()[3] == b' ' { break } }
                for _ in 0..per { let i = next.fetch_add(1, Ordering::Relaxed); if i >= total as u64 { break 'o }
                    let t = Instant::now();
                    w.write_all(format!("MAIL FROM:<a@b.test>\r\nRCPT TO:<u{i}@inbox.test>\r\nDATA\r\n").as_bytes()).await.unwrap();
                    for _ in 0..3 { line.clear(); r.read_line(&mut line).await.unwrap(); }
                    assert!(line.starts_with("354"), "{line}");
                    w.write_all(format!("From: A <a@b.test>\r\nTo: u{i}@inbox.test\r\nSubject: mail {i}\r\nMessage-ID: <{i}@b.test>\r\n\r\n{body}.\r\n").as_bytes()).await.unwrap();
                    line.clear(); r.read_line(&mut line).await.unwrap(); assert!(line.starts_with("250"), "{line}"); lats.push(t.elapsed().as_micros() as u32);
                }
                w.write_all(b"QUIT\r\n").await.unwrap();
            } lats })); }
        let mut lats = vec![]; for t in tasks { lats.extend(t.await.unwrap()); }
        let acc = start.elapsed(); lats.sort();
        while got.load(Ordering::Relaxed) < total as u64 && start.elapsed() < acc + Duration::from_secs(30) { tokio::time::sleep(Duration::from_millis(1)).await; }
        let all = start.elapsed();
        println!("accepted {:.0}/s delivered {:.0}/s tail {:?} got {} p50 {} p99 {} us; commits {:?}", total as f64 / acc.as_secs_f64(), got.load(Ordering::Relaxed) as f64 / all.as_secs_f64(), all - acc, got.load(Ordering::Relaxed), lats[lats.len()/2], lats[lats.len()*99/100], db.commits());
        println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
        stop.cancel(); server.await.unwrap().unwrap(); std::fs::remove_dir_all(dir).unwrap();
    });
}
