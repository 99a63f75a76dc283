//! CR 5.2.1.2: our SDP on a leg, and the body that carries it.

use crate::base::prng::Prng;
use crate::base::slab::Key;
use crate::cpm::media_plan::{Line, MediaPlan, OwnLine, OwnOrigin};
use crate::mime::multipart::{self, Part};
use crate::sdp::description::Description;
use crate::sdp::message_media::Setup;
use crate::shard::exchange::LegIndex;
use crate::shard::signalling::Signalling;

impl Signalling {
    /// Writes our SDP for a leg.
    pub(super) fn local_sdp(&mut self, key: Key, leg: LegIndex, plan: &MediaPlan) -> (String, OwnOrigin) {
        let session = self.sessions.table.get(key).expect("the caller holds the session");
        let leg = &session.legs[usize::from(leg)];
        let session_id = if leg.sdp_session == 0 { u64::from(self.prng.u64() as u32) } else { leg.sdp_session };
        let origin = OwnOrigin { session_id, version: u64::from(leg.sdp_version) };
        let own = plan.relayed().map(|line| session.uri_at(leg, line).and_then(|uri| self.own_line(uri)));
        let own: Vec<Option<OwnLine>> = own.collect();
        let written: Vec<OwnLine> = own.iter().flatten().cloned().collect();
        if written.len() == own.len() {
            return (plan.write(origin, &written), origin);
        }
        // A line for which there is no stream is not taken.
        let mut plan = plan.clone();
        let missing: Vec<usize> = plan.relayed().zip(&own).filter(|(_, own)| own.is_none()).map(|(line, _)| line).collect();
        missing.into_iter().for_each(|line| plan.lines[line] = Line::Rejected);
        (plan.write(origin, &written), origin)
    }

    /// What stands in our SDP with one of our URIs. None: a reload took the address that it is of.
    fn own_line(&self, uri: &str) -> Option<OwnLine> {
        let address = self.addresses.msrp(uri.starts_with("msrps:"))?;
        let fingerprint = self.addresses.fingerprint().filter(|_| address.tls).cloned();
        Some(OwnLine { host: address.host.clone(), port: address.port, uri: uri.into(), fingerprint })
    }
}

/// RFC 4145 §4.1: an SDP that was an offer of ours, as the answer to that offer: each end that it left open takes the role that the
/// peer leaves it. None: it leaves none open.
pub(super) fn in_role(sdp: &str, offered: &Description) -> Option<String> {
    const OPEN: &str = "a=setup:actpass";
    if !sdp.contains(OPEN) {
        return None;
    }
    let mut answer = String::with_capacity(sdp.len());
    let mut lines = offered.media.iter();
    let mut media = None;
    for line in sdp.split_inclusive('\n') {
        if line.starts_with("m=") {
            media = lines.next();
        }
        match line.strip_prefix(OPEN) {
            Some(end) => {
                let active = matches!(media.and_then(|media| offered.setup_of(media)), Some(Setup::Active));
                let role = if active { Setup::Passive } else { Setup::Active };
                answer.extend(["a=setup:", role.as_str(), end]);
            }
            None => answer.push_str(line),
        }
    }
    Some(answer)
}

/// RFC 3264 §8: the SDP with another version in its origin line.
pub(super) fn with_version(sdp: &str, version: u32) -> String {
    let numbered = |line: &str| {
        let mut fields = line.splitn(4, ' ');
        let (name, id, _, rest) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        name.starts_with("o=").then(|| format!("{name} {id} {version} {rest}"))
    };
    sdp.split_inclusive('\n').map(|line| numbered(line).unwrap_or_else(|| line.to_string())).collect()
}

/// Content-Type and body: the SDP alone, or with the parts beside it.
pub(super) fn content(sdp: &str, parts: &[Part], prng: &mut Prng) -> (String, Vec<u8>) {
    if parts.is_empty() {
        return ("application/sdp".to_string(), sdp.as_bytes().to_vec());
    }
    let mut all = vec![Part::new("application/sdp", None, sdp.as_bytes().to_vec())];
    all.extend_from_slice(parts);
    let mut boundary = String::from("cpm-");
    prng.push_token(22, &mut boundary);
    let body = multipart::write(&all, &boundary);
    (format!("multipart/mixed;boundary=\"{boundary}\""), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_of_ours_becomes_an_answer_in_the_role_that_is_left() {
        let ours = "v=0\r\no=- 7 1 IN IP4 h\r\nm=message 1 TCP/MSRP *\r\na=setup:actpass\r\nm=message 2 TCP/MSRP *\r\na=setup:actpass\r\n";
        let theirs = ours.replacen("actpass", "active", 1).replace("actpass", "passive");
        let offered = Description::parse(theirs.as_bytes()).expect("an SDP");
        let answer = in_role(ours, &offered).expect("it leaves roles open");
        assert_eq!(answer, ours.replacen("actpass", "passive", 1).replace("actpass", "active"));
        assert_eq!(in_role(&answer, &offered), None);
        assert!(with_version(&answer, 12).contains("o=- 7 12 IN IP4 h\r\n"));
    }
}
