//! Values of the configuration file as text: durations, sizes, addresses, networks.

use super::{Listen, Network};
use crate::base::transport::Transport;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a duration may look like.
pub const DURATION: &str = "a duration: a number with us, ms, s, m, h or d, as in \"500ms\" or \"15m\"";
/// What a size may look like.
pub const SIZE: &str = "a size: a number with B, KiB, MiB or GiB, as in \"64KiB\"";
/// What a SIP listening address may look like.
pub const SIP_LISTEN: &str = "\"udp://ADDRESS:PORT\", \"tcp://ADDRESS:PORT\" or \"tls://ADDRESS:PORT\"";
/// What an MSRP listening address may look like.
pub const MSRP_LISTEN: &str = "\"tcp://ADDRESS:PORT\" or \"tls://ADDRESS:PORT\"";
/// What a network may look like.
pub const NETWORK: &str = "an IP address, or one with a prefix length as in \"10.0.0.0/8\" or \"::1/128\"";

/// Reads "30s", "1h30m", "0us"; a bare "0" is zero.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let micros: u64 = match &rest[..end] {
            "us" | "µs" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_micros(number.checked_mul(micros)?))?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Writes a duration in the largest unit that divides it.
pub fn print_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    for (unit, size) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] {
        if micros >= size && micros.is_multiple_of(size) {
            return format!("{}{unit}", micros / size);
        }
    }
    if micros == 0 { "0s".into() } else { format!("{micros}us") }
}

/// Reads "64KiB", "100MiB", "512B" into octets.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Writes octets in the largest binary unit that divides them.
pub fn print_size(octets: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if octets >= 1 << shift && octets.trailing_zeros() >= shift {
            return format!("{}{unit}", octets >> shift);
        }
    }
    format!("{octets}B")
}

/// Reads "tcp://127.0.0.1:5060", "tls://[::1]:5061".
pub fn listen(text: &str) -> Option<Listen> {
    let (scheme, address) = text.split_once("://")?;
    let transport = match scheme {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" => Transport::Tls,
        _ => return None,
    };
    Some(Listen { transport, address: address.parse::<SocketAddr>().ok()? })
}

/// Writes what [`listen`] reads.
pub fn print_listen(listen: &Listen) -> String {
    format!("{}://{}", listen.transport.as_via().to_ascii_lowercase(), listen.address)
}

/// Reads "127.0.0.0/8", "::1/128", "10.1.2.3".
pub fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(longest);
    (prefix <= longest).then_some(Network { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_and_print_back() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("1h30m", 5400), ("72h", 259_200)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
            assert_eq!(duration(&print_duration(Duration::from_secs(seconds))), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for wrong in ["", "s", "10", "10x", "1.5s", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!((size("64KiB"), print_size(65_536)), (Some(65_536), "64KiB".into()));
        assert_eq!((size("100MiB"), size("x"), size("1TiB")), (Some(104_857_600), None, None));
    }

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let eight = network("127.0.0.0/8").unwrap();
        assert!(eight.contains("127.9.9.9".parse().unwrap()) && !eight.contains("128.0.0.1".parse().unwrap()));
        assert!(eight.contains("::ffff:127.0.0.1".parse().unwrap()), "an IPv4-mapped address is the IPv4 address");
        assert!(network("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(network("10.0.0.0/33").is_none() && network("x").is_none());
    }
}
