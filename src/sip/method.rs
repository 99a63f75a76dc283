//! RFC 3261 §7.1: methods.

/// A SIP method. `Other` is a method this proxy has no procedure for; its text stands in the message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Message,
    Subscribe,
    Notify,
    Refer,
    Info,
    Update,
    Prack,
    Publish,
    Other,
}

const NAMES: [(&str, Method); 14] = [
    ("INVITE", Method::Invite),
    ("ACK", Method::Ack),
    ("BYE", Method::Bye),
    ("CANCEL", Method::Cancel),
    ("OPTIONS", Method::Options),
    ("REGISTER", Method::Register),
    ("MESSAGE", Method::Message),
    ("SUBSCRIBE", Method::Subscribe),
    ("NOTIFY", Method::Notify),
    ("REFER", Method::Refer),
    ("INFO", Method::Info),
    ("UPDATE", Method::Update),
    ("PRACK", Method::Prack),
    ("PUBLISH", Method::Publish),
];

impl Method {
    /// Reads a method token; methods are case-sensitive (RFC 3261 §7.1).
    pub fn of(token: &str) -> Method {
        NAMES.iter().find(|(name, _)| *name == token).map_or(Method::Other, |(_, method)| *method)
    }

    /// The token; "OTHER" for [`Method::Other`], whose text only the message knows.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(_, method)| *method == self).map_or("OTHER", |(name, _)| *name)
    }
}
