//! 8.1.1, 8.1.2, RFC 3680 on the wire: registrations learnt from the registrar.

use super::world::*;
use crate::base::clock::Duration;
use crate::config::{Config, RegistrationSource};
use crate::limits::{REGISTRANTS_EVERY, REGISTRANTS_PAGE};
use crate::shard::exchange::{Fetched, Query, StoreFailure};
use crate::sip::header::name::Name;
use crate::store::registrant::Registrant;

fn learning() -> Config {
    let mut config = config();
    config.registrations.users.clear();
    config.registrations.source = RegistrationSource::RegEvent;
    config.registrations.registrar = Some(format!("sip:{CORE};lr"));
    config
}

fn register(expires: u32) -> String {
    format!(
        "REGISTER sip:127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {CORE};branch=z9hG4bKreg{expires}\r\nMax-Forwards: 70\r\n\
         From: <sip:scscf.example.net>;tag=s\r\nTo: <sip:bob@example.net>\r\nCall-ID: reg{expires}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:scscf.example.net>\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn notify(subscribe: &Sent, cseq: u32, state: &str, fields: &str, body: &str) -> String {
    format!(
        "NOTIFY sip:127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {CORE};branch=z9hG4bKn{cseq}\r\nMax-Forwards: 70\r\n\
         From: {};tag=peer\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nContact: <sip:{CORE}>\r\n\
         Subscription-State: {state}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        subscribe.header(Name::To),
        subscribe.header(Name::From),
        subscribe.header(Name::CallId),
        body.len()
    )
}

const REG: &str = "Event: reg\r\nContent-Type: application/reginfo+xml\r\n";

fn document(version: u32, state: &str, contact: &str) -> String {
    format!(
        "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{version}\" state=\"{state}\">\
         <registration aor=\"sip:bob@example.net\" id=\"r1\" state=\"active\"><contact id=\"c1\" state=\"{contact}\" event=\"registered\">\
         <uri>sip:bob@127.0.0.1:5081</uri><unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:1&gt;\"</unknown-param>\
         <unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"</unknown-param>\
         </contact></registration></reginfo>"
    )
}

fn subscribed() -> (World, Sent) {
    let mut world = World::new(learning());
    world.receives(CORE, &register(600));
    // Its 200 waits until the next start knows of it.
    assert!(world.sent.is_empty());
    let (ticket, query) = world.questions.pop_front().expect("it is kept");
    let Query::Register(kept) = query else { panic!("{query:?}") };
    assert_eq!((&*kept.user, kept.until_s), ("sip:bob@example.net", world.now.unix_s() + 600));
    world.fetched(ticket, Fetched::Kept(Ok(())));
    let ok = world.expect(CORE, "SIP/2.0 200");
    assert_eq!(ok.header(Name::Expires), "600");
    let subscribe = world.expect(CORE, "SUBSCRIBE sip:bob@example.net");
    assert_eq!((subscribe.header(Name::Event), subscribe.header(Name::Accept)), ("reg".into(), "application/reginfo+xml".into()));
    let fields = format!("Contact: <sip:{CORE}>\r\nExpires: 600\r\n");
    world.answers(&subscribe, "200 OK", &fields, "");
    (world, subscribe)
}

fn session() -> String {
    invite("sip:bob@example.net", "term", SESSION, "", &offer("alices", "a=setup:active\r\n"))
}

#[test]
fn a_registration_is_subscribed_to_and_its_clients_are_invited() {
    let (mut world, subscribe) = subscribed();
    world.receives(CORE, &notify(&subscribe, 1, "active;expires=600", REG, &document(0, "full", "active")));
    world.expect(CORE, "SIP/2.0 200");
    let (ticket, query) = world.questions.pop_front().expect("what waits for Bob is asked for");
    assert!(matches!(&query, Query::Waiting { user } if &**user == "sip:bob@example.net"));
    world.fetched(ticket, Fetched::Waiting(Vec::new()));
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 200");
    // Without a GRUU: the registered address, and the device by its instance.
    let invite = world.expect(CORE, "INVITE sip:bob@example.net SIP/2.0");
    assert!(invite.headers(Name::AcceptContact).iter().any(|value| value.contains("+sip.instance=\"<urn:uuid:1>\"")));
    world.answers(&invite, "480 Gone", "", "");
    world.sent.clear();

    // The contact is gone: so is the client. A document out of order changes nothing.
    world.receives(CORE, &notify(&subscribe, 2, "active;expires=500", REG, &document(1, "partial", "terminated")));
    world.expect(CORE, "SIP/2.0 200");
    world.receives(CORE, &notify(&subscribe, 3, "active;expires=500", REG, &document(1, "partial", "active")));
    world.expect(CORE, "SIP/2.0 200");
    world.receives(ALICE, &session().replace("call-1", "call-2").replace("z9hG4bKinvite", "z9hG4bKother"));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 480");
}

#[test]
fn a_lost_document_is_made_up_for_and_a_refresh_comes_in_time() {
    let (mut world, subscribe) = subscribed();
    world.receives(CORE, &notify(&subscribe, 1, "active", REG, &document(0, "full", "active")));
    world.expect(CORE, "SIP/2.0 200");
    world.questions.clear();
    world.receives(CORE, &notify(&subscribe, 2, "active", REG, &document(7, "partial", "active")));
    world.expect(CORE, "SIP/2.0 200");
    let refresh = world.expect(CORE, "SUBSCRIBE");
    assert_eq!(
        (refresh.header(Name::CallId), refresh.header(Name::CSeq)),
        (subscribe.header(Name::CallId), "2 SUBSCRIBE".into())
    );
    world.answers(&refresh, "200 OK", "Expires: 600\r\n", "");
    world.passes(Duration::from_secs(301));
    let refresh = world.expect(CORE, "SUBSCRIBE");
    world.answers(&refresh, "481 Gone", "", "");
    let anew = world.expect(CORE, "SUBSCRIBE");
    assert_ne!(anew.header(Name::CallId), subscribe.header(Name::CallId));
}

#[test]
fn who_is_deregistered_has_no_client_until_the_registrar_says_otherwise() {
    let (mut world, subscribe) = subscribed();
    world.receives(CORE, &notify(&subscribe, 1, "active;expires=600", REG, &document(0, "full", "active")));
    world.expect(CORE, "SIP/2.0 200");
    world.questions.clear();
    world.receives(CORE, &register(0));
    world.expect(CORE, "SIP/2.0 200");
    let refresh = world.expect(CORE, "SUBSCRIBE");
    assert_eq!(refresh.header(Name::CallId), subscribe.header(Name::CallId));
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 480");
    // Another contact of his is left: the document that the SUBSCRIBE brings says so.
    world.answers(&refresh, "200 OK", "Expires: 600\r\n", "");
    world.receives(CORE, &notify(&subscribe, 2, "active;expires=600", REG, &document(1, "full", "active")));
    world.expect(CORE, "SIP/2.0 200");
    world.receives(ALICE, &session().replace("call-1", "call-2").replace("z9hG4bKinvite", "z9hG4bKother"));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(CORE, "INVITE sip:bob@example.net SIP/2.0");
}

#[test]
fn the_identities_of_one_registration_are_told_to_the_cores_that_serve_them() {
    let mut config = learning();
    config.cores.signaling = vec![0, 1];
    // Two cores; this one serves bob.
    let mut world = World::new(config);
    let place = |world: &World, user: &str| world.core.place_of(user).expect("it has a user part");
    assert_eq!(place(&world, "sip:bob@example.net"), 0);
    let elsewhere =
        (1..).map(|number| format!("tel:+1555{number:04}")).find(|tel| place(&world, tel) == 1).expect("half of them");
    world.receives(CORE, &register(600));
    let (ticket, _) = world.questions.pop_front().expect("it is kept");
    world.fetched(ticket, Fetched::Kept(Ok(())));
    world.expect(CORE, "SIP/2.0 200");
    let subscribe = world.expect(CORE, "SUBSCRIBE");
    world.answers(&subscribe, "200 OK", &format!("Contact: <sip:{CORE}>\r\nExpires: 600\r\n"), "");
    let own = document(0, "full", "active");
    let both =
        own.replace("<registration ", &format!("<registration aor=\"{elsewhere}\" id=\"r2\" state=\"active\"/><registration "));
    world.receives(CORE, &notify(&subscribe, 1, "active", REG, &both));
    assert_eq!(world.registered.len(), 1);
    let (user, clients) = world.registered.remove(0);
    assert_eq!((&*user, clients.len()), (&*elsewhere, 1));
    // There it counts as what that core learnt itself.
    let mut other = World::new(learning());
    other.core.registered_elsewhere(&user, clients, &mut other.out);
    other.collect();
    other.questions.clear();
    other.receives(ALICE, &session().replace("sip:bob@example.net", &elsewhere));
    other.expect(ALICE, "SIP/2.0 100");
    other.expect(ALICE, "SIP/2.0 200");
    other.expect(CORE, "INVITE");
    // Who is gone here is gone there.
    world.receives(CORE, &register(0));
    assert_eq!(world.registered, [(user, Vec::new())]);
}

#[test]
fn a_subscription_lasts_as_long_as_its_notifications_say() {
    let (mut world, subscribe) = subscribed();
    world.receives(CORE, &notify(&subscribe, 1, "active;expires=100", REG, &document(0, "full", "active")));
    world.expect(CORE, "SIP/2.0 200");
    world.passes(Duration::from_secs(50));
    world.expect_nothing();
    world.passes(Duration::from_secs(1));
    world.expect(CORE, "SUBSCRIBE");
}

/// The SUBSCRIBE that follows, and after how many seconds.
fn subscribes_after(world: &mut World) -> (Sent, u64) {
    let waited = (0..4000).find(|_| {
        world.passes(Duration::from_secs(1));
        !world.sent.is_empty()
    });
    (world.expect(CORE, "SUBSCRIBE"), waited.expect("it subscribes again") + 1)
}

#[test]
fn who_is_told_to_subscribe_later_waits() {
    for (state, wait_s) in [("probation;retry-after=30", 30), ("giveup;retry-after=7", 7), ("giveup", 60)] {
        let (mut world, subscribe) = subscribed();
        world.receives(CORE, &notify(&subscribe, 1, &format!("terminated;reason={state}"), REG, &document(0, "full", "active")));
        world.expect(CORE, "SIP/2.0 200");
        world.expect_nothing();
        let (anew, after_s) = subscribes_after(&mut world);
        assert_eq!((after_s, anew.header(Name::CSeq).as_str()), (wait_s, "1 SUBSCRIBE"), "{state}");
        world.answers(&anew, "503 Service Unavailable", "Retry-After: 12\r\n", "");
        let (again, after_s) = subscribes_after(&mut world);
        assert_eq!(after_s, 12, "{state}");
        world.answers(&again, "404 Not Found", "", "");
        assert_eq!(subscribes_after(&mut world).1, 60, "{state}");
    }
}

#[test]
fn a_registrar_that_wants_a_longer_subscription_gets_it() {
    let (mut world, _) = subscribed();
    world.passes(Duration::from_secs(301));
    let refresh = world.expect(CORE, "SUBSCRIBE");
    assert_eq!(refresh.header(Name::Expires), "600000");
    world.answers(&refresh, "423 Interval Too Brief", "Min-Expires: 700000\r\n", "");
    let longer = world.expect(CORE, "SUBSCRIBE");
    assert_eq!((longer.header(Name::Expires), longer.header(Name::CallId)), ("700000".into(), refresh.header(Name::CallId)));
    // What never ends is not gone along with: it waits like any other failure.
    world.answers(&longer, "423 Interval Too Brief", "Min-Expires: 800000\r\n", "");
    world.expect_nothing();
    let (again, after_s) = subscribes_after(&mut world);
    assert_eq!((after_s, again.header(Name::Expires).as_str()), (60, "800000"));
    // Nor is a 423 that asks for less than it was given.
    world.answers(&again, "423 Interval Too Brief", "Min-Expires: 60\r\n", "");
    world.expect_nothing();
    let (again, _) = subscribes_after(&mut world);
    world.answers(&again, "481 Gone", "", "");
    assert_eq!(world.expect(CORE, "SUBSCRIBE").header(Name::Expires), "800000");
}

#[test]
fn a_notification_without_the_state_of_its_subscription_is_refused() {
    let (mut world, subscribe) = subscribed();
    let full = document(0, "full", "active");
    let notified = notify(&subscribe, 1, "active", REG, &full);
    world.receives(CORE, &notified.replace("Subscription-State: active\r\n", ""));
    world.expect(CORE, "SIP/2.0 400");
    world.receives(CORE, &notify(&subscribe, 2, ";expires=60", REG, &full));
    world.expect(CORE, "SIP/2.0 400");
    assert!(world.questions.is_empty(), "the document was not taken");
    world.receives(CORE, &notify(&subscribe, 3, "active", REG, &full));
    world.expect(CORE, "SIP/2.0 200");
}

#[test]
fn what_is_no_notification_of_ours_is_refused() {
    let (mut world, subscribe) = subscribed();
    let full = document(0, "full", "active");
    world.receives(CORE, &notify(&subscribe, 1, "active", &REG.replace("reg\r\n", "presence\r\n"), &full));
    world.expect(CORE, "SIP/2.0 489");
    world.receives(CORE, &notify(&subscribe, 2, "active", &REG.replace("reginfo+xml", "pidf+xml"), &full));
    world.expect(CORE, "SIP/2.0 415");
    world.receives(CORE, &notify(&subscribe, 3, "active", REG, &full).replace("tag=00.", "tag=00.x"));
    world.expect(CORE, "SIP/2.0 481");
    world.questions.clear();
    world.receives(CORE, &notify(&subscribe, 4, "terminated;reason=deactivated", REG, &full));
    world.expect(CORE, "SIP/2.0 200");
    world.expect(CORE, "SUBSCRIBE");
}

/// A core that begins anew, and is told who registered before.
fn begun(before: Vec<Registrant>) -> World {
    let mut world = World::beginning(learning());
    let (ticket, query) = world.questions.pop_front().expect("it asks who registered before");
    assert!(matches!(query, Query::Registrants { core: 0, after: None }));
    world.fetched(ticket, Fetched::Registrants(before));
    world
}

fn registrant(user: &str) -> Registrant {
    let register = register(600).replace("sip:bob@example.net", user).into_bytes();
    Registrant { user: user.into(), until_s: u64::MAX, register: register.into() }
}

#[test]
fn who_registered_before_the_start_is_subscribed_to_again() {
    let mut world = begun(vec![registrant("sip:bob@example.net")]);
    let subscribe = world.expect(CORE, "SUBSCRIBE sip:bob@example.net");
    world.answers(&subscribe, "200 OK", &format!("Contact: <sip:{CORE}>\r\nExpires: 600\r\n"), "");
    world.receives(CORE, &notify(&subscribe, 1, "active;expires=600", REG, &document(0, "full", "active")));
    world.expect(CORE, "SIP/2.0 200");
    world.questions.clear();
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(CORE, "INVITE sip:bob@example.net SIP/2.0");
    // The registration ends: the next start is not to know of it.
    world.questions.clear();
    world.receives(CORE, &notify(&subscribe, 2, "terminated;reason=noresource", REG, &document(1, "full", "terminated")));
    world.expect(CORE, "SIP/2.0 200");
    assert!(
        world.questions.iter().any(|(_, query)| matches!(query, Query::Deregister { user } if &**user == "sip:bob@example.net"))
    );
}

#[test]
fn many_registered_users_are_subscribed_to_some_at_a_time() {
    let page: Vec<Registrant> =
        (0..REGISTRANTS_PAGE).map(|number| registrant(&format!("sip:user{number:04}@example.net"))).collect();
    let last = page.last().map(|registrant| registrant.user.clone());
    let mut world = begun(page);
    assert_eq!(world.sent.iter().filter(|sent| sent.line().starts_with("SUBSCRIBE")).count(), REGISTRANTS_PAGE);
    assert!(world.questions.is_empty(), "the next wait");
    world.passes(REGISTRANTS_EVERY);
    let (ticket, query) = world.questions.pop_front().expect("the next are asked for");
    assert!(matches!(query, Query::Registrants { after, .. } if after == last));
    // The store is away for a moment.
    world.fetched(ticket, Fetched::Kept(Err(StoreFailure::Unavailable)));
    world.passes(10 * REGISTRANTS_EVERY);
    let (ticket, query) = world.questions.pop_front().expect("they are asked for again");
    assert!(matches!(query, Query::Registrants { after, .. } if after == last));
    world.fetched(ticket, Fetched::Registrants(Vec::new()));
    world.passes(10 * REGISTRANTS_EVERY);
    assert!(world.questions.is_empty(), "that was all");
}

#[test]
fn a_process_that_takes_over_knows_who_is_registered_and_subscribes_itself() {
    let (mut old, subscribe) = subscribed();
    old.receives(CORE, &notify(&subscribe, 1, "active;expires=600", REG, &document(0, "full", "active")));
    let learnt = old.core.learnt();
    assert_eq!(learnt.len(), 1);

    let mut new = World::new(learning());
    new.core.learn_from(new.now, &learnt, &mut new.out);
    new.collect();
    let own = new.expect(CORE, "SUBSCRIBE sip:bob@example.net");
    assert!(!own.header(Name::To).contains("tag="), "a dialog of its own");
    assert!(matches!(new.questions.pop_front(), Some((_, Query::Waiting { user })) if &*user == "sip:bob@example.net"));
    // Before the registrar has said a word Bob can be reached.
    new.receives(ALICE, &session());
    new.expect(ALICE, "SIP/2.0 100");
    new.expect(ALICE, "SIP/2.0 200");
    new.expect(CORE, "INVITE sip:bob@example.net SIP/2.0");

    // The old one lets its subscription run out, and takes back what it gave where the new one is gone.
    old.core.hand_on();
    old.sent.clear();
    old.passes(Duration::from_secs(301));
    assert!(old.sent.iter().all(|sent| !sent.text.starts_with("SUBSCRIBE")));
    old.core.take_back(false);
    old.questions.clear();
    old.receives(ALICE, &session());
    old.expect(ALICE, "SIP/2.0 100");
    old.expect(ALICE, "SIP/2.0 200");
}
