//! CR C.1.7 (C17): Contact with isfocus, on every way through us.

use crate::alice::Alice;
use crate::bob::{Bob, CHAT_ANSWER, LARGE_ANSWER, Letter, is_own, ok, to_clients};
use cpm_pf::cpm::decision::Contact;
use cpm_pf::proves;

/// Focuses as they are written, each a header parameter.
const FOCUSES: [&str; 4] = [
    "<sip:conf-7@focus.example.net>;isfocus",
    "\"Chat, 7\" <sip:conf-7@focus.example.net;gr=x;transport=tcp>;ISFOCUS;audio;+g.oma.sip-im",
    "sip:conf-7@focus.example.net;isfocus",
    "<sip:conf-7@focus.example.net>;isfocus=\"TRUE\";expires=60",
];
/// Contacts that only look like it.
const OTHERS: [&str; 3] = [
    "<sip:alice@192.0.2.1;isfocus>",
    "<sip:alice@192.0.2.1>;isfocus=\"FALSE\"",
    "\"isfocus\" <sip:alice@192.0.2.1>;x=\";isfocus\"",
];

#[test]
fn a_focus_is_recognised_by_its_header_parameter() {
    let alice = Alice::new();
    proves!("C17-1", {
        for contact in FOCUSES {
            assert!(!is_own(&alice.invite(&Letter::large().set("Contact", contact)).contact), "{contact}");
        }
        for contact in OTHERS {
            assert!(is_own(&alice.invite(&Letter::large().set("Contact", contact)).contact), "{contact}");
        }
    });
}

#[test]
fn a_focus_passes_octet_for_octet_both_ways() {
    let (alice, bob) = (Alice::new(), Bob::new());
    proves!("C17-2", "C17-3", {
        for contact in FOCUSES {
            let copied = Contact::Copied(contact.to_string());
            assert_eq!(alice.invite(&Letter::large().set("Contact", contact)).contact, copied);
            assert_eq!(alice.invite(&Letter::session().set("Contact", contact)).contact, copied);
            assert_eq!(alice.answer(&Letter::large(), &ok(contact, LARGE_ANSWER, &[])).contact.as_ref(), Some(&copied));
            assert_eq!(alice.answer(&Letter::session(), &ok(contact, CHAT_ANSWER, &[])).contact.as_ref(), Some(&copied));
            for letter in [Letter::large(), Letter::session()] {
                let bridge = bob.bridge(&letter.set("Contact", contact));
                assert!(to_clients(&bridge).iter().all(|invite| invite.contact == copied));
            }
        }
    });
}

#[test]
fn any_other_contact_gives_way_to_ours() {
    let (alice, bob) = (Alice::new(), Bob::new());
    proves!("C17-4", {
        for contact in OTHERS {
            assert!(is_own(&alice.answer(&Letter::session(), &ok(contact, CHAT_ANSWER, &[])).contact.expect("a Contact")));
            let bridge = bob.bridge(&Letter::session().set("Contact", contact));
            assert!(to_clients(&bridge).iter().all(|invite| is_own(&invite.contact)));
        }
    });
}
