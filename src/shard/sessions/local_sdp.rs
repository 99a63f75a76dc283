//! CR 5.2.1.2: our SDP on a leg, and the body that carries it.

use crate::base::prng::Prng;
use crate::base::slab::Key;
use crate::cpm::media_plan::{Line, MediaPlan, OwnLine, OwnOrigin};
use crate::mime::multipart::{self, Part};
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
