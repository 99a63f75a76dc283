//! RFC 3261 §8.1.1, §12.2.1.1: our own requests, all but the Via, which depends on the next hop chosen last.

use super::addresses::{Addresses, Reach};
use super::signalling::Signalling;
use crate::base::transport::{Destination, Transport};
use crate::cpm::headers::Field;
use crate::sip::dialog::{Dialog, uri_of};
use crate::sip::header::name::Name;
use crate::sip::header::session_expires::Refresher;
use crate::sip::ids::{self, Branch};
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::validate::max_forwards;
use crate::sip::write::Writer;

/// RFC 3261 §8.1.1.6.
pub const MAX_FORWARDS: u8 = 70;

/// Methods we take in a dialog.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, INFO, UPDATE, MESSAGE, REFER, SUBSCRIBE, NOTIFY";

/// A request without its top Via: what goes out again, with another branch, when the next hop changes.
#[derive(Clone, Debug)]
pub struct Draft {
    octets: Vec<u8>,
    /// Where the request line ends, and where what follows the Via begins.
    line_end: usize,
    rest_at: usize,
}

impl Draft {
    /// A request in a dialog, or the one that makes it: `fill` adds the fields after CSeq and ends with [`Writer::body`].
    pub fn of_dialog(dialog: &Dialog, method: Method, seq: u32, max_forwards: u8, fill: impl FnOnce(Writer<'_>)) -> Self {
        let mut octets = Vec::with_capacity(if method == Method::Invite { 2048 } else { 768 });
        // The Via stands in its place, empty, and is left out when the request goes out with its own.
        fill(dialog.request(method, seq, "", max_forwards, &mut octets));
        let line_end = memchr::memchr(b'\n', &octets).map_or(octets.len(), |at| at + 1);
        Self { line_end, rest_at: line_end + b"Via: \r\n".len(), octets }
    }

    /// A request written whole but for its top Via.
    pub fn without_via(octets: Vec<u8>) -> Self {
        let line_end = memchr::memchr(b'\n', &octets).map_or(octets.len(), |at| at + 1);
        Self { octets, line_end, rest_at: line_end }
    }

    /// Octets of the request as it goes out, Via included, within a few.
    pub fn octets(&self) -> usize {
        self.octets.len() + 100
    }

    /// The request as it goes out: the Via of this hop comes first (RFC 3261 §18.1.1; RFC 3581 §3 asks for `rport`).
    pub fn write(&self, to: &Destination, branch: &Branch, addresses: &Addresses, buffer: &mut Vec<u8>) {
        let (transport, peer, listener) = hop(to);
        buffer.extend_from_slice(&self.octets[..self.line_end]);
        let mut push = |parts: [&str; 3]| parts.iter().for_each(|part| buffer.extend_from_slice(part.as_bytes()));
        push(["Via: SIP/2.0/", transport.as_via(), " "]);
        addresses.push_sent_by(transport, Some(peer), listener, buffer);
        let mut push = |parts: [&str; 3]| parts.iter().for_each(|part| buffer.extend_from_slice(part.as_bytes()));
        push([";branch=", branch.as_str(), ";rport\r\n"]);
        buffer.extend_from_slice(&self.octets[self.rest_at..]);
    }
}

impl Signalling {
    /// A Record-Route value of ours, `<sip:user@host:port;lr>`, reachable as `reach` has it; its user names this core.
    pub(super) fn record_route(&mut self, reach: Reach) -> Box<str> {
        let user = ids::user(self.shard, &mut self.prng);
        ["<", &self.addresses.uri(&user, reach), ";lr>"].concat().into()
    }
}

/// Writes Session-Expires with `delta_s` in seconds; RFC 4028 §4.
pub fn session_expires(writer: &mut Writer<'_>, delta_s: u32, refresher: Refresher) {
    let mut digits = itoa::Buffer::new();
    writer.parts(Name::SessionExpires, &[digits.format(delta_s), ";refresher=", refresher.as_str()]);
}

/// Whether the asserted identity is not to leave the trust domain (RFC 3325 §7).
pub fn asks_for_privacy(headers: &[Field]) -> bool {
    let privacy = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Privacy"));
    privacy.flat_map(|(_, value)| value.split(';')).any(|value| value.trim().eq_ignore_ascii_case("id"))
}

/// Whether a header field tells the asserted identity (RFC 3325 §9.1).
pub fn is_identity(name: &str) -> bool {
    name.eq_ignore_ascii_case("P-Asserted-Identity")
}

/// Max-Forwards of the request that follows from another: one hop fewer (RFC 3261 §16.6 step 3).
pub fn hops_left(request: &Request) -> u8 {
    max_forwards(request).ok().flatten().map_or(MAX_FORWARDS, |hops| hops.saturating_sub(1))
}

/// Transport and address of a hop, and the UDP listener that sends to it where that is settled.
fn hop(to: &Destination) -> (Transport, std::net::IpAddr, Option<u8>) {
    match to {
        Destination::Flow { flow, .. } => {
            (flow.transport, flow.peer.ip(), (flow.transport == Transport::Udp).then_some(flow.listener))
        }
        Destination::Target(target) => (target.transport, target.address.ip(), None),
    }
}

/// The URI whose address is the next hop of a request to `target` through `routes`.
pub fn next_hop<'a>(target: &'a str, routes: &'a [impl AsRef<str>]) -> &'a str {
    routes.first().map_or(target, |first| uri_of(first.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_via_of_the_hop_takes_its_place() {
        let dialog = Dialog::calling("c", "<sip:a@x>", "1", "<sip:b@x>", "sip:bob@x", &["<sip:p;lr>"]);
        let draft = Draft::of_dialog(&dialog, Method::Bye, 2, 70, |writer| writer.body(b""));
        let listen = crate::config::Listen { transport: Transport::Udp, address: "127.0.0.1:5060".parse().unwrap() };
        let bound = crate::shard::signalling::Bound { sip: vec![listen], ..Default::default() };
        let addresses = Addresses::new(&crate::config::Config::default(), &bound);
        let address = "127.0.0.1:5070".parse().unwrap();
        let to = Destination::Target(crate::base::transport::Target { transport: Transport::Udp, address, server_name: None });
        let mut prng = crate::base::prng::Prng::seeded(1);
        let branch = Branch::new(0, crate::base::slab::Key::from_u64(1), &mut prng);
        let mut octets = Vec::new();
        draft.write(&to, &branch, &addresses, &mut octets);
        let expected = format!(
            "BYE sip:bob@x SIP/2.0\r\nVia: SIP/2.0/UDP localhost:5060;branch={};rport\r\nRoute: <sip:p;lr>\r\nMax-Forwards: 70\r\n\
             From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n",
            branch.as_str()
        );
        assert_eq!(String::from_utf8(octets).unwrap(), expected);
        assert_eq!(next_hop("sip:bob@x", &["<sip:a;lr>"]), "sip:a;lr");
    }
}
