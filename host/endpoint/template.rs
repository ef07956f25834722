//! Templates of paths, queries and headers: literal text with `{name}` for a parameter of the call. A filled URL can only differ from the
//! template inside the places of its parameters: values are percent-encoded, and no value makes a path segment that climbs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use reqwest::header::HeaderValue;

/// Everything but RFC 3986's unreserved characters is encoded.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text with places for parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Param(String),
}

impl Template {
    /// Reads a template; `{{` and `}}` stand for braces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.peek() == Some(&c) => {
                    rest.next();
                    literal.push(c);
                }
                '{' => {
                    let name: String = rest.by_ref().take_while(|c| *c != '}').collect();
                    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                        return Err(format!(
                            "\"{{{name}\" is no parameter: write {{name}} with letters, digits, \"-\", \"_\" or \".\", and {{{{ for a brace"
                        ));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Param(name));
                }
                '}' => return Err("a \"}\" stands alone: write }} for a brace".to_owned()),
                _ => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// Fills the places; fails with the name of the first parameter that `params` lacks, or for which `encode` gives a reason.
    fn fill(&self, params: &[(String, String)], encode: impl Fn(&str, &str) -> Result<String, String>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Param(name) => {
                    let Some((_, value)) = params.iter().find(|(known, _)| known == name) else {
                        return Err(format!("parameter \"{name}\" is missing"));
                    };
                    text.push_str(&encode(name, value)?);
                }
            }
        }
        Ok(text)
    }

    /// The header value that the parameters make.
    pub fn header(&self, params: &[(String, String)]) -> Result<HeaderValue, String> {
        let text = self.fill(params, |name, value| {
            HeaderValue::from_bytes(value.as_bytes())
                .map(|_| value.to_owned())
                .map_err(|_| format!("parameter \"{name}\" holds control characters, which no header may"))
        })?;
        HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "it holds control characters".to_owned())
    }
}

/// A fixed scheme, host, port and path prefix, and a template of path and query behind it.
#[derive(Clone, Debug)]
pub struct UrlTemplate {
    base: Url,
    path: Template,
    query: Option<Template>,
}

impl UrlTemplate {
    /// Reads a base URL and a template that starts with `/`, or is empty. Errors name the config key.
    pub fn parse(base_url: &str, path: &str) -> Result<Self, (&'static str, String)> {
        let base = parse_base(base_url).map_err(|reason| ("base_url", reason))?;
        if !path.is_empty() && !path.starts_with('/') {
            return Err(("path", format!("\"{path}\" must start with \"/\"")));
        }
        if path.contains('#') {
            return Err(("path", "a \"#\" never reaches a server: remove it, or write %23".to_owned()));
        }
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        if path.split('/').any(climbs) {
            return Err(("path", "\".\" and \"..\" are no path segments here: write the path itself".to_owned()));
        }
        let path = Template::parse(path).map_err(|reason| ("path", reason))?;
        let query = query.map(Template::parse).transpose().map_err(|reason| ("path", reason))?;
        Ok(Self { base, path, query })
    }

    /// The URL that the parameters make; the reason names the parameter at fault.
    pub fn fill(&self, params: &[(String, String)]) -> Result<Url, String> {
        // An empty value would address another resource: `/orders/` lists where `/orders/7` shows one.
        let path = self.path.fill(params, |name, value| match value {
            "" => Err(format!("parameter \"{name}\" is empty, but stands in the path")),
            _ => Ok(utf8_percent_encode(value, VALUE).to_string()),
        })?;
        // Dots need no encoding, so a value (or several together) may make a segment that a server, or the URL parser, resolves upwards.
        if let Some(segment) = path.split('/').find(|segment| climbs(segment)) {
            return Err(format!("its parameters make the path segment \"{segment}\", which would climb"));
        }
        let mut url = self.base.clone();
        if !path.is_empty() {
            url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        }
        if let Some(query) = &self.query {
            url.set_query(Some(&query.fill(params, |_, value| Ok(utf8_percent_encode(value, VALUE).to_string()))?));
        }
        Ok(url)
    }
}

