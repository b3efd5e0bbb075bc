//! The first start of a data directory, and the admin token of every start.

use anyhow::Context as _;
use tollgate_store::{Kv, SetOptions};

use crate::admin::AdminToken;
use crate::keys::{Keys, NewKey};
use crate::secret::Secret;

/// Key of the token's hash in the host's own kv store.
const TOKEN_HASH: &str = "admin-token-hash";

/// Key whose presence says that the first start is over.
const STARTED: &str = "started";

/// Name of the client key that the first start makes.
const FIRST_KEY: &str = "first";

/// What is shown once.
#[derive(Debug)]
pub struct FirstStart {
    /// The token that was made; none if the environment set one.
    pub admin_token: Option<Secret>,
    /// A client key without limits.
    pub client_key: Secret,
}

/// The admin token: the given one from now on, else the one of the last start, else a new one. A first start that was cut
/// short has shown its token to nobody, so that another is made.
pub(super) async fn admin_token(
    kv: &Kv,
    secret: &[u8; 32],
    given: Option<&Secret>,
) -> anyhow::Result<(AdminToken, Option<Secret>)> {
    let stored = match kv.exists(STARTED).await? {
        true => kv.get(TOKEN_HASH).await?.map(|entry| entry.value),
        false => None,
    };
    let (token, made) = match (given, stored) {
        (Some(given), _) => (given.expose().to_owned(), false),
        (None, Some(stored)) => {
            let hash =
                <[u8; 32]>::try_from(&*stored).context("the stored hash of the admin token is damaged")?;
            return Ok((AdminToken::new(secret, hash), None));
        }
        (None, None) => (AdminToken::generate()?, true),
    };
    let hash = AdminToken::hash(secret, &token);
    kv.set(TOKEN_HASH, hash.to_vec(), SetOptions::default()).await?;
    Ok((AdminToken::new(secret, hash), made.then(|| Secret::new(token))))
}

/// The first client key, on the first start of a data directory only.
pub(super) async fn client_key(kv: &Kv, keys: &Keys) -> anyhow::Result<Option<Secret>> {
    if kv.exists(STARTED).await? {
        return Ok(None);
    }
    // A start that was cut short between the two may have made the key, and nobody has seen it.
    if keys.list().await?.iter().any(|key| key.active && key.name == FIRST_KEY) {
        keys.revoke(FIRST_KEY).await?;
    }
    let key = keys.create(NewKey { name: FIRST_KEY.to_owned(), ..NewKey::default() }).await?;
    kv.set(STARTED, b"1".to_vec(), SetOptions::default()).await?;
    Ok(Some(Secret::new(key)))
}

#[cfg(test)]
mod tests {
    use tollgate_store::{KvOptions, Options, Store};

    use super::*;

    const SECRET: [u8; 32] = [1; 32];

    #[tokio::test(flavor = "multi_thread")]
    async fn a_first_start_that_was_cut_short_is_begun_again() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let kv = store.kv("host", KvOptions::default()).unwrap();
        let keys = Keys::open(store.database("gateway").unwrap(), &SECRET).await.unwrap();
        let (_, lost) = admin_token(&kv, &SECRET, None).await.unwrap();
        let (token, shown) = admin_token(&kv, &SECRET, None).await.unwrap();
        let shown = shown.expect("nobody has seen the first one");
        assert!(token.verify(shown.expose()) && !token.verify(lost.unwrap().expose()));
        assert!(client_key(&kv, &keys).await.unwrap().is_some());

        let (token, again) = admin_token(&kv, &SECRET, None).await.unwrap();
        assert!(again.is_none() && token.verify(shown.expose()));
        assert!(client_key(&kv, &keys).await.unwrap().is_none());
    }
}
