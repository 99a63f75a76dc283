//! One table of the file while it is read: each key is asked for once, mistakes are collected, leftovers are unknown keys.

use super::value;
use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A mistake by octet range: what is wrong, and what is accepted.
pub(super) type Finding = (Range<usize>, String, String);
pub(super) type Findings = RefCell<Vec<Finding>>;

/// A value with the range it stands in.
pub(super) type Value<'d, 'i> = &'d Spanned<DeValue<'i>>;

pub(super) struct Section<'d, 'i> {
    /// "[sip]" as the reader knows it.
    name: String,
    table: Option<&'d DeTable<'i>>,
    /// Where it stands in the file.
    at: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
    findings: &'d Findings,
}

impl<'d, 'i> Section<'d, 'i> {
    /// The whole file.
    pub fn whole(table: &'d DeTable<'i>, findings: &'d Findings) -> Self {
        Self::new("", Some(table), 0..0, findings)
    }

    fn new(name: impl Into<String>, table: Option<&'d DeTable<'i>>, at: Range<usize>, findings: &'d Findings) -> Self {
        Self { name: name.into(), table, at, asked: RefCell::default(), findings }
    }

    /// A key as the reader knows it, with the tables that lead to it: "sip.tls.certificate".
    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Notes a mistake at a value.
    pub fn wrong(&self, at: Range<usize>, what: impl Into<String>, accepted: impl Into<String>) {
        self.findings.borrow_mut().push((at, what.into(), accepted.into()));
    }

    /// Notes that a key is missing which must be given.
    pub fn missing(&self, key: &str, accepted: impl Into<String>) {
        self.wrong(self.at.clone(), format!("{} is missing", self.path(key)), accepted);
    }

    /// Whether the table stands in the file at all.
    pub fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// The value of a key; the key counts as known from now on.
    pub fn get(&self, key: &'static str) -> Option<Value<'d, 'i>> {
        self.asked.borrow_mut().push(key);
        let table = self.table?;
        table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// A table within this one.
    pub fn section(&self, key: &'static str) -> Section<'d, 'i> {
        let name = self.path(key);
        let Some(value) = self.get(key) else { return Section::new(name, None, 0..0, self.findings) };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(value.span(), format!("{name} is not a table"), format!("a table [{name}]"));
        }
        Section::new(name, table, value.span(), self.findings)
    }

    /// An array of tables.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d, 'i>> {
        let name = self.path(key);
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(value.span(), format!("{name} is not an array of tables"), format!("[[{name}]]"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        for entry in array.iter() {
            match entry.get_ref().as_table() {
                Some(table) => sections.push(Section::new(name.clone(), Some(table), entry.span(), self.findings)),
                None => self.wrong(entry.span(), format!("{name} has {}", shown(entry.get_ref())), format!("[[{name}]]")),
            }
        }
        sections
    }

    /// Reports keys that nobody asked for; the end of a section.
    pub fn finish(self) {
        self.leftovers();
    }

    /// Reports keys that nobody asked for.
    pub fn leftovers(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            if !asked.iter().any(|known| key.get_ref() == known) {
                let place = if self.name.is_empty() { "the file".into() } else { format!("[{}]", self.name) };
                self.wrong(key.span(), format!("unknown key \"{}\" in {place}", key.get_ref()), asked.join(", "));
            }
        }
    }

    /// Reads a value with `read`; what it refuses is a mistake.
    pub fn read<T>(&self, key: &'static str, accepted: &str, read: impl FnOnce(&DeValue<'i>) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        let read = read(value.get_ref());
        if read.is_none() {
            self.wrong(value.span(), format!("{} is {}", self.path(key), shown(value.get_ref())), accepted);
        }
        read
    }

    pub fn string(&self, key: &'static str, field: &mut String) {
        if let Some(text) = self.read(key, "a string", |value| value.as_str().map(str::to_owned)) {
            *field = text;
        }
    }

    /// A string that must match `accept`.
    pub fn checked(&self, key: &'static str, accepted: &str, accept: impl Fn(&str) -> bool) -> Option<String> {
        self.read(key, accepted, |value| value.as_str().filter(|text| accept(text)).map(str::to_owned))
    }

    /// A string that must match `accept` and may hold a password: where it is wrong it is not repeated.
    pub fn secret(&self, key: &'static str, accepted: &str, accept: impl Fn(&str) -> bool) -> Option<String> {
        let value = self.get(key)?;
        let read = value.get_ref().as_str().filter(|text| accept(text)).map(str::to_owned);
        if read.is_none() {
            self.wrong(value.span(), format!("{} is none of what it can be", self.path(key)), accepted);
        }
        read
    }

    pub fn boolean(&self, key: &'static str, field: &mut bool) {
        if let Some(value) = self.read(key, "true or false", DeValue::as_bool) {
            *field = value;
        }
    }

    /// A duration within `from..=to`.
    pub fn duration(&self, key: &'static str, field: &mut Duration, from: Duration, to: Duration) {
        let accepted = format!("{}, from {} to {}", value::DURATION, value::print_duration(from), value::print_duration(to));
        let within = |text: &str| value::duration(text).filter(|duration| (from..=to).contains(duration));
        if let Some(duration) = self.read(key, &accepted, |value| value.as_str().and_then(within)) {
            *field = duration;
        }
    }

    /// A size within `from..=to` octets.
    pub fn size(&self, key: &'static str, from: u64, to: u64) -> Option<u64> {
        let accepted = format!("{}, from {} to {}", value::SIZE, value::print_size(from), value::print_size(to));
        self.read(key, &accepted, |value| value.as_str().and_then(value::size).filter(|size| (from..=to).contains(size)))
    }

    /// A whole number within `from..=to`, which the field can hold.
    pub fn number<T: TryFrom<u64>>(&self, key: &'static str, field: &mut T, from: u64, to: u64) {
        let within = |value: &DeValue<'_>| number(value).filter(|n| (from..=to).contains(n)).and_then(|n| T::try_from(n).ok());
        if let Some(number) = self.read(key, &format!("a whole number from {from} to {to}"), within) {
            *field = number;
        }
    }

    /// One of several words.
    pub fn word<T: Copy>(&self, key: &'static str, field: &mut T, words: &[(&str, T)]) {
        let accepted = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if let Some(value) = self.read(key, &accepted, |value| value.as_str().and_then(find)) {
            *field = value;
        }
    }

    /// An array; each element that `read` refuses is a mistake of its own.
    pub fn list<T>(
        &self,
        key: &'static str,
        accepted: &str,
        read: impl Fn(&DeValue<'i>) -> Option<T>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let what = format!("{} is {}, no array", self.path(key), shown(value.get_ref()));
            self.wrong(value.span(), what, format!("an array, [VALUE, …], of {accepted}"));
            return None;
        };
        let mut list = Vec::with_capacity(array.len());
        for element in array.iter() {
            match read(element.get_ref()) {
                Some(read) => list.push((read, element.span())),
                None => self.wrong(element.span(), format!("{} has {}", self.path(key), shown(element.get_ref())), accepted),
            }
        }
        Some(list)
    }

    pub fn strings(&self, key: &'static str, field: &mut Vec<String>) {
        if let Some(list) = self.list(key, "a string", |value| value.as_str().map(str::to_owned)) {
            *field = list.into_iter().map(|(text, _)| text).collect();
        }
    }
}

/// A value as it is told in a mistake: as it stands in the file, or its kind.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A decimal whole number.
pub(super) fn number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}
