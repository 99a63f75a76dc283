//! A table whose keys are never valid twice: slot and generation.

use super::chunks::Chunks;
use std::num::NonZeroU64;

/// A key of a [`Slab`]: `generation:32 | slot:32`. An old key of a reused slot finds nothing. Generations begin at 1, so a key
/// is never zero and an `Option<Key>` takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(NonZeroU64);

impl Key {
    /// The key as a number, to travel in a timer, a lane or a completion.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
    /// The key that [`Key::as_u64`] gave. Zero is nobody's, and neither is what stands for it: no generation is 0.
    pub const fn from_u64(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN),
        }
    }
    const fn new(slot: u32, generation: u32) -> Self {
        Self::from_u64(((generation as u64) << 32) | slot as u64)
    }
    /// The slot alone.
    pub const fn slot(self) -> usize {
        (self.as_u64() & 0xffff_ffff) as usize
    }
    /// The generation alone: how often the slot was given away before, and one.
    pub const fn generation(self) -> u32 {
        (self.as_u64() >> 32) as u32
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under generational keys. `insert` refuses above the capacity given at the start.
pub struct Slab<T> {
    slots: Chunks<Slot<T>>,
    free: Vec<u32>,
    capacity: usize,
    len: usize,
}

impl<T> Slab<T> {
    /// An empty table for at most `capacity` values.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { slots: Chunks::new(), free: Vec::new(), capacity, len: 0 }
    }

    /// Values in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no value is in the table.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores a value; gives it back when the table is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.value = Some(value);
            return Ok(Key::new(slot, entry.generation));
        }
        let slot = self.slots.push(Slot { generation: 1, value: Some(value) });
        Ok(Key::new(u32::try_from(slot).expect("capacity is far below 2^32"), 1))
    }

    /// The value under a key, if the key is still good.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.slot()).filter(|slot| slot.generation == key.generation())?.value.as_ref()
    }

    /// The value under a key, to change.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key.slot()).filter(|slot| slot.generation == key.generation())?.value.as_mut()
    }

    /// Takes the value out; its key is good for nothing afterwards.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot()).filter(|slot| slot.generation == key.generation())?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1).max(1);
        self.free.push(key.slot() as u32);
        self.len -= 1;
        Some(value)
    }

    /// The key of the value in a slot, if there is one: for completions, which carry part of the generation only.
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let entry = self.slots.get(slot as usize)?;
        entry.value.as_ref().map(|_| Key::new(slot, entry.generation))
    }

    /// All values in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| entry.value.as_ref().map(|value| (Key::new(slot as u32, entry.generation), value)))
    }
}
