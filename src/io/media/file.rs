//! Files of sinks and sources, through the ring, so that a slow disk holds up nobody but its own session.
//!
//! Each file does one thing at a time, in the order of the shard's wishes; writes that follow each other without a gap become
//! one `writev` straight from the receive buffers. Over all files a bounded number of operations is under way; the others wait
//! their turn.

use super::buffers::Buffers;
use super::engine::Engine;
use super::op::Kind;
use super::op::file::{self as op, For, Lent};
use crate::io::ring::{Completion, Plain};
use crate::limits::MEDIA_FILE_OPERATIONS_MAX;
use crate::shard::media_outbox::{Buffer, File, Piece};
use io_uring::squeue::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Pieces of one write.
const PIECES_MAX: usize = 64;

/// Octets to be written.
enum Octets {
    Lent(Buffer, Range<u32>),
    Own(Box<[u8]>, usize),
}

impl Octets {
    fn len(&self) -> usize {
        match self {
            Octets::Lent(_, octets) => octets.len(),
            Octets::Own(octets, written) => octets.len() - written,
        }
    }

    fn skip(&mut self, count: usize) {
        match self {
            Octets::Lent(_, octets) => octets.start += count as u32,
            Octets::Own(_, written) => *written += count,
        }
    }

    fn as_slice<'a>(&'a self, buffers: &'a Buffers) -> &'a [u8] {
        match self {
            Octets::Lent(buffer, octets) => buffers.lent_octets(*buffer, octets.clone()),
            Octets::Own(octets, written) => &octets[*written..],
        }
    }

    fn let_go(self, buffers: &mut Buffers) {
        if let Octets::Lent(buffer, _) = self {
            buffers.release(buffer);
        }
    }
}

enum Step {
    Open(For),
    Write { at: u64, octets: Octets },
    Read(u32),
    SyncData,
    OpenDirectory,
    SyncDirectory(OwnedFd),
}

/// One file.
struct State {
    path: PathBuf,
    file: Option<OwnedFd>,
    /// Made here: its directory entry is not durable yet.
    fresh: bool,
    steps: VecDeque<Step>,
    /// Steps at the front that the operation under way carries out.
    under_way: usize,
    read_at: u64,
    failed: bool,
    /// To be closed, and whether to be unlinked, when nothing is under way.
    discard: Option<bool>,
    waiting: bool,
}

/// One operation under way: whose, and what the kernel borrows for it.
struct Operation {
    file: Option<u64>,
    lent: Lent,
}

/// All files of a core.
#[derive(Default)]
pub struct Files {
    files: BTreeMap<u64, State>,
    operations: Vec<Option<Operation>>,
    free: Vec<u32>,
    /// Files that wait because too much is under way.
    waiting: VecDeque<u64>,
}

impl Files {
    /// Copies what waits to be written and lies in lent buffers. Returns how many octets.
    pub fn copy_out(&mut self, buffers: &mut Buffers) -> usize {
        let mut copied = 0;
        for state in self.files.values_mut() {
            for step in state.steps.iter_mut().skip(state.under_way) {
                if let Step::Write { octets: octets @ Octets::Lent(..), .. } = step {
                    let own = octets.as_slice(buffers).into();
                    copied += octets.len();
                    std::mem::replace(octets, Octets::Own(own, 0)).let_go(buffers);
                }
            }
        }
        copied
    }

    fn slot(&mut self, file: Option<u64>) -> u32 {
        let operation = Some(Operation { file, lent: Lent::Nothing });
        if let Some(slot) = self.free.pop() {
            self.operations[slot as usize] = operation;
            return slot;
        }
        self.operations.push(operation);
        u32::try_from(self.operations.len() - 1).expect("operations are bounded")
    }

    fn under_way(&self) -> usize {
        self.operations.len() - self.free.len()
    }
}

impl Engine {
    /// Opens a source's file, or makes a sink's.
    pub(super) fn open_file(&mut self, file: File, path: PathBuf, create: bool) {
        let what = if create { For::Writing } else { For::Reading };
        let state = State {
            path,
            file: None,
            fresh: create,
            steps: VecDeque::from([Step::Open(what)]),
            under_way: 0,
            read_at: 0,
            failed: false,
            discard: None,
            waiting: false,
        };
        let before = self.files.files.insert(file.0, state);
        debug_assert!(before.is_none(), "the shard numbers its files");
        self.advance(file.0);
    }

    /// Writes octets into a sink's file.
    pub(super) fn write(&mut self, file: File, at: u64, piece: Piece) {
        let octets = match piece {
            // The next look overwrites it.
            Piece::Lent { buffer, octets } if self.passing.is_peeked(buffer) => {
                Octets::Own(self.buffers.lent_octets(buffer, octets).into(), 0)
            }
            Piece::Lent { buffer, octets } => {
                assert!(self.buffers.holds(buffer, &octets), "a piece lies in what was received, and its buffer is held");
                self.buffers.hold(buffer);
                Octets::Lent(buffer, octets)
            }
            Piece::Own(octets) => Octets::Own(self.out.octets[octets.start as usize..octets.end as usize].into(), 0),
        };
        let unwanted =
            if octets.len() > 0 { self.step(file, Step::Write { at, octets }) } else { Some(Step::Write { at, octets }) };
        if let Some(Step::Write { octets, .. }) = unwanted {
            octets.let_go(&mut self.buffers);
        }
    }

