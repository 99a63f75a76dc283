//! Clauses of the Change Request: cited where they are carried out, marked when gone through.
//!
//! `clause!("OLM-3.a");` costs nothing in a release build. With debug assertions it notes the id, for the running thread so
//! that a test in this process can fail when the code did not go through the clause it claims to prove, and for the whole
//! process so that a test that talks to the program over sockets can (`GET /clauses`).

#[cfg(debug_assertions)]
mod hits {
    use crossbeam::queue::SegQueue;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static HITS: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
        static TOLD: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    }
    /// Each id once for each thread that went through it: bounded by the list of clauses.
    static NEWS: SegQueue<&'static str> = SegQueue::new();

    /// Notes that the clause was gone through. Called by [`clause!`](crate::clause) alone.
    pub fn hit(id: &'static str) {
        HITS.with_borrow_mut(|hits| hits.insert(id));
        if TOLD.with_borrow_mut(|told| told.insert(id)) {
            NEWS.push(id);
        }
    }

    /// The clauses this thread went through since the last call, and a clean slate.
    pub fn take_hits() -> BTreeSet<&'static str> {
        HITS.take()
    }

    /// The clauses that threads of this process went through for the first time since the last call.
    pub fn take_news() -> Vec<&'static str> {
        std::iter::from_fn(|| NEWS.pop()).collect()
    }
}

#[cfg(debug_assertions)]
pub use hits::{hit, take_hits, take_news};

/// Cites a clause of the Change Request above the step that carries it out.
#[macro_export]
macro_rules! clause {
    ($($id:literal),+ $(,)?) => {
        #[cfg(debug_assertions)]
        { $( $crate::base::clause::hit($id); )+ }
    };
}

/// Runs a block and fails unless it went through every clause named.
#[macro_export]
macro_rules! proves {
    ($($id:literal),+ , $block:block) => {{
        let _ = $crate::base::clause::take_hits();
        let result = $block;
        let hits = $crate::base::clause::take_hits();
        $( assert!(hits.contains($id), "the test claims to prove {} but the code did not go through it", $id); )+
        result
    }};
}
