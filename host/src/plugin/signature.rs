//! Signatures of components, as WebAssembly's tool conventions have them (`Signatures.md` there).
//!
//! They stand in the component itself, in a custom section `signature` at its beginning, so that they go wherever it goes.
//! What is signed is the SHA-256 of all that follows. Of the format's possibilities we use those that speak for a component as a
//! whole; signatures of parts count for nothing.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use wasmparser::{BinaryReader, Parser};
use zeroize::Zeroizing;

use super::limits::{SIGNATURE_BYTES, SIGNATURES};
use super::shipped::Shipped;

/// The magic number and the version, which say that a file is a component and are not signed.
const HEADER_BYTES: usize = 8;

const SECTION: &str = "signature";

/// Version of the format, kind of content, and SHA-256.
const KIND: [u8; 3] = [1, 1, 1];

/// What a signature is of begins with it, so that it is a signature of nothing else.
const DOMAIN: &[u8] = b"wasmsig";

const ED25519_ID: u8 = 1;

const KEY_BYTES: usize = 32;

type Hash = [u8; 32];

/// Why a component is not trusted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Untrusted {
    /// It has no signature.
    #[error(
        "the component is not signed, and [plugins] trusted_keys asks for it; see `tollgate plugin sign`"
    )]
    Unsigned,
    /// Its signatures cannot be read.
    #[error("the component's signature cannot be read: {0}")]
    Unreadable(&'static str),
    /// They are of something else.
    #[error("the component has changed since it was signed; sign it again")]
    Changed,
    /// They are of this component, but of keys that are not trusted.
    #[error("no key of [plugins] trusted_keys has signed the component")]
    OtherKeys,
}

/// Why a component could not be signed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignError {
    /// It is something else.
    #[error("not a component")]
    NoComponent,
    /// There are too many already.
    #[error("it has {SIGNATURES} signatures already; build it again to begin with none")]
    TooMany,
}

/// A key that signatures are checked with; as text `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

/// A key that signs; as text `ed25519-secret:` and 64 hexadecimal digits. Never shown.
pub struct SecretKey {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl PublicKey {
    const PREFIX: &str = "ed25519:";

    /// Reads a key; none: it is no public key.
    pub fn parse(text: &str) -> Option<PublicKey> {
        let mut key = [0; KEY_BYTES];
        hex::decode_to_slice(text.strip_prefix(Self::PREFIX)?, &mut key).ok()?;
        Some(PublicKey(key))
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", Self::PREFIX, hex::encode(self.0))
    }
}

impl SecretKey {
    const PREFIX: &str = "ed25519-secret:";

    /// Makes one; none: the system has no randomness.
    pub fn generate() -> Option<SecretKey> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *seed).ok()?;
        SecretKey::of(seed)
    }

    /// Reads a key from the text of its file; none: it is no secret key.
    pub fn parse(text: &str) -> Option<SecretKey> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim().strip_prefix(Self::PREFIX)?, &mut *seed).ok()?;
        SecretKey::of(seed)
    }

    fn of(seed: Zeroizing<[u8; KEY_BYTES]>) -> Option<SecretKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).ok()?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(SecretKey { seed, pair, public })
    }

    /// The text for its file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex::encode(*self.seed));
        Zeroizing::new(format!("{}{}", Self::PREFIX, *digits))
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

/// Signs a component: it comes back with one more signature. Those of others, if they are of this very content, stay.
pub fn sign(wasm: &[u8], key: &SecretKey) -> Result<Vec<u8>, SignError> {
    let whole = Split::of(wasm).ok_or(SignError::NoComponent)?;
    let hash = whole.hash();
    let mut signatures = whole.signatures().unwrap_or_default();
    signatures.retain(|signature| signature.hash == hash && signature.key_id != key.public.0);
    if signatures.len() >= SIGNATURES as usize {
        return Err(SignError::TooMany);
    }
    let signed = key.pair.sign(&message(&hash));
    signatures.push(Signature { hash, key_id: &key.public.0, bytes: signed.as_ref() });
    Ok(whole.with(&hash, &signatures))
}

/// The keys whose signatures of a component hold, of those that the signatures name.
pub fn signed_by(wasm: &[u8]) -> Vec<PublicKey> {
    let Some(whole) = Split::of(wasm) else { return Vec::new() };
    let hash = whole.hash();
    let signatures = whole.signatures().unwrap_or_default();
    let keys = signatures.iter().filter(|signature| signature.hash == hash).filter_map(|signature| {
        let key = PublicKey(signature.key_id.try_into().ok()?);
        key.verifies(&message(&hash), signature.bytes).then_some(key)
    });
    keys.collect()
}

/// Which components are taken: those of this binary, and those that one of some keys has signed; without keys all.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    keys: Vec<PublicKey>,
    shipped: Vec<Hash>,
}

impl Trust {
    pub(super) fn new(keys: Vec<PublicKey>, shipped: &[Shipped]) -> Trust {
        let shipped = match keys.is_empty() {
            true => Vec::new(),
            false => shipped.iter().map(|shipped| Sha256::digest(shipped.wasm).into()).collect(),
        };
        Trust { keys, shipped }
    }

