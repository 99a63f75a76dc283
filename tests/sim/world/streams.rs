//! MSRP connections of the simulated world: octets travel in pieces, late, and sometimes not at all.

use super::*;

impl World {
    pub(super) fn stream(&mut self, ue: usize, call: Option<u64>) -> usize {
        let slow = ue != CALLER && self.prng.below(1000) < self.climate.slow;
        self.streams.push(Stream {
            connection: None,
            ue,
            call,
            endpoint: None,
            paused: false,
            held: VecDeque::new(),
            last: [self.now; 2],
            open: true,
            slow,
        });
        self.streams.len() - 1
    }

    /// Octets on a stream, torn into pieces that arrive in order. Side 0: to the proxy.
    pub(super) fn send_stream(&mut self, stream: usize, side: usize, octets: Vec<u8>) {
        if self.trace && !octets.is_empty() {
            let since = self.now.since(Instant::from_unix_s(1_700_000_000));
            let arrow = ["->", "<-"][side];
            eprintln!(
                "{since:?} stream {stream} of UE {} {arrow} proxy {:?}",
                self.streams[stream].ue,
                String::from_utf8_lossy(&octets)
            );
        }
        let mut at = 0;
        while at < octets.len() {
            let size = 1 + self.prng.below(self.climate.piece) as usize;
            let pieces_max = if side == 1 && self.streams[stream].slow { 5 } else { 200 };
            let end = (at + size.max(octets.len() / pieces_max)).min(octets.len());
            let piece = octets[at..end].to_vec();
            at = end;
            let ease = if side == 1 && self.streams[stream].slow { Duration::from_millis(200) } else { Duration::from_nanos(1) };
            let when = self.streams[stream].last[side].max(self.now + self.delay()) + ease;
            self.streams[stream].last[side] = when;
            self.agenda.add(
                when,
                if side == 0 {
                    Happening::ToProxy { stream, octets: piece }
                } else {
                    Happening::FromProxy { stream, octets: piece }
                },
            );
            if self.prng.below(1000) < self.climate.broken {
                self.faults[2] += 1;
                return self.agenda.add(when + Duration::from_nanos(1), Happening::Broken { stream });
            }
        }
    }

    pub(super) fn accept(&mut self, stream: usize) {
        let peer = self.ues[self.streams[stream].ue].address;
        let mut out = MediaOutbox::default();
        let connection = self.media.accepted(self.now, peer, false, &mut out);
        let Some(connection) = connection else { return self.fail("a connection was refused".into()) };
        self.streams[stream].connection = Some(connection);
        self.by_connection.insert(connection, stream);
        self.media_effects(None, out);
        self.speak(stream);
    }

    /// The proxy's connection to a UE is up; which call it is for shows with the first request.
    pub(super) fn connected(&mut self, stream: usize) {
        let Some(connection) = self.streams[stream].connection else { return };
        self.media_turn(None, |media, now, out| media.connected(now, connection, out));
    }

    /// The UE at the end of a stream sends its messages.
    pub(super) fn speak(&mut self, stream: usize) {
        let (ue, call) = (self.streams[stream].ue, self.streams[stream].call);
        let Some(call) = call.and_then(|call| self.ues[ue].calls.get(&call)) else { return };
        let number = call.number % 1_000_000;
        self.established += 1;
        let (own, peer, caller) = (call.path.clone(), call.peer_path.clone(), call.caller);
        let mut endpoint = Endpoint::new(&own, &peer);
        let large = self.large.get(&number).copied().unwrap_or(false);
        let messages = match (large, caller) {
            (true, true) => 1,
            (true, false) => 0,
            _ => self.climate.messages,
        };
        let mut octets = Vec::new();
        for count in 0..messages {
            let id = if caller { format!("up{number}.{count}") } else { format!("dn{ue}.{number}.{count}") };
            let length = 1 + self.prng.below(self.climate.octets);
            let body: Vec<u8> = (0..length).map(|_| b"-\r\n\0ab"[self.prng.below(6) as usize]).collect();
            octets.extend(endpoint.message(&id, &body, &mut self.prng));
            self.sent.insert(id, (number, body));
        }
        if octets.is_empty() {
            octets = endpoint.hello(&mut self.prng);
        }
        self.streams[stream].endpoint = Some(endpoint);
        self.send_stream(stream, 0, octets);
    }

    pub(super) fn proxy_gets(&mut self, stream: usize, octets: Vec<u8>) {
        let state = &mut self.streams[stream];
        let Some(connection) = state.connection.filter(|_| state.open) else { return };
        if state.paused || !state.held.is_empty() {
            return state.held.push_back(octets);
        }
        self.hand_over(connection, octets);
    }

