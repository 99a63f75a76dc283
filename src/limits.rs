//! Every capacity and time limit that is not configuration, each as a sum or with the reason for its size.

use std::time::Duration;

// SIP: messages, transactions, dialogs.

/// Octets of a SIP message head: start line and headers. Above it: 400 or 413, or the stream closes.
pub const SIP_HEAD_OCTETS_MAX: usize = 32 * 1024;
/// Header fields in one SIP message.
pub const SIP_FIELDS_MAX: usize = 256;
/// Record-Route values of one dialog that are kept; a path through more proxies is not credible.
pub const SIP_ROUTES_MAX: usize = 32;
/// Transactions of one core: at 5,000 calls a second each call leaves six of them for 32 seconds.
pub const TRANSACTIONS_MAX: usize = 2 * 1024 * 1024;
/// What is kept for 32 seconds or so and then forgotten is forgotten with what was to go so much earlier: one wake-up for many.
pub const FORGET_GRAIN: Duration = Duration::from_millis(125);
/// 2xx responses with different To tags that one INVITE may bring by forking; further ones are not heard.
pub const SIP_SUCCESS_FORKS_MAX: usize = 16;

// SIP: connections and peers.

/// TCP and TLS connections of one signalling core: CSCFs keep a few, clients that reach us directly one each.
pub const SIP_CONNECTIONS_MAX: usize = 16 * 1024;
/// Connections from one address that is not in `sip.trusted`: `limits.connections_per_peer` by default.
pub const SIP_CONNECTIONS_PER_PEER: usize = 256;
/// Requests a second from one address that is not in `sip.trusted`, `limits.requests_per_second_per_peer` by default: a hundred
/// clients behind one NAT that set up a session each at the same moment, with all that belongs to it.
pub const SIP_REQUESTS_PER_PEER: u32 = 1000;
/// Addresses whose requests of a second are counted one by one; those beyond share one count.
pub const SIP_RATED_PEERS_MAX: usize = 16 * 1024;
/// Octets queued for one SIP connection: 16 messages of the largest size. A peer that reads none of them is closed.
pub const SIP_SEND_QUEUE_OCTETS_MAX: usize = 1024 * 1024;
/// How long a SIP connection may take to be established.
pub const SIP_CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a SIP message may take from its first octet to its last, and a TLS handshake in all (slow senders hold a buffer):
/// `limits.opening_timeout` by default.
pub const OPENING_TIME: Duration = Duration::from_secs(10);
/// A SIP connection on which nothing whole came or went for so long is closed; both sides can open another.
pub const SIP_IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long answers still go to a peer that has shut its sending side, and how long we wait for a peer to close after we did.
pub const SIP_HALF_CLOSED_MAX: Duration = Duration::from_secs(2);
/// TLS handshakes of one core under way, `limits.handshakes` by default: each takes about a millisecond of it, and half a second of
/// them is enough.
pub const HANDSHAKES: usize = 512;

// SIP: one signalling core.

/// Sessions of one core, whatever `limits.dialogs` says.
pub const SESSIONS_MAX: usize = 1024 * 1024;
/// Target legs of one session: clients of one user, the ISF, and the sinks of store and history.
pub const TARGET_LEGS_MAX: usize = 16;
/// Clients invited for one request: the target legs but for the ISF and the sinks.
pub const CLIENT_LEGS_MAX: usize = TARGET_LEGS_MAX - 3;
/// MSRP streams of one session in its whole life, those that changes took out among them.
pub const STREAMS_MAX: usize = 16;
/// Reliable provisional responses that wait for the one before to be acknowledged: a few from each target.
pub const RELIABLE_RESPONSES_MAX: usize = 2 * TARGET_LEGS_MAX;
/// Early dialogs of one call in which reliable responses came: each target forks once.
pub const EARLY_DIALOGS_MAX: usize = 2 * TARGET_LEGS_MAX;
/// Times that a change of a session which meets another one is tried.
pub const CHANGES_MAX: usize = 4;
/// Requests of one core whose facts are on their way; those beyond get 503.
pub const PENDING_DECISIONS_MAX: usize = 16 * 1024;
/// Requests of ours on their way, on one core.
pub const OUTBOUND_MAX: usize = 256 * 1024;
/// Requests one core proxies at a time; those beyond get 503.
pub const PROXIED_MAX: usize = 64 * 1024;
/// Branches of one proxied request: as many as a user's clients.
pub const PROXY_BRANCHES_MAX: usize = TARGET_LEGS_MAX;
/// Our Contact URIs that stand for a peer's, kept for a while after their dialog.
pub const TOKENS_MAX: usize = 400_000;
/// Host names of next hops whose addresses one core remembers.
pub const RESOLVED_NAMES_MAX: usize = 1024;
/// Next-hop addresses one core remembers as dead.
pub const DEAD_TARGETS_MAX: usize = 1024;
/// Addresses and servers taken from one resolution: as many as a transaction could try before Timer B.
pub const RESOLVED_MAX: usize = 16;
/// Calls turned away for a slow queue in a second that get a line each in the log; a line of the log counts the others.
pub const SHED_LINES_MAX: u32 = 100;

