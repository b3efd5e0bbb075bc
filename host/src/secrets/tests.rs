use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use tollgate_store::{Options, Store};

use super::*;

/// A database and a place for a master key.
struct Home {
    database: Database,
    home: TempDir,
}

impl Home {
    fn new() -> Home {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        Home { database: store.database("gateway").unwrap(), home }
    }

    fn file(&self) -> MasterKey {
        MasterKey::File(self.home.path().join("master.key"))
    }

    async fn open(&self, master: MasterKey) -> Result<Vault, SecretsError> {
        Vault::open(self.database.clone(), master, 1).await
    }
}

fn given(digit: char) -> MasterKey {
    let key = Key::parse(&digit.to_string().repeat(64)).unwrap();
    MasterKey::Given { key, origin: "the variable KEY".to_owned() }
}

fn opens(vault: &Vault, sealed: &[u8]) -> bool {
    vault.open_sealed("a", sealed).is_ok_and(|plain| plain.expose() == "sk-clear")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_opens_after_a_restart_and_only_in_its_own_place() {
    let home = Home::new();
    let vault = home.open(home.file()).await.unwrap();
    let sealed = vault.seal("a", &Secret::new("sk-clear")).unwrap();
    let file = home.home.path().join("master.key");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let vault = home.open(home.file()).await.unwrap();
    assert!(opens(&vault, &sealed));
    assert!(matches!(vault.open_sealed("b", &sealed), Err(SecretsError::Damaged)));
    let long = Secret::new("k".repeat(PLAIN_BYTES + 1));
    assert!(matches!(vault.seal("a", &long), Err(SecretsError::TooLong)));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_key_and_a_lost_one_are_named() {
    let home = Home::new();
    let vault = home.open(given('1')).await.unwrap();
    let needed = home.open(given('2')).await.err().unwrap().to_string();
    let right = Key::parse(&"1".repeat(64)).unwrap().fingerprint();
    assert!(needed.contains("the variable KEY") && needed.contains(&right), "{needed}");
    let missing = home.open(home.file()).await.err().unwrap().to_string();
    assert!(missing.contains("master.key is missing") && missing.contains(&right), "{missing}");
    std::fs::write(home.home.path().join("master.key"), "no key").unwrap();
    let wrong = home.open(home.file()).await.err().unwrap().to_string();
    assert!(wrong.contains("64 hexadecimal digits"), "{wrong}");
    drop(vault);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_can_end_anywhere_and_everything_opens() {
    let home = Home::new();
    let vault = home.open(home.file()).await.unwrap();
    let secret = Secret::new("sk-clear");
    let old = vault.seal("a", &secret).unwrap();
    vault.add_key(2).await.unwrap();

    // Ended after the new key was made: both kinds open.
    let vault = home.open(home.file()).await.unwrap();
    let new = vault.seal("a", &secret).unwrap();
    assert!(opens(&vault, &old) && opens(&vault, &new));
    assert!(vault.is_current(&new) && !vault.is_current(&old));
    assert_eq!(vault.retire_keys([old.as_slice(), &new].into_iter()).await.unwrap(), 2, "both are used");
    assert_eq!(vault.retire_keys([new.as_slice()].into_iter()).await.unwrap(), 1);
    assert!(!opens(&vault, &old) && opens(&vault, &new));
    assert!(opens(&home.open(home.file()).await.unwrap(), &new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_key_takes_over_whole_wherever_it_is_cut() {
    let home = Home::new();
    let path = home.home.path().join("master.key");
    let vault = home.open(home.file()).await.unwrap();
    let sealed = vault.seal("a", &Secret::new("sk-clear")).unwrap();
    let first = std::fs::read_to_string(&path).unwrap();

    // Cut after the new key was written, before it was used: the old one stays.
    home.file().prepare(&Key::generate().unwrap()).unwrap();
    assert!(opens(&home.open(home.file()).await.unwrap(), &sealed));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    assert!(!path.with_extension("key.new").exists());

    vault.change_master(None).await.unwrap();
    let second = std::fs::read_to_string(&path).unwrap();
    assert_ne!(first, second);
    assert!(opens(&home.open(home.file()).await.unwrap(), &sealed));

    // Cut after it was used, before it took the file's name.
    std::fs::rename(&path, path.with_extension("key.new")).unwrap();
    std::fs::write(&path, first).unwrap();
    assert!(opens(&home.open(home.file()).await.unwrap(), &sealed));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), second);
}

/// Made anew, the key that the data keys are kept under could be overwritten before it ever had its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_master_key_after_one_that_failed_takes_the_key_that_was_made_then() {
    let home = Home::new();
    let path = home.home.path().join("master.key");
    let vault = home.open(home.file()).await.unwrap();
    let sealed = vault.seal("a", &Secret::new("sk-clear")).unwrap();

    // Nobody knows what the store made of it.
    let made = Key::generate().unwrap();
    home.file().prepare(&made).unwrap();
    vault.change_master(None).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), *made.digits());

    // The file cannot get its place: a folder stands there. The key is the one in use all the same.
    let second = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(vault.change_master(None).await.is_err());
    vault.add_key(2).await.unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, second).unwrap();
    assert!(opens(&home.open(home.file()).await.unwrap(), &sealed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_is_given_is_changed_for_one_that_is_given() {
    let home = Home::new();
    let vault = home.open(given('1')).await.unwrap();
    let sealed = vault.seal("a", &Secret::new("sk-clear")).unwrap();
    assert!(matches!(vault.change_master(None).await, Err(SecretsError::NewMaster(_))));
    vault.change_master(Key::parse(&"2".repeat(64))).await.unwrap();
    vault.add_key(2).await.unwrap();
    assert!(home.open(given('1')).await.is_err());
    assert!(opens(&home.open(given('2')).await.unwrap(), &sealed));
}
