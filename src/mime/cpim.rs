//! RFC 3862: message/cpim, of which we read the head only; octets of a message in transit are never changed (§2).
//!
//! ```text
//! From: <sip:alice@example.com>          message header fields
//! NS: imdn <urn:ietf:params:imdn>
//! imdn.Message-ID: 34jk324j
//!
//! Content-Type: text/plain               header fields of the content
//!
//! Hello                                  content
//! ```

use super::fields::{self, Malformed};

/// Name space of RFC 5438 §6.
pub const IMDN: &str = "urn:ietf:params:imdn";

/// The two heads of a CPIM message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Message header fields in order, values without RFC 3862's escapes.
    pub fields: Vec<(String, String)>,
    /// MIME header fields of the content, in order.
    pub content: Vec<(String, String)>,
    /// Octets from the beginning of the message to its content.
    pub content_at: usize,
}

impl Head {
    /// Reads the heads at the beginning of a CPIM message; the content may be cut off.
    ///
    /// # Errors
    /// [`Malformed`] where a line is no header field, or the message fields do not end.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let (fields, inner_at) = fields::parse(message)?;
        if fields.is_empty() {
            return Err(Malformed { at: 0, context: "cpim > message headers" });
        }
        let rest = message.get(inner_at..).unwrap_or_default();
        let (content, length) = fields::parse(rest).map_err(|inner| Malformed { at: inner_at + inner.at, ..inner })?;
        let fields = fields.into_iter().map(|(name, value)| (name, unescaped(&value))).collect();
        Ok(Self { fields, content, content_at: inner_at + length })
    }

    /// A field of the core name space ("From", "To", "DateTime", "Subject"). Parameters that stand before the value
    /// ("Subject:;lang=fr Objet") are left out.
    pub fn field(&self, name: &str) -> Option<&str> {
        fields::find(&self.fields, name).map(without_parameters)
    }

    /// A field of another name space, whatever prefix the message gave it (RFC 3862 §3.4). A sender that uses
    /// "imdn." without declaring it is understood.
    pub fn field_in(&self, namespace: &str, name: &str) -> Option<&str> {
        let of = |prefix: &str| fields::find(&self.fields, &format!("{prefix}.{name}")).map(without_parameters);
        let usual = if namespace == IMDN { of("imdn") } else { None };
        self.prefixes().filter(|(_, uri)| *uri == namespace).find_map(|(prefix, _)| of(prefix)).or(usual)
    }

    /// `NS: prefix <uri>` declarations.
    fn prefixes(&self) -> impl Iterator<Item = (&str, &str)> {
        let declarations = self.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("NS"));
        declarations.filter_map(|(_, value)| {
            let (prefix, uri) = value.split_once('<')?;
            Some((prefix.trim(), uri.split('>').next().unwrap_or(uri).trim()))
        })
    }

    /// `imdn.Message-ID` (RFC 5438 §6.3).
    pub fn message_id(&self) -> Option<&str> {
        self.field_in(IMDN, "Message-ID")
    }

    /// Whether `imdn.Disposition-Notification` asks for this one: "positive-delivery", "negative-delivery",
    /// "processing", "display" (RFC 5438 §6.2).
    pub fn wants(&self, notification: &str) -> bool {
        let asked = self.field_in(IMDN, "Disposition-Notification").unwrap_or_default();
        asked.split(',').map(str::trim).any(|one| one.eq_ignore_ascii_case(notification))
    }

    /// URI of From.
    pub fn from_uri(&self) -> Option<&str> {
        self.field("From").map(uri_of)
    }

    /// URI of To.
    pub fn to_uri(&self) -> Option<&str> {
        self.field("To").map(uri_of)
    }

    /// Content-Type of the content.
    pub fn content_type(&self) -> Option<&str> {
        fields::find(&self.content, "Content-Type")
    }
}

