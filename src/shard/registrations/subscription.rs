//! CR 8.1.1, 8.1.2, RFC 3680, RFC 6665: registration state is learnt from the registrar, one subscription a user, begun by
//! the S-CSCF's third-party REGISTER.
//!
//! ```text
//! REGISTER (S-CSCF) ─> 200, SUBSCRIBE reg ─> NOTIFY full ─> NOTIFY partial … ─> refresh before it expires
//!                                                                      gap ──> refresh: a full document follows
//!                                                     481, terminated ──────> a new subscription
//!                                           423 Min-Expires ──────> SUBSCRIBE for that long
//! start ─> who registered before (resumption.rs) ─> SUBSCRIBE reg …
//! ```

use super::declared::Declared;
use super::reginfo::{Applied, MEDIA_TYPE, RegInfo, Table};
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::config::RegistrationSource;
use crate::cpm::facts::Client;
use crate::cpm::identity::normalise;
use crate::cpm::refusal::Refusal;
use crate::shard::outbound::{Hop, Purpose};
use crate::shard::outbox::{Effect, Outbox};
use crate::shard::sessions::Arrived;
use crate::shard::signalling::{Due, Signalling};
use crate::shard::writing::{Draft, MAX_FORWARDS};
use crate::sip::dialog::Dialog;
use crate::sip::header::event::Event;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::retry_after;
use crate::sip::header::subscription_state::SubscriptionState;
use crate::sip::ids;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::transaction::seam::{Role, ServerKey};
use serde::{Deserialize, Serialize};

/// RFC 3680 §4.4: as long as a registration may last.
const ASKED_S: u32 = 600_000;
/// A registrar that does not answer is asked again after this time.
const RETRY: Duration = Duration::from_secs(60);
/// A registrar that names a time is asked again after it, but within this.
const RETRY_MAX_S: u32 = 3600;

/// A reg-event subscription of ours.
pub struct Subscription {
    /// Normalised address, and the URI as the REGISTER named it.
    user: Box<str>,
    uri: Box<str>,
    dialog: Dialog,
    /// A SUBSCRIBE of ours is open.
    open: bool,
    /// Whether the registrar accepted.
    standing: bool,
    /// Seconds that we ask for; `raised`: the registrar's 423 to the last SUBSCRIBE raised them.
    asked_s: u32,
    raised: bool,
    table: Table,
    declared: Declared,
    /// CSeq of the last NOTIFY.
    notified: u32,
    timer: Option<Handle>,
    /// Users that the last document named.
    known: Vec<Box<str>>,
}

impl Subscription {
    /// RFC 3261 §10.3 step 7: takes up the Min-Expires of a 423. False: there is none, or it asks for no more than we did.
    fn ask_longer(&mut self, response: &Response) -> bool {
        let longer = response.header(Name::MinExpires).and_then(seconds).filter(|least_s| *least_s > self.asked_s);
        self.asked_s = longer.unwrap_or(self.asked_s);
        self.raised = longer.is_some();
        self.raised
    }
}

/// What one subscription has told, as it goes from process to process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Learnt {
    /// The user as the REGISTER named it.
    pub uri: Box<str>,
    pub registrar: Option<Box<str>>,
    /// Normalised addresses that the registration is of, and their clients.
    pub users: Vec<(Box<str>, Vec<Client>)>,
}

impl Signalling {
    /// Third-party registration: the S-CSCF tells that a user registered, or is gone (Expires 0). Where registrations are learnt,
    /// its 200 waits until the next start would know of it too.
    pub(in crate::shard) fn registered(&mut self, now: Instant, arrived: Arrived, out: &mut Outbox) {
        if !arrived.trusted {
            return self.refuse(now, arrived.server, &Refusal::new(403, "8.1.1"), out);
        }
        let request = arrived.request.clone();
        let uri = request.to().map_or("", |to| to.uri);
        let learns = self.config.registrations.source == RegistrationSource::RegEvent && !uri.is_empty();
        let expires_s = expires(&request);
        if learns && expires_s != Some(0) {
            return self.keep_registrant(now, arrived, out);
        }
        self.answer_register(now, arrived.server, expires_s, out);
        if learns {
            self.forget_registrant(normalise(uri).into(), out);
            self.declared(uri, &request, out);
            self.deregistered(now, uri, out);
        }
    }