    pub(super) fn sync_file(&mut self, file: File) {
        self.step(file, Step::SyncData);
    }

    pub(super) fn read_file(&mut self, file: File, octets: u32) {
        self.step(file, Step::Read(octets.max(1)));
    }

    /// Closes a file when nothing of it is under way; what waits is dropped.
    pub(super) fn discard_file(&mut self, file: File, delete: bool) {
        let Some(state) = self.files.files.get_mut(&file.0) else { return };
        state.discard = Some(delete);
        for step in state.steps.drain(state.under_way..) {
            if let Step::Write { octets, .. } = step {
                octets.let_go(&mut self.buffers);
            }
        }
        self.advance(file.0);
    }

    /// Queues a step; gives it back where the file is of no use.
    fn step(&mut self, file: File, step: Step) -> Option<Step> {
        match self.files.files.get_mut(&file.0) {
            Some(state) if !state.failed && state.discard.is_none() => state.steps.push_back(step),
            _ => return Some(step),
        }
        self.advance(file.0);
        None
    }

    /// Starts a file's next step if nothing of it is under way.
    fn advance(&mut self, file: u64) {
        let Some(state) = self.files.files.get_mut(&file) else { return };
        if state.under_way > 0 {
            return;
        }
        if let Some(delete) = state.discard {
            let state = self.files.files.remove(&file).expect("just found");
            if delete && (state.file.is_some() || state.fresh) {
                self.unlink(&state.path);
            }
            return;
        }
        if state.steps.is_empty() {
            return;
        }
        if self.files.operations.len() - self.files.free.len() >= MEDIA_FILE_OPERATIONS_MAX {
            if !std::mem::replace(&mut state.waiting, true) {
                self.files.waiting.push_back(file);
            }
            return;
        }
        self.start(file);
    }

    fn start(&mut self, file: u64) {
        let slot = self.files.slot(Some(file));
        let user_data = Kind::File.number(slot);
        let state = self.files.files.get_mut(&file).expect("the caller found it");
        let fd = state.file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        state.under_way = 1;
        let mut lent = Lent::Nothing;
        let entry = match state.steps.front().expect("the caller saw a step") {
            Step::Open(what) => open(&state.path, *what, user_data, &mut lent),
            Step::OpenDirectory => open(directory(&state.path), For::Syncing, user_data, &mut lent),
            Step::Write { .. } => write(state, fd, user_data, &self.buffers, &mut lent),
            Step::Read(octets) => {
                let mut room = self.buffers.spare();
                let entry = op::read(fd, &mut room, *octets, state.read_at, user_data);
                lent = Lent::Room(room);
                Some(entry)
            }
            Step::SyncData => {
                self.files.operations[slot as usize].as_mut().expect("just made").lent = lent;
                return self.submit(&Plain::sync_data(fd, user_data));
            }
            Step::SyncDirectory(directory) => {
                let operation = Plain::sync(directory.as_raw_fd(), user_data);
                return self.submit(&operation);
            }
        };
        self.files.operations[slot as usize].as_mut().expect("just made").lent = lent;
        match entry {
            // SAFETY: what the entry points to lies in the operation's `Lent`, which stays until the completion took it; the
            // pieces of a write lie in held buffers or boxes of steps that are not touched while they are under way.
            Some(entry) => unsafe { self.submit_lending(&entry) },
            None => {
                self.release(slot);
                self.file_failed(file);
            }
        }
    }

    fn unlink(&mut self, path: &Path) {
        let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
        let slot = self.files.slot(None);
        let entry = op::unlink(&path, Kind::File.number(slot));
        self.files.operations[slot as usize].as_mut().expect("just made").lent = Lent::Path { _path: path };
        // SAFETY: the path's octets are on the heap, owned by the operation until its completion.
        unsafe { self.submit_lending(&entry) };
    }

    fn release(&mut self, slot: u32) -> Operation {
        self.files.free.push(slot);
        self.files.operations[slot as usize].take().expect("every operation completes once")
    }

    /// A completion of a file's operation.
    pub(super) fn file_done(&mut self, completion: &Completion) {
        let operation = self.release(completion.slot());
        if let Some(file) = operation.file {
            let state = self.files.files.get_mut(&file).expect("a file is kept while something of it is under way");
            let steps = std::mem::take(&mut state.under_way);
            self.stepped(file, steps, completion.result, operation.lent);
            self.advance(file);
        }
        while self.files.under_way() < MEDIA_FILE_OPERATIONS_MAX {
            let Some(file) = self.files.waiting.pop_front() else { break };
            if let Some(state) = self.files.files.get_mut(&file) {
                state.waiting = false;
                self.advance(file);
            }
        }
    }

