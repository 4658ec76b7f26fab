//! Addresses: taken apart so far as redirects, connections and messages need it.

use super::{NoAnswer, Why};

/// An absolute address of `http` or `https`, without login, password and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// In small letters.
    scheme: String,
    /// Host and port as they were written.
    authority: String,
    /// From the path on, beginning with `/`; percent-encoded where it must be.
    rest: String,
    /// Login and password, percent-decoded.
    login: Option<(String, String)>,
}

impl Url {
    /// # Errors
    /// It is not absolute, its scheme is another, or it has no host.
    pub fn parse(text: &str) -> Result<Self, NoAnswer> {
        let text = text.trim();
        let wrong = |why: &str| {
            let message = format!("`{}` is no address: {why}", hide_login(text));
            NoAnswer::new(Why::Request, message, "write for example `https://api.example.com/v1/items`")
        };
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| wrong("it does not begin with http:// or https://"))?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(wrong("its scheme is neither http nor https"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => {
                let (name, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((decode(name), decode(password))), authority)
            }
            None => (None, authority),
        };
        let host =
            authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
        if host.is_empty() || authority.contains(char::is_whitespace) {
            return Err(wrong("it has no host"));
        }
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { scheme, authority: authority.to_owned(), rest: encode_rest(&format!("{slash}{path}")), login })
    }

    /// Where `place`, as a header `Location` has it, leads from here.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn join(&self, place: &str) -> Result<Self, NoAnswer> {
        let place = place.trim();
        let Self { scheme, authority, rest, .. } = self;
        // A scheme stands before the first of the others.
        let is_absolute = place.find(':').is_some_and(|colon| {
            place[..colon].chars().all(|c| c.is_ascii_alphanumeric()) && place[colon..].starts_with("://")
        });
        let path = rest.split('?').next().unwrap_or_default();
        let text = if is_absolute {
            place.to_owned()
        } else if let Some(other) = place.strip_prefix("//") {
            format!("{scheme}://{other}")
        } else if place.starts_with('/') {
            format!("{scheme}://{authority}{place}")
        } else if place.starts_with('?') {
            format!("{scheme}://{authority}{path}{place}")
        } else {
            let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
            format!("{scheme}://{authority}{}", without_dots(&format!("{folder}{place}")))
        };
        Self::parse(&text)
    }

    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    pub fn is_same_origin(&self, other: &Self) -> bool {
        let port = |url: &Self| {
            let default = if url.is_https() { "443" } else { "80" };
            let authority = url.authority.to_ascii_lowercase();
            match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
                Some((host, port)) => (host.to_owned(), port.to_owned()),
                None => (authority, default.to_owned()),
            }
        };
        self.scheme == other.scheme && port(self) == port(other)
    }

    /// Login and password that the address itself named.
    pub fn login(&self) -> Option<&(String, String)> {
        self.login.as_ref()
    }

    /// All of it, as it is asked.
    pub fn text(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.rest)
    }

    /// For messages: without the query, which may hold a key.
    pub fn shown(&self) -> String {
        let path = self.rest.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", self.scheme, self.authority)
    }

    /// With more of a query; `pairs` as [`query`] gives them.
    pub fn with_query(mut self, pairs: &str) -> Self {
        if !pairs.is_empty() {
            let has_query = self.rest.contains('?');
            let sign = if !has_query {
                "?"
            } else if self.rest.ends_with(['?', '&']) {
                ""
            } else {
                "&"
            };
            self.rest.push_str(sign);
            self.rest.push_str(pairs);
        }
        self
    }
}

fn hide_login(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}***{}", &text[..scheme + 3], &text[at..]),
        _ => text.to_owned(),
    }
}

fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let last = path.rsplit('/').next().unwrap_or_default();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if matches!(last, "." | "..") {
        parts.push("");
    }
    format!("/{}{query}", parts.join("/"))
}

/// What may not stand in a request line is encoded; what is encoded already stays.
fn encode_rest(rest: &str) -> String {
    let mut out = String::with_capacity(rest.len());
    for byte in rest.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Pairs as a query or a form holds them.
pub fn query<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                b' ' => out.push('+'),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_leads_on_from_where_it_was_given() {
        let from = Url::parse("http://h:81/a/b?q=1#f").unwrap();
        let cases = [
            ("https://o/x", "https://o/x"),
            ("//o/x", "http://o/x"),
            ("/x?y", "http://h:81/x?y"),
            ("x", "http://h:81/a/x"),
            ("../x/./y?z=../w", "http://h:81/x/y?z=../w"),
            ("?z", "http://h:81/a/b?z"),
            ("/x?to=http://o/", "http://h:81/x?to=http://o/"),
        ];
        for (place, expected) in cases {
            assert_eq!(from.join(place).unwrap().text(), expected, "{place}");
        }
        assert!(from.join("ftp://o/x").unwrap_err().message.contains("neither http nor https"));
    }

    #[test]
    fn login_and_password_of_an_address_are_taken_out_of_it() {
        let url = Url::parse("HTTPS://me:p%40ss@h/a b?ü=1").unwrap();
        assert_eq!(url.login(), Some(&("me".to_owned(), "p@ss".to_owned())));
        assert_eq!(url.text(), "https://h/a%20b?%C3%BC=1");
        assert_eq!(url.shown(), "https://h/a%20b");
        let wrong = Url::parse("ftp://me:secret@h/").unwrap_err();
        assert_eq!(wrong.message, "`ftp://***@h/` is no address: its scheme is neither http nor https");
    }

    #[test]
    fn a_default_port_is_the_same_origin() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().is_same_origin(&Url::parse(b).unwrap());
        assert!(same("http://h/a", "http://H:80/b"));
        assert!(!same("http://h/", "https://h/"));
        assert!(!same("http://[::1]/", "http://[::2]/"));
        assert!(same("https://[::1]:443/", "https://[::1]/"));
    }

    #[test]
    fn a_query_is_added_to_what_is_there() {
        let with = |url: &str| Url::parse(url).unwrap().with_query(&query([("a", "x y"), ("b", "ä&=")])).text();
        assert_eq!(with("http://h"), "http://h/?a=x+y&b=%C3%A4%26%3D");
        assert_eq!(with("http://h/p?q=1"), "http://h/p?q=1&a=x+y&b=%C3%A4%26%3D");
    }
}
