//! RFC 4825: XCAP documents, from a directory laid out as a server would serve it, or from a server over HTTP.

use crate::config::Config;
use crate::limits::XML_OCTETS_MAX;
use crate::shard::exchange::Document;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_uring::fs::File;

/// How long a server may take: within it the call waits.
const TIME_MAX: Duration = Duration::from_millis(500);

/// The HTTP client, made when it is first needed.
#[derive(Default)]
pub struct Xcap {
    client: OnceCell<Option<reqwest::Client>>,
}

impl std::fmt::Debug for Xcap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Xcap").finish_non_exhaustive()
    }
}

impl Xcap {
    /// `AUID/users/XUI/DOCUMENT` under `xdm.root`.
    pub async fn document(&self, config: &Config, auid: &str, xui: &str, document: &str, etag: Option<&str>) -> Document {
        match config.xdm.root.strip_prefix("file:") {
            Some(root) => from_directory(Path::new(root), auid, xui, document, etag).await,
            None => {
                let root = config.xdm.root.trim_end_matches('/');
                let uri = format!("{root}/{auid}/users/{}/{}", segment(xui), segment(document));
                self.get(&uri, Some(xui), etag).await
            }
        }
    }

    /// A list named by an absolute URI, with or without node selector. Under a `file:` root a URI that names a document
    /// of the tree is read there, whatever host it names.
    pub async fn external(&self, config: &Config, uri: &str) -> Document {
        if let Some(root) = config.xdm.root.strip_prefix("file:")
            && let Some((auid, xui, document)) = place_of(uri)
        {
            let found = from_directory(Path::new(root), auid, &xui, &document, None).await;
            if found != Document::Absent {
                return found;
            }
        }
        self.get(uri, None, None).await
    }

    async fn get(&self, uri: &str, asserted: Option<&str>, etag: Option<&str>) -> Document {
        match tokio::time::timeout(TIME_MAX, self.request(uri, asserted, etag)).await {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => {
                tracing::warn!(uri, %error, "XCAP request failed");
                Document::Failed
            }
            Err(_) => {
                tracing::warn!(uri, "XCAP server did not answer in time");
                Document::Failed
            }
        }
    }

    async fn request(&self, uri: &str, asserted: Option<&str>, etag: Option<&str>) -> reqwest::Result<Document> {
        let Some(client) = self.client.get_or_init(client) else { return Ok(Document::Failed) };
        let mut response = client.get(uri).headers(headers(asserted, etag)).send().await?;
        Ok(match response.status() {
            StatusCode::OK => {
                let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok()).map(Into::into);
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    if body.len() + chunk.len() > XML_OCTETS_MAX {
                        return Ok(Document::Failed);
                    }
                    body.extend_from_slice(&chunk);
                }
                Document::Found { body: body.into(), etag }
            }
            StatusCode::NOT_MODIFIED => Document::NotModified,
            StatusCode::NOT_FOUND | StatusCode::GONE => Document::Absent,
            status => {
                tracing::warn!(uri, %status, "XCAP server refused");
                Document::Failed
            }
        })
    }
}

/// No redirects: a document's reference may name a server, not send us on through it.
fn client() -> Option<reqwest::Client> {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().connect_timeout(TIME_MAX);
    builder.build().inspect_err(|error| tracing::error!(%error, "no HTTP client")).ok()
}

/// Servers that trust us take the user's identity from a header: the name OMA gives it, and the one of 3GPP TS 24.423.
fn headers(asserted: Option<&str>, etag: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = asserted.and_then(|user| HeaderValue::from_str(&format!("\"{user}\"")).ok()) {
        headers.insert("x-xcap-asserted-identity", value.clone());
        headers.insert("x-3gpp-asserted-identity", value);
    }
    headers.extend(etag.and_then(|etag| HeaderValue::from_str(etag).ok()).map(|etag| (IF_NONE_MATCH, etag)));
    headers
}

/// Reads the document of the first spelling of XUI that exists. Size and time of change are its ETag.
async fn from_directory(root: &Path, auid: &str, xui: &str, document: &str, etag: Option<&str>) -> Document {
    let Some(document) = plain(document) else { return Document::Absent };
    for xui in spellings(xui) {
        let path: PathBuf = [root, Path::new(auid), Path::new("users"), Path::new(&xui), Path::new(document)].iter().collect();
        match read(&path, etag).await {
            Ok(found) => return found,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "XDM document cannot be read");
                return Document::Failed;
            }
        }
    }
    Document::Absent
}

