//! How people name a plugin: by the start of its digest, by name, or by name@version.

use crate::cli::shell::Stop;
use crate::store::Component;

/// Hexadecimal digits that a digest prefix needs at least.
const PREFIX_MIN: usize = 6;

/// The component that a reference names: `[sha256:]DIGEST-PREFIX`, `NAME` (the newest pushed), `NAME@VERSION`. Components stand newest first.
pub(super) fn resolve<'c>(reference: &str, components: &'c [Component]) -> Result<&'c Component, Stop> {
    if let Some((name, version)) = reference.split_once('@') {
        let found = components.iter().filter(|c| c.description.name == name && c.description.version == version).collect();
        return one(reference, found, components);
    }
    if let Some(newest) = components.iter().find(|c| c.description.name == reference) {
        return Ok(newest);
    }
    let prefix = reference.strip_prefix("sha256:").unwrap_or(reference).to_lowercase();
    if prefix.len() >= PREFIX_MIN && prefix.chars().all(|c| c.is_ascii_hexdigit()) {
        let found = components.iter().filter(|c| c.digest.to_string().starts_with(&prefix)).collect();
        return one(reference, found, components);
    }
    one(reference, Vec::new(), components)
}

fn one<'c>(reference: &str, found: Vec<&'c Component>, components: &[Component]) -> Result<&'c Component, Stop> {
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let names: Vec<&str> = components.iter().map(|c| c.description.name.as_str()).collect();
            let name = reference.split('@').next().unwrap_or_default();
            let advice = crate::config::nearest::nearest(name, &names).filter(|near| *near != name);
            let advice = advice.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let stop = Stop::usage(format!("find a stored plugin that \"{reference}\" names{advice}"));
            Err(stop.next("list them with `tolk plugins`, push one with `tolk push FILE`"))
        }
        many => {
            let digests: Vec<String> = many.iter().map(|c| c.digest.short()).collect();
            Err(Stop::usage(format!("choose a plugin: \"{reference}\" names {}; give a digest", digests.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Description, Digest};

    fn component(name: &str, version: &str, bytes: &[u8]) -> Component {
        Component {
            digest: Digest::of(bytes),
            size: 1,
            description: Description { name: name.to_owned(), version: version.to_owned(), ..Description::default() },
            imports: Vec::new(),
            pushed_ms: 0,
            pushed_by: String::new(),
        }
    }

    #[test]
    fn references_find_what_they_name() {
        let all = [
            component("orders", "2", b"c"),
            component("orders", "1", b"b"),
            component("orders", "1", b"a"),
            component("people", "1", b"d"),
        ];
        let digest = all[2].digest.to_string();
        for (reference, expected) in [
            ("orders", Ok(0)),
            ("orders@2", Ok(0)),
            ("people@1", Ok(3)),
            (&digest[..12], Ok(2)),
            (&format!("sha256:{digest}"), Ok(2)),
            (&digest[..12].to_uppercase(), Ok(2)),
            ("orders@1", Err("give a digest")),
            ("orders@3", Err("that \"orders@3\" names")),
            ("odrers", Err("did you mean `orders`?")),
            (&digest[..4], Err("find a stored plugin")),
        ] {
            match (resolve(reference, &all), expected) {
                (Ok(found), Ok(i)) => assert_eq!(found.digest, all[i].digest, "{reference}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{reference}: {error}"),
                (found, expected) => panic!("{reference}: {found:?}, expected {expected:?}"),
            }
        }
    }
}
