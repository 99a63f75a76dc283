//! A vector that grows by chunks: what lies in it never moves, so that a table of many thousands grows without a pause and without
//! holding the old place beside the new one.

use std::ops::{Index, IndexMut};

/// Values in a chunk.
const CHUNK: usize = 256;

/// Values by their place, from 0 on; none is taken out.
pub struct Chunks<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Chunks<T> {
    pub const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// Values there are.
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds a value; its place.
    pub fn push(&mut self, value: T) -> usize {
        let place = self.len();
        if place.is_multiple_of(CHUNK) {
            // Small tables stay small.
            self.chunks.push(if place == 0 { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        self.chunks[place / CHUNK].push(value);
        place
    }

    pub fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// All values in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;
    fn index(&self, place: usize) -> &T {
        &self.chunks[place / CHUNK][place % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_were_put_and_do_not_move() {
        let mut chunks = Chunks::new();
        assert!(chunks.is_empty());
        (0..2 * CHUNK).for_each(|value| assert_eq!(chunks.push(value), value));
        let first: *const usize = &chunks[CHUNK];
        (2 * CHUNK..9 * CHUNK + 1).for_each(|value| assert_eq!(chunks.push(value), value));
        assert!(std::ptr::eq(first, &chunks[CHUNK]));
        assert_eq!((chunks.len(), chunks.get(9 * CHUNK), chunks.get(9 * CHUNK + 1)), (9 * CHUNK + 1, Some(&(9 * CHUNK)), None));
        chunks[3] = 7;
        assert!(chunks.iter().enumerate().all(|(place, value)| *value == if place == 3 { 7 } else { place }));
    }
}
