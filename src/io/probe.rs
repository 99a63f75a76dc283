//! What the running kernel has, found by trying: required features end the start with exit code 3, optional ones are used
//! where they are.
//!
//! `CPM_PF_WITHOUT=incremental,min_wait,credit,zero_copy` makes the program do without the optional ones it names, so that every way
//! through the engines can be tested on one kernel.

use super::ring::{self, BufferRing, Completion, Plain, Ring, Wait, send_without_copy, token};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Names optional features to do without.
pub const WITHOUT: &str = "CPM_PF_WITHOUT";

/// Optional features that are there and not switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// `IOU_PBUF_RING_INC`, 6.12: one provided buffer holds many small messages.
    pub incremental: bool,
    /// `IORING_FEAT_MIN_TIMEOUT`, 6.12: completions are gathered for some microseconds under load.
    pub min_wait: bool,
    /// `optlen` of a multishot receive, 6.17: it ends by itself after so many octets.
    pub credit: bool,
    /// `IORING_OP_SENDMSG_ZC`, 6.1, which tells whether it copied all the same, 6.2: for `msrp.zero_copy_send`.
    pub zero_copy: bool,
}

impl Features {
    /// These but for those named in a comma-separated list.
    pub fn without(mut self, names: &str) -> Self {
        for name in names.split(',') {
            match name.trim() {
                "incremental" => self.incremental = false,
                "min_wait" => self.min_wait = false,
                "credit" => self.credit = false,
                "zero_copy" => self.zero_copy = false,
                _ => {}
            }
        }
        self
    }
}

/// A required feature is missing.
#[derive(Debug)]
pub struct Missing {
    pub feature: &'static str,
    /// The first kernel release that has it.
    pub since: &'static str,
    pub error: io::Error,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.error.kind() == io::ErrorKind::OutOfMemory {
            return write!(f, "no memory for {}: {}", self.feature, ring::no_memory());
        }
        write!(f, "the kernel lacks {} (Linux {} has it): {}", self.feature, self.since, self.error)
    }
}

const GROUP: u16 = 0;

/// Tries everything on small rings of its own, notes the result in the log, and takes [`WITHOUT`] into account.
///
/// # Errors
/// The first required feature that is missing.
pub fn probe() -> Result<Features, Missing> {
    let features = find()?;
    tracing::info!(
        incremental_buffers = features.incremental,
        min_wait = features.min_wait,
        receive_credit = features.credit,
        zero_copy = features.zero_copy,
        "io_uring features in use"
    );
    Ok(features)
}

/// The same without a word in the log.
///
/// # Errors
/// The first required feature that is missing.
pub fn find() -> Result<Features, Missing> {
    Ok(try_all()?.without(&std::env::var(WITHOUT).unwrap_or_default()))
}

fn try_all() -> Result<Features, Missing> {
    let missing = |feature, since| move |error| Missing { feature, since, error };
    io_uring::IoUring::new(4).map_err(missing("io_uring (or kernel.io_uring_disabled forbids it)", "5.1"))?;
    let single: io::Result<io_uring::IoUring> = io_uring::IoUring::builder().setup_single_issuer().build(4);
    single.map_err(missing("io_uring with IORING_SETUP_SINGLE_ISSUER", "6.0"))?;
    let mut ring = Ring::new(8, 32, false).map_err(missing("io_uring with IORING_SETUP_DEFER_TASKRUN", "6.1"))?;
    {
        let plain = BufferRing::new(&ring, GROUP, 4, 4096, false);
        let plain = plain.map_err(missing("io_uring provided buffer rings (IORING_REGISTER_PBUF_RING)", "5.19"))?;
        let received = receive(&mut ring, None).map_err(missing("io_uring multishot receive (IORING_RECV_MULTISHOT)", "6.0"));
        let _ = ring.as_raw().submitter().unregister_buf_ring(GROUP);
        drop(plain);
        if !received?.iter().any(Completion::more) {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(missing("io_uring multishot receive (IORING_RECV_MULTISHOT)", "6.0")(error));
        }
    }
    let min_wait = ring.as_raw().params().is_feature_min_timeout();
    let incremental = BufferRing::new(&ring, GROUP, 4, 4096, true).map(|buffers| {
        let _ = ring.as_raw().submitter().unregister_buf_ring(GROUP);
        drop(buffers);
    });
    let credit = try_credit(&mut ring).unwrap_or(false);
    let zero_copy = try_zero_copy(&mut ring).unwrap_or(false);
    Ok(Features { incremental: incremental.is_ok(), min_wait, credit, zero_copy })
}

