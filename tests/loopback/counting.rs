//! An allocator that counts what the threads of a test allocate that ask for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What the threads that count into it have done.
#[derive(Default)]
pub struct Counter {
    /// Allocations made or enlarged.
    pub made: AtomicU64,
    /// Octets allocated and not freed.
    pub live: AtomicI64,
}

impl Counter {
    pub const fn new() -> Self {
        Self { made: AtomicU64::new(0), live: AtomicI64::new(0) }
    }

    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    pub fn live(&self) -> i64 {
        self.live.load(Ordering::Relaxed)
    }
}

thread_local! {
    static COUNTER: Cell<Option<&'static Counter>> = const { Cell::new(None) };
}

/// What the calling thread allocates counts from now on.
pub fn count_into(counter: &'static Counter) {
    COUNTER.set(Some(counter));
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(made: u64, live: i64) {
    // A thread that ends has no counter any more.
    if let Ok(Some(counter)) = COUNTER.try_with(Cell::get) {
        counter.made.fetch_add(made, Ordering::Relaxed);
        counter.live.fetch_add(live, Ordering::Relaxed);
    }
}

// SAFETY: every call is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, octets: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(octets, layout) }
    }

    unsafe fn realloc(&self, octets: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(octets, layout, size) }
    }
}
