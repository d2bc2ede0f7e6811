//! `socp bench file`: a file from a user of one server to a user of another, beside messages of others, and the same bytes over
//! plain TLS.
//!
//! The copy that it is compared with goes through two bare processes: from here to the first, to the second, and back here to the
//! disk, as the file goes through two servers to its recipient. The processes keep nothing, where servers keep all of the file
//! until its recipient has it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustls::{ServerConnection, StreamOwned};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    cli::File,
    clock,
    folder::Folder,
    machine::{Share, Used},
    progress::Teller,
    report::{Line, Report, grouped},
    stand_in::{self, FEED, Hops, Identity},
    tally, tell,
    users::{self, User},
};
use crate::{
    download::{self, Sink},
    failure::Failure,
    file::Manifest,
    sending::blocking,
    transfer::Progress,
    upload::{self, Source},
};

/// Bytes that are read and written at once.
const BLOCK: usize = 64 * 1024;

/// How often it is told how far the file is.
const LOOKED: Duration = Duration::from_millis(100);

/// Runs it.
pub async fn run(options: &File) -> Result<Report, Failure> {
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let (homes, others) = options.servers.roles(&places)?;
    let (home, other) = (homes[0], others[0]);
    let key = users::key(&users::cache_folder()?).await?;
    let sender = users::log_in(home, home.connect().await?, "bench-file-sender", &key).await?;
    let recipient = users::log_in(other, other.connect().await?, "bench-file-recipient", &key).await?;
    let folder = Folder::make(options.folder.as_deref())?;
    teller.tell(|| format!("making a file of {} MiB", options.mib));
    let (path, bytes) = (folder.file("sent"), options.bytes());
    let source = blocking(move || make(&path, bytes)).await?;

    let messages = options.messages();
    let alone = tell::prepare(&messages).await?.run().await?;
    let beside = tell::prepare(&messages).await?;
    let used = Used::now(&options.servers.pids);
    let began = Instant::now();
    let (sent, beside) = tokio::join!(send(sender, recipient, source, folder.file("received"), &teller), beside.run());
    let seconds = sent?.duration_since(began).as_secs_f64();
    let share = used.until(Used::now(&options.servers.pids));
    let beside = beside?;
    let mut file = line("file", options, seconds, share);
    for (name, report) in [("alone", &alone), ("beside", &beside)] {
        for Line { name: what, times, missed, repeated, .. } in &report.lines {
            let p99_ms = (clock::ms(times.value_at_percentile(99.0)) * 100.0).round() / 100.0;
            file.more.insert(format!("messages_{what}_{name}_p99_ms"), json!(p99_ms));
            file.missed += missed;
            file.repeated += repeated;
        }
    }

    teller.tell(|| "copying it over plain TLS".to_owned());
    let (from, to) = (folder.file("sent"), folder.file("copied"));
    let (seconds, share) = blocking(move || copy(&from, &to, bytes)).await?;
    teller.done();
    Ok(Report {
        workload: "file",
        title: format!(
            "a user at {} sends a file of {} MiB to one at {}, beside {} messages a second",
            home.name,
            grouped(options.mib as u64),
            other.name,
            options.rate
        ),
        unit: "MiB",
        times: "from the first byte read to the last one on the recipient's disk",
        lines: vec![file, line("plain copy", options, seconds, share)],
        compares: true,
    })
}

fn line(name: &str, options: &File, seconds: f64, share: Share) -> Line {
    Line {
        name: name.into(),
        count: options.mib as u64,
        per_second: options.mib as f64 / seconds.max(1e-3),
        times: tally::histogram(),
        missed: 0,
        repeated: 0,
        share,
        more: serde_json::Map::from_iter([("seconds".to_owned(), json!((seconds * 1e3).round() / 1e3))]),
    }
}

/// Brings a file to the home of its sender; gives what its recipient needs.
pub(super) async fn upload(
    sender: &User,
    recipient: &User,
    source: Source,
    progress: &Progress,
) -> Result<Manifest, Failure> {
    let (source, result) = upload::attempt(&sender.session, &recipient.address, source, progress).await;
    result?;
    Ok(source.manifest(sender.address.home))
}

