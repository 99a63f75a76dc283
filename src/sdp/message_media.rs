//! RFC 4975 §8, RFC 6135, RFC 6714, RFC 5547: the attributes of `m=message`.

use super::description::{Description, MediaDescription};
use super::file_selector::FileSelector;
use crate::limits::MSRP_PATH_URIS_MAX;

/// RFC 4145 §4: who opens the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    Active,
    Passive,
    ActPass,
    HoldConn,
}

impl Setup {
    /// The value as written in `a=setup`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
            Self::HoldConn => "holdconn",
        }
    }

    fn of(value: &str) -> Option<Self> {
        [Self::Active, Self::Passive, Self::ActPass, Self::HoldConn]
            .into_iter()
            .find(|setup| value.trim_ascii().eq_ignore_ascii_case(setup.as_str()))
    }
}

/// RFC 4566 §6 and RFC 3264 §5.1, seen from who wrote the description.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    const ALL: [Self; 4] = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];

    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The same flow seen from the other end.
    pub const fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            same => same,
        }
    }

    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

impl MediaDescription {
    /// `m=message` over `TCP/MSRP` or `TCP/TLS/MSRP`. One client writes MESSAGE in upper case.
    pub fn is_msrp(&self) -> bool {
        let protocol = self.protocol.eq_ignore_ascii_case("TCP/MSRP") || self.is_msrp_over_tls();
        protocol && self.media.eq_ignore_ascii_case("message")
    }

    /// `TCP/TLS/MSRP` (RFC 4975 §8.1).
    pub fn is_msrp_over_tls(&self) -> bool {
        self.protocol.eq_ignore_ascii_case("TCP/TLS/MSRP")
    }

    /// URIs of `a=path` (RFC 4975 §8.2), first hop first; the last is the endpoint's. The port may differ from the
    /// m-line's: the path is what counts. Empty where there is none or it is longer than we follow.
    pub fn path(&self) -> Vec<&str> {
        let uris: Vec<_> = self.value("path").unwrap_or_default().split_ascii_whitespace().collect();
        if uris.len() > MSRP_PATH_URIS_MAX { Vec::new() } else { uris }
    }

    /// `a=setup` on this m-line (RFC 4145); None where it is absent or no known value.
    pub fn setup(&self) -> Option<Setup> {
        Setup::of(self.value("setup")?)
    }

    pub fn set_setup(&mut self, setup: Setup) {
        self.set("setup", setup.as_str());
    }

    /// Direction on this m-line; None where it has none of its own.
    pub fn direction(&self) -> Option<Direction> {
        let named = |name: &str| Direction::ALL.into_iter().find(|d| name.eq_ignore_ascii_case(d.as_str()));
        self.attributes.iter().find_map(|attribute| named(&attribute.name))
    }

    /// Makes this the m-line's only direction, where the old one stood.
    pub fn set_direction(&mut self, direction: Direction) {
        let old = self.direction();
        for other in Direction::ALL.into_iter().filter(|d| Some(*d) != old) {
            self.remove(other.as_str());
        }
        match old.and_then(|old| self.attributes.iter_mut().find(|a| a.is(old.as_str()))) {
            Some(attribute) => attribute.name = direction.as_str().into(),
            None => self.set_flag(direction.as_str()),
        }
    }

    /// Types of `a=accept-types` (RFC 4975 §8.6), in order; "*" may be among them. Empty where it is absent.
    pub fn accept_types(&self) -> Vec<&str> {
        self.words("accept-types")
    }

    /// Types of `a=accept-wrapped-types`, in order.
    pub fn accept_wrapped_types(&self) -> Vec<&str> {
        self.words("accept-wrapped-types")
    }

    /// Octets of `a=max-size` (RFC 4975 §8.6).
    pub fn max_size(&self) -> Option<u64> {
        self.value("max-size")?.parse().ok()
    }

    /// `a=file-selector` (RFC 5547 §6).
    pub fn file_selector(&self) -> Option<FileSelector> {
        let attribute = self.attribute("file-selector")?;
        Some(FileSelector::parse(attribute.value.as_deref().unwrap_or_default()))
    }

