//! What kind of statement a text is, as far as the authorizer and the writer must know before SQLite has parsed it.

/// Kinds that are treated apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// CREATE …
    Create,
    /// ALTER TABLE … ADD …
    AlterAdd,
    /// VACUUM, which runs outside of transactions.
    Vacuum,
    /// Any other.
    Other,
}

/// The kind of a text; none: it is empty, or nothing that SQLite could run.
pub(super) fn shape(sql: &str) -> Option<Shape> {
    let mut rest = sql;
    let first = word(next_token(&mut rest))?;
    let shape = if first.eq_ignore_ascii_case("create") {
        Shape::Create
    } else if first.eq_ignore_ascii_case("vacuum") {
        Shape::Vacuum
    } else if first.eq_ignore_ascii_case("alter") && adds_column(rest) {
        Shape::AlterAdd
    } else {
        Shape::Other
    };
    Some(shape)
}

/// Whether this is what follows ALTER in `ALTER TABLE name ADD` or `ALTER TABLE schema.name ADD`.
fn adds_column(mut rest: &str) -> bool {
    let _table_keyword = next_token(&mut rest);
    let _name = next_token(&mut rest);
    let mut token = next_token(&mut rest);
    if token == Some(".") {
        let _name = next_token(&mut rest);
        token = next_token(&mut rest);
    }
    token.is_some_and(|token| token.eq_ignore_ascii_case("add"))
}

fn word(token: Option<&str>) -> Option<&str> {
    token.filter(|token| token.starts_with(|first: char| first.is_ascii_alphabetic()))
}

/// Takes the next token off the text: a word, a quoted name with its quotes, or one other character.
fn next_token<'a>(text: &mut &'a str) -> Option<&'a str> {
    let start = skip_blank(text);
    let first = start.chars().next()?;
    let end = match first {
        '"' | '`' | '\'' => quoted_end(start, first),
        '[' => start.find(']').map_or(start.len(), |at| at + 1),
        _ if is_word(first) => start.find(|other| !is_word(other)).unwrap_or(start.len()),
        _ => first.len_utf8(),
    };
    let (token, rest) = start.split_at_checked(end)?;
    *text = rest;
    Some(token)
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == '$' || !character.is_ascii()
}

/// The end of a quoted name; a doubled quote inside belongs to it.
fn quoted_end(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// The text after blanks and comments.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
        text = if let Some(comment) = text.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = text.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return text;
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statements_kind_is_seen_behind_comments_and_quotes() {
        let check = |sql: &str, expected: Option<Shape>| assert_eq!(shape(sql), expected, "{sql}");
        check("", None);
        check(" -- nothing", None);
        check("/* open", None);
        check(";", None);
        check("select 1", Some(Shape::Other));
        check("-- a\n/* b */ VACUUM into 'x'", Some(Shape::Vacuum));
        check("Create table t(a)", Some(Shape::Create));
        check("alter table t add column b", Some(Shape::AlterAdd));
        check("ALTER TABLE main.\"a\"\"b ]\" ADD b", Some(Shape::AlterAdd));
        check("alter table [a b] /* add */ rename to c", Some(Shape::Other));
        check("alter table \"add\" rename to c", Some(Shape::Other));
        check("alter table 't' . `add` drop c", Some(Shape::Other));
    }
}