async fn read(path: &Path, etag: Option<&str>) -> std::io::Result<Document> {
    let file = File::open(path).await?;
    let result = contents(&file, etag).await;
    file.close().await?;
    result
}

async fn contents(file: &File, etag: Option<&str>) -> std::io::Result<Document> {
    let facts = file.statx().await?;
    let octets = usize::try_from(facts.stx_size).unwrap_or(usize::MAX);
    if octets > XML_OCTETS_MAX || u32::from(facts.stx_mode) & libc::S_IFMT != libc::S_IFREG {
        return Ok(Document::Failed);
    }
    let own = format!("\"{:x}-{:x}-{octets:x}-{:x}\"", facts.stx_mtime.tv_sec, facts.stx_mtime.tv_nsec, facts.stx_ino);
    if etag == Some(own.as_str()) {
        return Ok(Document::NotModified);
    }
    let mut body = Vec::new();
    // One octet more than it should have tells the end from a file that grew meanwhile.
    while body.len() <= octets {
        let (result, piece) = file.read_at(Vec::with_capacity(octets + 1 - body.len()), body.len() as u64).await;
        if result? == 0 {
            break;
        }
        body.extend_from_slice(&piece);
    }
    Ok(Document::Found { body: body.into(), etag: Some(own.into()) })
}

/// An XUI as a directory may be named: raw, as a URI path segment, and with everything percent-encoded that can be.
fn spellings(xui: &str) -> Vec<String> {
    let mut spellings: Vec<String> = plain(xui).map(str::to_owned).into_iter().collect();
    let encoded = encoded(xui, |_| false);
    for spelling in [segment(xui), encoded.to_ascii_lowercase_escapes(), encoded] {
        if plain(&spelling).is_some() && !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
    }
    spellings
}

/// A name that stays where it is put.
fn plain(name: &str) -> Option<&str> {
    let stays = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    stays.then_some(name)
}

/// RFC 3986 §3.3: a path segment may hold sub-delims, ":" and "@" as they are.
fn segment(name: &str) -> String {
    encoded(name, |octet| b"!$&'()*+,;=:@".contains(&octet))
}