    /// Whether a component is taken. It is asked about its bytes, whatever is written elsewhere about them.
    pub(super) fn check(&self, wasm: &[u8]) -> Result<(), Untrusted> {
        if self.keys.is_empty() || self.shipped.contains(&Sha256::digest(wasm).into()) {
            return Ok(());
        }
        let whole = Split::of(wasm).ok_or(Untrusted::Unsigned)?;
        let mut signatures = whole.signatures()?;
        let hash = whole.hash();
        signatures.retain(|signature| signature.hash == hash);
        if signatures.is_empty() {
            return Err(Untrusted::Changed);
        }
        let message = message(&hash);
        let holds =
            |signature: &Signature<'_>| self.keys.iter().any(|key| key.verifies(&message, signature.bytes));
        if signatures.iter().any(holds) { Ok(()) } else { Err(Untrusted::OtherKeys) }
    }
}

/// A component as far as signatures look at it.
struct Split<'a> {
    header: &'a [u8],
    /// The content of the section with the signatures.
    signatures: Option<&'a [u8]>,
    /// All sections behind it.
    content: &'a [u8],
}

/// A signature of a component as a whole.
struct Signature<'a> {
    hash: Hash,
    key_id: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Split<'a> {
    /// None: no component.
    fn of(wasm: &'a [u8]) -> Option<Split<'a>> {
        if !Parser::is_component(wasm) {
            return None;
        }
        let (header, sections) = wasm.split_at_checked(HEADER_BYTES)?;
        Some(match first_section(sections) {
            Some((signatures, content)) => Split { header, signatures: Some(signatures), content },
            None => Split { header, signatures: None, content: sections },
        })
    }

    fn hash(&self) -> Hash {
        Sha256::digest(self.content).into()
    }

    fn signatures(&self) -> Result<Vec<Signature<'a>>, Untrusted> {
        let section = self.signatures.ok_or(Untrusted::Unsigned)?;
        if section.len() > SIGNATURE_BYTES {
            return Err(Untrusted::Unreadable("it is too long"));
        }
        let Some(rest) = section.strip_prefix(&KIND) else {
            return Err(Untrusted::Unreadable("it is of another version of the format"));
        };
        read(rest).ok_or(Untrusted::Unreadable("it is cut off or has too much in it"))
    }

    /// The component with these signatures and no others.
    fn with(&self, hash: &Hash, signatures: &[Signature<'_>]) -> Vec<u8> {
        let mut payload = Vec::new();
        put_bytes(&mut payload, SECTION.as_bytes());
        payload.extend(KIND);
        put_number(&mut payload, 1);
        put_number(&mut payload, 1);
        payload.extend(hash);
        put_number(&mut payload, signatures.len());
        for Signature { key_id, bytes, .. } in signatures {
            put_bytes(&mut payload, key_id);
            payload.push(ED25519_ID);
            put_bytes(&mut payload, bytes);
        }
        let mut signed = self.header.to_vec();
        signed.push(0);
        put_bytes(&mut signed, &payload);
        signed.extend(self.content);
        signed
    }
}

/// The signatures that a component begins with, and what comes behind them.
fn first_section(sections: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = BinaryReader::new(sections, 0);
    if reader.read_u8().ok()? != 0 {
        return None;
    }
    let size = reader.read_var_u32().ok()? as usize;
    let (section, content) = sections.get(reader.original_position()..)?.split_at_checked(size)?;
    let mut section = BinaryReader::new(section, 0);
    let is_ours = section.read_string().ok()? == SECTION;
    let rest = section.bytes_remaining();
    is_ours.then_some((section.read_bytes(rest).ok()?, content))
}

/// The signatures of whole components among them.
fn read(bytes: &[u8]) -> Option<Vec<Signature<'_>>> {
    let mut reader = BinaryReader::new(bytes, 0);
    let few = |number: u32| (number <= SIGNATURES).then_some(number);
    let mut found = Vec::new();
    for _ in 0..few(reader.read_var_u32().ok()?)? {
        let hashes = reader.read_var_u32().ok()? as usize;
        let hashes = reader.read_bytes(hashes.checked_mul(size_of::<Hash>())?).ok()?;
        for _ in 0..few(reader.read_var_u32().ok()?)? {
            let length = reader.read_var_u32().ok()? as usize;
            let key_id = reader.read_bytes(length).ok()?;
            let is_ed25519 = reader.read_u8().ok()? == ED25519_ID;
            let length = reader.read_var_u32().ok()? as usize;
            let bytes = reader.read_bytes(length).ok()?;
            if let (Ok(hash), true) = (hashes.try_into(), is_ed25519) {
                found.push(Signature { hash, key_id, bytes });
            }
        }
    }
    (reader.eof() && found.len() <= SIGNATURES as usize).then_some(found)
}

/// What is signed.
fn message(hash: &Hash) -> Vec<u8> {
    [DOMAIN, &KIND, hash].concat()
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend(bytes);
}