// Registrations.

/// Users whose registrations one core holds by reg-event subscriptions.
pub const SUBSCRIPTIONS_MAX: usize = 200_000;
/// Users subscribed to at once after a start.
pub const REGISTRANTS_PAGE: usize = 100;
/// How long until the next users are: 500 a second and core, of which a registrar has to answer each SUBSCRIBE and send a NOTIFY.
pub const REGISTRANTS_EVERY: Duration = Duration::from_millis(200);
/// Registrations that share one commit.
pub const REGISTRANTS_BATCH_MAX: usize = 256;
/// Registrations and contacts in one reginfo document: sixteen identities with sixteen devices each.
pub const REGINFO_CONTACTS_MAX: usize = 256;

// SDP, MIME, XML.

/// Octets of one SDP body: as much as a SIP head, since both fit one signalling datagram or frame.
pub const SDP_OCTETS_MAX: usize = 64 * 1024;
/// Lines of one SDP body: sixteen m-lines with sixty lines each, and a session part.
pub const SDP_LINES_MAX: usize = 1024;
/// m-lines of one SDP body.
pub const SDP_MEDIA_MAX: usize = 16;
/// URIs in one `a=path`; relays (RFC 4976) add one each.
pub const MSRP_PATH_URIS_MAX: usize = 16;
/// Parts of one multipart body, nested ones counted: an SDP, a few lists, and what gateways add.
pub const MIME_PARTS_MAX: usize = 32;
/// Multiparts within multiparts.
pub const MIME_DEPTH_MAX: usize = 4;
/// Header fields of one part or CPIM message.
pub const MIME_FIELDS_MAX: usize = 64;
/// Octets of the header of one part or CPIM message.
pub const MIME_HEAD_OCTETS_MAX: usize = 16 * 1024;
/// Octets of one XML document (access rules, URI lists): 10,000 entries of 100 octets.
pub const XML_OCTETS_MAX: usize = 1024 * 1024;
/// Nodes of one XML document: ten for each of 10,000 entries.
pub const XML_NODES_MAX: u32 = 100_000;
/// Elements within elements; the parser recurses, so the stack is what needs it.
pub const XML_DEPTH_MAX: usize = 64;

// XDM: lists and the cache.

/// Members of one URI list with all that it refers to.
pub const URI_LIST_ENTRIES_MAX: usize = 10_000;
/// References followed from a list to a list to a list.
pub const URI_LIST_DEPTH_MAX: usize = 4;
/// Documents fetched for one list, and lists fetched for one user's rules.
pub const URI_LIST_REFERENCES_MAX: usize = 64;
/// Documents in one core's cache.
pub const XDM_CACHE_ENTRIES_MAX: usize = 16 * 1024;
/// Octets of documents in one core's cache, as they came.
pub const XDM_CACHE_OCTETS_MAX: usize = 64 * 1024 * 1024;
/// Requests that wait for one document; those beyond it go on without.
pub const XDM_WAITING_MAX: usize = 1024;
/// How old a document may be that stands in while XDM is away.
pub const XDM_STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// After a failed fetch the document is not asked for again before this time has gone.
pub const XDM_FAILURE_HOLD: Duration = Duration::from_secs(1);

// MSRP: messages.

