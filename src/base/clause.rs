//! Clauses of the Change Request: cited where they are carried out, marked when gone through.
//!
//! `clause!("OLM-3.a");` costs nothing in a release build. With debug assertions it notes the id for the running
//! thread, so that a test can fail when the code did not go through the clause it claims to prove.

#[cfg(debug_assertions)]
thread_local! {
    static HITS: std::cell::RefCell<std::collections::BTreeSet<&'static str>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

/// Notes that the clause was gone through. Called by [`clause!`](crate::clause) alone.
#[cfg(debug_assertions)]
pub fn hit(id: &'static str) {
    HITS.with_borrow_mut(|hits| {
        hits.insert(id);
    });
}

/// The clauses this thread went through since the last call, and a clean slate.
#[cfg(debug_assertions)]
pub fn take_hits() -> std::collections::BTreeSet<&'static str> {
    HITS.take()
}

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
