//! Lists in JSON bodies, bounded while they are read: `0,` are two bytes, and an item takes dozens.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

/// Reads a list of which at most `most` items and one more are kept: who counts them sees that there are too many. An error in
/// an item is told with its place, by its index.
pub(crate) fn bounded<'de, T, D>(
    from: D,
    most: usize,
    place: impl Fn(usize) -> String,
) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_seq(Items { most, place, item: PhantomData })
}

struct Items<T, P> {
    most: usize,
    place: P,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, P: Fn(usize) -> String> Visitor<'de> for Items<T, P> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= self.most {
            let at = |error| A::Error::custom(format_args!("{}: {error}", (self.place)(kept.len())));
            match items.next_element().map_err(at)? {
                Some(item) => kept.push(item),
                None => break,
            }
        }
        if kept.len() > self.most {
            while items.next_element::<IgnoredAny>()?.is_some() {}
        }
        // Many short lists, each with room for twice its items, would be twice the memory.
        kept.shrink_to_fit();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<u8>, serde_json::Error> {
        let mut from = serde_json::Deserializer::from_str(json);
        bounded(&mut from, 3, |number| format!("items[{number}]"))
    }

    #[test]
    fn one_item_more_than_allowed_is_kept_and_the_rest_is_passed_over() {
        assert_eq!(read("[]").unwrap(), [0; 0]);
        assert_eq!(read("[1, 2, 3]").unwrap(), [1, 2, 3]);
        assert_eq!(read("[1, 2, 3, 4, 5, {\"x\": [6]}]").unwrap(), [1, 2, 3, 4]);
        assert_eq!(read("[1, 300]").unwrap_err().to_string().matches("items[1]: ").count(), 1);
        assert!(read("7").unwrap_err().to_string().contains("a list"));
    }
}
