//! Conditions of a request, and the part that it asks for, as RFC 9110 has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderValue};
use tollgate_store::{BlobInfo, ByteRange, Etags, Precondition, Unmet};

use crate::api::error::ApiError;

/// Everything that a request makes its answer depend on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) precondition: Precondition,
    /// Seconds since 1970.
    modified_since: Option<u64>,
    unmodified_since: Option<u64>,
    range: Option<ByteRange>,
    if_range: Option<IfRange>,
}

/// What `if-range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum IfRange {
    Etag(String),
    /// A date, or a weak tag: neither tells two versions of one second apart, so that the whole is sent.
    Never,
}

/// What is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The object, or a part of it.
    Send(Option<ByteRange>),
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    /// The conditions of a request; a date or range that cannot be read counts as none, as the standard has it.
    pub(super) fn of(headers: &HeaderMap) -> Result<Conditions, ApiError> {
        Ok(Conditions {
            precondition: precondition(headers)?,
            modified_since: seconds(headers, IF_MODIFIED_SINCE),
            unmodified_since: seconds(headers, IF_UNMODIFIED_SINCE),
            range: text(headers, RANGE).and_then(range),
            if_range: text(headers, IF_RANGE).map(if_range),
        })
    }

    /// Whether nothing depends on anything.
    pub(super) fn is_none(&self) -> bool {
        *self == Conditions::default()
    }

    /// What they come to for an object (none: there is none).
    pub(super) fn verdict(&self, info: Option<&BlobInfo>) -> Verdict {
        let unmet = self.precondition.unmet(info.map(|info| info.etag.as_str()));
        if unmet == Some(Unmet::Match) {
            return Verdict::Failed;
        }
        let Some(info) = info else { return Verdict::Send(None) };
        let changed_s = info.uploaded_ms / 1_000;
        let tags = &self.precondition;
        if tags.if_match.is_none() && self.unmodified_since.is_some_and(|since| changed_s > since) {
            return Verdict::Failed;
        }
        let unchanged = tags.if_none_match.is_none() && self.modified_since.is_some_and(|s| changed_s <= s);
        if unmet.is_some() || unchanged {
            return Verdict::NotModified;
        }
        let fits = match &self.if_range {
            None => true,
            Some(IfRange::Etag(etag)) => *etag == info.etag,
            Some(IfRange::Never) => false,
        };
        Verdict::Send(self.range.filter(|_| fits))
    }
}

/// `if-match` and `if-none-match`.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    Ok(Precondition {
        if_match: etags(headers, IF_MATCH, false)?,
        if_none_match: etags(headers, IF_NONE_MATCH, true)?,
    })
}

