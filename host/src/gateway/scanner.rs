//! Finds entries of a JSON object as it arrives, without keeping the rest, which may be megabytes.

use super::limits::ENTRY_BYTES;

/// Finds top-level entries, and if it is deep those of the objects in top-level entries too.
#[derive(Default)]
pub(super) struct Scanner {
    is_deep: bool,
    /// Open brackets.
    depth: usize,
    /// The first and second of them.
    levels: [Level; 2],
    in_string: bool,
    escaped: bool,
    /// The present entry's name, as far as needed to know it.
    name: Vec<u8>,
    wanted: Option<Wanted>,
}

#[derive(Clone, Copy, Default)]
struct Level {
    is_object: bool,
    /// Past the colon of an entry.
    in_value: bool,
}

struct Wanted {
    name: &'static str,
    /// Open brackets around the entry.
    depth: usize,
    value: Vec<u8>,
}

/// Longest name of an entry that is kept, longer than any that is wanted.
const NAME_BYTES: usize = 32;

impl Scanner {
    /// One that also finds the entries of objects in top-level entries.
    pub(super) fn deep() -> Scanner {
        Scanner { is_deep: true, ..Scanner::default() }
    }

    /// Gives `take` the name and the text of each entry that is among `names`.
    pub(super) fn feed(
        &mut self,
        names: &[&'static str],
        bytes: &[u8],
        mut take: impl FnMut(&'static str, &[u8]),
    ) {
        for &byte in bytes {
            if self.in_string {
                self.string(byte);
                continue;
            }
            match byte {
                b'"' => self.open_string(),
                b'{' | b'[' => self.open(byte),
                b':' if self.awaits_name() => self.open_value(names),
                b',' => {
                    self.close_value(byte, &mut take);
                    if let Some(level) = self.level() {
                        level.in_value = false;
                    }
                }
                b'}' | b']' => {
                    self.close_value(byte, &mut take);
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => self.keep(byte),
            }
        }
    }

    fn level(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth.checked_sub(1)?)
    }

    /// Whether the next string is the name of an entry that may be wanted.
    fn awaits_name(&mut self) -> bool {
        let deepest = if self.is_deep { 2 } else { 1 };
        self.wanted.is_none()
            && self.depth <= deepest
            && self.level().is_some_and(|level| level.is_object && !level.in_value)
    }

    fn open(&mut self, bracket: u8) {
        self.keep(bracket);
        self.depth += 1;
        if let Some(level) = self.level() {
            *level = Level { is_object: bracket == b'{', in_value: false };
        }
    }

    fn open_string(&mut self) {
        if self.awaits_name() {
            self.name.clear();
        }
        self.in_string = true;
        self.keep(b'"');
    }

    fn open_value(&mut self, names: &[&'static str]) {
        let (depth, name) = (self.depth, names.iter().find(|name| name.as_bytes() == self.name));
        if let Some(level) = self.level() {
            level.in_value = true;
        }
        self.wanted = name.map(|name| Wanted { name, depth, value: Vec::new() });
    }

    /// A comma or bracket ends the wanted value if it stands beside it, and else belongs to it.
    fn close_value(&mut self, byte: u8, take: &mut impl FnMut(&'static str, &[u8])) {
        match self.wanted.take_if(|wanted| wanted.depth == self.depth) {
            Some(wanted) => take(wanted.name, &wanted.value),
            None => self.keep(byte),
        }
    }

    fn string(&mut self, byte: u8) {
        self.keep(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.name.len() < NAME_BYTES && self.awaits_name() => self.name.push(byte),
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if let Some(Wanted { value, .. }) = &mut self.wanted
            && value.len() < ENTRY_BYTES
        {
            value.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#" {"id":"\"usage\":{","a":{"usage":{"b":[1]}},"choices":[{"usage":"}]{\\"},["usage",{}]],
        "usage": {"prompt":7,"usage":{"x":[1,2]}} , "deep":{"y":{"usage":3},"error":null}, "z":"usage","error":[]}"#;

    fn found(mut scanner: Scanner, cuts: &[usize]) -> Vec<String> {
        let (mut found, mut start) = (Vec::new(), 0);
        for &cut in cuts.iter().chain([&TEXT.len()]) {
            scanner.feed(&["usage", "error"], &TEXT.as_bytes()[start..cut], |name, value| {
                found.push(format!("{name}={}", str::from_utf8(value).unwrap().trim()));
            });
            start = cut;
        }
        found
    }

    const TOP: [&str; 2] = [r#"usage={"prompt":7,"usage":{"x":[1,2]}}"#, "error=[]"];
    const DEEP: [&str; 4] =
        [r#"usage={"b":[1]}"#, r#"usage={"prompt":7,"usage":{"x":[1,2]}}"#, "error=null", "error=[]"];

    proptest! {
        #[test]
        fn entries_are_found_however_the_text_is_split(mut cuts in prop::collection::vec(0..TEXT.len(), 0..40)) {
            cuts.sort_unstable();
            prop_assert_eq!(found(Scanner::default(), &cuts), TOP);
            prop_assert_eq!(found(Scanner::deep(), &cuts), DEEP);
        }

        #[test]
        fn no_text_is_too_strange_to_be_scanned(text in "[\\[\\]{},:\"\\\\ua ]{0,300}") {
            Scanner::default().feed(&["u"], text.as_bytes(), |_, _| {});
            Scanner::deep().feed(&["u"], text.as_bytes(), |_, _| {});
        }
    }

    #[test]
    fn an_entry_is_kept_up_to_its_limit() {
        let text = format!("{{\"usage\":\"{}\"}}", "x".repeat(2 * ENTRY_BYTES));
        let mut length = 0;
        Scanner::default().feed(&["usage"], text.as_bytes(), |_, value| length = value.len());
        assert_eq!(length, ENTRY_BYTES);
    }
}
