//! RFC 3501, 3502, 4315, 7888: one connection to the Message Storage Server, and APPEND with what CR 8.5 needs of it.
//!
//! ```text
//! C: a1 APPEND "sip:bob@example.net/Default/c1" (\Seen) "01-Feb-2024 10:00:00 +0000" {412}
//! S: a1 NO [TRYCREATE] no such mailbox            -> CREATE, and APPEND again
//! S: + ready
//! C: <head, then the body straight from its file>
//! S: a1 OK [APPENDUID 1699 17] done               -> UID 17; without UIDPLUS: UID SEARCH HEADER IMDN-Message-ID
//! ```
//! Where the answer does not come, nobody knows whether the objects are there: before they are offered again they are looked for, by
//! their IMDN-Message-ID, header and size.
//!
//! With MULTIAPPEND more objects of the same mailbox follow before the last line end: all of them are stored, or none. With
//! LITERAL+, and LITERAL- for small ones, nobody waits for the "+".

use super::imap_server::Stream;
use crate::limits::IMAP_BATCH_MAX;
use crate::store::history::{Body, Object, segment};
use async_imap::Session;
use async_imap::imap_proto::{RequestId, Response, ResponseCode, Status, UidSetMember};
use async_imap::types::Fetch;
use futures_util::TryStreamExt;
use std::io;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::AsyncWriteExt;
use tokio_uring::fs::File;

/// Messages with an id that contains another's, of which each is looked at.
const CANDIDATES_MAX: usize = 16;
/// Seconds of a day.
const DAY_S: u64 = 24 * 3600;
/// Octets of a body read at a time.
const PIECE_OCTETS: usize = 64 * 1024;

/// Why an object was not stored.
#[derive(Debug)]
pub enum Failure {
    /// No connection, or it broke: worth another try.
    Away(String),
    /// It broke, or nothing was said for too long, when all had been sent: the objects may have been stored.
    Unsure(String),
    /// The server said NO or BAD: it will say so again.
    Refused(String),
    /// NO with OVERQUOTA.
    Quota,
    /// The body's file cannot be read.
    Body(io::Error),
    /// The embedded history's disk does not take it.
    Disk(io::Error),
}

