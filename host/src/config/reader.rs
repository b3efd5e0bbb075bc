//! Reads a TOML table key by key and remembers where everything stood.
//!
//! Reading a key makes it known; whatever [`Section::finish`] finds beyond that is an unknown key. So there is no
//! second list of keys that could disagree with the code that reads them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::Problem;
use super::limits;
use crate::money;

/// A file being read, and what was found wrong in it.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

/// One table of a file.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// As its header is written, `[[account]]`; empty at the top of the file.
    title: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: RefCell::new(Vec::new()) }
    }

    /// Notes a problem at a place in the text.
    pub(super) fn report(&self, span: &Range<usize>, message: String) {
        let problem = self.problem(span.start, &message);
        self.problems.borrow_mut().push(problem);
    }

    /// A problem at a place in the text, on one line whatever it quotes.
    pub(super) fn problem(&self, at: usize, message: &str) -> Problem {
        let line = 1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        Problem { file: self.file.to_owned(), line, message: message.chars().map(plain).collect() }
    }

    /// The problems in order of lines.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn top(source: &'a Source<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(source, String::new(), table.span(), table.get_ref())
    }

    fn new(source: &'a Source<'a>, title: String, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { source, title, span, table, known: RefCell::new(Vec::new()) }
    }

    /// A string that must not be empty.
    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) if text.trim().is_empty() => {
                self.wrong(value, format!("`{key}`{} must not be empty", self.place()))
            }
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.wrong_type(key, value, "a string"),
        }
    }

    /// Like [`Self::text`], and it is a problem when the key is missing.
    pub(super) fn required_text(&self, key: &'static str) -> Option<&'a str> {
        if self.get(key).is_none() {
            self.report(format!("missing `{key}`{}", self.place()));
        }
        self.text(key)
    }

    /// A string that names something: short, and plain enough for paths, metrics and log lines.
    pub(super) fn required_name(&self, key: &'static str) -> Option<&'a str> {
        let text = self.required_text(key)?;
        match check_name(text) {
            Ok(()) => Some(text),
            Err(rule) => {
                self.problem(key, format!("`{key}`{} {rule}", self.place()));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            return self.wrong_type(key, value, "a whole number");
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(0) if range.contains(&1) => self.wrong(
                value,
                format!("`{key}`{} must be at least 1; leave it out for the default", self.place()),
            ),
            _ => self.wrong(
                value,
                format!("`{key}`{} must be from {} to {}", self.place(), range.start(), range.end()),
            ),
        }
    }

    /// An amount of money, in billionths.
    pub(super) fn money(&self, key: &'static str) -> Option<u64> {
        let value = self.get(key)?;
        let units: Option<f64> = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => return self.wrong_type(key, value, "a number, such as 2.5"),
        };
        let most = money::MOST;
        units.and_then(money::billionths).or_else(|| {
            self.wrong(value, format!("`{key}`{} must be a number from 0 to {most}", self.place()))
        })
    }

    /// A part of something, from 0 to 1.
    pub(super) fn part(&self, key: &'static str) -> Option<f64> {
        let value = self.get(key)?;
        let part: Option<f64> = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => return self.wrong_type(key, value, "a number, such as 0.1"),
        };
        part.filter(|part| (0.0..=1.0).contains(part))
            .or_else(|| self.wrong(value, format!("`{key}`{} must be a number from 0 to 1", self.place())))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.wrong_type(key, value, "true or false"),
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let hint = suggestion(text, &words, "possible");
        self.problem(key, format!("`{key}`{} cannot be `{text}`; {hint}", self.place()));
        None
    }

    /// A list of different strings, none of them empty; the list must not be empty either.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            return self.wrong_type(key, value, "a list of strings");
        };
        if array.is_empty() {
            return self.wrong(value, format!("`{key}`{} must not be empty; leave it out", self.place()));
        }
        let mut texts: Vec<String> = Vec::with_capacity(array.len());
        for element in array.iter() {
            match element.get_ref().as_str() {
                Some(text) if text.trim().is_empty() => {
                    return self.wrong(element, format!("`{key}`{} has an empty string", self.place()));
                }
                Some(text) if texts.iter().any(|other| other == text) => {
                    return self
                        .wrong(element, format!("`{key}`{} names `{text}` more than once", self.place()));
                }
                Some(text) => texts.push(text.to_owned()),
                None => return self.wrong_type(key, value, "a list of strings"),
            }
        }
        Some(texts)
    }

    /// Strings by names of any kind, none of them empty; `example` is how it may be written.
    pub(super) fn text_map(&self, key: &'static str, example: &str) -> Option<BTreeMap<String, String>> {
        let value = self.get(key)?;
        let expected = format!("a table of strings such as `{example}`");
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong_type(key, value, &expected);
        };
        let mut texts = BTreeMap::new();
        for (name, value) in table.iter() {
            match value.get_ref().as_str() {
                Some(text) if !text.trim().is_empty() && !name.get_ref().trim().is_empty() => {
                    texts.insert(name.get_ref().to_string(), text.to_owned());
                }
                Some(_) => return self.wrong(value, format!("`{key}`{} has an empty string", self.place())),
                None => return self.wrong_type(key, value, &expected),
            }
        }
        Some(texts)
    }

    /// Tables by names of any kind; `example` is how they may be written.
    pub(super) fn tables(&self, key: &'static str, example: &str) -> Vec<(&'a str, Section<'a>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("a table of tables such as `{example}`");
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type::<()>(key, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, value) in table.iter() {
            let Some(table) = value.get_ref().as_table() else {
                self.wrong_type::<()>(key, value, &expected);
                continue;
            };
            let title = format!("`{key}` of `{}`", name.get_ref());
            sections.push((name.get_ref().as_ref(), Section::new(self.source, title, name.span(), table)));
        }
        sections
    }

    /// The table `[key]`.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(self.source, format!("[{key}]"), value.span(), table)),
            _ => self.wrong_type(key, value, &format!("a table: write [{key}]")),
        }
    }

    /// The tables `[[key]]`, in order.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("a list of tables: write [[{key}]]");
        let none = || {
            self.wrong_type::<()>(key, value, &expected);
            Vec::new()
        };
        let Some(array) = value.get_ref().as_array() else { return none() };
        let sections: Option<Vec<_>> = tables(array)
            .map(|(span, table)| Some(Section::new(self.source, format!("[[{key}]]"), span, table?)))
            .collect();
        sections.unwrap_or_else(none)
    }

    /// The tables `[key.NAME]`, by name.
    pub(super) fn named_sections(&self, key: &'static str) -> Vec<(&'a str, Section<'a>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("a table: write [{key}.NAME]");
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type::<()>(key, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, value) in table.iter() {
            if let Err(rule) = check_name(name.get_ref()) {
                self.source.report(&name.span(), format!("the name in [{key}.{}] {rule}", name.get_ref()));
            } else if let Some(table) = value.get_ref().as_table() {
                let title = format!("[{key}.{}]", name.get_ref());
                sections
                    .push((name.get_ref().as_ref(), Section::new(self.source, title, name.span(), table)));
            } else {
                let found = a(value.get_ref().type_str());
                self.source.report(
                    &name.span(),
                    format!("`{key}.{}` must be {expected}, not {found}", name.get_ref()),
                );
            }
        }
        sections
    }

    /// Notes a problem with a key's value.
    pub(super) fn problem(&self, key: &'static str, message: String) {
        match self.get(key) {
            Some(value) => self.source.report(&value.span(), message),
            None => self.report(message),
        }
    }

    /// Notes a problem with the section as a whole.
    pub(super) fn report(&self, message: String) {
        self.source.report(&self.span, message);
    }

    /// ` in [[account]]`, or nothing at the top of the file.
    pub(super) fn place(&self) -> String {
        if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) }
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for name in self.table.keys() {
            let key = name.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let hint = suggestion(key, &known, "right");
            let message = format!("unknown key `{key}`{}; {hint}", self.place());
            self.source.report(&name.span(), message);
        }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn wrong<T>(&self, value: &Spanned<DeValue<'_>>, message: String) -> Option<T> {
        self.source.report(&value.span(), message);
        None
    }

    fn wrong_type<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> Option<T> {
        let found = a(value.get_ref().type_str());
        self.wrong(value, format!("`{key}`{} must be {expected}, not {found}", self.place()))
    }
}