    /// What the operation that carried out the first `steps` steps means.
    fn stepped(&mut self, file: u64, steps: usize, result: i32, lent: Lent) {
        let state = self.files.files.get_mut(&file).expect("the caller found it");
        match state.steps.front() {
            _ if result == -libc::EINTR || result == -libc::EAGAIN => {}
            Some(Step::Open(For::Writing)) if result == -libc::ENOENT && make_directory(&state.path) => {}
            _ if result < 0 => {
                tracing::error!(path = %state.path.display(), error = %std::io::Error::from_raw_os_error(-result), "media file");
                self.file_failed(file);
            }
            Some(Step::Open(_)) => {
                // SAFETY: the kernel opened this descriptor for us with this completion.
                state.file = Some(unsafe { OwnedFd::from_raw_fd(result) });
                state.steps.pop_front();
            }
            Some(Step::OpenDirectory) => {
                // SAFETY: as above.
                state.steps[0] = Step::SyncDirectory(unsafe { OwnedFd::from_raw_fd(result) });
            }
            Some(Step::SyncData) if state.fresh => state.steps[0] = Step::OpenDirectory,
            Some(Step::SyncData | Step::SyncDirectory(_)) => {
                state.fresh = false;
                state.steps.pop_front();
                if state.discard.is_none() {
                    self.shard.synced(self.now, File(file), &mut self.out);
                    self.carry_out();
                }
            }
            Some(Step::Write { .. }) => self.wrote(file, steps, result as usize),
            Some(Step::Read(_)) => self.has_read(file, result as usize, lent),
            None => debug_assert!(false, "what is under way stands at the front"),
        }
    }

    fn wrote(&mut self, file: u64, steps: usize, octets: usize) {
        let state = self.files.files.get_mut(&file).expect("the caller found it");
        let mut left = octets;
        for _ in 0..steps {
            let Some(Step::Write { at, octets }) = state.steps.front_mut() else { break };
            if octets.len() > left {
                octets.skip(left);
                *at += left as u64;
                break;
            }
            left -= octets.len();
            if let Some(Step::Write { octets, .. }) = state.steps.pop_front() {
                octets.let_go(&mut self.buffers);
            }
        }
        if octets == 0 {
            // A disk that takes nothing and names no error is full.
            return self.file_failed(file);
        }
        if state.discard.is_none() {
            self.shard.wrote(self.now, File(file), octets as u64, &mut self.out);
            self.carry_out();
        }
    }

    fn has_read(&mut self, file: u64, octets: usize, lent: Lent) {
        let state = self.files.files.get_mut(&file).expect("the caller found it");
        state.steps.pop_front();
        state.read_at += octets as u64;
        let Lent::Room(mut room) = lent else { return };
        if state.discard.is_some() {
            return;
        }
        assert!(octets <= room.capacity(), "the kernel reads no more than it was asked for");
        // SAFETY: the room was empty, and the kernel filled so many octets of its capacity.
        unsafe { room.set_len(octets) };
        let buffer = self.buffers.heap(room);
        let read = self.buffers.octets(buffer, 0, octets as u32);
        self.shard.read(self.now, File(file), buffer, read, 0, &mut self.out);
        self.carry_out();
        self.buffers.release(buffer);
    }

    /// The file is of no use any more: what waits is dropped, and the shard hears of it once.
    fn file_failed(&mut self, file: u64) {
        let state = self.files.files.get_mut(&file).expect("the caller found it");
        state.failed = true;
        state.under_way = 0;
        for step in state.steps.drain(..) {
            if let Step::Write { octets, .. } = step {
                octets.let_go(&mut self.buffers);
            }
        }
        if state.discard.is_none() {
            self.shard.file_failed(self.now, File(file), &mut self.out);
            self.carry_out();
        }
    }
}

fn open(path: &Path, what: For, user_data: u64, lent: &mut Lent) -> Option<Entry> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let entry = op::open(&path, what, user_data);
    *lent = Lent::Path { _path: path };
    Some(entry)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory that a sink's file is to lie in: once in the life of a store, so it may take its time.
fn make_directory(path: &Path) -> bool {
    !directory(path).is_dir() && std::fs::create_dir_all(directory(path)).is_ok()
}

/// One write of as many steps as follow each other without a gap.
fn write(state: &mut State, fd: RawFd, user_data: u64, buffers: &Buffers, lent: &mut Lent) -> Option<Entry> {
    let Some(Step::Write { at: start, .. }) = state.steps.front() else { return None };
    let (start, mut end) = (*start, *start);
    let mut pieces = Vec::with_capacity(state.steps.len().min(PIECES_MAX));
    for step in &state.steps {
        let Step::Write { at, octets } = step else { break };
        if *at != end || pieces.len() == PIECES_MAX {
            break;
        }
        let slice = octets.as_slice(buffers);
        pieces.push(libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() });
        end += slice.len() as u64;
    }
    state.under_way = pieces.len();
    let pieces = pieces.into_boxed_slice();
    let entry = op::write(fd, &pieces, start, user_data);
    *lent = Lent::Pieces { _pieces: pieces };
    Some(entry)
}
