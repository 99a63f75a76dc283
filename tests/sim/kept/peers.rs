//! Alice, who sends messages and wants to hear of failures, and Bob, who takes them as he likes; and the network between them.

use super::*;

impl World {
    pub(super) fn soon(&mut self) -> Instant {
        self.now + Duration::from_micros(10 + self.prng.below(30_000))
    }

    /// How often a datagram arrives.
    pub(super) fn copies(&mut self) -> u32 {
        match self.prng.below(1000) {
            chance if chance < self.losing => 0,
            chance if chance < self.losing + self.doubling => 2,
            _ => 1,
        }
    }

    pub(super) fn says(&mut self, from: SocketAddr, text: String) {
        for _ in 0..self.copies() {
            let when = self.soon();
            self.agenda.add(when, Happening::Datagram { from, text: text.clone() });
        }
    }

    /// RFC 3261 §17.1: over UDP a request is sent again, each time after twice as long, until something comes.
    pub(super) fn asks(&mut self, branch: String, text: String) {
        self.unanswered.insert(branch.clone(), text);
        self.asks_again(branch, 0);
    }

    pub(super) fn asks_again(&mut self, branch: String, tries: u32) {
        let Some(text) = self.unanswered.get(&branch).cloned() else { return };
        self.says(at(2), text);
        if tries < 6 {
            let when = self.now + Duration::from_millis(500 << tries);
            self.agenda.add(when, Happening::AsksAgain { branch, tries: tries + 1 });
        } else {
            self.unanswered.remove(&branch);
        }
    }

    /// Answers a request; `text` is empty for silence.
    pub(super) fn answers(&mut self, from: SocketAddr, request: &Request, text: String) {
        if !text.is_empty() {
            self.says(from, text.clone());
        }
        self.answered.insert(name_of(request), text);
    }

