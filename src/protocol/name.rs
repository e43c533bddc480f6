//! Checked names of people and of rooms. A checked name is safe in a Redis key, a log line and a page.
//!
//! Two spellings are one name if they fold alike (NFKC, then lower case): `Ｔａｒｏ` and `taro` collide.

use std::{fmt, sync::Arc};

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Code points of a person's name, after trimming.
pub const MAX_NAME: usize = 24;
/// Code points of a room's name, after trimming.
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

/// A person's name as it was typed, and as it is compared.
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

/// The trimmed and the folded form of a text of 1 to `max` code points: letters, marks, numbers and
/// ` _-.`, at least one letter or number. This excludes control, format (bidi, zero-width) and line-break
/// characters.
fn check(text: &str, max: usize) -> Option<Name> {
    let shown = text.trim().to_owned();
    if shown.chars().take(max + 1).count() > max {
        return None;
    }
    let folded = fold(&shown);
    let allowed = |c| matches!(c, ' ' | '_' | '-' | '.') || is_visible(c);
    let named = |c: char| c.is_alphanumeric() && !is_combining_mark(c);
    let good = |s: &str| s.chars().all(allowed) && s.chars().any(named) && s.trim() == s;
    (good(&shown) && good(&folded)).then_some(Name { shown, folded })
}

/// Lower case may undo a composition (`İ`), hence NFKC twice: folding what is folded changes nothing.
fn fold(text: &str) -> String {
    let lower: String = text.nfkc().flat_map(char::to_lowercase).collect();
    lower.nfkc().collect()
}

/// Letters, marks and numbers, less those that Unicode calls "default ignorable": they would make two
/// names look alike, or one look like nothing.
fn is_visible(c: char) -> bool {
    let ignorable = matches!(c, '\u{34F}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}' | '\u{E0100}'..='\u{E01EF}');
    !ignorable && (c.is_alphanumeric() || is_combining_mark(c))
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
            &"x".repeat(24),
        ] {
            assert!(Name::new(name).is_some(), "{name:?}");
        }
        assert_eq!(
            Name::new("  花子 ").map(|n| n.shown).as_deref(),
            Some("花子")
        );
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
            "\u{301}",
            "a　b",
            "a{b}",
            &long,
        ] {
            assert!(Name::new(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn spellings_that_fold_alike_are_one_name() {
        let folded = |s| Name::new(s).map(|n| n.folded);
        assert_eq!(folded("Ｔａｒｏ"), folded("taro"));
        assert_eq!(folded("ｶﾞ"), folded("ガ"));
        assert_ne!(folded("taro"), folded("tar0"));
    }

    #[test]
    fn a_folded_room_is_a_room_and_folds_to_itself() {
        for text in ["Lobby", "ＬＯＢＢＹ", "İstanbul", "部屋 1", "ﷺ"] {
            let room = RoomName::new(text).expect(text);
            assert_eq!(RoomName::new(room.as_str()), Some(room));
        }
        assert_eq!(RoomName::new(&"ﷺ".repeat(32)), None);
        assert_eq!(RoomName::new(&"a".repeat(33)), None);
    }
}
