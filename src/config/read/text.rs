//! What a host and a SIP URI may look like in a configuration: typing errors are to be found at the start, not at the first call.

pub(super) const HOST: &str = "a host name or an IP address, without port";

/// RFC 3261 §25.1 `host`; an IPv6 address may do without its brackets.
pub(super) fn host(text: &str) -> bool {
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let name = |text: &str| text.bytes().all(|o| o.is_ascii_alphanumeric() || b"-._".contains(&o));
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(v6),
        None => (!text.is_empty() && name(text)) || v6(text),
    }
}

pub(super) const SIP_URI: &str = "a SIP URI, \"sip:HOST:PORT;lr\"";

/// RFC 3261 §19.1.1, as far as a typing error goes: what stands here is read whole where it is used.
pub(super) fn sip_uri(text: &str) -> bool {
    let rest = text.strip_prefix("sip:").or_else(|| text.strip_prefix("sips:"));
    rest.is_some_and(|rest| {
        let authority = rest.split([';', '?']).next().unwrap_or_default();
        server(authority.rsplit_once('@').map_or(authority, |(_, at)| at)) && !rest.contains([' ', '<', '>', '"'])
    })
}

/// A host, with or without a port.
pub(super) fn server(text: &str) -> bool {
    let (name, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let right = |port: &str| port.bytes().all(|o| o.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    host(name) && (port.is_empty() || port.strip_prefix(':').is_some_and(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_uri_can_be_is_told_from_what_one_can() {
        for right in ["sip:127.0.0.1:5070;lr", "sip:core.example.net", "sips:bob@[::1]:5061;transport=tls", "sip:a:b@h:1?x=y"] {
            assert!(sip_uri(right), "{right}");
        }
        for wrong in
            ["127.0.0.1", "sip:", "sip:;lr", "sip:h:99999", "sip:h:0", "sip:h:", "sip:h:x;lr", "sip:[::1", "sip:a b", "sip:bob@"]
        {
            assert!(!sip_uri(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_no_host_can_be_is_told_from_what_one_can() {
        assert!(host("pf1.example.net") && host("127.0.0.1") && host("[::1]") && host("::1"));
        assert!(!host("") && !host("a b") && !host("h:5060") && !host("sip:h") && !host("[h]"));
    }
}