    /// Size of the offered file in octets.
    pub fn file_size(&self) -> Option<u64> {
        self.file_selector()?.size
    }

    /// `a=msrp-cema` (RFC 6714 §4).
    pub fn msrp_cema(&self) -> bool {
        self.has("msrp-cema")
    }

    fn words(&self, name: &str) -> Vec<&str> {
        self.value(name).unwrap_or_default().split_ascii_whitespace().collect()
    }
}

impl Description {
    /// First m-line that is MSRP, and its index.
    pub fn msrp(&self) -> Option<(usize, &MediaDescription)> {
        self.media.iter().enumerate().find(|(_, media)| media.is_msrp())
    }

    /// Direction that holds for an m-line: its own, else the session's, else sendrecv (RFC 3264 §5.1).
    pub fn direction_of(&self, media: &MediaDescription) -> Direction {
        let session = || Direction::ALL.into_iter().find(|d| self.attribute(d.as_str()).is_some());
        media.direction().or_else(session).unwrap_or_default()
    }

    /// `a=setup` that holds for an m-line (RFC 4145 §4 allows both levels).
    pub fn setup_of(&self, media: &MediaDescription) -> Option<Setup> {
        Setup::of(self.value_for(media, "setup")?)
    }

    /// `a=fingerprint` that holds for an m-line (RFC 8122 §5).
    pub fn fingerprint_of<'a>(&'a self, media: &'a MediaDescription) -> Option<&'a str> {
        self.value_for(media, "fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lines: &str) -> Description {
        let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n{lines}");
        Description::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_large_message_offer_is_understood() {
        let read = offer(
            "m=MESSAGE 9 TCP/MSRP *\na=path:msrp://relay.example:2855/s1;tcp msrp://192.0.2.1:7777/s2;tcp\n\
             a=setup:ActPass\na=sendonly\na=accept-types: message/cpim text/plain *\na=accept-wrapped-types:*\n\
             a=max-size:10000\na=file-selector:size:4092\na=msrp-cema\n",
        );
        let (index, media) = read.msrp().unwrap();
        assert_eq!(index, 0);
        assert_eq!(media.path(), ["msrp://relay.example:2855/s1;tcp", "msrp://192.0.2.1:7777/s2;tcp"]);
        assert_eq!(media.setup(), Some(Setup::ActPass));
        assert_eq!(read.direction_of(media), Direction::SendOnly);
        assert_eq!(media.accept_types(), ["message/cpim", "text/plain", "*"]);
        assert_eq!(media.accept_wrapped_types(), ["*"]);
        assert_eq!(media.max_size(), Some(10000));
        assert_eq!(media.file_size(), Some(4092));
        assert!(media.msrp_cema());
    }

    #[test]
    fn session_level_values_hold_where_the_m_line_is_silent() {
        let read = offer("a=setup:active\na=inactive\na=fingerprint:sha-256 AB:CD\nm=message 9 TCP/TLS/MSRP *\n");
        let (_, media) = read.msrp().unwrap();
        assert!(media.is_msrp_over_tls());
        assert_eq!(read.setup_of(media), Some(Setup::Active));
        assert_eq!(read.direction_of(media), Direction::Inactive);
        assert_eq!(read.fingerprint_of(media), Some("sha-256 AB:CD"));
    }

    #[test]
    fn a_new_direction_stands_where_the_old_one_stood() {
        let mut read = offer("m=message 9 TCP/MSRP *\na=sendonly\na=path:x\na=recvonly\n");
        let media = &mut read.media[0];
        media.set_direction(Direction::RecvOnly);
        let names: Vec<_> = media.attributes.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["recvonly", "path"]);
        media.remove("recvonly");
        media.set_direction(Direction::Inactive);
        assert_eq!(media.direction(), Some(Direction::Inactive));
        assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
    }

    #[test]
    fn silence_means_sendrecv_and_no_path() {
        let read = offer("m=audio 4000 RTP/AVP 0\nm=message 0 TCP/MSRP\n");
        let (index, media) = read.msrp().unwrap();
        assert_eq!(index, 1);
        assert!(media.path().is_empty());
        assert_eq!(read.direction_of(media), Direction::SendRecv);
        assert_eq!(media.file_selector(), None);
    }
}
