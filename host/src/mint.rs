//! Secrets that this server makes, shows once, and knows again by their HMAC-SHA-256: client keys and data tokens.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Characters after the prefix: 37 random ones (220 bits) and the check.
const CHARS: usize = 43;

/// Characters of the check, which only this server can make: whoever makes secrets up is sent away without a query.
const CHECK_CHARS: usize = 6;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes secrets of one kind.
pub(crate) struct Mint {
    /// What every one starts with, so that people and scanners recognise it, and kinds have no hash in common.
    prefix: &'static str,
    /// Keyed once; hashing starts from a clone.
    mac: Hmac<Sha256>,
}

impl Mint {
    /// What it makes is only known again under the same `secret`. None: a secret that HMAC does not take.
    pub(crate) fn new(secret: &[u8], prefix: &'static str) -> Option<Mint> {
        Some(Mint { prefix, mac: Hmac::new_from_slice(secret).ok()? })
    }

    /// A new secret.
    pub(crate) fn make(&self) -> Result<String, getrandom::Error> {
        let mut text = String::with_capacity(self.prefix.len() + CHARS);
        text.push_str(self.prefix);
        let mut bytes = [0; 64];
        let random = self.prefix.len() + CHARS - CHECK_CHARS;
        while text.len() < random {
            getrandom::fill(&mut bytes)?;
            let room = random - text.len();
            text.extend(bytes.iter().filter_map(|byte| character(*byte)).take(room));
        }
        let check = self.check(&text);
        text.push_str(&check);
        Ok(text)
    }

    /// What is kept of a secret.
    pub(crate) fn hash(&self, text: &str) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Whether it looks like one. Costs nothing.
    pub(crate) fn is_well_formed(&self, text: &str) -> bool {
        text.strip_prefix(self.prefix)
            .is_some_and(|rest| rest.len() == CHARS && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }

    /// Whether its check is one that this server made.
    pub(crate) fn is_own(&self, text: &str) -> bool {
        let parts = text.split_at_checked(text.len().saturating_sub(CHECK_CHARS));
        parts.is_some_and(|(body, check)| self.check(body) == check)
    }

    fn check(&self, body: &str) -> String {
        let digest = self.hash(body);
        digest
            .iter()
            .filter_map(|byte| ALPHABET.get(usize::from(byte % 62)))
            .take(CHECK_CHARS)
            .map(|c| char::from(*c))
            .collect()
    }
}

/// A character of a random byte; bytes that would favour some characters give none.
fn character(byte: u8) -> Option<char> {
    ALPHABET.get(usize::from(byte >> 2)).map(|character| char::from(*character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_server_makes_is_its_own_and_nobody_elses() {
        let (mint, other) = (Mint::new(&[1; 32], "tgx-").unwrap(), Mint::new(&[2; 32], "tgx-").unwrap());
        let text = mint.make().unwrap();
        assert!(mint.is_well_formed(&text) && mint.is_own(&text) && !other.is_own(&text), "{text}");
        assert_ne!(mint.hash(&text), other.hash(&text));
        assert_ne!(mint.make().unwrap(), text);
        for made_up in ["", "tgx-", &text[1..], &format!("{text}0"), &format!("tgx-{}", "0".repeat(43))] {
            assert!(!(mint.is_well_formed(made_up) && mint.is_own(made_up)), "{made_up}");
        }
    }
}
