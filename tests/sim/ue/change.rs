//! RFC 3261 §14, RFC 3311: a UE changes its session by re-INVITE or UPDATE, and answers such changes; with glare.

use super::*;

impl Ue {
    pub(super) fn when_to_change(&mut self, now: Instant) -> Option<Instant> {
        // Few moments to choose from, so that both sides often choose the same one.
        self.chance(self.climate.changes).then(|| now + Duration::from_secs(2 + 3 * self.prng.below(3)))
    }

    /// Our re-INVITE or UPDATE: begun, sent again, given up.
    pub(super) fn change_due(&mut self, now: Instant, number: u64, acts: &mut Vec<Act>) {
        let call = self.calls.get_mut(&number).expect("listed");
        if call.stage != Stage::Up {
            (call.change, call.changing, call.taken) = (None, None, None);
            return;
        }
        if call.taken.as_ref().is_some_and(|taken| now >= taken.until) || call.changing.as_ref().is_some_and(|it| now >= it.until)
        {
            // RFC 3261 §14.2: no ACK; §12.2.1.2: no answer.
            return self.leave(now, number, acts);
        }
        for resend in [&mut call.changing, &mut call.taken].into_iter().flatten() {
            if let Some(text) = resend.again(now) {
                acts.push(Act::Send { to: call.peer, text });
            }
        }
        if call.change.is_none_or(|at| at > now) {
            return;
        }
        call.change = None;
        // RFC 3261 §14.1: not while another one is under way, nor before the ACK of the first INVITE.
        if call.changing.is_some() || call.taken.is_some() || call.resend.is_some() {
            call.change = Some(now + Duration::from_secs(3));
            return;
        }
        call.cseq += 1;
        call.version += 1;
        let method = if self.prng.below(2) == 0 { "UPDATE" } else { "INVITE" };
        let body = self.changed_sdp(number, "actpass");
        let call = self.calls.get_mut(&number).expect("listed");
        let text = with_body(in_dialog(call, method, call.cseq, self.address), &call.contact, "", &body);
        call.changing = Some(Resend::of(now, text.clone(), method == "INVITE"));
        acts.push(Act::Send { to: call.peer, text });
    }

    /// Our SDP once more, as the version it has come to.
    fn changed_sdp(&self, number: u64, setup: &str) -> String {
        let call = &self.calls[&number];
        let large = call.invite.contains("a=sendonly");
        let direction = match (large, call.caller) {
            (false, _) => "a=sendrecv",
            (true, true) => "a=sendonly",
            (true, false) => "a=recvonly",
        };
        self.sdp(&call.path, setup, false)
            .replace("o=- 1 1 ", &format!("o=- 1 {} ", call.version))
            .replace("a=sendrecv", direction)
    }

    pub(super) fn change_answered(&mut self, now: Instant, number: u64, status: u16, text: &str, acts: &mut Vec<Act>) {
        let cseq = number_of_cseq(text);
        let invite = header(text, "CSeq").ends_with("INVITE");
        let call = self.calls.get_mut(&number).expect("found by its Call-ID");
        let awaited = call.changing.as_mut().filter(|changing| number_of_cseq(&changing.text) == cseq);
        if status < 200 {
            if let Some(changing) = awaited {
                changing.trying(now);
            }
            return;
        }
        let asked = awaited.is_some();
        if asked {
            call.changing = None;
        }
        if invite {
            let mut ack = in_dialog(call, "ACK", cseq, self.address);
            if status >= 300 {
                // RFC 3261 §17.1.1.3: in the INVITE's transaction.
                ack = ack.replace(&format!("branch=z9hG4bKA{number}{cseq}\r\n"), &format!("branch=z9hG4bKI{number}{cseq}\r\n"));
            }
            acts.push(Act::Send { to: call.peer, text: ack });
        }
        match status {
            491 if asked && call.stage == Stage::Up => {
                call.change = Some(now + Duration::from_millis(if call.caller { 2_100 } else { 0 } + self.prng.below(1_900)));
            }
            500 if asked && call.stage == Stage::Up => call.change = Some(now + Duration::from_secs(11)),
            408 | 481 if asked => self.leave(now, number, acts),
            _ => {}
        }
    }

    /// The peer changes or refreshes the session.
    pub(super) fn change_asked(&mut self, now: Instant, from: SocketAddr, number: u64, text: &str, acts: &mut Vec<Act>) {
        let cseq = number_of_cseq(text);
        let call = &self.calls[&number];
        if let Some((_, answer)) = call.theirs.as_ref().filter(|(theirs, _)| *theirs == cseq) {
            return acts.push(Act::Send { to: from, text: answer.clone() });
        }
        let invite = text.starts_with("INVITE");
        let reply = if call.stage != Stage::Up {
            answer(text, "481 Call/Transaction Does Not Exist", "", "")
        } else if call.changing.is_some() {
            answer(text, "491 Request Pending", "", "")
        } else {
            let setup = if call.caller || !call.passive { "active" } else { "passive" };
            let body =
                if invite || !header(text, "Content-Type").is_empty() { self.changed_sdp(number, setup) } else { String::new() };
            let expires = match header(text, "Session-Expires") {
                "" => String::new(),
                expires => format!("Session-Expires: {expires}\r\nRequire: timer\r\n"),
            };
            with_body(answer(text, "200 OK", "", ""), &call.contact, &expires, &body)
        };
        let accepted = reply.starts_with("SIP/2.0 200");
        let call = self.calls.get_mut(&number).expect("found by its Call-ID");
        call.theirs = Some((cseq, reply.clone()));
        if invite && accepted {
            call.taken = Some(Resend::of(now, reply.clone(), false));
        }
        acts.push(Act::Send { to: from, text: reply });
    }
}
