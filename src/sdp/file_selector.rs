//! RFC 5547 §6: the file that an m-line stands for.

use std::fmt::{Display, Formatter, Result};

/// Value of `a=file-selector`; selectors of other names are kept as written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileSelector {
    /// Name without the quotes, percent-encoded as it came.
    pub name: Option<String>,
    /// "image/jpeg", with its parameters.
    pub media_type: Option<String>,
    /// Octets of the file.
    pub size: Option<u64>,
    /// "sha-1:72:24:5F:…", one for each algorithm.
    pub hashes: Vec<String>,
    pub others: Vec<String>,
}

impl FileSelector {
    /// Reads the value. What cannot be understood is kept in `others`, so that it prints back.
    pub fn parse(value: &str) -> Self {
        let mut read = Self::default();
        for selector in selectors(value) {
            let (name, value) = selector.split_once(':').unwrap_or((selector, ""));
            match name.to_ascii_lowercase().as_str() {
                "name" => read.name = Some(value.trim_matches('"').to_owned()),
                "type" => read.media_type = Some(value.to_owned()),
                "hash" => read.hashes.push(value.to_owned()),
                "size" => match value.trim().parse() {
                    Ok(size) => read.size = Some(size),
                    Err(_) => read.others.push(selector.to_owned()),
                },
                _ => read.others.push(selector.to_owned()),
            }
        }
        read
    }
}

/// Selectors are parted by spaces that stand outside quotes (a file name and a parameter may hold spaces).
fn selectors(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value
        .split(move |c| {
            quoted ^= c == '"';
            !quoted && c == ' '
        })
        .filter(|selector| !selector.is_empty())
}

impl Display for FileSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let name = self.name.iter().map(|name| format!("name:\"{name}\""));
        let media_type = self.media_type.iter().map(|media_type| format!("type:{media_type}"));
        let size = self.size.iter().map(|size| format!("size:{size}"));
        let hashes = self.hashes.iter().map(|hash| format!("hash:{hash}"));
        let all: Vec<_> = name.chain(media_type).chain(size).chain(hashes).chain(self.others.iter().cloned()).collect();
        f.write_str(&all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_in_quotes_part_nothing() {
        // RFC 5547 §9.1, with a parameter of the type.
        let value = r#"name:"My cool picture.jpg" type:text/plain;charset="us ascii" size:32349 hash:sha-1:72:24:5F"#;
        let read = FileSelector::parse(value);
        assert_eq!(read.name.as_deref(), Some("My cool picture.jpg"));
        assert_eq!(read.media_type.as_deref(), Some(r#"text/plain;charset="us ascii""#));
        assert_eq!(read.size, Some(32349));
        assert_eq!(read.hashes, ["sha-1:72:24:5F"]);
        assert_eq!(read.to_string(), value);
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let read = FileSelector::parse("size:many colour:red");
        assert_eq!(read.size, None);
        assert_eq!(read.to_string(), "size:many colour:red");
        assert_eq!(FileSelector::parse("name:\"open size:1").to_string(), "name:\"open size:1\"");
        assert_eq!(FileSelector::parse("").to_string(), "");
    }
}