/// An absolute http or https URL without query, fragment and user.
pub fn parse_base(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("\"{text}\" is no URL ({error}): write http://HOST:PORT or https://HOST"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("\"{text}\" must start with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or fragment, which belongs into path".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or password, which belongs into auth or headers".to_owned());
    }
    Ok(url)
}

/// Whether a segment is `.` or `..`, dots percent-encoded or not.
fn climbs(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn filled(base: &str, path: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        UrlTemplate::parse(base, path).map_err(|(key, reason)| format!("{key}: {reason}"))?.fill(&params(pairs)).map(String::from)
    }

    #[test]
    fn parameters_are_encoded_where_they_stand() {
        let cases = [
            ("/a/{id}", "x/y", "http://host:81/a/x%2Fy"),
            ("/a/{id}?q=1", "?x=1#f", "http://host:81/a/%3Fx%3D1%23f?q=1"),
            ("/a?q={id}&r=2", "1&r=3", "http://host:81/a?q=1%26r%3D3&r=2"),
            ("/a/{id}", "æ @", "http://host:81/a/%C3%A6%20%40"),
            ("/a/{id}", "%2e%2e", "http://host:81/a/%252e%252e"),
            ("/a/{id}.json", "..", "http://host:81/a/...json"),
            ("/a/{{{id}}}", "7", "http://host:81/a/%7B7%7D"),
            ("/{id}", "/evil.example", "http://host:81/%2Fevil.example"),
            ("/{id}", "\\\\evil", "http://host:81/%5C%5Cevil"),
            ("/a?q={id}", "", "http://host:81/a?q="),
        ];
        for (path, id, want) in cases {
            assert_eq!(filled("http://host:81", path, &[("id", id)]).as_deref(), Ok(want), "{path} with {id:?}");
        }
    }

    #[test]
    fn base_paths_stay() {
        assert_eq!(filled("https://host/api/v1/", "/x", &[]).as_deref(), Ok("https://host/api/v1/x"));
        assert_eq!(filled("https://host/api/v1", "", &[]).as_deref(), Ok("https://host/api/v1"));
        assert_eq!(filled("https://host", "?q={a}", &[("a", "1")]), Err("path: \"?q={a}\" must start with \"/\"".to_owned()));
    }

    #[test]
    fn no_parameter_climbs() {
        for (path, value) in [("/a/{id}/b", ".."), ("/a/{id}", "."), ("/a/{id}{id}", "."), ("/a/.{id}", "."), ("/a/%2e{id}/b", ".")] {
            let error = filled("http://host", path, &[("id", value)]).unwrap_err();
            assert!(error.contains("climb"), "{path} with {value:?}: {error}");
        }
        assert!(filled("http://host", "/a/../b", &[]).unwrap_err().starts_with("path:"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(filled("http://host", "/a/{id}?b={other}", &[("id", "1")]), Err("parameter \"other\" is missing".to_owned()));
        assert!(filled("http://host", "/a/{id}/b", &[("id", "")]).unwrap_err().contains("\"id\" is empty"));
    }

    #[test]
    fn wrong_templates_are_refused() {
        for (base, path, key) in [
            ("ftp://host", "/", "base_url"),
            ("host:80/x", "/", "base_url"),
            ("http://me:pw@host", "/", "base_url"),
            ("http://host?x=1", "/", "base_url"),
            ("http://host", "a", "path"),
            ("http://host", "/a#b", "path"),
            ("http://host", "/{", "path"),
            ("http://host", "/{a b}", "path"),
            ("http://host", "/}", "path"),
        ] {
            assert_eq!(UrlTemplate::parse(base, path).map(|_| ()).unwrap_err().0, key, "{base} {path}");
        }
    }

    #[test]
    fn headers_cannot_be_split() {
        let template = Template::parse("id {id}").unwrap();
        assert_eq!(template.header(&params(&[("id", "7")])).unwrap(), "id 7");
        assert!(template.header(&params(&[("id", "7\r\nx: y")])).unwrap_err().contains("\"id\""));
    }
}
