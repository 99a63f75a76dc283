//! RFC 3261 §7.3.1, §7.3.3: header names, without regard to case, with their compact forms.

macro_rules! names {
    ($($variant:ident = $text:literal $(, $compact:literal)?;)*) => {
        /// A header name we have a use for. `Other` is any other; its text stands in the message.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Name { Other, $($variant,)* }

        const TABLE: &[(Name, &str)] = &[$((Name::$variant, $text),)*];

        impl Name {
            /// The name as it is written; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self { Name::Other => "", $(Name::$variant => $text,)* }
            }

            fn of_compact(letter: u8) -> Name {
                $($(if letter == $compact { return Name::$variant; })?)*
                Name::Other
            }
        }
    };
}

names! {
    Via = "Via", b'v';
    Route = "Route";
    RecordRoute = "Record-Route";
    MaxForwards = "Max-Forwards";
    From = "From", b'f';
    To = "To", b't';
    CallId = "Call-ID", b'i';
    CSeq = "CSeq";
    Contact = "Contact", b'm';
    Expires = "Expires";
    MinExpires = "Min-Expires";
    ContentType = "Content-Type", b'c';
    ContentLength = "Content-Length", b'l';
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding", b'e';
    ContentLanguage = "Content-Language";
    ContentId = "Content-ID";
    MimeVersion = "MIME-Version";
    Accept = "Accept";
    AcceptContact = "Accept-Contact", b'a';
    RejectContact = "Reject-Contact", b'j';
    RequestDisposition = "Request-Disposition", b'd';
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    Allow = "Allow";
    AllowEvents = "Allow-Events", b'u';
    Supported = "Supported", b'k';
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Unsupported = "Unsupported";
    SessionExpires = "Session-Expires", b'x';
    MinSe = "Min-SE";
    RSeq = "RSeq";
    RAck = "RAck";
    Event = "Event", b'o';
    SubscriptionState = "Subscription-State";
    ReferTo = "Refer-To", b'r';
    ReferredBy = "Referred-By", b'b';
    Replaces = "Replaces";
    Reason = "Reason";
    RetryAfter = "Retry-After";
    Warning = "Warning";
    UserAgent = "User-Agent";
    Server = "Server";
    Date = "Date";
    Subject = "Subject", b's';
    Priority = "Priority";
    Organization = "Organization";
    Timestamp = "Timestamp";
    Privacy = "Privacy";
    PAssertedIdentity = "P-Asserted-Identity";
    PPreferredIdentity = "P-Preferred-Identity";
    PAssertedService = "P-Asserted-Service";
    PPreferredService = "P-Preferred-Service";
    PServedUser = "P-Served-User";
    PChargingVector = "P-Charging-Vector";
    PChargingFunctionAddresses = "P-Charging-Function-Addresses";
    PAccessNetworkInfo = "P-Access-Network-Info";
    PVisitedNetworkId = "P-Visited-Network-ID";
    PAssociatedUri = "P-Associated-URI";
    HistoryInfo = "History-Info";
    Path = "Path";
    ServiceRoute = "Service-Route";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    AuthenticationInfo = "Authentication-Info";
    InReplyTo = "In-Reply-To";
    ReplyTo = "Reply-To";
    ConversationId = "Conversation-ID";
    ContributionId = "Contribution-ID";
    InReplyToContributionId = "InReplyTo-Contribution-ID";
    SessionReplaces = "Session-Replaces";
    MessageExpires = "Message-Expires";
    MessageUid = "Message-UID";
}

/// Header names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NameSet(u128);

impl NameSet {
    pub const fn add(&mut self, name: Name) {
        self.0 |= 1 << name as u8;
    }

    pub const fn has(self, name: Name) -> bool {
        self.0 >> name as u8 & 1 != 0
    }
}

impl Name {
    /// Reads a field name as it stands before the colon, long or compact.
    pub fn of(text: &[u8]) -> Name {
        if let [letter] = text {
            return Name::of_compact(letter.to_ascii_lowercase());
        }
        if text.is_empty() {
            return Name::Other;
        }
        let mut slot = slot(text);
        while let Some(name) = SLOTS[slot] {
            // Nearly all write a name as its RFC does.
            if name.as_str().as_bytes() == text || name.as_str().as_bytes().eq_ignore_ascii_case(text) {
                return name;
            }
            slot = (slot + 1) % SLOTS.len();
        }
        Name::Other
    }
}

/// Names by a hash of length, first and last letter, with open addressing; made at compile time.
static SLOTS: [Option<Name>; 256] = {
    let mut slots = [None; 256];
    let mut at = 0;
    while at < TABLE.len() {
        let (name, text) = TABLE[at];
        let mut slot = slot(text.as_bytes());
        while slots[slot].is_some() {
            slot = (slot + 1) % slots.len();
        }
        slots[slot] = Some(name);
        at += 1;
    }
    slots
};

const fn slot(text: &[u8]) -> usize {
    let (first, last) = (text[0].to_ascii_lowercase() as usize, text[text.len() - 1].to_ascii_lowercase() as usize);
    (text.len() * 67 + first * 13 + last * 5 + text[text.len() / 2].to_ascii_lowercase() as usize) % 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_without_regard_to_case_and_in_compact_form() {
        assert_eq!(Name::of(b"cAlL-iD"), Name::CallId);
        assert_eq!(Name::of(b"i"), Name::CallId);
        assert_eq!(Name::of(b"K"), Name::Supported);
        assert_eq!(Name::of(b"X-Unknown"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
    }

    #[test]
    fn a_set_holds_the_names_it_was_given() {
        const _: () = assert!(TABLE.len() < 128, "every name has a bit");
        let mut set = NameSet::default();
        set.add(Name::Other);
        set.add(Name::MessageUid);
        assert!(TABLE.iter().all(|(name, _)| set.has(*name) == (*name == Name::MessageUid)) && set.has(Name::Other));
    }

    #[test]
    fn every_name_is_found_under_its_own_text() {
        for (name, text) in TABLE {
            assert_eq!(Name::of(text.to_ascii_uppercase().as_bytes()), *name);
        }
        let longest = SLOTS.split(|slot| slot.is_none()).map(<[_]>::len).max();
        assert!(longest < Some(12), "a run of {longest:?} full slots makes the search slow");
    }
}
