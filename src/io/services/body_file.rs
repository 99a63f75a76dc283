//! Files that must survive a crash: moved or written under a name of their own, then synced, then their directory.

use crate::io::faults;
use std::io;
use std::path::Path;
use tokio_uring::fs::{self, File, OpenOptions};

/// What the name of a file ends with that is not whole yet.
pub const PARTIAL: &str = ".partial";
/// Octets copied at a time where a file cannot be renamed into another file system.
const COPY_OCTETS: usize = 256 * 1024;

/// Moves a file to its place, durably: when this returns it is there after a crash too. The octets are synced before
/// the name is, so that no name ever stands for half a file.
///
/// # Errors
/// What the kernel says; the file is then at its old place, or at both.
pub async fn keep(from: &Path, to: &Path) -> io::Result<()> {
    let file = File::open(from).await?;
    let synced = sync(&file).await;
    file.close().await?;
    synced?;
    match fs::rename(from, to).await {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
            copy(from, to).await?;
            fs::remove_file(from).await?;
        }
        other => other?,
    }
    sync_directory_of(to).await
}

/// Writes a file, durably; it stands under its name only when it is whole.
///
/// # Errors
/// What the kernel says.
pub async fn write(to: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let partial = partial(to);
    let file = File::create(&partial).await?;
    let written = write_all(&file, pieces).await;
    file.close().await?;
    written?;
    fs::rename(&partial, to).await?;
    sync_directory_of(to).await
}

/// Head and body of one file, the body out of another file; durably.
///
/// # Errors
/// What the kernel says.
pub async fn write_with(to: &Path, head: &[u8], body: &Path) -> io::Result<()> {
    let partial = partial(to);
    let file = File::create(&partial).await?;
    let written = async {
        let (result, _) = file.write_all_at(head.to_vec(), 0).await;
        result?;
        append(body, &file, head.len() as u64).await?;
        sync(&file).await
    };
    let written = written.await;
    file.close().await?;
    written?;
    fs::rename(&partial, to).await?;
    sync_directory_of(to).await
}

/// The whole of a file, where it has no more than `max` octets.
///
/// # Errors
/// What the kernel says; `FileTooLarge` where it is longer.
pub async fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path).await?;
    let mut octets = Vec::new();
    let result = loop {
        let (result, piece) = file.read_at(Vec::with_capacity(COPY_OCTETS), octets.len() as u64).await;
        match result {
            Ok(0) => break Ok(()),
            Ok(_) if octets.len() + piece.len() > max => break Err(io::ErrorKind::FileTooLarge.into()),
            Ok(_) => octets.extend_from_slice(&piece),
            Err(error) => break Err(error),
        }
    };
    file.close().await?;
    result.map(|()| octets)
}

/// Syncs the directory a file lies in, so that its name is durable.
///
/// # Errors
/// What the kernel says.
pub async fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = OpenOptions::new().read(true).open(directory).await?;
    let synced = match faults::disk() {
        Ok(()) => directory.sync_all().await,
        failed => failed,
    };
    directory.close().await?;
    synced
}

async fn sync(file: &File) -> io::Result<()> {
    faults::disk()?;
    file.sync_data().await
}

async fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let partial = partial(to);
    let file = File::create(&partial).await?;
    let copied = async {
        append(from, &file, 0).await?;
        sync(&file).await
    };
    let copied = copied.await;
    file.close().await?;
    copied?;
    fs::rename(&partial, to).await
}

async fn append(from: &Path, to: &File, offset: u64) -> io::Result<()> {
    let from = File::open(from).await?;
    let mut at = 0;
    let mut buffer = Vec::with_capacity(COPY_OCTETS);
    let result = loop {
        let (result, octets) = from.read_at(std::mem::take(&mut buffer), at).await;
        match result {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        let length = octets.len() as u64;
        let (result, mut octets) = to.write_all_at(octets, offset + at).await;
        if let Err(error) = result {
            break Err(error);
        }
        at += length;
        octets.clear();
        buffer = octets;
    };
    from.close().await?;
    result
}

async fn write_all(file: &File, pieces: &[&[u8]]) -> io::Result<()> {
    let mut at = 0;
    for piece in pieces {
        let (result, _) = file.write_all_at(piece.to_vec(), at).await;
        result?;
        at += piece.len() as u64;
    }
    sync(file).await
}

/// Name of a file that is not whole yet; what a crash leaves of them is removed later.
pub fn partial(path: &Path) -> std::path::PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(PARTIAL);
    path.with_file_name(name)
}
