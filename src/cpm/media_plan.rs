//! CR 5.2.1.2 (SDP at intermediate nodes): an SDP to be written for one leg, all but our own addresses.
//!
//! | attribute           | Large Message, to a target | its answer, to the origin | session, to a target | its answer   |
//! |---------------------|----------------------------|---------------------------|----------------------|--------------|
//! | path, port, c=      | ours                       | ours                      | ours                 | ours         |
//! | direction           | sendonly                   | recvonly                  | as received          | as received  |
//! | setup               | actpass                    | passive                   | actpass              | passive      |
//! | msrp-cema           | unless interoperability    | if it was offered         | as Large Message     | if offered   |
//! | crypto, ICE, tokens | gone                       | gone                      | gone                 | gone         |
//! | all else            | as received, in order      | as received               | as received          | as received  |
//!
//! m-lines keep their number and order (RFC 3264 §6, §8). Media that is not ours flows between the ends: its lines stay as
//! they are, with the c= that held for them.

mod answer;
mod offer;
mod policy;
mod within;

pub use answer::{
    large_message_answer, large_message_own_answer, large_message_refused_answer, session_answer, session_own_answer,
};
pub use offer::{large_message_of, large_message_offer, rejected_offer, session_offer};
pub use policy::{SessionMedia, session_media};
pub use within::{Side, own_reanswer, reanswer, reoffer};

use super::refusal::Refusal;
use crate::config::Config;
use crate::mime::content_type::ContentType;
use crate::mime::multipart::{self, Part};
use crate::msrp::leg::SessionKind;
use crate::sdp::description::{Attribute, Description, MediaDescription};
use crate::sdp::text::Text;
use crate::sip::header::name::Name;
use crate::sip::message::Message;
use std::net::Ipv6Addr;
use std::rc::Rc;

/// An offer or answer to be written. One entry of `lines` for each m-line, in order.
#[derive(Clone, Debug)]
pub struct MediaPlan {
    pub description: Description,
    pub lines: Vec<Line>,
}

/// What becomes of an m-line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// MSRP that we relay: path, port, c=, fingerprint are ours.
    Relayed,
    /// Media that is not ours: left alone.
    Untouched,
    /// Port 0.
    Rejected,
}

/// Our side of one relayed m-line.
#[derive(Clone, Debug)]
pub struct OwnLine {
    /// Host of c= and path, port of m= and path.
    pub host: Rc<str>,
    pub port: u16,
    /// The whole URI for `a=path`.
    pub uri: Rc<str>,
    /// `a=fingerprint` value for TLS ("sha-256 AB:…"); with it the line is TCP/TLS/MSRP.
    pub fingerprint: Option<Rc<str>>,
}

/// Our `o=` line on a leg (RFC 3264 §8: the version grows by one with each change).
#[derive(Clone, Copy, Debug)]
pub struct OwnOrigin {
    pub session_id: u64,
    pub version: u64,
}

/// Why an SDP cannot be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unacceptable {
    /// The message brings no session description.
    Missing,
    /// Its body is of a type, or in an encoding, that we do not read.
    Foreign,
    Encoded,
    /// It cannot be read.
    Malformed,
    /// No m-line is MSRP that we could relay.
    NoMsrp,
    /// A Large Message offer that does not send: RFC 3264 §6.1 has no recvonly answer to it.
    Direction,
    /// An offer that is passive or holds the connection: it cannot be answered passive (RFC 6135 §4.2.1).
    Setup,
    /// MSRP over TLS, and we have no such listener.
    Tls,
    /// RFC 6714 §4.3: c= and m= do not match the path, nobody said `msrp-cema`, and interoperability is off.
    Mismatch,
    /// A media type that the operator does not allow.
    MediaType,
    /// No type of `a=accept-types` is one that the operator allows.
    Format,
    /// The answer rejects every stream.
    Rejected,
}

impl Unacceptable {
    /// The final response it means, counted under `clause`.
    pub fn refusal(self, clause: &'static str) -> Refusal {
        match self {
            Self::Foreign => Refusal::new(415, clause).header("Accept", "application/sdp, multipart/mixed".to_string()),
            Self::Encoded => Refusal::new(415, clause).header("Accept-Encoding", "identity".to_string()),
            Self::Malformed => Refusal::new(400, clause),
            Self::MediaType => warned(clause, 304, "Media type not available"),
            Self::Format => warned(clause, 305, "Incompatible media format"),
            _ => Refusal::new(488, clause),
        }
    }
}

