//! Checked names of people and of rooms. A checked name is safe in a Redis key, a log line and a page.
//!
//! Two spellings are one name if they fold alike: `Ｔａｒｏ` and `taro`, `ΦΩΣ` and `φως`, `Ann  Lee` and `Ann Lee`.

use std::{fmt, sync::Arc};

use unicase::UniCase;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::text::{is_blank, is_invisible};

/// Code points of a person's name, after trimming; a run of blanks counts as one.
pub const MAX_NAME: usize = 24;
/// Code points of a room's name, in the same way.
pub const MAX_ROOM: usize = 32;

/// A room's name in its folded form: the key of everything that belongs to the room.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// `None` unless the text is a room's name by the rules of `check`.
    pub fn new(text: &str) -> Option<RoomName> {
        let folded = check(text, MAX_ROOM)?.folded;
        // The page comes back with the folded form, so that must be a room's name too (`ﷺ` folds to 18 letters).
        (folded.chars().count() <= MAX_ROOM).then(|| RoomName(folded.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// In quotes, as log lines want it.
impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A person's name as it is shown, which is as it was typed but for blanks, and as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub shown: String,
    pub folded: String,
}

impl Name {
    /// `None` unless the text is a person's name by the rules of `check`.
    pub fn new(text: &str) -> Option<Name> {
        check(text, MAX_NAME)
    }
}

/// The shown and the folded form of a text of 1 to `max` code points, at least one of them a letter or a number. The
/// folded form must be a name, too: `⑴` folds to `(1)`.
fn check(text: &str, max: usize) -> Option<Name> {
    let shown = tidy(text);
    if shown.chars().take(max + 1).count() > max {
        return None;
    }
    let folded = fold(&shown);
    let named = |c: char| c.is_alphanumeric() && !is_combining_mark(c);
    let good = |s: &str| s.chars().all(is_allowed) && s.chars().any(named);
    (good(&shown) && good(&folded)).then_some(Name { shown, folded })
}

/// Trims the text, and makes each run of blanks one space.
fn tidy(text: &str) -> String {
    let words = text.trim().split(is_blank).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// NFKC, full case folding (`ß` is `ss`), and NFKC again, because case folding may undo a composition. Tidy, because
/// NFKC makes spaces of some letters. Folding what is folded changes nothing.
fn fold(text: &str) -> String {
    let composed: String = text.nfkc().collect();
    let folded = UniCase::unicode(composed).to_folded_case();
    tidy(&folded.nfkc().collect::<String>())
}

/// Letters, marks, numbers, the space, and some punctuation in every width. Not the invisible ones among them (Hangul
/// fillers, variation selectors, the grapheme joiner): two names that differ by one of these look the same, and a name
/// of nothing else looks like none.
fn is_allowed(c: char) -> bool {
    match c {
        ' ' | '_' | '-' | '.' | '\'' | '’' | '・' => true,
        '＿' | '－' | '．' | '＇' | '･' => true, // NFKC makes the ones above of them
        _ => (c.is_alphanumeric() || is_combining_mark(c)) && !is_invisible(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_scripts_are_names() {
        for name in [
            "花子",
            "Taro",
            "O.K_2-3",
            "Ærøskøbing",
            "ก็",
            "がぎ",
            "1",
            "  padded  ",
            "山田　太郎",
            "O'Brien",
            "O’Brien",
            "ジャン・レノ",
            "ｼﾞｬﾝ･ﾚﾉ",
            "Ｊ．Ｏ＇Ｎｅｉｌ",
            "ß",
            &"x".repeat(24),
            &format!("Ann{}Lee", " ".repeat(24)),
        ] {
            assert!(Name::new(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn what_hides_reorders_or_breaks_a_line_is_no_name() {
        let long = "x".repeat(25);
        for name in [
            "",
            "  ",
            ".",
            "<b>",
            "a\nb",
            "a\u{0}b",
            "a\u{202E}b",
            "a\u{200B}b",
            "a\u{200D}b",
            "\u{3164}",
            "😀",
            "a\u{1B}[31m",
            "a\u{FE0F}",
            "葛\u{E0100}",
            "a\u{34F}b",
            "a\u{3164}",
            "a\u{115F}",
            "a\u{FFA0}",
            "a\u{13441}",
            "a\u{2028}b",
            "\u{301}",
            "・",
            "'’",
            "¸",
            "½",
            "⑴",
            "︷a︸",
            "a{b}",
            &long,
        ] {
            assert!(Name::new(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn spellings_that_fold_alike_are_one_name() {
        let folded = |s| Name::new(s).map(|n| n.folded).expect(s);
        for [one, other] in [
            ["Ｔａｒｏ", "taro"],
            ["ｶﾞ", "ガ"],
            ["ΦΩΣ", "φως"],
            ["STRASSE", "Straße"],
            ["STRAẞE", "straße"],
            ["ﬁn", "FIN"],
            ["ᾼ", "αι"],
            ["Ann Lee", "Ann  Lee"],
            [
                "ann lee",
                "\u{a0}Ann\u{2003}\u{202f}\u{3000}\u{1680}Lee\u{205f}",
            ],
            ["ｼﾞｬﾝ･ﾚﾉ", "ジャン・レノ"],
            ["Ｏ＇Ｂｒｉｅｎ", "o'brien"],
        ] {
            assert_eq!(folded(one), folded(other));
        }
        assert_ne!(folded("taro"), folded("tar0"));
        assert_ne!(folded("Ann Lee"), folded("AnnLee"));
    }

    #[test]
    fn a_name_is_shown_as_typed_with_one_space_for_blanks() {
        for (typed, shown) in [
            ("  花子 ", "花子"),
            ("山田　太郎", "山田 太郎"),
            ("Ann \u{a0} Lee", "Ann Lee"),
            ("Ｓｔｒａße", "Ｓｔｒａße"),
        ] {
            assert_eq!(Name::new(typed).expect(typed).shown, shown);
        }
    }

    #[test]
    fn a_folded_room_is_a_room_and_folds_to_itself() {
        for text in [
            "Lobby",
            "ＬＯＢＢＹ",
            "İstanbul",
            "部屋　1",
            "ﷺ",
            "ﹰa ﹰb",
            "Straße",
        ] {
            let room = RoomName::new(text).expect(text);
            assert_eq!(RoomName::new(room.as_str()), Some(room));
        }
        assert_eq!(RoomName::new(&"ﷺ".repeat(32)), None);
        assert_eq!(
            RoomName::new(&"ß".repeat(17)),
            None,
            "34 letters when folded"
        );
        assert_eq!(RoomName::new(&"a".repeat(33)), None);
    }
}
