//! Where one statement ends and the next begins.

/// Text that comes line by line and goes as statements.
#[derive(Debug, Default)]
pub(super) struct Statements {
    text: String,
}

/// What the end of a statement depends on.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before the first word.
    Start,
    /// After CREATE, with TEMP or without.
    Create,
    /// In the head of CREATE TRIGGER, or in one of its statements.
    Trigger,
    /// After a semicolon within a trigger.
    TriggerPart,
    /// After the END that follows such a semicolon.
    TriggerEnd,
    /// In any other statement.
    Other,
}

impl Statements {
    /// Takes a line.
    pub(super) fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// The first statement that has come whole, without its semicolon.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            let (end, blank) = end_of_first(&self.text)?;
            let rest = self.text.split_off(end + 1);
            let mut statement = std::mem::replace(&mut self.text, rest);
            statement.truncate(end);
            if !blank {
                return Some(statement.trim().to_owned());
            }
        }
    }

    /// What is left when no more comes: a statement without a semicolon, if not blank.
    pub(super) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.text);
        let blank = Tokens(&rest).next().is_none();
        (!blank).then(|| rest.trim().to_owned())
    }

    /// Whether nothing has begun.
    pub(super) fn is_blank(&self) -> bool {
        Tokens(&self.text).next().is_none()
    }

    /// Bytes that wait for their end.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Forgets what has begun.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }
}

/// Where the first statement's semicolon is, and whether there is nothing before it.
fn end_of_first(text: &str) -> Option<(usize, bool)> {
    let mut place = Place::Start;
    for (at, token) in Tokens(text).positions() {
        let is = |word: &str| token.eq_ignore_ascii_case(word);
        place = match place {
            Place::Start | Place::Create | Place::Other | Place::TriggerEnd if token == ";" => {
                return Some((at, place == Place::Start));
            }
            Place::Start if is("CREATE") => Place::Create,
            Place::Create if is("TEMP") || is("TEMPORARY") => Place::Create,
            Place::Create if is("TRIGGER") => Place::Trigger,
            Place::Start | Place::Create | Place::Other => Place::Other,
            Place::Trigger | Place::TriggerPart if token == ";" => Place::TriggerPart,
            Place::TriggerPart if is("END") => Place::TriggerEnd,
            Place::Trigger | Place::TriggerPart | Place::TriggerEnd => Place::Trigger,
        };
    }
    None
}

/// Words, quoted text and single characters; blanks and comments are skipped, and what is not ended ends with the text.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    /// Each token with where it begins.
    fn positions(self) -> impl Iterator<Item = (usize, &'a str)> {
        let (length, mut tokens) = (self.0.len(), self);
        std::iter::from_fn(move || {
            let token = tokens.next()?;
            Some((length - tokens.0.len() - token.len(), token))
        })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = skip_blank(self.0);
        let Some(first) = text.chars().next() else {
            self.0 = text;
            return None;
        };
        let closed = |close: char| text.get(1..).and_then(|rest| rest.find(close)).map(|at| at + 2);
        let end = match first {
            // A doubled quote makes two tokens of one text, which ends at the same place.
            '\'' | '"' | '`' => closed(first),
            '[' => closed(']'),
            first if is_word(first) => text.find(|other| !is_word(other)),
            first => Some(first.len_utf8()),
        };
        let (token, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
        self.0 = rest;
        Some(token)
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$'
}

fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
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
    fn statements_end_at_semicolons_that_end_statements() {
        let check = |text: &str, expected: &[&str], rest: Option<&str>| {
            let mut statements = Statements::default();
            text.lines().for_each(|line| statements.push(line));
            let found: Vec<_> = std::iter::from_fn(|| statements.next()).collect();
            assert_eq!(found, expected, "{text}");
            assert_eq!(statements.rest().as_deref(), rest, "{text}");
        };
        check("", &[], None);
        check("select 1; select 2;", &["select 1", "select 2"], None);
        check("select 1", &[], Some("select 1"));
        check("; ;; -- nothing;\n/* ; */", &[], None);
        check("select ';', \";\", `;`, [;] -- ;\n;", &["select ';', \";\", `;`, [;] -- ;"], None);
        check("select 'it''s; here';x", &["select 'it''s; here'"], Some("x"));
        check("select 'open;\nstill;", &[], Some("select 'open;\nstill;"));
        check("select 'é;é' ; select é", &["select 'é;é'"], Some("select é"));
        let trigger = "create temp trigger t after insert on a begin\n select case when 1 then 2 end; delete from b; end";
        check(&format!("{trigger};\nselect 1;"), &[trigger, "select 1"], None);
        check("create table trigger_log (a);", &["create table trigger_log (a)"], None);
        check("create trigger t begin select 1;", &[], Some("create trigger t begin select 1;"));
    }
}