/// What is wrong with a name, if anything.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > limits::NAME_MOST_BYTES || !name.chars().all(plain) {
        let most = limits::NAME_MOST_BYTES;
        return Err(format!("must be 1 to {most} letters, digits, `-`, `_` or `.`"));
    }
    Ok(())
}

fn tables<'a>(array: &'a DeArray<'a>) -> impl Iterator<Item = (Range<usize>, Option<&'a DeTable<'a>>)> {
    array.iter().map(|element| (element.span(), element.get_ref().as_table()))
}

/// The nearest right word, or all of them when none is near.
fn suggestion(word: &str, words: &[&str], quality: &str) -> String {
    /// Below it a suggestion is more puzzling than helpful.
    const NEAR: f64 = 0.75;
    let near = words
        .iter()
        .map(|candidate| (likeness(&word.to_lowercase(), candidate), candidate))
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right));
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => {
            let mut all = words.to_vec();
            all.sort_unstable();
            format!("{quality}: `{}`", all.join("`, `"))
        }
    }
}

fn likeness(word: &str, candidate: &str) -> f64 {
    // Jaro-Winkler is strict with short words, where one slip is most of the word.
    let slip = strsim::damerau_levenshtein(word, candidate) == 1;
    strsim::jaro_winkler(word, candidate).max(if slip { 0.9 } else { 0.0 })
}

fn a(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
