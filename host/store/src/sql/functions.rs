//! SQL functions of ours in the place of SQLite's, which take time by the product of their arguments' lengths: a function is
//! one step to SQLite, and it looks at the deadline between steps. They answer what SQLite's do, byte for byte, since
//! indexes and files keep their answers.

use std::{borrow::Cow, sync::Arc};

use foldhash::{HashMap, HashMapExt, HashSet};
// As fast as a search gets, and linear in the worst case.
use memchr::memmem;
use parking_lot::Mutex;
use rusqlite::{
    Connection, Error, Result, ffi,
    functions::{Context, FunctionFlags, SqlFnOutput, SubType},
    limits::Limit,
    types::{ToSqlOutput, Value, ValueRef},
};

use super::{
    guard::Guard,
    limits::{FUNCTION_WORK, JSON_PATCH_PRODUCT, TRIM_CHARACTERS, VALUE_BYTES},
};

/// What SQLite's own have: they may stand in indexes, checks and views.
const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8
    .union(FunctionFlags::SQLITE_DETERMINISTIC)
    .union(FunctionFlags::SQLITE_INNOCUOUS);

/// SQLite's mark of a text that is JSON, so that it is no string where it goes into other JSON.
const JSON: u32 = 'J' as u32;

/// What the functions of a connection have at hand.
#[derive(Clone)]
struct Host {
    guard: Arc<Guard>,
    native: Arc<Native>,
}

/// A database without anything in it, to ask SQLite itself.
#[derive(Default)]
struct Native(Mutex<Option<Connection>>);

/// Asks the guard each time that so much has been done.
struct Meter<'a> {
    guard: &'a Guard,
    left: usize,
}

/// What a function answers.
enum Answer {
    Null,
    Integer(i64),
    Text(Vec<u8>),
    Json(Vec<u8>),
    Blob(Vec<u8>),
}

/// The characters that a trim takes away.
struct Characters<'a> {
    /// Each with its place in the argument: where one begins like another, the earlier one counts.
    places: HashMap<&'a [u8], usize>,
    /// Ascending. Only bytes that are no UTF-8 make more than four.
    lengths: Vec<usize>,
}