/// RFC 3261 §20.43 names these codes and what they mean.
fn warned(clause: &'static str, code: u16, text: &'static str) -> Refusal {
    Refusal { warning: Some((code, text)), ..Refusal::new(488, clause) }
}

impl From<Unacceptable> for Refusal {
    fn from(why: Unacceptable) -> Self {
        why.refusal("5.2.1.2")
    }
}

/// The session description of a message, also from within a multipart body.
///
/// # Errors
/// [`Unacceptable::Missing`] and [`Unacceptable::Malformed`].
pub fn described(message: &Message) -> Result<Rc<Description>, Unacceptable> {
    // A session's procedure, its media and its far end are each decided by it.
    message.reading(read_description).as_ref().clone()
}

/// RFC 3261 §8.2.3: a body of another type is not for us, unless it may be left unread.
fn readable(message: &Message, content_type: &str) -> Result<(), Unacceptable> {
    if message.lines(Name::ContentEncoding).any(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        return Err(Unacceptable::Encoded);
    }
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let multipart = essence.get(..10).is_some_and(|begins| begins.eq_ignore_ascii_case("multipart/"));
    if multipart || essence.eq_ignore_ascii_case("application/sdp") {
        return Ok(());
    }
    let disposition = ContentType::parse(message.header(Name::ContentDisposition).unwrap_or(""));
    let optional = disposition.parameter("handling").is_some_and(|handling| handling.eq_ignore_ascii_case("optional"));
    Err(if optional { Unacceptable::Missing } else { Unacceptable::Foreign })
}

fn read_description(message: &Message) -> Result<Rc<Description>, Unacceptable> {
    let content_type = message.header(Name::ContentType).filter(|_| !message.body().is_empty());
    let content_type = content_type.ok_or(Unacceptable::Missing)?;
    readable(message, content_type)?;
    let sdp = multipart::sdp_in(content_type, message.header(Name::ContentDisposition), message.body());
    let sdp = sdp.map_err(|_| Unacceptable::Malformed)?.ok_or(Unacceptable::Missing)?;
    Description::parse(&sdp).map(Rc::new).map_err(|_| Unacceptable::Malformed)
}

/// All other parts of a body, in order, octet for octet: recipient lists, and whatever else a client sends with its offer.
pub fn beside_sdp(message: &Message) -> Vec<Part> {
    let Some(content_type) = message.header(Name::ContentType) else { return Vec::new() };
    let disposition = message.header(Name::ContentDisposition);
    if multipart::is_sdp(content_type, disposition) {
        return Vec::new();
    }
    let parts = multipart::parts_of(content_type, disposition, message.body());
    let mut parts = parts.unwrap_or_default();
    if let Some(sdp) = multipart::sdp(&parts).cloned() {
        parts.retain(|part| *part != sdp);
    }
    parts
}

/// Attributes of an m-line that belong to the hop: written anew for ours, or meaningless beyond it.
const OF_THE_HOP: [&str; 14] = [
    "setup",
    "msrp-cema",
    "connection",
    "crypto",
    "fingerprint",
    "tls-id",
    "candidate",
    "remote-candidates",
    "end-of-candidates",
    "ice-ufrag",
    "ice-pwd",
    "ice-options",
    "ice-lite",
    "ice-mismatch",
];
/// Those that RFC 4145, 8122, 8839 and 3264 let stand at session level for all m-lines.
const OF_ALL_LINES: [&str; 9] =
    ["setup", "connection", "fingerprint", "tls-id", "ice-ufrag", "ice-pwd", "ice-options", "sendonly", "recvonly"];
/// Directions, of which one holds for a line.
const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];

/// A peer's description with everything that held for all m-lines written to the lines it still holds for, so that the
/// session part can be ours: c= to media that is not ours, hop-specific attributes likewise, the direction to every line.
fn by_lines(description: Rc<Description>) -> Description {
    let mut description = Rc::unwrap_or_clone(description);
    let session_direction = DIRECTIONS.into_iter().find(|name| description.attribute(name).is_some());
    let common: Vec<Attribute> =
        description.attributes.iter().filter(|a| OF_ALL_LINES.iter().any(|name| a.is(name))).cloned().collect();
    for media in &mut description.media {
        if media.connection.is_none() {
            media.connection.clone_from(&description.connection);
        }
        for attribute in common.iter().filter(|a| !DIRECTIONS.iter().any(|name| a.is(name))) {
            if !media.has(&attribute.name) {
                media.attributes.push(attribute.clone());
            }
        }
        if let Some(direction) = session_direction.filter(|_| media.direction().is_none()) {
            media.set_flag(direction);
        }
    }
    let gone = |a: &Attribute| OF_THE_HOP.iter().chain(&OF_ALL_LINES).chain(&DIRECTIONS).any(|name| a.is(name));
    description.attributes.retain(|a| !gone(a) || (a.is("ice-lite") || a.is("ice-options")));
    // k= is a key in the clear (RFC 4566 §5.12); whose it was, the media is now ours.
    description.others.retain(|(letter, _)| *letter != 'k');
    description.connection = None;
    description
}

