//! Strings that PostgreSQL's text cannot hold (U+0000), and the bounds of prefixes in bytewise order.
//! NUL and the escape itself become two characters; a prefix stays a prefix.

use std::borrow::Cow;

const ESCAPE: char = '\u{e000}';

/// The stored form of a string.
pub(super) fn stored(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => stored.extend([ESCAPE, '0']),
            ESCAPE => stored.extend([ESCAPE, '1']),
            c => stored.push(c),
        }
    }
    Cow::Owned(stored)
}

/// The string of a stored form.
pub(super) fn plain(stored: String) -> String {
    if !stored.contains(ESCAPE) {
        return stored;
    }
    stored.replace("\u{e000}0", "\0").replace("\u{e000}1", "\u{e000}")
}

/// The first string that is greater than all that start with a stored prefix.
pub(super) fn upper_bound(prefix: &str) -> String {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    // Nothing is greater than everything; no key is as long as this.
    char::MAX.to_string().repeat(300)
}

/// The first string of a page: the prefix, or what comes after the last key of the page before.
pub(super) fn lower_bound(prefix: &str, after: Option<&str>) -> String {
    match after {
        Some(after) if after >= prefix => format!("{after}\u{1}"),
        _ => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_whole() {
        for text in ["", "plain", "a\0b", "\u{e000}", "\u{e000}0", "\0\0\u{e000}1"] {
            assert!(!stored(text).contains('\0'));
            assert_eq!(plain(stored(text).into_owned()), text);
        }
    }

    #[test]
    fn bounds_hold_what_starts_with_the_prefix() {
        for prefix in ["", "a", "a\u{10ffff}", "\u{d7ff}", "ø"] {
            let (low, high) = (lower_bound(prefix, None), upper_bound(prefix));
            for rest in ["", "x", "\u{10ffff}"] {
                let key = format!("{prefix}{rest}");
                assert!(low <= key && key < high, "{key:?} in {low:?}..{high:?}");
            }
        }
        assert!("b" >= upper_bound("a").as_str());
        assert_eq!(lower_bound("b", Some("a")), "b");
        assert!(lower_bound("a", Some("ab")).as_str() > "ab" && lower_bound("a", Some("ab")).as_str() < "ab0");
    }
}