type Function = fn(&Host, &Context<'_>) -> Result<Answer>;

/// Puts the functions into a connection.
pub(super) fn register(connection: &Connection, guard: &Arc<Guard>) -> Result<()> {
    let host = Host { guard: guard.clone(), native: Arc::default() };
    let put = |name, arguments, flags, function: Function| {
        let host = host.clone();
        connection.create_scalar_function(name, arguments, flags, move |context| function(&host, context))
    };
    put("instr", 2, FLAGS, instr)?;
    put("replace", 3, FLAGS, replace)?;
    put("trim", 2, FLAGS, |host, context| trim(host, context, true, true))?;
    put("ltrim", 2, FLAGS, |host, context| trim(host, context, true, false))?;
    put("rtrim", 2, FLAGS, |host, context| trim(host, context, false, true))?;
    put("unhex", 2, FLAGS, unhex)?;
    put("json_patch", 2, FLAGS.union(FunctionFlags::SQLITE_RESULT_SUBTYPE), |host, context| {
        Ok(match patch(host, context, "SELECT json_patch(?1, ?2)")? {
            Answer::Text(text) => Answer::Json(text),
            other => other,
        })
    })?;
    put("jsonb_patch", 2, FLAGS, |host, context| patch(host, context, "SELECT jsonb_patch(?1, ?2)"))
}

/// `instr(text, part)`: the place of the first `part`, in bytes if both are blobs, else in characters.
fn instr(host: &Host, context: &Context<'_>) -> Result<Answer> {
    let values = [context.get_raw(0), context.get_raw(1)];
    let (Some(text), Some(part)) = (host.text(values[0])?, host.text(values[1])?) else {
        return Ok(Answer::Null);
    };
    if part.is_empty() {
        return Ok(Answer::Integer(1));
    }
    host.meter().spend(text.len() + part.len())?;
    let blobs = values.iter().all(|value| matches!(value, ValueRef::Blob(_)));
    let place = if blobs { memmem::find(&text, &part).map(|at| at + 1) } else { character(&text, &part) };
    Ok(Answer::Integer(place.map_or(0, |place| i64::try_from(place).unwrap_or(i64::MAX))))
}

/// The character, from 1, at which `part` stands. Beyond its beginning, bytes that go on a character begin none.
fn character(text: &[u8], part: &[u8]) -> Option<usize> {
    let at = if part.first().is_some_and(|byte| continues(*byte)) {
        text.starts_with(part).then_some(0)
    } else {
        memmem::find(text, part)
    }?;
    let before = text.get(1..=at).unwrap_or_default();
    Some(1 + before.iter().filter(|byte| !continues(**byte)).count())
}

/// `replace(text, part, other)`.
fn replace(host: &Host, context: &Context<'_>) -> Result<Answer> {
    let (Some(text), Some(part)) = (host.text(context.get_raw(0))?, host.text(context.get_raw(1))?) else {
        return Ok(Answer::Null);
    };
    // To SQLite a part that begins with a NUL is empty, and then it does not look at the third argument.
    if part.first().is_none_or(|byte| *byte == 0) {
        return Ok(Answer::Text(text.into_owned()));
    }
    let Some(other) = host.text(context.get_raw(2))? else { return Ok(Answer::Null) };
    let mut meter = host.meter();
    meter.spend(text.len() + part.len())?;
    let (mut replaced, mut from) = (Vec::with_capacity(text.len()), 0);
    for at in memmem::find_iter(&text, &*part) {
        meter.spend(16 + other.len())?;
        replaced.extend_from_slice(text.get(from..at).unwrap_or_default());
        replaced.extend_from_slice(&other);
        from = at + part.len();
        if replaced.len() + text.len() - from > VALUE_BYTES {
            return Err(failure(ffi::SQLITE_TOOBIG, None));
        }
    }
    replaced.extend_from_slice(text.get(from..).unwrap_or_default());
    Ok(Answer::Text(replaced))
}

/// `trim(text, characters)` and its halves.
fn trim(host: &Host, context: &Context<'_>, left: bool, right: bool) -> Result<Answer> {
    let (Some(text), Some(set)) = (host.text(context.get_raw(0))?, host.text(context.get_raw(1))?) else {
        return Ok(Answer::Null);
    };
    let mut meter = host.meter();
    let characters = Characters::of(&set, &mut meter)?;
    let mut rest = &*text;
    while left && let Some(length) = characters.find(|length| rest.get(..length), &mut meter)? {
        rest = rest.get(length..).unwrap_or_default();
    }
    let last = |rest: &[u8], length| rest.len().checked_sub(length);
    while right && let Some(length) = characters.find(|length| rest.get(last(rest, length)?..), &mut meter)? {
        rest = last(rest, length).and_then(|end| rest.get(..end)).unwrap_or_default();
    }
    Ok(Answer::Text(rest.to_vec()))
}

impl<'a> Characters<'a> {
    /// Of a text up to its first NUL, where SQLite ends it.
    fn of(text: &'a [u8], meter: &mut Meter<'_>) -> Result<Self> {
        let mut rest = until_nul(text);
        let mut places = HashMap::new();
        while let Some(first) = rest.first() {
            let more = if *first < 0xc0 { 0 } else { continuation(rest) };
            let (character, after) = rest.split_at_checked(1 + more).unwrap_or((rest, &[]));
            let place = places.len();
            places.entry(character).or_insert(place);
            if places.len() > TRIM_CHARACTERS {
                let text = format!("trim takes at most {TRIM_CHARACTERS} different characters");
                return Err(failure(ffi::SQLITE_ERROR, Some(text)));
            }
            meter.spend(8 + character.len())?;
            rest = after;
        }
        let mut lengths: Vec<_> = places.keys().map(|character| character.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Ok(Self { places, lengths })
    }

    /// The length of the character that stands at an end of a text, given the piece of each length there.
    fn find<'b>(
        &self,
        piece: impl Fn(usize) -> Option<&'b [u8]>,
        meter: &mut Meter<'_>,
    ) -> Result<Option<usize>> {
        let mut found: Option<(usize, usize)> = None;
        for length in &self.lengths {
            let Some(piece) = piece(*length) else { break };
            meter.spend(8 + length)?;
            if let Some(place) = self.places.get(piece)
                && found.is_none_or(|(earlier, _)| *place < earlier)
            {
                found = Some((*place, *length));
            }
        }
        Ok(found.map(|(_, length)| length))
    }
}

/// `unhex(text, passed)`: the bytes of hexadecimal digits, between which the characters of `passed` may stand.
fn unhex(host: &Host, context: &Context<'_>) -> Result<Answer> {
    let (Some(text), Some(passed)) = (host.text(context.get_raw(0))?, host.text(context.get_raw(1))?) else {
        return Ok(Answer::Null);
    };
    let mut meter = host.meter();
    let (mut characters, mut rest) = (HashSet::default(), &*passed);
    while let Some((character, after)) = read_character(rest) {
        meter.spend(8)?;
        characters.insert(character);
        rest = after;
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len() / 2), until_nul(&text));
    while let Some((first, after)) = rest.split_first() {
        meter.spend(8)?;
        if let Some(high) = digit(*first) {
            let Some((low, after)) = after.split_first() else { return Ok(Answer::Null) };
            let Some(low) = digit(*low) else { return Ok(Answer::Null) };
            bytes.push(high << 4 | low);
            rest = after;
        } else {
            let passed = read_character(rest).filter(|(character, _)| characters.contains(character));
            let Some((_, after)) = passed else { return Ok(Answer::Null) };
            rest = after;
        }
    }
    Ok(Answer::Blob(bytes))
}