/// Octets of an MSRP head (start line to blank line): sixteen URIs of 256 octets and as much again for other headers.
pub const MSRP_HEAD_OCTETS_MAX: usize = 8 * 1024;
/// Header fields in one MSRP head.
pub const MSRP_FIELDS_MAX: usize = 32;
/// Octets in the body of an MSRP request that is not SEND (RFC 4975 §7.1).
pub const MSRP_OTHER_BODY_OCTETS_MAX: usize = 10 * 1024;
/// Octets announced for a SEND's body up to which it is passed on whole (RFC 4975 §7.1.1: up to here it need not be
/// interruptible).
pub const MSRP_WHOLE_BODY_OCTETS_MAX: usize = 2048;

// MSRP: one media core.

/// MSRP sessions of one media core: the dialogs of the default configuration.
pub const MSRP_SESSIONS_MAX: usize = 200_000;
/// Legs of one session in its whole life: the origin, the targets, and those that replace released ones.
pub const MSRP_LEGS_MAX: usize = 32;
/// MSRP connections in one media core's table: two a session, and as many again that are on their way out or not yet bound. The
/// engine opens no more than [`MEDIA_CONNECTIONS_MAX`].
pub const MSRP_CONNECTIONS_MAX: usize = 4 * MSRP_SESSIONS_MAX;
/// Connections of one media core, opening and closing ones among them: two for each of 16,000 sessions, and as many again.
pub const MEDIA_CONNECTIONS_MAX: usize = 65_536;
/// Pipes of one media core, two descriptors each: one while something is looked at, and one for each connection to which long bodies
/// are on their way, or more where that is full. Beyond them octets are copied.
pub const MEDIA_PIPES_MAX: usize = 256;
/// Connections from one address that name no session yet, as `limits.unbound_msrp_per_peer` has it by default: a whole load test
/// that connects at once.
pub const MSRP_UNBOUND_PER_PEER: u32 = 8192;
/// A connection accepted on the MSRP port that names no session is closed after this time (RFC 4975 §5.4 leaves it open):
/// `limits.unbound_timeout` by default.
pub const MSRP_UNBOUND_TIME: Duration = Duration::from_secs(30);
/// SENDs on one connection that wait for their responses; above it their senders are paused. At a millisecond a round
/// trip that is a million messages a second.
pub const MSRP_OUTSTANDING_MAX: usize = 1024;
/// Answers to SENDs that go out together where their sender does not wait for each.
pub const MSRP_ANSWERS_HELD_MAX: u16 = 8;
/// Messages a session remembers although nobody will report on them any more.
pub const MSRP_MESSAGES_WANTED: usize = 32;
/// Messages a session remembers at all: 256 success reports under way.
pub const MSRP_MESSAGES_MAX: usize = 256;
/// Octets that may still come in on a connection that was paused: what the kernel and the rings had delivered.
pub const MSRP_HELD_OCTETS_MAX: usize = 4 * 1024 * 1024;
/// How long a Message-ID is remembered after its last chunk, for reports that come late.
pub const MSRP_REPORT_WAIT: Duration = Duration::from_secs(60);
/// After the SIP session ended: how long what is under way may stand still.
pub const MSRP_CLOSE_WAIT: Duration = Duration::from_secs(2);
/// After the SIP session ended: how long what is under way may take in all.
pub const MSRP_CLOSE_MAX: Duration = Duration::from_secs(30);
/// How much longer than that whole messages may take to reach the disk.
pub const MSRP_STORE_WAIT: Duration = Duration::from_secs(28);
/// What a peer sent over MSRP before its BYE may come so much later than the BYE, since the two travel on connections of their
/// own: this long where its messages are answered …
pub const MSRP_QUIET_WAIT: Duration = Duration::from_millis(50);
/// … and this long where they are not, or where its connection has not come yet: two retransmissions' time.
pub const MSRP_SPEAKING_WAIT: Duration = Duration::from_millis(500);
/// Messages a sink writes at the same time.
pub const SINK_FILES_MAX: usize = 16;
/// Stretches of a message that are there while others are missing: chunks out of order.
pub const SINK_GAPS_MAX: usize = 64;
/// Octets of a stored message's beginning that go with its report: a CPIM head with a score of fields.
pub const STORED_HEAD_OCTETS_MAX: usize = 4096;
/// Octets read from a stored message at a time: one large send.
pub const SOURCE_READ_OCTETS: u32 = 64 * 1024;
/// File operations of one media core under way: what keeps a disk busy.
pub const MEDIA_FILE_OPERATIONS_MAX: usize = 64;

// Between threads and processes.

