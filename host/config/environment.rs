//! `${NAME}` and `${NAME:-default}` in the strings of a config: addresses and secrets come from the environment.

/// Fills in a text; `None`: there was nothing to fill in. `$${` stands for `${` itself. The error says what is missing and how to give it.
pub(super) fn fill(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            filled.push_str(&rest[..at - 1]);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or_else(|| "\"${\" has no \"}\"; write \"$${\" for the characters themselves".to_owned())?;
        filled.push_str(&value(&inner[..end], environment)?);
        rest = &inner[end + 1..];
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

fn value(reference: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let valid =
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(format!("\"${{{reference}}}\" does not name an environment variable; write \"$${{\" for the characters themselves"));
    }
    match (environment(name).filter(|value| !value.is_empty()), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the environment variable {name} is not set; set it, or give a default: \"${{{name}:-...}}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Option<&str>, &str>) {
        let found = fill(text, &|name| match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        });
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{text}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn names_are_filled_in() {
        check("plain {a} $b", Ok(None));
        check("${A}", Ok(Some("alpha")));
        check("x${A}y${A}", Ok(Some("xalphayalpha")));
        check("${B:-beta}", Ok(Some("beta")));
        check("${A:-beta}", Ok(Some("alpha")));
        check("${EMPTY:-e}", Ok(Some("e")));
        check("${B:-}", Ok(Some("")));
        check("$${A} ${A}", Ok(Some("${A} alpha")));
        check("${B}", Err("variable B is not set"));
        check("${EMPTY}", Err("variable EMPTY is not set"));
        check("${A", Err("no \"}\""));
        check("${}", Err("does not name"));
    }
}