/// A receive with more credit than octets sent must still be armed, one with less must have ended.
fn try_credit(ring: &mut Ring) -> io::Result<bool> {
    let buffers = BufferRing::new(ring, GROUP, 4, 4096, false)?;
    let larger = receive(ring, Some(1024));
    let smaller = receive(ring, Some(1));
    let _ = ring.as_raw().submitter().unregister_buf_ring(GROUP);
    drop(buffers);
    let armed = |completions: &[Completion]| completions.iter().any(|one| one.result > 0 && one.more());
    let ended = |completions: &[Completion]| completions.iter().any(|one| one.result > 0 && !one.more());
    Ok(armed(&larger?) && ended(&smaller?))
}

/// An operation that the kernel does not know ends with -EINVAL, as does an unknown flag of it; one on a socket that cannot do it
/// with another error.
fn try_zero_copy(ring: &mut Ring) -> io::Result<bool> {
    let (ours, _theirs) = UnixStream::pair()?;
    // SAFETY: `msghdr` is plain data of which all zeroes says "nothing to send"; it outlives the operation, which ends below.
    let header: libc::msghdr = unsafe { std::mem::zeroed() };
    let user_data = token(2, 0, 0);
    // SAFETY: as above.
    unsafe { ring.push(&send_without_copy(ours.as_raw_fd(), &header, user_data))? };
    let mut completions: Vec<Completion> = Vec::new();
    loop {
        ring.wait(Wait { timeout: None, gather: Duration::ZERO, completions: 1 })?;
        ring.reap(&mut completions);
        if let Some(own) = completions.iter().find(|completion| completion.user_data == user_data) {
            return Ok(own.result != -libc::EINVAL);
        }
    }
}

/// Completions of a multishot receive on a socket that holds four octets.
fn receive(ring: &mut Ring, credit: Option<u32>) -> io::Result<Vec<Completion>> {
    let (ours, mut theirs) = UnixStream::pair()?;
    theirs.write_all(b"MSRP")?;
    let user_data = token(1, 0, 0);
    ring.push_plain(&Plain::receive(ours.as_raw_fd(), GROUP, credit, user_data))?;
    let mut completions = Vec::new();
    let wait = Wait { timeout: Some(Duration::from_secs(1)), gather: Duration::ZERO, completions: 1 };
    ring.wait(wait)?;
    ring.reap(&mut completions);
    // What is still armed must end before the buffers go: the peer's end of stream ends it.
    drop(theirs);
    let mut last = completions.last().is_none_or(Completion::more);
    while last {
        let before = completions.len();
        ring.wait(wait)?;
        ring.reap(&mut completions);
        last = completions.len() > before && completions.last().is_none_or(Completion::more);
    }
    match completions.first() {
        Some(first) if first.result < 0 => Err(io::Error::from_raw_os_error(-first.result)),
        Some(_) => Ok(completions),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_is_required() {
        try_all().expect("the tests run on a kernel that the product accepts");
    }

    #[test]
    fn what_is_named_is_done_without() {
        let all = Features { incremental: true, min_wait: true, credit: true, zero_copy: true };
        let less = Features { min_wait: true, zero_copy: true, ..Features::default() };
        assert_eq!(all.without(" credit,incremental "), less);
        assert_eq!(all.without("zero_copy"), Features { zero_copy: false, ..all });
        assert_eq!(all.without(""), all);
    }
}