impl From<async_imap::error::Error> for Failure {
    fn from(error: async_imap::error::Error) -> Self {
        use async_imap::error::Error;
        match error {
            Error::No(text) | Error::Bad(text) if is_quota(&text) => Self::Quota,
            Error::No(text) | Error::Bad(text) => Self::Refused(text),
            Error::Validate(error) => Self::Refused(error.to_string()),
            other => Self::Away(other.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Away(error.to_string())
    }
}

/// A connection, logged in.
#[derive(Debug)]
pub struct Connection {
    pub(super) session: Session<Stream>,
    pub(super) delimiter: String,
    pub(super) uid_plus: bool,
    /// RFC 3516: a literal may hold NUL.
    pub(super) binary: bool,
    /// RFC 3502: several messages in one APPEND.
    pub(super) multi: bool,
    /// RFC 7888: a literal of so many octets need not be waited for.
    pub(super) at_once: u64,
    /// An APPEND was sent whole, and not answered yet.
    pub(super) unanswered: bool,
}

impl Connection {
    /// Whether several objects go in one APPEND.
    pub const fn takes_several(&self) -> bool {
        self.multi
    }

    /// Whether the server may have stored objects without our knowing.
    pub const fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Stores those of these objects of one mailbox that are not there yet, and gives the UIDs of all, where the server tells them.
    ///
    /// # Errors
    /// As [`Connection::store`].
    pub async fn store_missing(&mut self, objects: &[&Object]) -> Result<Vec<Option<u32>>, Failure> {
        let mut uids = self.look_for(objects).await?;
        let missing: Vec<&Object> =
            objects.iter().zip(&uids).filter(|(_, uid)| uid.is_none()).map(|(object, _)| *object).collect();
        let mut stored = self.store(&missing).await?.into_iter();
        for uid in uids.iter_mut().filter(|uid| uid.is_none()) {
            *uid = stored.next().flatten();
        }
        Ok(uids)
    }

    /// Stores objects of one mailbox, all or none, and gives their UIDs, where the server tells them. Creates the mailbox where it
    /// is missing.
    ///
    /// # Errors
    /// [`Failure`]; after `Away` the connection is of no use.
    pub async fn store(&mut self, objects: &[&Object]) -> Result<Vec<Option<u32>>, Failure> {
        let Some(first) = objects.first() else { return Ok(Vec::new()) };
        if objects.len() > 1 && !self.multi {
            return Err(Failure::Refused("no MULTIAPPEND".to_owned()));
        }
        let mailbox = self.mailbox(first);
        let uids = match self.append(&mailbox, objects).await? {
            Appended::Done(uids) => uids,
            Appended::NoMailbox => {
                self.create(first).await?;
                match self.append(&mailbox, objects).await? {
                    Appended::Done(uids) => uids,
                    Appended::NoMailbox => return Err(Failure::Refused("the mailbox created is not there".to_owned())),
                }
            }
        };
        if uids.len() == objects.len() {
            return Ok(uids.into_iter().map(Some).collect());
        }
        let mut found = vec![None; objects.len()];
        if !self.uid_plus {
            for (uid, object) in found.iter_mut().zip(objects) {
                *uid = self.find(&mailbox, object).await?;
            }
        }
        Ok(found)
    }

    /// The mailbox's name, its levels parted by the server's delimiter. Nothing of a name can be taken for one.
    fn mailbox(&self, object: &Object) -> String {
        self.levels(object).join(&self.delimiter)
    }

    fn levels(&self, object: &Object) -> Vec<String> {
        let names = std::iter::once(&object.user).chain(&object.folder);
        let encode = |name: &String| {
            let segment = segment(name);
            let encoded = self.delimiter.bytes().map(|octet| format!("%{octet:02X}")).collect::<String>();
            // "%" cannot be the delimiter of a server that has list patterns.
            segment.replace(&self.delimiter, &encoded)
        };
        names.map(encode).collect()
    }

    async fn append(&mut self, mailbox: &str, objects: &[&Object]) -> Result<Appended, Failure> {
        let mailbox = quoted(mailbox)?;
        let mut tag: Option<RequestId> = None;
        for object in objects {
            let head = object.head();
            let size = head.len() as u64 + object.body.octets();
            let at_once = size <= self.at_once;
            let announced = self.announced(object, size, at_once).await?;
            let tag = match tag.take() {
                None => tag.insert(self.session.run_command(format!("APPEND {mailbox} {announced}")).await?),
                Some(begun) => {
                    self.write(format!(" {announced}\r\n").as_bytes()).await?;
                    tag.insert(begun)
                }
            };
            if !at_once && let Some(over) = self.wanted(tag).await? {
                return Ok(over);
            }
            self.literal(&head, &object.body).await?;
        }
        let Some(tag) = tag else { return Ok(Appended::Done(Vec::new())) };
        self.unanswered = true;
        self.write(b"\r\n").await?;
        loop {
            match self.said(&tag).await {
                Ok(Said::Over(appended)) => {
                    self.unanswered = false;
                    return Ok(appended);
                }
                Ok(Said::GoOn | Said::Other) => {}
                Err(failure) => {
                    self.unanswered = matches!(failure, Failure::Away(_));
                    return Err(failure);
                }
            }
        }
    }

    /// RFC 3501 §7.5: nothing of the literal goes out before the server's "+". Where it does not want it, what the APPEND came to.
    async fn wanted(&mut self, tag: &RequestId) -> Result<Option<Appended>, Failure> {
        loop {
            match self.said(tag).await? {
                Said::GoOn => return Ok(None),
                Said::Over(appended) => return Ok(Some(appended)),
                Said::Other => {}
            }
        }
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        let stream = self.session.get_mut();
        stream.write_all(octets).await?;
        Ok(stream.flush().await?)
    }

    /// Flags, date and length of one object.
    async fn announced(&self, object: &Object, size: u64, at_once: bool) -> Result<String, Failure> {
        let flags = if object.seen { "(\\Seen)" } else { "()" };
        let date = internal_date(object.date_s);
        let literal8 = if self.binary && has_nul(&object.body).await.map_err(Failure::Body)? { "~" } else { "" };
        let plus = if at_once { "+" } else { "" };
        Ok(format!("{flags} \"{date}\" {literal8}{{{size}{plus}}}"))
    }

    async fn literal(&mut self, head: &[u8], body: &Body) -> Result<(), Failure> {
        let stream = self.session.get_mut();
        stream.write_all(head).await?;
        match body {
            Body::Inline(octets) => stream.write_all(octets).await?,
            // A body that turns out to be shorter leaves the connection in the middle of a literal; it is given up.
            Body::File { path, octets } => {
                let file = File::open(path).await.map_err(Failure::Body)?;
                let sent = pieces(&file, *octets, stream).await;
                let _ = file.close().await;
                sent?;
            }
        }
        Ok(())
    }

    /// Reads one response about the APPEND of that tag.
    async fn said(&mut self, tag: &RequestId) -> Result<Said, Failure> {
        let response = self.session.read_response().await?;
        let response = response.ok_or_else(|| Failure::Away("the server closed the connection".to_owned()))?;
        match response.parsed() {
            Response::Continue { .. } => Ok(Said::GoOn),
            Response::Done { tag: of, status, code, information } if of == tag => {
                outcome(status, code.as_ref(), information.as_deref()).map(Said::Over)
            }
            _ => Ok(Said::Other),
        }
    }

    /// Each level of the mailbox's name: not every server makes the outer ones by itself (RFC 3501 §6.3.3).
    async fn create(&mut self, object: &Object) -> Result<(), Failure> {
        let levels = self.levels(object);
        for depth in 1..=levels.len() {
            match self.session.create(levels[..depth].join(&self.delimiter)).await.map_err(Failure::from) {
                // It is there already, or APPEND will say what is wrong.
                Ok(()) | Err(Failure::Refused(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The UIDs of those of these objects that the mailbox has.
    async fn look_for(&mut self, objects: &[&Object]) -> Result<Vec<Option<u32>>, Failure> {
        let mut found = vec![None; objects.len()];
        let Some(first) = objects.first() else { return Ok(found) };
        let mailbox = self.mailbox(first);
        match self.session.examine(&mailbox).await.map_err(Failure::from) {
            Ok(_) => {}
            // It is not there.
            Err(Failure::Refused(_)) => return Ok(found),
            Err(failure) => return Err(failure),
        }
        for (found, object) in found.iter_mut().zip(objects) {
            *found = self.look_for_one(object).await?;
        }
        Ok(found)
    }

    /// HEADER finds every value that contains the id (RFC 3501 §6.4.4): what is found is compared. The date spares a server without an
    /// index of header fields all other messages of the mailbox; whose day it is differs between servers.
    async fn look_for_one(&mut self, object: &Object) -> Result<Option<u32>, Failure> {
        let Some(id) = object.header("IMDN-Message-ID") else { return Ok(None) };
        let (since, before) = (day(object.date_s.saturating_sub(DAY_S)), day(object.date_s.saturating_add(2 * DAY_S)));
        let query = format!("SINCE {since} BEFORE {before} HEADER IMDN-Message-ID {}", quoted(id)?);
        let mut candidates: Vec<_> = self.session.uid_search(query).await?.into_iter().collect();
        candidates.sort_unstable();
        let head = object.head();
        let size = head.len() as u64 + object.body.octets();
        for uid in candidates.into_iter().take(CANDIDATES_MAX) {
            let items = "(RFC822.SIZE BODY.PEEK[HEADER])";
            let messages: Vec<_> = self.session.uid_fetch(uid.to_string(), items).await?.try_collect().await?;
            let same = |message: &Fetch| message.header() == Some(&head) && message.size.map(u64::from) == Some(size);
            if messages.iter().any(same) {
                return Ok(Some(uid));
            }
        }
        Ok(None)
    }

    /// The UID of what was just stored, by its IMDN-Message-ID.
    async fn find(&mut self, mailbox: &str, object: &Object) -> Result<Option<u32>, Failure> {
        let Some(id) = object.header("IMDN-Message-ID") else { return Ok(None) };
        let query = format!("HEADER IMDN-Message-ID {}", quoted(id)?);
        self.session.select(mailbox).await?;
        Ok(self.session.uid_search(query).await?.into_iter().max())
    }
}

/// A response while APPEND runs.
enum Said {
    GoOn,
    Over(Appended),
    Other,
}

/// What APPEND came to.
enum Appended {
    /// With the UIDs, where the server told them.
    Done(Vec<u32>),
    NoMailbox,
}

fn outcome(status: &Status, code: Option<&ResponseCode<'_>>, text: Option<&str>) -> Result<Appended, Failure> {
    let text = text.unwrap_or_default();
    match (status, code) {
        (Status::Ok, Some(ResponseCode::AppendUid(_, uids))) => {
            let uids = uids.iter().flat_map(|uid| match uid {
                UidSetMember::Uid(uid) => *uid..=*uid,
                UidSetMember::UidRange(range) => range.clone(),
            });
            Ok(Appended::Done(uids.take(IMAP_BATCH_MAX).collect()))
        }
        (Status::Ok, _) => Ok(Appended::Done(Vec::new())),
        (_, Some(ResponseCode::TryCreate)) => Ok(Appended::NoMailbox),
        // RFC 5530: Dovecot says so to an APPEND while another connection makes the mailbox.
        _ if text.starts_with("[ALREADYEXISTS]") => Ok(Appended::NoMailbox),
        _ if is_quota(text) => Err(Failure::Quota),
        _ => Err(Failure::Refused(text.to_owned())),
    }
}

/// RFC 5530 has OVERQUOTA; some servers only say so.
fn is_quota(text: &str) -> bool {
    text.to_ascii_lowercase().contains("quota")
}

async fn pieces(file: &File, octets: u64, stream: &mut Stream) -> Result<(), Failure> {
    let mut at = 0;
    let mut buffer = Vec::with_capacity(PIECE_OCTETS);
    while at < octets {
        let (result, mut piece) = file.read_at(buffer, at).await;
        if result.map_err(Failure::Body)? == 0 {
            return Err(Failure::Body(io::ErrorKind::UnexpectedEof.into()));
        }
        let length = (octets - at).min(piece.len() as u64);
        stream.write_all(&piece[..length as usize]).await?;
        at += length;
        piece.clear();
        buffer = piece;
    }
    Ok(())
}

async fn has_nul(body: &Body) -> io::Result<bool> {
    let Body::File { path, .. } = body else {
        let Body::Inline(octets) = body else { return Ok(false) };
        return Ok(memchr::memchr(0, octets).is_some());
    };
    let file = File::open(path).await?;
    let mut at = 0;
    let found = loop {
        let (result, piece) = file.read_at(Vec::with_capacity(PIECE_OCTETS), at).await;
        match result {
            Ok(0) => break Ok(false),
            Ok(_) if memchr::memchr(0, &piece).is_some() => break Ok(true),
            Ok(length) => at += length as u64,
            Err(error) => break Err(error),
        }
    };
    file.close().await?;
    found
}

fn internal_date(unix_s: u64) -> String {
    let format = format_description!("[day]-[month repr:short]-[year] [hour]:[minute]:[second] +0000");
    moment(unix_s).format(&format).unwrap_or_else(|_| "01-Jan-1970 00:00:00 +0000".to_owned())
}

/// RFC 3501 §9: a date.
fn day(unix_s: u64) -> String {
    moment(unix_s).format(&format_description!("[day]-[month repr:short]-[year]")).unwrap_or_else(|_| "01-Jan-1970".to_owned())
}

fn moment(unix_s: u64) -> OffsetDateTime {
    let moment = i64::try_from(unix_s).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    moment.unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// RFC 3501 §4.3: a quoted string.
fn quoted(text: &str) -> Result<String, Failure> {
    if text.contains(['\r', '\n', '\0']) {
        return Err(Failure::Refused("a line break in a name".to_owned()));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_append_wants_them() {
        assert_eq!(internal_date(1_706_781_600), "01-Feb-2024 10:00:00 +0000");
        assert_eq!((day(1_706_781_600), day(u64::MAX)), ("01-Feb-2024".to_owned(), "01-Jan-1970".to_owned()));
    }
}