/// Commands in one lane between two cores. A full lane refuses the INVITE that wanted to send one (503).
pub const LANE_ENTRIES: usize = 4096;
/// Reports of one media core that found their lane full; above it the core rests until signalling took some.
pub const MEDIA_REPORTS_HELD_MAX: usize = 16 * LANE_ENTRIES;
/// Questions before the services thread; a core whose question finds no room goes on without an answer.
pub const SERVICES_QUESTIONS_MAX: usize = 16 * 1024;
/// Questions the services thread works on at once; the rest stay in the queue.
pub const SERVICES_TASKS_MAX: usize = 1024;
/// What may wait for one core from another process, and on the link to it.
pub const HANDOVER_QUEUE_MAX: usize = 4096;

// Deferred messages.

/// Deferred messages of one user; the next sender gets 413.
pub const DEFERRED_USER_MESSAGES_MAX: u64 = 1000;
/// Octets of one user's deferred messages: ten of `msrp.max_message` as it is by default.
pub const DEFERRED_USER_OCTETS_MAX: u64 = 1000 * 1024 * 1024;
/// Octets of all deferred messages of an embedded store.
pub const DEFERRED_OCTETS_MAX: u64 = 1024 * 1024 * 1024 * 1024;
/// Deferred messages told of at once for one user; what is beyond them comes when these are delivered.
pub const WAITING_MAX: usize = 100;
/// How long a claim holds at most that is neither given back nor fulfilled: longer than any delivery that still moves.
pub const DEFERRED_LEASE: Duration = Duration::from_secs(3600);
/// How long a claim in the shared store holds unless it is renewed, which it is when a third of that is gone: what a message waits
/// for when the node that delivers it is lost.
pub const SHARED_LEASE: Duration = Duration::from_secs(45);
/// A delivery whose claim cannot be renewed is broken off so long before others may take it; longer than clocks differ.
pub const SHARED_LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Expired messages taken out of a store in one sweep.
pub const DEFERRED_SWEEP_MAX: usize = 256;
/// Changes of the index that share one commit to disk.
pub const DEFERRED_BATCH_MAX: usize = 256;
/// How long a message whose time is over is kept for a sender that wants to hear of it and cannot be reached.
pub const NOTICE_TIME: Duration = Duration::from_secs(24 * 3600);
/// How long such a message is left alone once its notice is on its way: longer than a MESSAGE can take to all addresses of a
/// next hop.
pub const NOTICE_LEASE: Duration = Duration::from_secs(900);
/// After a notice that got no answer the next one goes out so much later.
pub const NOTICE_AGAIN: Duration = Duration::from_secs(60);

// The conversation history.

/// Connections to the Message Storage Server.
pub const IMAP_CONNECTIONS_MAX: usize = 4;
/// Objects that wait for a connection to the Message Storage Server: a quarter of what the services thread works on at once, so that
/// other questions find a place while it is slow; what is beyond them waits on disk.
pub const IMAP_PENDING_MAX: usize = SERVICES_TASKS_MAX / 4;
/// Objects that go to the Message Storage Server in one APPEND.
pub const IMAP_BATCH_MAX: usize = 64;
/// Octets of these objects: what is repeated where one of them is refused.
pub const IMAP_BATCH_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// Objects on disk for a Message Storage Server that is away; beyond them recording fails.
pub const HISTORY_QUEUE_MAX: usize = 100_000;
/// Copies on disk that the history refused and that are tried again; what is beyond them is given up at once.
pub const HISTORY_REFUSED_MAX: usize = 10_000;

// What operators are shown.

/// Messages kept of one call for the operator's page: how a session of two legs begins, a refresh or two, and its end.
pub const LADDER_STEPS_MAX: usize = 24;
/// Far ends in one ladder: the origin and the targets.
pub const LADDER_PEERS_MAX: usize = 1 + TARGET_LEGS_MAX;
/// Ladders of one core whose call is no session yet or none any more: half a megabyte.
pub const LADDERS_LOOSE_MAX: usize = 1024;
/// Call records of one core that the operator's page shows again.
pub const RECENT_MAX: usize = 128;
/// Captures kept at a time.
pub const CAPTURES_MAX: usize = 8;
/// Octets one capture may hold.
pub const CAPTURE_OCTETS_MAX: usize = 16 * 1024 * 1024;
/// Seconds one capture may run.
pub const CAPTURE_SECONDS_MAX: u64 = 3600;
