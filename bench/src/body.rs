//! Message bodies that can be checked: message `n` of session `s` is a window into one fixed noise, at a place that both sides can
//! compute, so that a comparison needs no copy of what was sent.

/// Octets of noise; a prime-sized window start keeps neighbours different.
const NOISE: usize = 1 << 20;

pub struct Noise(Vec<u8>);

impl Noise {
    /// Noise long enough for bodies of up to `longest` octets.
    pub fn new(longest: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let octets = (0..NOISE + longest)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Printable and line ends: what a body full of text looks like to a relay that scans.
                b"abcdefghijklmnopqrstuvwxyz -\r\nABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[(state >> 40) as usize % 66]
            })
            .collect();
        Self(octets)
    }

    /// The body of a message.
    pub fn body(&self, session: usize, message: u64, octets: usize) -> &[u8] {
        let start = (session.wrapping_mul(7919).wrapping_add((message as usize).wrapping_mul(104_729))) % NOISE;
        &self.0[start..start + octets]
    }

    /// Chunk `part` of a message of several.
    pub fn part(&self, session: usize, message: u64, part: usize, octets: usize) -> &[u8] {
        self.body(session, message.wrapping_add((part as u64) << 24), octets)
    }

    /// Whether octets at that place of a message are those that were sent.
    pub fn is(&self, place: &Place, mut at: usize, mut octets: &[u8]) -> bool {
        while !octets.is_empty() {
            let (part, within) = (at / place.chunk, at % place.chunk);
            let (now, rest) = octets.split_at(octets.len().min(place.chunk - within));
            if self.part(place.session, place.message, part, within + now.len())[within..] != *now {
                return false;
            }
            at += now.len();
            octets = rest;
        }
        true
    }
}

/// A message, and the size of its chunks.
pub struct Place {
    pub session: usize,
    pub message: u64,
    pub chunk: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_at_every_place_and_by_no_other_octets() {
        let noise = Noise::new(1000);
        let place = Place { session: 3, message: 7, chunk: 1000 };
        let whole: Vec<u8> = (0..3).flat_map(|part| noise.part(3, 7, part, 1000).to_vec()).collect();
        for (from, to) in [(0, 3000), (0, 1), (999, 1001), (1500, 3000), (2999, 3000)] {
            assert!(noise.is(&place, from, &whole[from..to]), "{from} to {to}");
            let mut other = whole[from..to].to_vec();
            *other.last_mut().expect("not empty") ^= 1;
            assert!(!noise.is(&place, from, &other), "{from} to {to}");
        }
    }
}