    /// What was held back while the proxy did not read, in order, until it pauses again.
    pub(super) fn resume(&mut self, stream: usize) {
        loop {
            let state = &mut self.streams[stream];
            let Some(connection) = state.connection.filter(|_| state.open && !state.paused) else { return };
            let Some(octets) = state.held.pop_front() else { return };
            self.hand_over(connection, octets);
        }
    }

    pub(super) fn hand_over(&mut self, connection: Connection, octets: Vec<u8>) {
        let mut octets = octets;
        let mut out = MediaOutbox::default();
        self.media.receive(self.now, connection, Buffer(1), &mut octets, 0, &mut out);
        self.media_effects(Some(octets), out);
    }

    pub(super) fn user_gets(&mut self, stream: usize, mut octets: Vec<u8>) {
        let Some(connection) = self.streams[stream].connection.filter(|_| self.streams[stream].open) else { return };
        let count = octets.len();
        self.media_turn(None, |media, now, out| media.written(now, connection, count, out));
        if self.canary == Canary::Octet && octets.len() > 50 {
            let middle = octets.len() / 2;
            octets[middle] ^= 1;
        }
        self.find_call(stream, &octets);
        let Some(endpoint) = self.streams[stream].endpoint.as_mut() else { return };
        let (back, mut whole) = endpoint.receive(&octets);
        let refused = std::mem::take(&mut endpoint.refused);
        if self.canary == Canary::Message {
            whole.truncate(0);
        }
        for arrived in whole {
            self.arrive(stream, arrived);
        }
        // A 481 or a REPORT 408 is the truth when a link broke or the far end left; elsewhere it is a fault.
        let promised = self.climate.patient && self.climate.is_calm() && !self.healed;
        let fault = |what: &String| what.starts_with("chunk of") || (promised && !self.climate.long);
        if self.climate.broken == 0 && refused.iter().any(fault) {
            self.fail(format!("stream {stream}: {refused:?}"));
        }
        self.send_stream(stream, 0, back);
    }

    /// A connection that the proxy made names its call in the To-Path of the first request.
    pub(super) fn find_call(&mut self, stream: usize, octets: &[u8]) {
        if self.streams[stream].endpoint.is_some() {
            return;
        }
        let ue = self.streams[stream].ue;
        let mut seen = std::mem::take(&mut self.streams[stream].held).into_iter().flatten().collect::<Vec<u8>>();
        seen.extend_from_slice(octets);
        let text = String::from_utf8_lossy(&seen).into_owned();
        let call = text
            .split("\r\n")
            .find_map(|line| line.strip_prefix("To-Path: "))
            .filter(|path| path.ends_with(";tcp"))
            .and_then(|path| self.ues[ue].calls.values().find(|call| call.path == path))
            .map(|call| call.number);
        self.streams[stream].call = call;
        if call.is_none() {
            return self.streams[stream].held.push_back(seen);
        }
        self.speak(stream);
        if seen.len() > octets.len()
            && let Some(endpoint) = self.streams[stream].endpoint.as_mut()
        {
            let before = seen.len() - octets.len();
            let (back, _) = endpoint.receive(&seen[..before]);
            self.send_stream(stream, 0, back);
        }
    }

    pub(super) fn arrive(&mut self, stream: usize, arrived: crate::msrp::Arrived) {
        let number = self.streams[stream].call.unwrap_or(0) % 1_000_000;
        let count = self.arrived.entry((arrived.id.clone(), self.streams[stream].ue)).or_default();
        *count += 1;
        let twice = *count > 1;
        let fault = match self.sent.get(&arrived.id) {
            None => Some("which nobody sent"),
            Some((call, _)) if *call != number => Some("of another call"),
            Some((_, body)) if *body != arrived.body => Some("with other octets than were sent"),
            _ if twice => Some("a second time"),
            _ => None,
        };
        self.delivered += 1;
        if let Some(fault) = fault {
            self.fail(format!("message {} arrived in call {number} {fault}", arrived.id));
        }
    }

    pub(super) fn gone(&mut self, stream: usize, why: Gone) {
        let state = &mut self.streams[stream];
        if !std::mem::replace(&mut state.open, false) {
            return;
        }
        if let Some(connection) = state.connection {
            self.by_connection.remove(&connection);
            self.media_turn(None, |media, now, out| media.gone(now, connection, why, out));
        }
    }
}