/// `json_patch(target, patch)`: SQLite's own, which looks for each name of one in all of the other.
fn patch(host: &Host, context: &Context<'_>, sql: &str) -> Result<Answer> {
    let values = [context.get_raw(0), context.get_raw(1)];
    let bytes = values.map(|value| match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    });
    if bytes[0].saturating_mul(bytes[1]) > JSON_PATCH_PRODUCT {
        let text = format!(
            "json_patch takes arguments whose bytes multiply to at most {JSON_PATCH_PRODUCT}; these have {} and {}",
            bytes[0], bytes[1]
        );
        return Err(failure(ffi::SQLITE_ERROR, Some(text)));
    }
    if host.guard.must_stop() {
        return Err(failure(ffi::SQLITE_INTERRUPT, None));
    }
    host.native.ask(sql, &values)
}

impl Host {
    fn meter(&self) -> Meter<'_> {
        Meter { guard: &self.guard, left: FUNCTION_WORK }
    }

    /// An argument as SQLite reads it where it wants text.
    fn text<'a>(&self, value: ValueRef<'a>) -> Result<Option<Cow<'a, [u8]>>> {
        Ok(match value {
            ValueRef::Null => None,
            ValueRef::Integer(integer) => Some(integer.to_string().into_bytes().into()),
            ValueRef::Real(_) => match self.native.ask("SELECT CAST(?1 AS TEXT)", &[value])? {
                Answer::Text(text) => Some(text.into()),
                _ => None,
            },
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.into()),
        })
    }
}

impl Native {
    fn ask(&self, sql: &str, values: &[ValueRef<'_>]) -> Result<Answer> {
        let mut connection = self.0.lock();
        let connection = match &mut *connection {
            Some(connection) => connection,
            none => none.insert(Self::open()?),
        };
        let mut statement = connection.prepare_cached(sql)?;
        for (index, value) in values.iter().enumerate() {
            statement.raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(*value))?;
        }
        let mut rows = statement.raw_query();
        let Some(row) = rows.next()? else { return Ok(Answer::Null) };
        Ok(match row.get_ref(0)? {
            ValueRef::Text(text) => Answer::Text(text.to_vec()),
            ValueRef::Blob(bytes) => Answer::Blob(bytes.to_vec()),
            _ => Answer::Null,
        })
    }

    fn open() -> Result<Connection> {
        let connection = Connection::open_in_memory()?;
        let bytes = i32::try_from(VALUE_BYTES).unwrap_or(i32::MAX);
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes)?;
        Ok(connection)
    }
}

impl Meter<'_> {
    /// Counts work, of about a nanosecond each. The error says that the call is over.
    fn spend(&mut self, work: usize) -> Result<()> {
        if let Some(left) = self.left.checked_sub(work) {
            self.left = left;
            return Ok(());
        }
        self.left = FUNCTION_WORK;
        if self.guard.must_stop() { Err(failure(ffi::SQLITE_INTERRUPT, None)) } else { Ok(()) }
    }
}

impl SqlFnOutput for Answer {
    fn to_sql(&self) -> Result<(ToSqlOutput<'_>, SubType)> {
        let subtype = matches!(self, Self::Json(_)).then_some(JSON);
        let value = match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Integer(integer) => ToSqlOutput::Owned(Value::Integer(*integer)),
            Self::Text(text) | Self::Json(text) => ToSqlOutput::Borrowed(ValueRef::Text(text)),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        };
        Ok((value, subtype))
    }
}

/// SQLite makes any failure with a text a plain error, so that a code which matters goes without one.
fn failure(code: i32, text: Option<String>) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), text)
}

fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// The bytes behind the first that go on its character.
fn continuation(bytes: &[u8]) -> usize {
    bytes.iter().skip(1).take_while(|byte| continues(**byte)).count()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The first character and what follows, by SQLite's way to read UTF-8, which takes anything.
fn read_character(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0xc0 {
        return Some((u32::from(*first), rest));
    }
    let payload = match first {
        0xc0..=0xdf => first & 0x1f,
        0xe0..=0xef => first & 0x0f,
        0xf0..=0xf7 => first & 0x07,
        0xf8..=0xfb => first & 0x03,
        0xfc..=0xfd => first & 0x01,
        _ => 0,
    };
    let (more, rest) = rest.split_at_checked(continuation(bytes)).unwrap_or((rest, &[]));
    let character = more.iter().fold(u32::from(payload), |read, byte| (read << 6) + u32::from(byte & 0x3f));
    let misread = character < 0x80 || character & 0xffff_f800 == 0xd800 || character & 0xffff_fffe == 0xfffe;
    Some((if misread { 0xfffd } else { character }, rest))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
