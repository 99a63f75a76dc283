//! A step of a procedure that says no: the final response it prescribes.

use std::borrow::Cow;

/// The final response of a request refused, and the clause that refused it. `?` carries it out of a procedure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// 300 to 699.
    pub status: u16,
    /// The reason phrase, where it is not the standard one.
    pub reason: Option<Cow<'static, str>>,
    /// Id in `tests/clauses.tsv`, or the RFC section ("RFC 4028 §9"): label of the metric, cause in log and CDR.
    pub clause: &'static str,
    /// The quoted text of a Warning header ("127 Service not authorised") and its warn-code (399, 304).
    pub warning: Option<(u16, &'static str)>,
    /// Further header fields: Min-SE, Retry-After, Unsupported, Allow …
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A refusal with the standard reason phrase and no further fields.
    pub const fn new(status: u16, clause: &'static str) -> Self {
        Self { status, reason: None, clause, warning: None, headers: Vec::new() }
    }

    /// With `Warning: 399 <host> "text"`. The CPM code is the first word of the text, as the CR writes it.
    pub const fn warn(mut self, text: &'static str) -> Self {
        self.warning = Some((399, text));
        self
    }

    /// With a further header field.
    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}
