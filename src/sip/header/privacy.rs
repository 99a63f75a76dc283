//! RFC 3323 §4.2, RFC 3325 §9.3: Privacy.

/// The priv-values of a message's Privacy, in order: "id", "header", "user", "none", "critical".
pub fn values(text: &str) -> impl Iterator<Item = &str> {
    // RFC 3323 separates by ';'; some senders write commas.
    text.split([';', ',']).map(str::trim_ascii).filter(|value| !value.is_empty())
}

/// Whether a priv-value stands, without regard to case.
pub fn asks(text: &str, value: &str) -> bool {
    values(text).any(|known| known.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    #[test]
    fn privacy_is_a_list() {
        assert!(super::asks("user; ID ;critical", "id"));
        assert!(!super::asks("none", "id"));
    }
}
