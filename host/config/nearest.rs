//! The nearest valid word to one that nobody knows.

/// The candidate that a person most likely meant, if one is near enough.
pub fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let folded = word.to_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase().replace('-', "_")), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + word.len().max(candidate.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A half sentence that follows a complaint: what was meant, or what there is.
pub fn advice(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None if candidates.is_empty() => "; nothing may stand here".to_owned(),
        None => format!("; valid here: {}", candidates.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let keys = ["retry", "table", "time_zone", "key"];
        for (word, expected) in
            [("retrry", Some("retry")), ("time-zone", Some("time_zone")), ("TABEL", Some("table")), ("broker", None), ("ky", Some("key"))]
        {
            assert_eq!(nearest(word, &keys), expected, "{word}");
        }
        assert_eq!(advice("broker", &["a", "b"]), "; valid here: `a`, `b`");
    }
}
