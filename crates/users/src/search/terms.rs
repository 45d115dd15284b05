//! Under which texts a user is found: lower case, without accents, the name from each of its words on.

use std::collections::BTreeSet;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Words of a name that start a term.
const MAX_WORDS: usize = 8;
/// Longest term, in characters.
const MAX_CHARS: usize = 256;

/// Lower case, compatibility forms replaced, accents dropped, runs of white space as one blank.
pub(crate) fn normalise(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).take(MAX_CHARS) {
        match plain(c) {
            Some(plain) => folded.push_str(plain),
            None if c.is_whitespace() => folded.push(' '),
            None => folded.push(c),
        }
    }
    // Lower case can bring combining marks back, and characters of several letters.
    let folded: String = folded.nfkd().filter(|c| !is_combining_mark(*c)).collect();
    folded.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Letters that no normalisation form takes apart.
const fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'ł' => "l",
        'đ' | 'ð' => "d",
        'þ' => "th",
        'ı' => "i",
        'ħ' => "h",
        _ => return None,
    })
}

/// The terms of one user.
pub(crate) fn terms(name: &str, handle: Option<&str>) -> BTreeSet<String> {
    let name = normalise(name);
    let mut terms = BTreeSet::new();
    let starts = std::iter::once(0).chain(name.match_indices(' ').map(|(at, _)| at + 1));
    for start in starts.take(MAX_WORDS) {
        let term = &name[start..];
        if !term.is_empty() {
            terms.insert(term.to_owned());
        }
    }
    terms.extend(handle.map(normalise).filter(|handle| !handle.is_empty()));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_do_not_matter() {
        assert_eq!(normalise("  Édouard\t\u{a0}MÜLLER "), "edouard muller");
        assert_eq!(normalise("Straße Łódź Ægir"), "strasse lodz aegir");
        assert_eq!(normalise("ﬁne ①"), "fine 1");
        assert_eq!(normalise("İstanbul"), "istanbul");
        assert_eq!(normalise("\u{301}"), "");
    }

    #[test]
    fn a_name_is_found_from_each_word_on() {
        let terms = terms("Ann van Dijk", Some("ann.dijk"));
        let expected = ["ann van dijk", "ann.dijk", "dijk", "van dijk"];
        assert_eq!(terms.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert!(super::terms("\u{301}", None).is_empty());
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for text in ["Édouard MÜLLER", "İ", "ﬃ", "Ǆ", "ΆΣ", "ẞ", "한국"] {
            let once = normalise(text);
            assert_eq!(normalise(&once), once, "{text}");
        }
    }
}