/// LEB128, as everywhere in a component.
fn put_number(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::shipped::SHIPPED;

    fn key(number: u8) -> SecretKey {
        SecretKey::of(Zeroizing::new([number; KEY_BYTES])).unwrap()
    }

    fn trust(keys: &[&SecretKey]) -> Trust {
        Trust::new(keys.iter().map(|key| key.public()).collect(), SHIPPED)
    }

    /// The shortest component, with one custom section.
    fn component() -> Vec<u8> {
        b"\0asm\x0d\0\x01\0\0\x05\x04test".to_vec()
    }

    #[test]
    fn a_component_is_trusted_by_a_key_that_has_signed_it() {
        let (ours, theirs) = (key(1), key(2));
        let signed = sign(&component(), &ours).unwrap();
        assert_eq!(trust(&[&ours]).check(&signed), Ok(()));
        assert_eq!(trust(&[&theirs, &ours]).check(&signed), Ok(()));
        assert_eq!(trust(&[&theirs]).check(&signed), Err(Untrusted::OtherKeys));
        assert_eq!(trust(&[&ours]).check(&component()), Err(Untrusted::Unsigned));
        assert_eq!(trust(&[]).check(&component()), Ok(()));
        assert_eq!(signed_by(&signed), [ours.public()]);
    }

    #[test]
    fn several_sign_one_component_each_once_and_build_nothing_new() {
        let (ours, theirs) = (key(1), key(2));
        let once = sign(&component(), &ours).unwrap();
        assert_eq!(sign(&once, &ours).unwrap(), once);
        let both = sign(&once, &theirs).unwrap();
        for key in [&ours, &theirs] {
            assert_eq!(trust(&[key]).check(&both), Ok(()));
        }
        assert_eq!(signed_by(&both).len(), 2);
        assert!(both.ends_with(&component()[HEADER_BYTES..]));
        // What was signed and then changed has no signature that would be worth keeping.
        let changed = [once.as_slice(), b"\0\x02\x01x"].concat();
        assert_eq!(trust(&[&ours]).check(&changed), Err(Untrusted::Changed));
        assert_eq!(signed_by(&sign(&changed, &theirs).unwrap()), [theirs.public()]);
    }

    #[test]
    fn no_bit_of_a_signed_component_can_be_another() {
        let ours = key(1);
        let trust = trust(&[&ours]);
        let signed = sign(&component(), &ours).unwrap();
        // Who is said to have signed it, which nobody relies on, is a key's place and no content.
        let key_id = ours.public().0;
        let id = signed.windows(KEY_BYTES).position(|bytes| bytes == key_id).unwrap();
        for at in (0..signed.len()).filter(|at| !(id..id + KEY_BYTES).contains(at)) {
            for bit in 0..8 {
                let mut flipped = signed.clone();
                flipped[at] ^= 1 << bit;
                assert!(trust.check(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
        for length in 0..signed.len() {
            assert!(trust.check(&signed[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_signature_of_parts_or_of_a_module_is_none() {
        let ours = key(1);
        let trust = trust(&[&ours]);
        let module = b"\0asm\x01\0\0\0".to_vec();
        assert_eq!(sign(&module, &ours), Err(SignError::NoComponent));
        assert_eq!(trust.check(&module), Err(Untrusted::Unsigned));
        // Two hashes, of which the second is the component's.
        let component = component();
        let whole = Split::of(&component).unwrap();
        let hashes = [[7; 32], whole.hash()].concat();
        let message = [DOMAIN, &KIND, &hashes].concat();
        let signature = ours.pair.sign(&message);
        let mut payload = b"\x09signature\x01\x01\x01\x01\x02".to_vec();
        payload.extend(&hashes);
        payload.extend([1, 0, ED25519_ID, 64]);
        payload.extend(signature.as_ref());
        let mut signed = whole.header.to_vec();
        signed.push(0);
        put_bytes(&mut signed, &payload);
        signed.extend(whole.content);
        assert_eq!(trust.check(&signed), Err(Untrusted::Changed));
    }

    #[test]
    fn what_comes_with_the_binary_is_trusted_as_it_is() {
        let trust = trust(&[&key(1)]);
        for shipped in SHIPPED {
            assert_eq!(trust.check(shipped.wasm), Ok(()));
            let other = [shipped.wasm, b"\0\x02\x01x"].concat();
            assert_eq!(trust.check(&other), Err(Untrusted::Unsigned));
        }
    }

    #[test]
    fn keys_come_back_from_their_text_and_are_not_taken_for_each_other() {
        let secret = SecretKey::generate().unwrap();
        let public = secret.public();
        assert_eq!(PublicKey::parse(&public.to_string()), Some(public));
        assert_eq!(SecretKey::parse(&format!("{}\n", *secret.to_text())).unwrap().public(), public);
        assert_eq!(PublicKey::parse(&secret.to_text()), None);
        assert!(SecretKey::parse(&public.to_string()).is_none());
        assert_eq!(PublicKey::parse("ed25519:00"), None);
    }

    /// The example of RFC 8032, 7.1, test 1, as the key's file and as it is configured.
    #[test]
    fn the_keys_are_those_of_the_standard() {
        let secret = "ed25519-secret:9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(SecretKey::parse(secret).unwrap().public().to_string(), public);
    }
}