/// Fetches a file to a new one on this disk, checked and synced.
pub(super) async fn download(
    recipient: &User,
    manifest: Manifest,
    path: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    let disk = fs::File::create_new(path).map_err(|error| Failure::file("write", path, &error))?;
    let sink = Sink::new(disk, &manifest).ok_or_else(|| Failure::failed("the file is too large"))?;
    let (sink, result) = download::attempt(&recipient.session, &manifest, sink, progress).await;
    result?;
    blocking(move || sink.finish(&manifest)).await
}

/// Makes a file in which no two blocks are alike.
pub(super) fn make(path: &Path, bytes: u64) -> Result<Source, Failure> {
    let failed = |error| Failure::file("write", path, &error);
    let mut file = fs::File::create_new(path).map_err(failed)?;
    let mut block = vec![0x5a; BLOCK];
    for start in (0..bytes).step_by(BLOCK) {
        block[..8].copy_from_slice(&start.to_be_bytes());
        let length = usize::try_from(bytes - start).map_or(BLOCK, |rest| rest.min(BLOCK));
        file.write_all(&block[..length]).map_err(failed)?;
    }
    // Nothing of this is to be written while something is measured.
    file.sync_all().map_err(failed)?;
    Source::open(path)
}

/// Sends a file, then receives it; tells when it was on disk. What a person is told of a file comes between, by a message.
async fn send(
    sender: User,
    recipient: User,
    source: Source,
    path: PathBuf,
    teller: &Teller,
) -> Result<Instant, Failure> {
    let (up, down) = (Progress::default(), Progress::default());
    let told = async {
        loop {
            teller
                .tell(|| format!("{} MiB are at the sender's home, {} received", up.bytes() >> 20, down.bytes() >> 20));
            sleep(LOOKED).await;
        }
    };
    let moved = async {
        let manifest = upload(&sender, &recipient, source, &up).await?;
        download(&recipient, manifest, &path, &down).await?;
        Ok(Instant::now())
    };
    tokio::select! {
        moved = moved => moved,
        () = told => unreachable!("it has no end"),
    }
}

/// Copies a file over TLS through two processes; gives seconds, and who kept the machine busy.
fn copy(from: &Path, to: &Path, bytes: u64) -> Result<(f64, Share), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("the plain copy breaks: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| failed(&error))?;
    let end = listener.local_addr().map_err(|error| failed(&error))?;
    let disk = fs::File::create_new(to).map_err(|error| Failure::file("write", to, &error))?;
    let tls = Identity::make()?.tls(&[FEED])?;
    let receiving = thread::spawn(move || -> Result<Instant, Failure> {
        let mut disk = disk;
        let (socket, _) = listener.accept().map_err(|error| failed(&error))?;
        let tls = ServerConnection::new(tls).map_err(|error| failed(&error))?;
        let copied = std::io::copy(&mut StreamOwned::new(tls, socket).take(bytes), &mut disk);
        let copied = copied.and_then(|copied| disk.sync_all().map(|()| copied)).map_err(|error| failed(&error))?;
        if copied == bytes { Ok(Instant::now()) } else { Err(failed(&"it ends early")) }
    });
    let hops = Hops::start(end)?;
    let used = Used::now(&hops.ids());
    let began = Instant::now();
    let mut next = stand_in::feed(hops.feed.address).map_err(|error| failed(&error))?;
    let mut disk = fs::File::open(from).map_err(|error| Failure::file("read", from, &error))?;
    let mut block = vec![0; BLOCK];
    loop {
        let length = disk.read(&mut block).map_err(|error| failed(&error))?;
        if length == 0 {
            break;
        }
        next.write_all(&block[..length]).map_err(|error| failed(&error))?;
    }
    next.flush().map_err(|error| failed(&error))?;
    let ended = receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let share = used.until(Used::now(&hops.ids()));
    Ok((ended.duration_since(began).as_secs_f64(), share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_with_what_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(Some(parent.path())).unwrap();
        let source = make(&folder.file("sent"), 3 * BLOCK as u64 + 1).unwrap();
        assert_eq!(source.bytes(), 3 * BLOCK as u64 + 1);
        assert!(make(&folder.file("sent"), 1).is_err(), "it is not written over");
        drop(folder);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
