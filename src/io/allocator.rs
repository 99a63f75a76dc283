//! The allocator of the program: mimalloc, asked for an alignment only where it does not give it anyhow.
//!
//! Every block of mimalloc lies at a multiple of 8, and one of 16 octets or more at a multiple of 16 (`MI_MAX_ALIGN_SIZE`). Its
//! functions that take an alignment do not count on that: unless a free block of the very size is at hand, or the size is a power
//! of two, they take a larger one and cut it, which costs time at either end and memory in between.

use libmimalloc_sys::{mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned};
use std::alloc::{GlobalAlloc, Layout};

/// mimalloc.
pub struct Allocator;

/// Whether a block of this layout lies right wherever mimalloc puts it.
const fn lies_right(size: usize, align: usize) -> bool {
    align <= 8 || align == 16 && size >= 16
}

// SAFETY: blocks are mimalloc's, from the call to the call that frees them; the alignment is asked for, or is one that mimalloc
// keeps for every block of that size. A layout's size is never 0 here, which is the caller's promise.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: both take any size; `align` is a power of two.
        unsafe { if lies_right(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) } }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe { if lies_right(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: the pointer came from one of these functions, each of which mi_free takes back.
        unsafe { mi_free(pointer.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the pointer came from one of these functions. The block moves where it does not hold the new size, and mi_realloc
        // moves it to one as mi_malloc gives it; one that stays keeps its place.
        unsafe {
            if lies_right(size, align) {
                mi_realloc(pointer.cast(), size)
            } else {
                mi_realloc_aligned(pointer.cast(), size, align)
            }
        }
        .cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several blocks of each size, so that more than the first of a page is seen.
    #[test]
    fn blocks_of_every_size_lie_right() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in (1..200).chain([255, 1000, 1024, 1025, 3000, 5000, 10_000, 100_000, 3_000_000]) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                let grown = Layout::from_size_align(size + size / 3 + 7, align).expect("a layout");
                // SAFETY: no layout is empty; each block is written within its size and freed once, with its layout.
                unsafe {
                    let blocks: Vec<_> = (0..5).map(|_| Allocator.alloc(layout)).collect();
                    for block in blocks {
                        assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} at {align}");
                        block.write_bytes(0x5a, size);
                        let moved = Allocator.realloc(block, layout, grown.size());
                        assert!(!moved.is_null() && moved.addr().is_multiple_of(align), "{size} at {align}, grown");
                        assert!((0..size).all(|at| *moved.add(at) == 0x5a));
                        Allocator.dealloc(moved, grown);
                    }
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align) && (0..size).all(|at| *zeroed.add(at) == 0));
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }
}