    /// Alice sends her next message.
    pub(super) fn call(&mut self, message: usize) {
        let call = format!("call-{message}-{}", self.seed);
        let wishes = self.prng.below(2) == 0;
        let expires = [None, Some(5), Some(600)][self.prng.below(3) as usize];
        let expires = expires.map_or(String::new(), |seconds: u64| format!("Message-Expires: {seconds}\r\n"));
        self.fates[message].call.clone_from(&call);
        self.fates[message].wishes = wishes;
        let body = sdp("10.0.0.2", "a=sendonly\r\na=file-selector:size:500\r\na=setup:active\r\n");
        let text = format!(
            "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{call}\r\nMax-Forwards: 70\r\n\
             Route: <sip:term@10.0.0.1:5060;lr>\r\nFrom: <sip:alice@example.net>;tag=alice\r\nTo: <sip:bob@example.net>\r\nCall-ID: {call}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:alice@10.0.0.2:5060>\r\nP-Asserted-Identity: <sip:alice@example.net>\r\n\
             Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"\r\nConversation-ID: c{message}\r\nContribution-ID: d{message}\r\n\
             {expires}User-Agent: CPM-client/OMA2.2\r\nSupported: timer\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.asks(format!("z9hG4bK{call}"), text);
    }

    pub(super) fn peer_gets(&mut self, to: SocketAddr, text: &str) {
        let Ok(message) = Incoming::parse(text.as_bytes()) else { return self.fail(format!("it sends {text}")) };
        match message {
            Incoming::Request(request) => self.asked(to, &request),
            Incoming::Response(response) if to == at(2) => self.alice_hears(response.status(), text),
            Incoming::Response(_) => {}
        }
    }

    /// Alice acknowledges every final answer to her INVITE; her message goes out on a 2xx.
    pub(super) fn alice_hears(&mut self, status: u16, text: &str) {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default().trim().to_owned()
        };
        let invited = field("CSeq").ends_with("INVITE");
        if invited || status >= 200 {
            let branch =
                field("Via").split("branch=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned();
            self.unanswered.remove(&branch);
        }
        if !invited || status < 200 {
            return;
        }
        let call = field("Call-ID");
        let Some(message) = self.fates.iter().position(|fate| fate.call == call) else { return };
        let contact = field("Contact");
        let target = contact.split(['<', '>']).nth(1).unwrap_or("sip:bob@example.net").to_owned();
        let branch = if status < 300 { format!("{call}ack") } else { call.clone() };
        let ack = format!(
            "ACK {target} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {call}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            field("From"),
            field("To")
        );
        self.says(at(2), ack);
        if status >= 300 {
            return;
        }
        let to = field("To");
        let tag = to.split(";tag=").nth(1).unwrap_or_default();
        let branch = format!("z9hG4bK{call}bye{tag}");
        let text = format!(
            "BYE {target} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch={branch}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n",
            field("From"),
        );
        let fate = &mut self.fates[message];
        if fate.dialog.is_empty() {
            fate.dialog.clone_from(&to);
        }
        if fate.dialog != to {
            // Her INVITE came again to a process that knew nothing of the first: one call is enough.
            return self.asks(branch, text);
        }
        if !std::mem::replace(&mut fate.sent, true) {
            // Two sinks at once may change places: then so do two messages, whole.
            let Some((session, leg)) = self.sinks.pop_first() else { return };
            let wish = if self.fates[message].wishes { "imdn.Disposition-Notification: negative-delivery\r\n" } else { "" };
            let head = format!(
                "From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: im-{message}\r\nDateTime: 2024-02-01T10:00:00Z\r\n{wish}\r\nContent-Type: text/plain\r\n\r\nx"
            );
            let stored = Stored {
                session,
                leg,
                file: PathBuf::from(format!("spool/{message}")),
                octets: 500,
                message_id: format!("m{message}").into(),
                content_type: "message/cpim".into(),
                head: head.into_bytes().into(),
                success_report: false,
                from: 0,
            };
            let when = self.soon() + Duration::from_millis(40);
            self.agenda.add(when, Happening::Report(Report::Stored(Box::new(stored))));
            self.agenda.add(self.now + Duration::from_secs(2), Happening::Asks { branch, text });
        }
    }

    /// A request of ours: to Bob, or to Alice by her network.
    pub(super) fn asked(&mut self, to: SocketAddr, request: &Request) {
        if let Some(text) = self.answered.get(&name_of(request)).cloned() {
            if !text.is_empty() {
                self.says(to, text);
            }
            return;
        }
        match request.method().as_str() {
            "INVITE" => self.bob_is_invited(request),
            "ACK" => {}
            "MESSAGE" => {
                let body = String::from_utf8_lossy(request.body()).into_owned();
                let number = body.split("<message-id>im-").nth(1).and_then(|rest| rest.split('<').next()?.parse::<usize>().ok());
                let Some(number) = number.filter(|number| *number < self.fates.len()) else {
                    return self.fail(format!("a notice about nothing: {body}"));
                };
                match if self.calm { 0 } else { self.prng.below(4) } {
                    3 => self.answers(to, request, String::new()),
                    2 => self.answers(to, request, answer(request, "503 Service Unavailable", "", "")),
                    _ => {
                        self.fates[number].told += 1;
                        self.answers(to, request, answer(request, "200 OK", "", ""));
                    }
                }
            }
            _ => self.answers(to, request, answer(request, "200 OK", "", "")),
        }
    }

    pub(super) fn bob_is_invited(&mut self, request: &Request) {
        let asked = request.header(Name::ConversationId).and_then(|id| id.strip_prefix('c')?.parse::<usize>().ok());
        let Some(number) = asked.filter(|number| *number < self.fates.len()) else {
            return self.fail("an INVITE about nothing".into());
        };
        // Alice's own INVITE, passed on: Bob is out of reach, so that the message is kept. Relaying is for the other world.
        let Some((session, id)) = self.source.clone().filter(|(_, id)| number_of(id) == Some(number)) else {
            return self.answers(at(3), request, answer(request, "480 Temporarily Unavailable", "", ""));
        };
        let mood = if self.calm { 9 } else { self.prng.below(10) };
        let refusal = match mood {
            0 => "486 Busy Here",
            1 => "480 Temporarily Unavailable",
            2 => "603 Decline",
            3 => return self.answers(at(3), request, String::new()),
            _ => "",
        };
        if !refusal.is_empty() {
            self.fates[number].declined |= mood == 2;
            return self.answers(at(3), request, answer(request, refusal, "", ""));
        }
        let contact = "Contact: <sip:bob@10.0.0.3:5060>\r\nContent-Type: application/sdp\r\n";
        let body = sdp("10.0.0.3", "a=recvonly\r\na=setup:passive\r\n");
        self.answers(at(3), request, answer(request, "200 OK", contact, &body));
        // His message begins when we have heard that.
        self.accepting.insert(session, (mood == 4, id));
    }

    /// We connect to Bob, and send.
    pub(super) fn bob_is_sent(&mut self, session: MediaKey, leg: LegIndex) {
        let Some((refuses, id)) = self.accepting.remove(&session) else { return };
        let message_id = id.as_str().into();
        let when = self.now + Duration::from_millis(200 + self.prng.below(2_000));
        if refuses {
            return self.agenda.add(when, Happening::Report(Report::Undelivered { session, leg, message_id, status: 408 }));
        }
        // Bob has the whole of it from here on; that we hear of it is another matter.
        if let Some(fate) = number_of(&id).and_then(|number| self.fates.get_mut(number)) {
            fate.delivered += 1;
        }
        self.agenda.add(when, Happening::Report(Report::Delivered { session, leg, message_id, octets: 500 }));
    }
}
