//! Which characters are blanks, and which are invisible. The standard library does not say.

/// A space of any width (Unicode category Zs). Tabs and line breaks are no blanks.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() && !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')
}

/// Draws nothing by itself: what Unicode calls "default ignorable" (soft hyphen, grapheme joiner, zero-width and
/// bidi characters, variation selectors, Hangul fillers, tags), and what is empty by its meaning (the Braille
/// blank, annotation marks, hieroglyphic blanks and their format characters, the Khitan filler, the null notehead).
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{13430}'..='\u{13442}' | '\u{16FE4}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D159}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}