fn encoded(name: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(name.len());
    for octet in name.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) || keep(octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

/// RFC 3986 §2.1: hex digits of either case mean the same.
trait Escapes {
    fn to_ascii_lowercase_escapes(&self) -> String;
}

impl Escapes for String {
    fn to_ascii_lowercase_escapes(&self) -> String {
        let mut digits = 0u8;
        self.chars()
            .map(|c| {
                let digit = digits > 0;
                digits = if c == '%' { 2 } else { digits.saturating_sub(1) };
                if digit { c.to_ascii_lowercase() } else { c }
            })
            .collect()
    }
}

/// `…/AUID/users/XUI/DOCUMENT[/~~/…]` of an absolute URI.
fn place_of(uri: &str) -> Option<(&'static str, String, String)> {
    use crate::xdm::selector::percent_decoded;
    let path = uri.split("/~~/").next()?.split(['?', '#']).next()?;
    let (_, path) = path.split_once("/resource-lists/users/")?;
    let (xui, document) = path.split_once('/')?;
    Some((crate::xdm::uri_list::AUID, percent_decoded(xui)?, percent_decoded(document)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    const RULES: &str = "org.openmobilealliance.access-rules";

    fn config(root: &str) -> Config {
        let mut config = Config::default();
        config.xdm.root = root.to_owned();
        config
    }

    fn directory(places: &[&str]) -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        for place in places {
            let path = directory.path().join(place);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, place).unwrap();
        }
        let config = config(&format!("file:{}", directory.path().display()));
        (directory, config)
    }

    fn body(document: &Document) -> &str {
        let Document::Found { body, .. } = document else { panic!("{document:?}") };
        std::str::from_utf8(body).unwrap()
    }

    #[test]
    fn a_user_may_stand_raw_or_percent_encoded() {
        tokio_uring::start(async {
            for name in ["sip:bob@example.net", "sip%3Abob%40example.net", "sip%3abob%40example.net"] {
                let place = format!("{RULES}/users/{name}/access-rules");
                let (_directory, config) = directory(&[&place]);
                let found = Xcap::default().document(&config, RULES, "sip:bob@example.net", "access-rules", None).await;
                assert_eq!(body(&found), place);
            }
        });
    }

    #[test]
    fn an_unchanged_file_is_not_read_again_and_a_missing_one_is_absent() {
        tokio_uring::start(async {
            let (directory, config) = directory(&["resource-lists/users/sip:bob@example.net/index"]);
            let xcap = Xcap::default();
            let get =
                async |etag: Option<&str>| xcap.document(&config, "resource-lists", "sip:bob@example.net", "index", etag).await;
            let Document::Found { etag: Some(etag), .. } = get(None).await else { panic!("found") };
            assert_eq!(get(Some(&etag)).await, Document::NotModified);
            std::fs::write(directory.path().join("resource-lists/users/sip:bob@example.net/index"), "other").unwrap();
            assert_eq!(body(&get(Some(&etag)).await), "other");
            let absent = xcap.document(&config, "resource-lists", "sip:eve@example.net", "index", None).await;
            assert_eq!(absent, Document::Absent);
        });
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        tokio_uring::start(async {
            let (directory, config) = directory(&["tree/resource-lists/users/x/index", "secret/index"]);
            let config = super::tests::config(&format!("{}/tree", config.xdm.root));
            let xcap = Xcap::default();
            for xui in ["../../../secret", "..", ".", "", "x/../../../../secret", "a\0b"] {
                assert_eq!(xcap.document(&config, "resource-lists", xui, "index", None).await, Document::Absent, "{xui:?}");
            }
            assert_eq!(xcap.document(&config, "resource-lists", "x", "../x/index", None).await, Document::Absent);
            drop(directory);
        });
    }

    #[test]
    fn an_external_list_of_our_own_tree_is_read_there() {
        tokio_uring::start(async {
            let (_directory, config) = directory(&["resource-lists/users/sip:bob@example.net/index"]);
            let uri = "http://xdms.example.net/resource-lists/users/sip%3Abob@example.net/index/~~/resource-lists/list%5b1%5d";
            assert_eq!(body(&Xcap::default().external(&config, uri).await), "resource-lists/users/sip:bob@example.net/index");
        });
    }

    /// An HTTP server that gives these answers, one to a connection, and the requests it saw.
    fn server(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let root = format!("http://{}/xcap", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut octets = [0; 1024];
                    let length = stream.read(&mut octets).unwrap();
                    request.extend_from_slice(&octets[..length]);
                }
                seen.push(String::from_utf8(request).unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        (root, served)
    }

    #[test]
    fn a_server_is_asked_as_xcap_asks() {
        let (root, served) = server(vec![
            "HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
            "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ]);
        tokio_uring::start(async {
            let (xcap, config) = (Xcap::default(), config(&root));
            let get = async |etag: Option<&str>| xcap.document(&config, RULES, "sip:b/b@example.net", "access-rules", etag).await;
            assert_eq!(get(None).await, Document::Found { body: (*b"abc").into(), etag: Some("\"e1\"".into()) });
            assert_eq!(get(Some("\"e1\"")).await, Document::NotModified);
            assert_eq!(get(None).await, Document::Absent);
            assert_eq!(get(None).await, Document::Failed);
        });
        let seen = served.join().unwrap();
        let line = "GET /xcap/org.openmobilealliance.access-rules/users/sip:b%2Fb@example.net/access-rules HTTP/1.1\r\n";
        assert!(seen[0].starts_with(line), "{}", seen[0]);
        assert!(seen[0].contains("x-xcap-asserted-identity: \"sip:b/b@example.net\"\r\n"));
        assert!(seen[1].contains("if-none-match: \"e1\"\r\n"));
    }

    #[test]
    fn a_server_that_is_away_or_silent_has_failed() {
        tokio_uring::start(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let silent = config(&format!("http://{}", listener.local_addr().unwrap()));
            assert_eq!(Xcap::default().document(&silent, RULES, "sip:b@x", "access-rules", None).await, Document::Failed);
            drop(listener);
            assert_eq!(Xcap::default().document(&silent, RULES, "sip:b@x", "access-rules", None).await, Document::Failed);
        });
    }
}