    /// The user is gone. Should other contacts be left, or the NOTIFY of this be lost, the full document that every SUBSCRIBE brings
    /// says so.
    fn deregistered(&mut self, now: Instant, uri: &str, out: &mut Outbox) {
        let Some(key) = self.subscriptions.by_user.get(normalise(uri).as_str()).copied() else { return };
        let Some(subscription) = self.subscriptions.table.get(key) else { return };
        let standing = subscription.standing;
        for user in subscription.known.clone() {
            self.learn(&user, Vec::new(), out);
        }
        if standing && !self.handed_on {
            self.send_subscribe(now, key, out);
        }
    }

    /// 200 to a third-party REGISTER, with the time that it asked for.
    pub(super) fn answer_register(&mut self, now: Instant, server: ServerKey, expires_s: Option<u32>, out: &mut Outbox) {
        let product = crate::cpm::release::product(&self.config);
        let fill = |mut writer: crate::sip::write::Writer<'_>| {
            if let Some(expires_s) = expires_s {
                writer.format(Name::Expires, format_args!("{expires_s}"));
            }
            writer.field(Name::Server, &product);
            writer.body(b"");
        };
        if self.transactions.respond(now, server, 200, "OK", fill, out) {
            self.counts.response(Method::Register, 200, crate::shard::counts::Direction::Out);
        }
    }

    /// Subscribes to whom a third-party REGISTER names.
    pub(super) fn watch(&mut self, now: Instant, register: &Request, out: &mut Outbox) {
        let Ok(uri) = register.to().map(|to| to.uri) else { return };
        let registrar = register.values(Name::Contact).next().and_then(|value| NameAddr::parse(value).ok()).map(|at| at.uri);
        self.subscribe(now, uri, registrar, out);
        self.declared(uri, register, out);
    }

    /// Takes in what the user's clients declared.
    fn declared(&mut self, uri: &str, register: &Request, out: &mut Outbox) {
        let Some(key) = self.subscriptions.by_user.get(normalise(uri).as_str()).copied() else { return };
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return };
        if subscription.declared.learn(register) && subscription.table.is_begun() {
            self.learn_registrations(key, out);
        }
    }

    /// Subscribes to a user's registrations, unless that is done: with the registrar of the configuration, else with the core,
    /// else with whoever sent the REGISTER.
    fn subscribe(&mut self, now: Instant, uri: &str, registrar: Option<&str>, out: &mut Outbox) {
        self.subscribe_for(now, uri, registrar, ASKED_S, out);
    }

    fn subscribe_for(&mut self, now: Instant, uri: &str, registrar: Option<&str>, asked_s: u32, out: &mut Outbox) {
        let user: Box<str> = normalise(uri).into();
        if self.subscriptions.by_user.contains_key(&user) {
            return;
        }
        let configured = self.config.registrations.registrar.as_deref().or(self.config.sip.core.as_deref());
        let Some(registrar) = configured.or(registrar).map(str::to_string) else { return };
        let tag: Box<str> = ids::tag(self.shard, &mut self.prng).into();
        let call_id = ids::call_id(&mut self.prng);
        let own = format!("<sip:{}>", self.addresses.host());
        let route = format!("<{registrar}>");
        let dialog = Dialog::calling(&call_id, &own, &tag, &format!("<{uri}>"), uri, &[&route]);
        let subscription = Subscription {
            user: user.clone(),
            uri: uri.into(),
            dialog,
            open: false,
            standing: false,
            asked_s,
            raised: false,
            table: Table::default(),
            declared: Declared::default(),
            notified: 0,
            timer: None,
            known: Vec::new(),
        };
        let Ok(key) = self.subscriptions.table.insert(subscription) else { return };
        self.subscriptions.by_user.insert(user, key);
        self.subscriptions.by_tag.insert(tag, key);
        self.send_subscribe(now, key, out);
    }

    fn send_subscribe(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return };
        if subscription.open {
            return;
        }
        subscription.open = true;
        let seq = subscription.dialog.next_seq();
        let hop = subscription.dialog.next_hop().to_string();
        let transport = self.transport_of(&hop);
        let subscription = self.subscriptions.table.get(key).expect("it was just read");
        let asked_s = subscription.asked_s;
        let contact = self.addresses.uri(&subscription.dialog.id().local_tag, transport);
        let own = format!("<sip:{}>", self.addresses.host());
        let product = crate::cpm::release::product(&self.config);
        let draft = Draft::of_dialog(&subscription.dialog, Method::Subscribe, seq, MAX_FORWARDS, |mut writer| {
            writer.format(Name::Contact, format_args!("<{contact}>"));
            writer.field(Name::Event, "reg").field(Name::Accept, MEDIA_TYPE);
            writer.format(Name::Expires, format_args!("{asked_s}"));
            writer.field(Name::PAssertedIdentity, &own).field(Name::UserAgent, &product);
            writer.body(b"");
        });
        let purpose = Purpose::Subscribe { subscription: key };
        self.dispatch(now, purpose, Method::Subscribe, Role::UserAgent, draft, Hop::Uri(&hop), out);
    }

    /// The registrar answered a SUBSCRIBE, or did not.
    pub(in crate::shard) fn subscribe_heard(
        &mut self,
        now: Instant,
        key: Key,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        if status < 200 {
            return;
        }
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return };
        subscription.open = false;
        let raised = std::mem::take(&mut subscription.raised);
        let longer = status == 423 && response.is_some_and(|response| subscription.ask_longer(response));
        match (status, response) {
            (200..300, Some(response)) => {
                if let Ok(dialog) = subscription.dialog.answered(response) {
                    subscription.dialog = dialog;
                }
                subscription.standing = true;
                // RFC 3680 §4.4 names 3761 s.
                let granted_s = response.header(Name::Expires).and_then(seconds).unwrap_or(3761);
                self.arm_subscription(now, key, refresh_after(granted_s));
            }
            // The dialog is gone at the registrar: begin anew.
            (481, _) if subscription.standing => self.resubscribe(now, key, out),
            // RFC 6665 §4.1.2.1: too brief for the registrar, which says what is not. One that wants more each time has to wait.
            _ if longer && !raised => self.send_subscribe(now, key, out),
            (_, response) => {
                let told = response.and_then(|response| retry_after::parse(response.header(Name::RetryAfter)?).ok());
                self.arm_subscription(now, key, told.map_or(RETRY, obeyed));
            }
        }
    }

    fn arm_subscription(&mut self, now: Instant, key: Key, wait: Duration) {
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return };
        if let Some(old) = subscription.timer.take() {
            self.timers.cancel(old);
        }
        subscription.timer = Some(self.timers.arm(now + wait, Due::Subscription(key)));
    }

    /// A subscription is to be refreshed, or tried again.
    pub(in crate::shard) fn subscription_due(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return };
        subscription.timer = None;
        if self.handed_on {
            // The process that took over has a subscription of its own; this one runs out.
            return;
        }
        if subscription.standing { self.send_subscribe(now, key, out) } else { self.resubscribe(now, key, out) }
    }

    /// A new subscription in the place of one that is over; what is known of the user stays until it says otherwise.
    fn resubscribe(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(old) = self.forget_subscription(key) else { return };
        let registrar = old.dialog.route_set().next().and_then(|route| NameAddr::parse(route).ok()).map(|route| route.uri);
        self.subscribe_for(now, &old.uri, registrar, old.asked_s, out);
        let key = self.subscriptions.by_user.get(&old.user).copied();
        if let Some(subscription) = key.and_then(|key| self.subscriptions.table.get_mut(key)) {
            subscription.declared = old.declared;
            subscription.known = old.known;
        }
    }

    /// What is known of users' registrations, for the process that takes over.
    pub fn learnt(&self) -> Vec<Learnt> {
        let learnt = |(_, subscription): (Key, &Subscription)| {
            let registrar = subscription.dialog.route_set().next().and_then(|route| NameAddr::parse(route).ok());
            let users = subscription.known.iter().map(|user| (user.clone(), self.registrations.clients(user).to_vec()));
            Learnt { uri: subscription.uri.clone(), registrar: registrar.map(|route| route.uri.into()), users: users.collect() }
        };
        self.subscriptions.table.iter().map(learnt).collect()
    }

    /// Goes on from what another process knew: its users of this core are taken as registered, and a subscription of our own tells
    /// soon whether they still are.
    pub fn learn_from(&mut self, now: Instant, before: &[Learnt], out: &mut Outbox) {
        if self.config.registrations.source != RegistrationSource::RegEvent {
            return;
        }
        for learnt in before {
            if !self.serves(&normalise(&learnt.uri)) {
                continue;
            }
            self.subscribe(now, &learnt.uri, learnt.registrar.as_deref(), out);
            let key = self.subscriptions.by_user.get(normalise(&learnt.uri).as_str()).copied();
            let Some(subscription) = key.and_then(|key| self.subscriptions.table.get_mut(key)) else { continue };
            subscription.known = learnt.users.iter().map(|(user, _)| user.clone()).collect();
            for (user, clients) in &learnt.users {
                self.learn(user, clients.clone(), out);
            }
        }
    }

    fn forget_subscription(&mut self, key: Key) -> Option<Subscription> {
        let subscription = self.subscriptions.table.remove(key)?;
        self.subscriptions.by_user.remove(&subscription.user);
        self.subscriptions.by_tag.remove(&subscription.dialog.id().local_tag);
        if let Some(timer) = subscription.timer {
            self.timers.cancel(timer);
        }
        Some(subscription)
    }

    /// A NOTIFY of one of our subscriptions (RFC 6665 §4.1.3).
    pub(in crate::shard) fn notified(&mut self, now: Instant, key: Key, server: ServerKey, request: &Request, out: &mut Outbox) {
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return self.refuse_status(now, server, 481, out) };
        let same = request.call_id().ok() == Some(&*subscription.dialog.id().call_id);
        if request.method() != Method::Notify || !same {
            return self.refuse_status(now, server, 481, out);
        }
        // RFC 3261 §12.2.2: what was overtaken on its way says nothing any more.
        let seq = request.cseq().map_or(0, |cseq| cseq.number);
        if seq < subscription.notified {
            return self.refuse_status(now, server, 500, out);
        }
        subscription.notified = seq;
        if !request
            .header(Name::Event)
            .and_then(|value| Event::parse(value).ok())
            .is_some_and(|event| event.package.eq_ignore_ascii_case("reg"))
        {
            return self.refuse(now, server, &Refusal::new(489, "8.1.2").header("Allow-Events", "reg".to_string()), out);
        }
        // RFC 6665 §4.1.3: without it nothing tells whether the subscription goes on.
        let Some(state) = request.header(Name::SubscriptionState).and_then(|value| SubscriptionState::parse(value).ok()) else {
            return self.refuse(now, server, &Refusal::new(400, "RFC 6665 §8.2.3"), out);
        };
        let content_type = request.header(Name::ContentType).unwrap_or("").split(';').next().unwrap_or("").trim();
        if !request.body().is_empty() && !content_type.eq_ignore_ascii_case(MEDIA_TYPE) {
            return self.refuse(now, server, &Refusal::new(415, "8.1.2").header("Accept", MEDIA_TYPE.to_string()), out);
        }
        let document = if request.body().is_empty() { None } else { Some(RegInfo::parse(request.body())) };
        if matches!(document, Some(Err(_))) {
            return self.refuse(now, server, &Refusal::new(400, "8.1.2"), out);
        }
        let applied = document.and_then(Result::ok).map(|document| subscription.table.apply(document));
        self.answer_plain(now, server, 200, out);
        if matches!(applied, Some(Applied::Changed | Applied::ChangedWithGap)) {
            self.learn_registrations(key, out);
        }
        if state.is_terminated() {
            return self.terminated(now, key, &state, out);
        }
        // RFC 6665 §4.1.3: how long it really lasts.
        if let Some(left_s) = state.expires_s {
            self.lasts(now, key, left_s);
        }
        if applied == Some(Applied::ChangedWithGap) {
            self.send_subscribe(now, key, out);
        }
    }

    fn lasts(&mut self, now: Instant, key: Key, left_s: u32) {
        if self.subscriptions.table.get(key).is_some_and(|subscription| subscription.standing) {
            self.arm_subscription(now, key, refresh_after(left_s));
        }
    }

    /// RFC 6665 §4.1.3: some reasons say that a new subscription may be tried, at once or after a while; others that there is
    /// nothing to watch.
    fn terminated(&mut self, now: Instant, key: Key, state: &SubscriptionState<'_>, out: &mut Outbox) {
        let later = state.retry_after_s.map(obeyed);
        let wait = match state.reason.map(str::to_ascii_lowercase).as_deref() {
            Some("deactivated" | "timeout") => Some(Duration::ZERO),
            Some("probation") => Some(later.unwrap_or(Duration::ZERO)),
            Some("giveup") => Some(later.unwrap_or(RETRY)),
            _ => None,
        };
        match wait.filter(|_| !self.handed_on) {
            Some(Duration::ZERO) => self.resubscribe(now, key, out),
            Some(wait) => {
                if let Some(subscription) = self.subscriptions.table.get_mut(key) {
                    subscription.standing = false;
                }
                self.arm_subscription(now, key, wait);
            }
            None => {
                if let Some(over) = self.forget_subscription(key)
                    && !self.handed_on
                {
                    self.forget_registrant(over.user, out);
                }
            }
        }
    }

    /// The table of a subscription becomes what we know of its users; who has a new client gets what waits.
    fn learn_registrations(&mut self, key: Key, out: &mut Outbox) {
        let Some(subscription) = self.subscriptions.table.get_mut(key) else { return };
        let (addresses, mut clients) = subscription.table.clients();
        clients.iter_mut().for_each(|client| subscription.declared.complete(client));
        let mut users: Vec<Box<str>> = addresses.into_iter().map(|address| normalise(address).into()).collect();
        users.push(subscription.user.clone());
        users.sort();
        users.dedup();
        let gone: Vec<Box<str>> = subscription.known.iter().filter(|known| !users.contains(known)).cloned().collect();
        subscription.known.clone_from(&users);
        for user in gone {
            self.learn(&user, Vec::new(), out);
        }
        for user in users {
            self.learn(&user, clients.clone(), out);
        }
    }

    /// What is known of a user, who has a new client gets what waits. The identities of one registration (a SIP and a TEL address) may
    /// be served by several cores; the subscription is here alone.
    fn learn(&mut self, user: &str, clients: Vec<Client>, out: &mut Outbox) {
        if !self.serves(user) {
            out.effects.push(Effect::Registered { user: user.into(), clients: clients.clone() });
        }
        if self.registrations.set(user, clients) {
            self.deliver(user, out);
        }
    }

    /// A subscription of another core told of a user of this one.
    pub fn registered_elsewhere(&mut self, user: &str, clients: Vec<Client>, out: &mut Outbox) {
        if self.registrations.set(user, clients) {
            self.deliver(user, out);
        }
    }
}

/// For how long a REGISTER asks to be registered.
pub(super) fn expires(register: &Request) -> Option<u32> {
    let contact = register.header(Name::Contact).and_then(|value| value.split_once("expires=")).map(|(_, rest)| rest);
    contact.or(register.header(Name::Expires)).and_then(seconds)
}

/// How long we wait where we are told to.
fn obeyed(wait_s: u32) -> Duration {
    Duration::from_secs(u64::from(wait_s.clamp(1, RETRY_MAX_S)))
}

/// Early enough that a lost refresh can be sent again.
fn refresh_after(granted_s: u32) -> Duration {
    Duration::from_secs(u64::from(granted_s) / 2 + 1)
}

fn seconds(value: &str) -> Option<u32> {
    let digits = value.trim().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
