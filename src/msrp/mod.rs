//! MSRP (RFC 4975) as a back-to-back user agent: no SIP, no socket.

pub mod leg;
