//! Origins: whose pages may open a WebSocket.

use url::Url;

/// Characters of an origin in a log line or an error. A longer one is cut.
const MAX_SHOWN: usize = 200;

/// The form in which two origins are compared: lower case, without the default port of the scheme.
pub fn normalized(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let port = match origin.split_once("://") {
        Some(("http", _)) => ":80",
        Some(("https", _)) => ":443",
        _ => "",
    };
    origin.strip_suffix(port).unwrap_or(&origin).to_owned()
}

/// A value of `ALLOWED_ORIGINS`, normalized. `None`: no browser sends it.
pub fn checked(value: &str) -> Option<String> {
    let origin = normalized(value);
    let (scheme, host) = origin.split_once("://")?;
    // The parser accepts more than an origin: paths, passwords, short forms of IP addresses, a `*` in a name.
    // It writes the origin as browsers do.
    let written = Url::parse(&origin).ok()?.origin().ascii_serialization();
    let web = matches!(scheme, "http" | "https");
    (web && origin == written && host.bytes().all(is_host_byte)).then_some(origin)
}

/// The bytes of a host with its port. None of them ends a header or a directive of the page's policy.
pub fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)
}

/// Whether a browser may connect to `host` from a page of `origin`.
pub fn is_allowed(origin: &str, host: &str, allowed: &[String]) -> bool {
    let origin = normalized(origin);
    let Some((scheme @ ("http" | "https"), _)) = origin.split_once("://") else {
        return false; // `null`, an extension
    };
    let own = normalized(&format!("{scheme}://{host}"));
    !host.is_empty() && origin == own || allowed.contains(&origin)
}

/// The start of a value that a stranger chose, for a log line or an error.
pub fn shown(value: &str) -> String {
    value.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_checked_as_browsers_write_it() {
        for (value, normalized) in [
            ("https://chat.example", "https://chat.example"),
            ("HTTPS://Chat.Example:443", "https://chat.example"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("https://xn--gckc5l.example", "https://xn--gckc5l.example"),
            ("http://[2001:DB8::1]:3000", "http://[2001:db8::1]:3000"),
            ("http://192.0.2.1", "http://192.0.2.1"),
        ] {
            assert_eq!(checked(value).as_deref(), Some(normalized), "{value}");
        }
        for value in [
            "https://*.example",
            "null",
            "https://a/",
            "http://127.1",
            "ws://a",
        ] {
            assert_eq!(checked(value), None, "{value}");
        }
    }
}
