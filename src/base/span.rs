//! A run of core numbers. They wrap at 256: the process that takes over from another begins where that one's run ends.

use serde::{Deserialize, Serialize};

/// The numbers `first`, `first + 1` … of some cores, modulo 256.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Span {
    pub first: u8,
    /// At most 256.
    pub count: u16,
}

impl Span {
    /// A run of so many cores.
    pub const fn new(first: u8, count: usize) -> Self {
        Self { first, count: if count > 256 { 256 } else { count as u16 } }
    }

    /// The place of a core in the run; none: it is not of it.
    pub fn index(self, core: u8) -> Option<usize> {
        let at = core.wrapping_sub(self.first);
        (u16::from(at) < self.count).then_some(usize::from(at))
    }

    /// Whether a core is of the run.
    pub fn contains(self, core: u8) -> bool {
        self.index(core).is_some()
    }

    /// The number of the core at a place of the run.
    pub const fn at(self, index: u8) -> u8 {
        self.first.wrapping_add(index)
    }

    /// The number after the last.
    pub const fn end(self) -> u8 {
        self.first.wrapping_add(self.count as u8)
    }

    /// This run and the one that follows it, as one; none where they would not fit into 256 numbers.
    pub const fn joined(self, next: u16) -> Option<Span> {
        if self.count + next > 256 { None } else { Some(Span { first: self.first, count: self.count + next }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_wraps_and_knows_its_own() {
        let span = Span::new(254, 4);
        let members: Vec<u8> = (0..=255).filter(|core| span.contains(*core)).collect();
        assert_eq!(members, [0, 1, 254, 255]);
        assert_eq!((span.index(1), span.index(2), span.index(253), span.at(3), span.end()), (Some(3), None, None, 1, 2));
        assert_eq!((span.joined(252), span.joined(253)), (Some(Span { first: 254, count: 256 }), None));
        assert!(Span::new(7, 256).contains(6));
    }
}
