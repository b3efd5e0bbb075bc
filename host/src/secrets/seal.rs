//! One key, and what is sealed with it.
//!
//! XChaCha20-Poly1305: its nonces of 192 bits can be drawn at random without end, so that no counter has to survive a
//! crash or a restored backup, and it takes constant time on processors without instructions for AES.

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::limits::KEY_BYTES;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;

/// A key in memory that is cleared when it is dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    /// A new one.
    pub(super) fn generate() -> Result<Key, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Key(bytes))
    }

    /// From its 64 hexadecimal digits, with any white space around them. None: it is no key.
    pub fn parse(text: &str) -> Option<Key> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).ok()?;
        Some(Key(bytes))
    }

    /// Its hexadecimal digits.
    pub(super) fn digits(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    /// By what people tell keys apart: the beginning of a hash, which says nothing of the key.
    pub(super) fn fingerprint(&self) -> String {
        let hash = Sha256::new().chain_update(b"tollgate key fingerprint\0").chain_update(self.0.as_slice());
        let mut text = hex::encode(hash.finalize());
        text.truncate(8);
        text
    }

    /// Seals `plain` for one place: opened in the name of another it is no good.
    pub(super) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let payload = Payload { msg: plain, aad: place };
        let sealed = self.cipher().encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| SealError::Sealed)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed with this key for this place.
    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::Sealed)?;
        let payload = Payload { msg: sealed, aad: place };
        let plain = self.cipher().decrypt(XNonce::from_slice(nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| SealError::Sealed)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.as_slice().into())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.fingerprint())
    }
}

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("it was sealed with another key or for another place, or it is damaged")]
    Sealed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_place_only() {
        let key = Key::generate().unwrap();
        let sealed = key.seal(b"account a", b"sk-clear").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"clear"));
        assert_eq!(key.open(b"account a", &sealed).unwrap().as_slice(), b"sk-clear");
        assert!(key.open(b"account b", &sealed).is_err());
        assert!(Key::generate().unwrap().open(b"account a", &sealed).is_err());
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(key.open(b"account a", &damaged).is_err(), "byte {index}");
            assert!(key.open(b"account a", &sealed[..index]).is_err(), "{index} bytes");
        }
        assert_ne!(key.seal(b"account a", b"sk-clear").unwrap(), sealed, "no nonce comes twice");
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(Key::parse(&format!(" {text}\n")).unwrap().digits().as_str(), text);
        for wrong in ["", "00", &text[1..], &format!("{text}0"), &text.replace('a', "g")] {
            assert!(Key::parse(wrong).is_none(), "{wrong}");
        }
        assert!(!format!("{:?}", Key::parse(&text)).contains("0123"));
    }
}
