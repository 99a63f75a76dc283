//! The program as its users run it: real sockets, real rings, real peers, every wait bounded and none of them a sleep.

// The vocabulary of the ladders is larger than any one of them needs.
#![allow(dead_code)]
// A test may look at the clock, and start threads of its own: it waits for a program that runs by it.
#![allow(clippy::disallowed_methods)]

mod admin;
mod appending;
mod branches;
mod browser;
mod calls;
mod capture;
mod clauses;
mod cluster;
mod counting;
mod deferral;
mod deferring_cost;
mod dialogs;
mod disk;
mod dovecot;
mod fates;
mod faults;
mod field;
mod gates;
mod generated;
mod handover;
mod hep;
mod history;
mod kamailio_core;
mod kernel_faults;
mod ladder;
mod ladders;
mod large_message;
mod load;
mod many;
mod media;
mod msrp;
mod originating;
mod overload;
mod peer_limits;
mod peers;
mod preferences;
mod program;
mod proxy;
mod pump;
mod reading;
mod registrar;
mod relay;
mod reloads;
mod rules;
mod rules_on_stores;
mod secure;
mod service;
mod shared_store;
mod sipp;
mod soak;
mod stream;
mod streams;
mod tape;
mod terminating;
mod threats;
mod torture;
mod transactions;
mod transport;
mod ue;

#[test]
fn a_configuration_of_a_test_is_one_of_the_program() {
    let text = proxy::config("[sip]\nt1 = \"20ms\"\n[policy]\nanonymity = \"reject\"\n");
    let config = cpm_pf::config::read::parse("test", &text).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    assert_eq!(config.sip.t1.as_millis(), 20);
}
