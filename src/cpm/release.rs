//! CPM Appendix D: the CPM release version in User-Agent and Server.

use crate::config::Config;
use crate::sip::header::product::products;

/// Our own product tokens, "CPM-serv/OMA2.2 cpm-pf/0.1.0": User-Agent of the requests we make and Server of our responses.
pub fn product(config: &Config) -> String {
    ["CPM-serv/", &config.node.release, concat!(" cpm-pf/", env!("CARGO_PKG_VERSION"))].concat()
}

/// Whether one product token of a User-Agent value fits one of the operator's patterns; comments are no products.
pub fn supported(patterns: &[String], user_agent: &str) -> bool {
    products(user_agent).any(|product| patterns.iter().any(|pattern| fits(pattern, product)))
}

/// Whether a pattern fits a whole text, without regard to ASCII case: `*` stands for any run of characters. Time is
/// proportional to the product of both lengths at worst.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and up to where it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|octet| octet.eq_ignore_ascii_case(&text[t])) {
            p += 1;
            t += 1;
        } else if let Some((at, eaten)) = star {
            star = Some((at, eaten + 1));
            (p, t) = (at + 1, eaten + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|octet| *octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text, expected) in [
            ("sip:*@example.net", "sip:alice@example.net", true),
            ("sip:*@example.net", "sip:alice@example.net.evil", false),
            ("tel:+*", "tel:+1555", true),
            ("tel:+*", "tel:911", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXXbYYbc", true),
            ("CPM-client/OMA2.*", "cpm-CLIENT/oma2.2", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_release_is_sought_in_each_product_token() {
        let patterns = ["CPM-*/OMA2.*".to_string()];
        assert!(supported(&patterns, "RCS-client/UP_2.4 (x CPM-client/OMA1.0) cpm-client/OMA2.1 term-x"));
        assert!(supported(&patterns, "CPM-serv/OMA2.2"));
        assert!(!supported(&patterns, "CPM-client/OMA1.0"));
        assert!(!supported(&patterns, "x (CPM-client/OMA2.2)"));
        assert!(!supported(&patterns, ""));
    }
}
