//! One process takes over from another: a media core accepts no more, and gives connections to the process whose session they name.

use super::engine::{Due, Engine};
use super::lanes::Handed;
use super::op::Kind;
use crate::io::handover::BACKLOG_LOOKS;
use crate::io::handover::wire::Frame;
use crate::io::ring::Plain;
use std::sync::mpsc::Sender;

/// Whether connections are accepted.
#[derive(Debug)]
pub(super) enum Hold {
    Accepting,
    /// So many multishot operations have not ended yet; then this is told.
    Ending(usize, Sender<()>),
    LetGo,
}

impl Hold {
    pub const fn is_accepting(&self) -> bool {
        matches!(self, Hold::Accepting)
    }
}

impl Engine {
    /// Ends accepting. Whoever connects later waits in the sockets' backlog.
    pub(super) fn let_go(&mut self, reply: Sender<()>) {
        let listeners = self.listeners.len() - self.resting;
        self.resting = 0;
        for number in 0..self.listeners.len() as u32 {
            // One that rests has nothing to be cancelled, and its timer finds that we do not accept.
            self.submit(&Plain::cancel(Kind::Accept.number(number), Kind::Cancel.number(number)));
        }
        self.hold = Hold::Ending(listeners, reply);
        self.tell_let_go();
    }

    /// An accept ended. True: it is not to be armed again.
    pub(super) fn accepting_ended(&mut self) -> bool {
        if let Hold::Ending(left, _) = &mut self.hold {
            *left = left.saturating_sub(1);
        }
        self.tell_let_go();
        !self.hold.is_accepting()
    }

    fn tell_let_go(&mut self) {
        if matches!(self.hold, Hold::Ending(0, _))
            && let Hold::Ending(_, reply) = std::mem::replace(&mut self.hold, Hold::LetGo)
        {
            // Who asked may have given up.
            let _ = reply.send(());
        }
    }

    /// The process that took over is gone, or never came.
    pub(super) fn take_back(&mut self) {
        self.lanes.around.after = None;
        self.stand_among();
        if !std::mem::replace(&mut self.hold, Hold::Accepting).is_accepting() {
            for number in 0..self.listeners.len() as u32 {
                self.accept_on(number);
            }
            for wait in BACKLOG_LOOKS {
                self.timers.arm(self.now + wait, Due::Look);
            }
        }
    }

    /// Accepts anew, which takes what waits. The kernel tells of a connection one of those who accept, and a process that died stays
    /// one of them for a moment.
    pub(super) fn look_into_backlogs(&mut self) {
        if self.hold.is_accepting() {
            for number in 0..self.listeners.len() as u32 {
                // Its end arms it again.
                self.submit(&Plain::cancel(Kind::Accept.number(number), Kind::Cancel.number(number)));
            }
        }
    }

    /// Tells the shard which numbers are ours, and whether there are others.
    pub(super) fn stand_among(&mut self) {
        self.shard.stand_among(self.lanes.around.own, !self.lanes.around.is_alone());
    }

    /// A connection goes to the process that has this core.
    pub(super) fn hand_beyond(&mut self, core: u8, handed: Handed) {
        let Handed { socket, peer, tls, octets, ended } = handed;
        debug_assert!(tls.is_none(), "looked at when it was asked for");
        if let Some(link) = self.lanes.around.towards(core) {
            link.send(Frame::Handed { core, peer, ended }, octets.into(), Some(socket));
        }
    }
}