/// A tag as a header has it. It has no characters that would end it.
pub(super) fn etag(tag: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A time as a header has it.
pub(super) fn date(time_ms: u64) -> Option<HeaderValue> {
    // `httpdate` writes dates up to the year 9999.
    const MOST_S: u64 = 253_402_300_799;
    let time = UNIX_EPOCH.checked_add(Duration::from_secs((time_ms / 1_000).min(MOST_S)))?;
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn seconds(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(text(headers, name)?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The tags that a header names, over all its lines. A weak tag is like no strong one, which `if-match` asks for.
fn etags(headers: &HeaderMap, name: HeaderName, weak: bool) -> Result<Option<Etags>, ApiError> {
    let mut found: Option<Vec<String>> = None;
    for line in headers.get_all(&name) {
        let wrong = || {
            ApiError::invalid(format!("`{name}` is `*` or a list of entity tags"))
                .hint("write a tag in double quotes, as the answer's `etag` has it")
        };
        let mut rest = line.to_str().map_err(|_| wrong())?.trim();
        if rest == "*" {
            return Ok(Some(Etags::Any));
        }
        let tags = found.get_or_insert_default();
        while !rest.is_empty() {
            let (is_weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let (tag, after) = quoted.strip_prefix('"').and_then(|q| q.split_once('"')).ok_or_else(wrong)?;
            if weak || !is_weak {
                tags.push(tag.to_owned());
            }
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if after.is_empty() => after,
                None => return Err(wrong()),
            };
        }
    }
    Ok(found.map(Etags::Of))
}

fn if_range(text: &str) -> IfRange {
    let tag = text.trim().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    tag.map_or(IfRange::Never, |tag| IfRange::Etag(tag.to_owned()))
}

/// One range of bytes. Several are answered with the whole, which the standard allows.
fn range(text: &str) -> Option<ByteRange> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number past all numbers is past every object too.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        return number(last).map(ByteRange::Last);
    }
    let offset = number(first)?;
    if last.is_empty() {
        return Some(ByteRange::From { offset, length: None });
    }
    let length = number(last)?.checked_sub(offset)?.saturating_add(1);
    Some(ByteRange::From { offset, length: Some(length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn of(lines: &[(&'static str, &'static str)]) -> Conditions {
        Conditions::of(&headers(lines)).unwrap()
    }

    fn info() -> BlobInfo {
        BlobInfo {
            key: "k".to_owned(),
            size: 100,
            etag: "ab".to_owned(),
            // Sun, 06 Nov 1994 08:49:37 GMT, and some milliseconds.
            uploaded_ms: 784_111_777_500,
            content_type: "text/plain".to_owned(),
            cache_control: None,
            metadata: Vec::new(),
        }
    }

    #[test]
    fn ranges_are_read_as_the_standard_has_them() {
        let from = |offset, length| Some(ByteRange::From { offset, length });
        for (text, expected) in [
            ("bytes=0-0", from(0, Some(1))),
            ("bytes=5-", from(5, None)),
            ("Bytes = 1-2", from(1, Some(2))),
            ("bytes=-5", Some(ByteRange::Last(5))),
            ("bytes=-0", Some(ByteRange::Last(0))),
            ("bytes=99999999999999999999-", from(u64::MAX, None)),
            ("bytes=0-99999999999999999999", from(0, Some(u64::MAX))),
            ("bytes=2-1", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=-", None),
            ("items=0-1", None),
            ("0-1", None),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    #[test]
    fn entity_tags_are_compared_strongly_for_a_match_and_weakly_for_none() {
        let tags = |name, value| {
            let read = precondition(&headers(&[(name, value)]));
            read.map(|read| read.if_match.or(read.if_none_match))
        };
        let all = |tags: &[&str]| Some(Etags::Of(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        assert_eq!(tags("if-match", "\"a,b\" , W/\"c\",\"d\""), Ok(all(&["a,b", "d"])));
        assert_eq!(tags("if-none-match", "W/\"c\""), Ok(all(&["c"])));
        assert_eq!(tags("if-match", " * "), Ok(Some(Etags::Any)));
        for wrong in ["a", "\"a", "\"a\" \"b\"", "w/\"a\"", "*, \"a\""] {
            assert!(tags("if-match", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_count_in_the_order_of_the_standard() {
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let part = ByteRange::From { offset: 1, length: None };
        for (lines, expected) in [
            (vec![], Verdict::Send(None)),
            (vec![("if-match", "\"x\"")], Verdict::Failed),
            (vec![("if-match", "\"ab\""), ("if-unmodified-since", BEFORE)], Verdict::Send(None)),
            (vec![("if-unmodified-since", BEFORE)], Verdict::Failed),
            (vec![("if-unmodified-since", SAME)], Verdict::Send(None)),
            (vec![("if-none-match", "\"ab\"")], Verdict::NotModified),
            (vec![("if-none-match", "\"x\""), ("if-modified-since", SAME)], Verdict::Send(None)),
            (vec![("if-modified-since", SAME)], Verdict::NotModified),
            (vec![("if-modified-since", BEFORE)], Verdict::Send(None)),
            (vec![("if-modified-since", "yesterday")], Verdict::Send(None)),
            (vec![("range", "bytes=1-")], Verdict::Send(Some(part))),
            (vec![("range", "bytes=1-"), ("if-range", "\"ab\"")], Verdict::Send(Some(part))),
            (vec![("range", "bytes=1-"), ("if-range", "\"x\"")], Verdict::Send(None)),
            (vec![("range", "bytes=1-"), ("if-range", "W/\"ab\"")], Verdict::Send(None)),
            (vec![("range", "bytes=1-"), ("if-range", SAME)], Verdict::Send(None)),
            (vec![("range", "bytes=1-"), ("if-none-match", "*")], Verdict::NotModified),
        ] {
            assert_eq!(of(&lines).verdict(Some(&info())), expected, "{lines:?}");
        }
        assert_eq!(of(&[("if-match", "*")]).verdict(None), Verdict::Failed);
        assert_eq!(of(&[("if-none-match", "*")]).verdict(None), Verdict::Send(None));
    }

    #[test]
    fn a_date_past_all_dates_is_no_panic() {
        assert_eq!(date(0).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(u64::MAX).unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
