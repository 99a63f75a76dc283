//! RFC 4566 §5: a value of a session description. A description is read once and its values are written again on the other
//! leg, most of them as they came: a value is a piece of the text it was read from, shared by count, or a text of ours.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// A value: cheap to clone, compared and read as `str`.
#[derive(Clone)]
pub struct Text(Kind);

#[derive(Clone)]
enum Kind {
    Ours(&'static str),
    /// Octets `at..end` of a text; the bounds are of whole characters.
    Piece {
        whole: Rc<str>,
        at: u32,
        end: u32,
    },
}

impl Text {
    /// The piece of `whole` that `part` is. `part` must have been cut from `whole`; of any other text a copy is made.
    pub(super) fn piece(whole: &Rc<str>, part: &str) -> Self {
        let at = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        match whole.get(at..at.saturating_add(part.len())) {
            Some(_) => Self(Kind::Piece { whole: Rc::clone(whole), at: at as u32, end: (at + part.len()) as u32 }),
            None => part.to_owned().into(),
        }
    }

    /// Octets of it.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Ours(text) => text.len(),
            Kind::Piece { at, end, .. } => (end - at) as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Ours(text) => text,
            Kind::Piece { whole, at, end } => whole.get(*at as usize..*end as usize).unwrap_or(""),
        }
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self(Kind::Ours(""))
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(Kind::Ours(text))
    }
}

impl From<Rc<str>> for Text {
    fn from(whole: Rc<str>) -> Self {
        let end = whole.len() as u32;
        Self(Kind::Piece { whole, at: 0, end })
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Rc::<str>::from(text).into()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_shares_the_text_it_was_cut_from() {
        let whole: Rc<str> = "a=path:é".into();
        let piece = Text::piece(&whole, &whole[7..]);
        assert_eq!((piece.as_str(), Rc::strong_count(&whole)), ("é", 2));
        assert_eq!(Text::piece(&whole, &whole[8 + 1..]), "");
        assert_eq!(Text::piece(&whole, "of another text"), "of another text");
        assert_eq!(Rc::strong_count(&whole), 2);
        assert_eq!((Text::from("x"), Text::default().as_str()), (Text::from("x".to_string()), ""));
    }
}
