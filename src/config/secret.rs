//! RFC 3986 §3.2.1: a password in the user information of a URI is shown neither by `cpm-pf check` nor in the log.

/// What stands for it.
const HIDDEN: &str = "***";

/// The URI, or a comma-separated list of them (`nats://a:b@h1,c:d@h2`), with every password hidden. A NATS URI may have a user
/// alone: that is a token, and as secret.
pub fn without_password(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let token = matches!(scheme, "nats" | "tls" | "ws" | "wss");
    // Only NATS has lists; elsewhere a comma may be part of the password.
    let servers: Vec<&str> = if token { rest.split(',').collect() } else { vec![rest] };
    let hidden: Vec<String> = servers.into_iter().map(|server| of_server(server, token)).collect();
    format!("{scheme}://{}", hidden.join(","))
}

fn of_server(server: &str, token: bool) -> String {
    // A server of a list may bring a scheme of its own.
    let (scheme, rest) = server.split_once("://").map_or(("", server), |(scheme, rest)| (scheme, rest));
    let mark = if scheme.is_empty() { "" } else { "://" };
    let Some((user, host)) = rest.rsplit_once('@') else { return server.to_owned() };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}{mark}{user}:{HIDDEN}@{host}"),
        None if token => format!("{scheme}{mark}{HIDDEN}@{host}"),
        None => server.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown_and_nothing_else_is_lost() {
        for (value, shown) in [
            ("imap://cpm:secret@host:143", "imap://cpm:***@host:143"),
            ("imaps://cpm:s,e:c@ret@host", "imaps://cpm:***@host"),
            ("imap://cpm@host", "imap://cpm@host"),
            ("nats://a:b@h1:4222,nats://c:d@h2,h3:4222", "nats://a:***@h1:4222,nats://c:***@h2,h3:4222"),
            ("nats://token@h1", "nats://***@h1"),
            ("http://u:p@host/xcap-root", "http://u:***@host/xcap-root"),
            ("file:var/de:f@x", "file:var/de:f@x"),
        ] {
            assert_eq!(without_password(value), shown);
        }
    }
}