/// The URI in `[Formal-name] "<" URI ">"`.
pub fn uri_of(value: &str) -> &str {
    let inner = value.rsplit_once('<').map_or(value, |(_, uri)| uri);
    inner.split('>').next().unwrap_or(inner).trim()
}

/// RFC 3862 §2.3: `Header = name ":" *( ";" parameter ) SP value`.
fn without_parameters(value: &str) -> &str {
    if !value.starts_with(';') {
        return value;
    }
    value.split_once(' ').map_or("", |(_, value)| value.trim_start())
}

/// RFC 3862 §2.3.1: \\, \", \r, \n, \t, \b and \uXXXX. An escape that is none of these stays as it is.
fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (c, length) = match after.chars().next() {
            Some(c @ ('\\' | '"' | '\'')) => (c, 1),
            Some('r') => ('\r', 1),
            Some('n') => ('\n', 1),
            Some('t') => ('\t', 1),
            Some('b') => ('\u{8}', 1),
            Some('u') => match code_point(after) {
                Some(c) => (c, 5),
                None => ('\\', 0),
            },
            _ => ('\\', 0),
        };
        out.push(c);
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}

fn code_point(escape: &str) -> Option<char> {
    char::from_u32(u32::from_str_radix(escape.get(1..5)?, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "From: MR SANDERS <im:piglet@100akerwood.com>\r\nTo: Depressed Donkey <im:eeyore@100akerwood.com>\r\n\
        DateTime: 2000-12-13T13:40:00-08:00\r\nSubject: the weather will be fine today\r\n\
        Subject:;lang=fr beau temps prevu pour aujourd'hui\r\nNS: i <urn:ietf:params:imdn>\r\n\
        i.Message-ID: 34jk324j\r\ni.Disposition-Notification: positive-delivery, Negative-Delivery\r\n\r\n\
        Content-type: text/xml; charset=utf-8\r\nContent-ID: <1234567890@foo.com>\r\n\r\n<body>\r\n\r\nx</body>";

    #[test]
    fn the_heads_are_read_and_the_content_is_where_it_says() {
        let head = Head::parse(MESSAGE.as_bytes()).unwrap();
        assert_eq!(head.from_uri(), Some("im:piglet@100akerwood.com"));
        assert_eq!(head.to_uri(), Some("im:eeyore@100akerwood.com"));
        assert_eq!(head.message_id(), Some("34jk324j"));
        assert!(head.wants("negative-delivery") && head.wants("positive-delivery") && !head.wants("display"));
        assert_eq!(head.content_type(), Some("text/xml; charset=utf-8"));
        assert_eq!(&MESSAGE[head.content_at..], "<body>\r\n\r\nx</body>");
    }

    #[test]
    fn a_prefix_that_was_not_declared_is_understood() {
        let head = Head::parse(b"From: <sip:a@b>\r\nimdn.Message-ID: x\r\n\r\n\r\n").unwrap();
        assert_eq!(head.message_id(), Some("x"));
        assert!(!head.wants("display"));
    }

    #[test]
    fn parameters_and_escapes_are_taken_off() {
        let head = Head::parse(b"Subject:;lang=fr a\\u00e9\\n\\x\\\\\r\n\r\n").unwrap();
        assert_eq!(head.field("subject"), Some("a\u{e9}\n\\x\\"));
        assert_eq!(unescaped("\\u12"), "\\u12");
        assert_eq!(unescaped("\\ud800"), "\\ud800");
        assert_eq!(unescaped("end\\"), "end\\");
        assert_eq!(unescaped("\\u\u{e9}\u{e9}x"), "\\u\u{e9}\u{e9}x");
    }

    #[test]
    fn what_is_not_cpim_is_refused() {
        assert!(Head::parse(b"").is_err());
        assert!(Head::parse(b"\r\nA: b\r\n").is_err());
        assert!(Head::parse(b"just text\r\n").is_err());
        for cut in 0..MESSAGE.len() {
            let _ = Head::parse(&MESSAGE.as_bytes()[..cut]);
        }
    }
}
