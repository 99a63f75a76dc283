//! RFC 3502: objects that a real Message Storage Server takes in a second over one connection, one by one and several in one APPEND.
//! `CPM_PF_APPENDS=2000 cargo test --release --test loopback appending -- --nocapture` measures; without it the test only shows that
//! both ways store each object once.

use crate::dovecot::Dovecot;
use crate::peers::free;
use cpm_pf::io::services::imap_pool::Pool;
use cpm_pf::io::services::imap_server::Server;
use cpm_pf::limits::IMAP_BATCH_MAX;
use cpm_pf::store::history::{Body, Object};
use std::time::Instant;

/// A message of a chat, as it is kept.
fn object(mailbox: &str, number: usize) -> Object {
    let headers = [
        ("From", "tel:+15551230001"),
        ("To", "tel:+15551230002"),
        ("Date", "Thu, 01 Feb 2024 10:00:00 +0000"),
        ("Conversation-ID", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        ("Contribution-ID", "abcdef-1234-5678-90ab-cdef01234567"),
        ("Message-Direction", "sent"),
        ("Content-Type", "Message/CPIM"),
    ];
    Object {
        user: "sip:bob@example.net".to_owned(),
        folder: vec!["Default".to_owned(), mailbox.to_owned()],
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: Body::Inline(format!("{number:0>400}").into_bytes()),
        seen: true,
        date_s: 1_706_781_600,
    }
}

/// Objects a second, `several` of them in one APPEND at most.
fn appended(dovecot: &Dovecot, mailbox: &str, objects: usize, several: usize) -> f64 {
    let pool = Pool::with(Server::parse(&dovecot.uri()).expect("an address"), 1, several);
    tokio_uring::start(async {
        // Makes the mailbox, and learns what the server can do.
        pool.send(&object(mailbox, 0), false).await.expect("it is stored");
        let begun = Instant::now();
        // As many at once as the queue on disk gives.
        for window in (1..objects).collect::<Vec<_>>().chunks(IMAP_BATCH_MAX) {
            let window: Vec<_> = window.iter().map(|number| object(mailbox, *number)).collect();
            let sent = futures_util::future::join_all(window.iter().map(|object| pool.send(object, false))).await;
            assert!(sent.iter().all(|sent| matches!(sent, Ok(Some(_)))), "{sent:?}");
        }
        (objects - 1) as f64 / begun.elapsed().as_secs_f64()
    })
}

#[test]
fn objects_are_appended_one_by_one_and_several_at_once() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(dovecot) = Dovecot::place(place.path(), port, false) else { return };
    let Some(_server) = dovecot.start() else { return };
    let wanted: Option<usize> = std::env::var("CPM_PF_APPENDS").ok().and_then(|text| text.parse().ok());
    let (rounds, objects) = wanted.map_or((1, 40), |objects| (5, objects));
    for round in 0..rounds {
        // In turns.
        for several in [1, 4, 16, IMAP_BATCH_MAX] {
            let rate = appended(&dovecot, &format!("{several}-{round}"), objects, several);
            println!("objects a second over one connection, {several} in one APPEND: {rate:.0}");
        }
    }
    if wanted.is_some() {
        return;
    }
    let stored = dovecot.objects();
    for several in [1, 4, 16, IMAP_BATCH_MAX] {
        let mailbox = format!("/{several}-0");
        let mut bodies: Vec<_> =
            stored.iter().filter(|object| object.mailbox.ends_with(&mailbox)).map(|object| &object.body).collect();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), objects, "{several}");
    }
    assert_eq!(stored.len(), 4 * objects);
    assert_eq!(dovecot.appends().iter().max(), Some(&(objects - 1)));
}