/// Makes an m-line ours: what belongs to the peer's hop goes, and a place is kept for our path.
fn relayed(media: &mut MediaDescription) {
    media.attributes.retain(|attribute| {
        let own = attribute.name.as_str();
        !OF_THE_HOP.iter().any(|name| own.eq_ignore_ascii_case(name))
    });
    media.set("path", "");
    // RFC 4975 §8.6 wants it in every description, and a client refuses one without; who says nothing takes anything.
    if !media.has("accept-types") {
        media.set("accept-types", "*");
    }
    media.media = "message".into();
    media.formats = vec!["*".into()];
    media.ports = None;
    media.connection = None;
    media.others.retain(|(letter, _)| *letter != 'k');
}

/// RFC 3264 §6: a rejected line keeps its place, its media, its transport and its formats. `a=mid` stays, since a group
/// may name it (RFC 5888 §9.2).
fn rejected(media: &mut MediaDescription) {
    media.port = 0;
    media.ports = None;
    media.connection = None;
    media.others.clear();
    media.attributes.retain(|a| a.is("mid"));
    if media.formats.is_empty() {
        media.formats = vec!["*".into()];
    }
}

/// `a=max-size` is what the far end takes; through us no more comes than we take ourselves.
fn lower_max_size(config: &Config, media: &mut MediaDescription) {
    if media.max_size().is_some_and(|octets| octets > config.msrp.max_message) {
        media.set("max-size", config.msrp.max_message.to_string());
    }
}

/// What kind of service a plan is for decides how many lines it may have and which way they go.
const fn is_large_message(kind: SessionKind) -> bool {
    matches!(kind, SessionKind::LargeMessage)
}

impl MediaPlan {
    /// Writes the SDP with our addresses; `own` has one entry for each [`Line::Relayed`] in order. A line for which there is
    /// none is rejected: the peer's address never stands in its stead.
    pub fn write(&self, origin: OwnOrigin, own: &[OwnLine]) -> String {
        let host = own.first().map_or("0.0.0.0", |line| &*line.host);
        let connection = connection(host);
        let (mut id, mut version) = (itoa::Buffer::new(), itoa::Buffer::new());
        let words = [id.format(origin.session_id), version.format(origin.version), &connection];
        let mut text = String::with_capacity(512);
        self.description.write_head(&["-", words[0], words[1], words[2]].join(" "), Some(&connection), &mut text);

        let mut own = own.iter().peekable();
        for (media, line) in self.description.media.iter().zip(&self.lines) {
            if *line == Line::Untouched {
                media.write(&mut text);
                continue;
            }
            let mut media = media.clone();
            match own.next_if(|_| *line == Line::Relayed) {
                Some(line) => fill(&mut media, line, host),
                None => rejected(&mut media),
            }
            media.write(&mut text);
        }
        text
    }

    /// Indices of the relayed lines.
    pub fn relayed(&self) -> impl Iterator<Item = usize> + '_ {
        self.lines.iter().enumerate().filter(|(_, line)| **line == Line::Relayed).map(|(index, _)| index)
    }
}

fn fill(media: &mut MediaDescription, own: &OwnLine, session_host: &str) {
    media.port = own.port;
    media.set("path", own.uri.clone());
    // RFC 4975 §8.1: the transport says whether TLS is used, and RFC 8122 §5 shows our certificate.
    match &own.fingerprint {
        Some(fingerprint) => {
            media.protocol = "TCP/TLS/MSRP".into();
            media.set("fingerprint", fingerprint.clone());
        }
        None => media.protocol = "TCP/MSRP".into(),
    }
    media.connection = (*own.host != *session_host).then(|| connection(&own.host));
}

/// "IN IP4 192.0.2.1", "IN IP6 2001:db8::1"; a name stands with IP4 (RFC 4566 §5.7 allows names).
fn connection(host: &str) -> Text {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.contains(':').then(|| bare.parse::<Ipv6Addr>()) {
        Some(Ok(address)) => format!("IN IP6 {address}").into(),
        _ => ["IN IP4 ", bare].concat().into(),
    }
}
