//! The processes beside this one, as the main thread has them: what it took over from the one before, and how the one after gets it.

use super::Running;
use crate::base::span::Span;
use crate::config::{Config, Listen};
use crate::io::control::MediaOrder;
use crate::io::handover::give::{self, Socket};
use crate::io::handover::link::{Doors, Link};
use crate::io::handover::take::Taken;
use crate::io::handover::wire::{Frame, Given, Role};
use crate::io::handover::{Around, Before, Side};
use crate::io::media::listener::Listener;
use crate::io::services::inbox;
use crate::io::signalling::lanes::Order;
use crate::io::signalling::sockets::Bound;
use crate::shard::registrations::subscription::Learnt;
use crate::shard::signalling;
use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long a core may take to let go of its sockets, and the services of the stores.
const LET_GO_MAX: Duration = Duration::from_secs(10);

/// A listening socket, kept to be given to the next process.
pub(super) struct Shared {
    role: Role,
    asked: Listen,
    bound: Listen,
    socket: OwnedFd,
}

/// All that concerns other processes.
pub(super) struct Neighbours {
    doors: Doors,
    shared: Vec<Shared>,
    before: Option<Former>,
    after: Option<Arc<Link>>,
}

/// The process before.
struct Former {
    link: Arc<Link>,
    signalling: Span,
    media: Span,
    served: Arc<HashSet<u64>>,
    learnt: Arc<Vec<Learnt>>,
}

/// The numbers of this process's cores: they follow those of the one before.
pub(super) fn spans(cores: (usize, usize), taken: Option<&Taken>) -> (Span, Span) {
    let first = taken.map_or((0, 0), |taken| (taken.given.signalling.end(), taken.given.media.end()));
    (Span::new(first.0, cores.0), Span::new(first.1, cores.1))
}

/// A copy of every listening socket.
///
/// # Errors
/// When no descriptor is left.
pub(super) fn share(
    config: &Config,
    bound: &signalling::Bound,
    sip: &[Vec<Bound>],
    msrp: &[Vec<Listener>],
    admin: Option<&TcpListener>,
) -> io::Result<Vec<Shared>> {
    if config.node.handover.is_none() {
        return Ok(Vec::new());
    }
    let mut shared = Vec::new();
    let mut keep = |role, asked: Listen, bound: Listen, socket: &dyn AsFd| -> io::Result<()> {
        shared.push(Shared { role, asked, bound, socket: socket.as_fd().try_clone_to_owned()? });
        Ok(())
    };
    for socket in sip.iter().flatten() {
        let listener = usize::from(socket.listener);
        keep(Role::Sip, config.sip.listen[listener], bound.sip[listener], &socket.socket)?;
    }
    for core in msrp {
        for listener in core {
            // A core may have several sockets of one address.
            let at = bound.msrp.iter().position(|bound| {
                bound.address == listener.address && (bound.transport == crate::base::transport::Transport::Tls) == listener.tls
            });
            let Some(at) = at else { continue };
            keep(Role::Msrp, config.msrp.listen[at], bound.msrp[at], &listener.socket)?;
        }
    }
    if let (Some(listener), Some(address)) = (admin, config.admin.listen) {
        let listen = |address| Listen { transport: crate::base::transport::Transport::Tcp, address };
        keep(Role::Admin, listen(address), listen(listener.local_addr()?), listener)?;
    }
    Ok(shared)
}

