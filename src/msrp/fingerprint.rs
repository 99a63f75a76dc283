//! RFC 8122 §5: whether a certificate is the one that `a=fingerprint` announced.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// Compares the value of `a=fingerprint`, `hash-func SP fingerprint` with two hex digits an octet and colons between, in
/// either case, with a certificate in its DER form. MD2, MD5 and SHA-1 prove nothing any more and match nothing.
pub fn is_of(fingerprint: &str, certificate: &[u8]) -> bool {
    let Some((function, fingerprint)) = fingerprint.trim().split_once(' ') else { return false };
    let digest: Vec<u8> = match function.to_ascii_lowercase().as_str() {
        "sha-256" => Sha256::digest(certificate).to_vec(),
        "sha-384" => Sha384::digest(certificate).to_vec(),
        "sha-512" => Sha512::digest(certificate).to_vec(),
        _ => return false,
    };
    let mut octets = fingerprint.trim().split(':').map(|octet| u8::from_str_radix(octet, 16).ok());
    digest.iter().all(|octet| octets.next() == Some(Some(*octet))) && octets.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_its_certificate_in_either_case_and_of_no_other() {
        let hex: Vec<String> = Sha256::digest(b"a certificate").iter().map(|octet| format!("{octet:02X}")).collect();
        let upper = format!("sha-256 {}", hex.join(":"));
        assert!(is_of(&upper, b"a certificate") && is_of(&upper.to_lowercase(), b"a certificate"));
        assert!(!is_of(&upper, b"another"));
        for wrong in ["", "sha-256", "sha-1 00", &upper[..upper.len() - 3], &format!("{upper}:00")] {
            assert!(!is_of(wrong, b"a certificate"), "{wrong}");
        }
    }
}
