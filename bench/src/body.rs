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
}