impl Neighbours {
    /// Links us to the process before, where there is one.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(doors: Doors, shared: Vec<Shared>, before: Option<(UnixStream, Box<Given>)>) -> io::Result<Self> {
        let before = match before {
            None => None,
            Some((stream, given)) => {
                let link = Link::start(stream, Side::Before, Some(&given.sip), doors.clone())?;
                link.send(Frame::Listening { sip: doors.sip.clone() }, Box::default(), None);
                let Given { signalling, media, served, registrations, .. } = *given;
                let (served, learnt) = (Arc::new(served.into_iter().collect()), Arc::new(registrations));
                Some(Former { link, signalling, media, served, learnt })
            }
        };
        Ok(Self { doors, shared, before, after: None })
    }

    /// Tells the process before that we read the sockets.
    ///
    /// # Errors
    /// It is gone: then it serves again, or died, and this is no time to begin.
    pub fn tell_ready(&self) -> Result<(), String> {
        match &self.before {
            Some(before) if before.link.is_gone() => Err("the process that was to hand over is gone".into()),
            Some(before) => {
                before.link.send(Frame::Ready, Box::default(), None);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What was known of registrations when we took over.
    pub fn learnt(&self) -> Arc<Vec<Learnt>> {
        self.before.as_ref().map(|before| before.learnt.clone()).unwrap_or_default()
    }

    /// For a signalling core.
    pub fn around_signalling(&self) -> Around {
        let before =
            |before: &Former| Before { link: before.link.clone(), span: before.signalling, served: before.served.clone() };
        Around { own: self.doors.own.0, before: self.before.as_ref().map(before), after: self.after.clone() }
    }

    /// For a media core.
    pub fn around_media(&self) -> Around {
        let before = |before: &Former| Before { link: before.link.clone(), span: before.media, served: Arc::default() };
        Around { own: self.doors.own.1, before: self.before.as_ref().map(before), after: self.after.clone() }
    }

    /// Numbers that are taken: ours and those of the processes before.
    fn taken(&self) -> (Span, Span) {
        let (signalling, media) = self.doors.own;
        match &self.before {
            Some(before) => (
                before.signalling.joined(signalling.count).unwrap_or(signalling),
                before.media.joined(media.count).unwrap_or(media),
            ),
            None => (signalling, media),
        }
    }

    /// Waits until what was said to the process after is with the kernel.
    pub fn settle(&self) {
        if let Some(after) = &self.after {
            after.settle();
        }
    }
}

impl Running {
    /// How many core numbers are taken, of signalling and of media cores.
    pub fn numbers_taken(&self) -> (u16, u16) {
        let (signalling, media) = self.neighbours.taken();
        (signalling.count, media.count)
    }

    /// Whether there is a process before this one.
    pub fn has_former(&self) -> bool {
        self.neighbours.before.is_some()
    }

    /// Lets go of the sockets and the stores and gives both to the process at the other end. It says so when it has begun.
    ///
    /// # Errors
    /// What did not work; then [`Running::take_back`] is to be called.
    pub fn hand_over(&mut self, stream: UnixStream) -> io::Result<()> {
        let given = self.let_go().map_err(io::Error::other)?;
        let (given, spool) = given;
        let socket = |shared: &Shared| Socket {
            role: shared.role,
            asked: shared.asked,
            bound: shared.bound,
            descriptor: shared.socket.as_raw_fd(),
        };
        let sockets: Vec<Socket> = self.neighbours.shared.iter().map(socket).collect();
        give::give(&stream, &sockets, spool.as_raw_fd(), given)?;
        self.neighbours.after = Some(Link::start(stream, Side::After, None, self.neighbours.doors.clone())?);
        Ok(())
    }

    fn let_go(&self) -> Result<(Given, OwnedFd), String> {
        self.threads.process.set_answering(false);
        let signalling: Vec<Receiver<_>> = self
            .signalling
            .iter()
            .map(|mailbox| {
                let (reply, answer) = mpsc::channel();
                mailbox.post(Order::LetGo(reply));
                answer
            })
            .collect();
        let media: Vec<Receiver<()>> = self
            .media
            .iter()
            .map(|mailbox| {
                let (reply, answer) = mpsc::channel();
                mailbox.post(MediaOrder::LetGo(reply));
                answer
            })
            .collect();
        let mut given = Given { sip: self.bound.sip.clone(), ..Given::default() };
        (given.signalling, given.media) = self.neighbours.taken();
        if let Some(before) = &self.neighbours.before {
            given.served.extend(before.served.iter());
        }
        for answer in signalling {
            let gone = answer.recv_timeout(LET_GO_MAX).map_err(|_| "a signalling core does not let go")?;
            given.served.extend(gone.served);
            given.registrations.extend(gone.registrations);
        }
        for answer in media {
            answer.recv_timeout(LET_GO_MAX).map_err(|_| "a media core does not let go")?;
        }
        let (reply, answer) = mpsc::channel();
        self.services.let_go(reply);
        let stores: inbox::LetGone = answer.recv_timeout(LET_GO_MAX).map_err(|_| "the stores are not let go")??;
        (given.claimed, given.unsaid) = (stores.claimed, stores.unsaid);
        Ok((given, stores.spool))
    }

    /// The process after has begun: it gets what is new.
    pub fn taken_over(&mut self) {
        let Some(link) = &self.neighbours.after else { return };
        for mailbox in &self.signalling {
            mailbox.post(Order::TakenOver(link.clone()));
        }
        for mailbox in &self.media {
            mailbox.post(MediaOrder::TakenOver(link.clone()));
        }
        self.services.taken_over(link.clone());
    }

    /// The process after did not begin, or is gone: this one reads the sockets again. With `draining` it takes no new dialogs.
    pub fn take_back(&mut self, draining: bool) {
        if let Some(link) = self.neighbours.after.take() {
            link.close();
        }
        for mailbox in &self.signalling {
            mailbox.post(Order::TakeBack { draining });
        }
        for mailbox in &self.media {
            mailbox.post(MediaOrder::TakeBack);
        }
        self.services.take_back();
        self.threads.process.set_answering(true);
    }

    /// The process before is gone.
    pub fn former_gone(&mut self) {
        self.neighbours.before = None;
        for mailbox in &self.signalling {
            mailbox.post(Order::Parted(Side::Before));
        }
        for mailbox in &self.media {
            mailbox.post(MediaOrder::Parted(Side::Before));
        }
    }

    /// Tells the process before that this one was told to end.
    pub fn tell_former(&self) {
        if let Some(before) = &self.neighbours.before {
            before.link.send(Frame::Ending, Box::default(), None);
        }
    }
}
