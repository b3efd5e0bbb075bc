//! Turns of what is large, and those that change a bit of everything in one commit.

use tollgate_store::{
    Container, GetOptions, Got, Index, Joint, Precondition, PutOptions, Statement, Target, Value, Vector,
    VectorQuery,
};

use super::{
    Fallible,
    rows::{integers, number},
    world::{DIMENSIONS, World},
};
use crate::blob::support::{CHUNK, noise};

/// Objects that come and go.
const OBJECTS: u64 = 5;

/// The content of a turn: some chunks are shared with the turns before.
fn content(turn: u64) -> Vec<u8> {
    let large = turn % 16 == 9;
    let length = if large { 34 * CHUNK } else { [10, CHUNK, 3 * CHUNK + 7, 2 * CHUNK][(turn % 4) as usize] };
    let mut content = noise(turn % 3, length);
    content[..8].copy_from_slice(&turn.to_le_bytes());
    content
}

async fn put(blobs: &Container, key: &str, turn: u64) -> Fallible<()> {
    blobs.put(key, &content(turn), PutOptions::default()).await?;
    Ok(())
}

/// The turn of an object, all of whose bytes are compared; none: there is no object.
async fn turn_of(blobs: &Container, key: &str) -> Fallible<Option<u64>> {
    let options = GetOptions { verify: true, ..GetOptions::default() };
    let Got::Found(reader) = blobs.get(key, options).await? else { return Ok(None) };
    let bytes = reader.read_all().await?;
    let turn = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == content(turn), "{key} of turn {turn}");
    Ok(Some(turn))
}

pub(super) async fn turn(world: &World, turn: u64) -> Fallible<()> {
    blob_turn(&world.blobs, turn).await?;
    match &world.files {
        Some(files) => blob_turn(files, turn).await,
        None => Ok(()),
    }
}

pub(super) async fn found(world: &World) -> Fallible<u64> {
    let in_chunks = blob_found(&world.blobs).await?;
    let Some(files) = &world.files else { return Ok(in_chunks) };
    let in_files = blob_found(files).await?;
    assert!(in_chunks == in_files || in_chunks == in_files + 1, "{in_chunks} and {in_files}");
    Ok(in_files)
}

/// Replaces one object, removes another, and gives up an upload.
async fn blob_turn(blobs: &Container, turn: u64) -> Fallible<()> {
    put(blobs, &format!("k{}", turn % OBJECTS), turn).await?;
    blobs.delete(&format!("k{}", (turn + 2) % OBJECTS), Precondition::default()).await?;
    let mut given_up = blobs.upload("never", PutOptions::default())?;
    given_up.write(&noise(turn, (turn % 3) as usize * 20 * CHUNK)).await?;
    drop(given_up);
    put(blobs, "last", turn).await
}

async fn blob_found(blobs: &Container) -> Fallible<u64> {
    assert_eq!(turn_of(blobs, "never").await?, None);
    let Some(turn) = turn_of(blobs, "last").await? else { return Ok(0) };
    // The turn after may have come as far as its object or its removal.
    for before in 0..OBJECTS {
        let key = format!("k{}", (turn + OBJECTS - before) % OBJECTS);
        let found = turn_of(blobs, &key).await?;
        assert!(found.is_some() || before > 0, "{key} of turn {turn} is lost");
    }
    Ok(turn)
}

fn vector(id: impl ToString, turn: u64) -> Vector {
    let mut values = vec![0.5; DIMENSIONS];
    (values[0], values[1]) = (turn as f32, (turn % 7) as f32);
    let metadata = Some(format!("{{\"parity\": {}}}", turn % 2));
    Vector { id: id.to_string(), values, metadata, namespace: None }
}

/// The turn of a vector whose values are compared; none: there is none.
async fn turn_of_vector(index: &Index, id: &str) -> Fallible<Option<u64>> {
    let Some(found) = index.get_by_ids(&[id.to_owned()]).await?.pop() else { return Ok(None) };
    let turn = found.values[0] as u64;
    assert_eq!(found.values, vector(id, turn).values);
    Ok(Some(turn))
}

/// Replaces two vectors in one change, adds some, and removes those of the turn before.
pub(super) async fn vector_turn(index: &Index, turn: u64) -> Fallible<()> {
    let added = |turn: u64| (0..turn % 5).map(move |number| format!("{}/{number}", turn % 2));
    index.upsert(added(turn).map(|id| vector(id, turn)).collect()).await?;
    index.delete_by_ids(&added(turn + 1).collect::<Vec<_>>()).await?;
    index.upsert(vec![vector("left", turn), vector("right", turn)]).await?;
    Ok(())
}

pub(super) async fn vector_found(index: &Index) -> Fallible<u64> {
    let (left, right) = (turn_of_vector(index, "left").await?, turn_of_vector(index, "right").await?);
    assert_eq!(left, right);
    let all = find(index, None).await?;
    assert_eq!(all, index.describe().await?.vectors, "what is found is what is there");
    let (even, odd) = (find(index, Some(0)).await?, find(index, Some(1)).await?);
    assert_eq!(even + odd, all);
    Ok(left.unwrap_or(0))
}

/// How many vectors a search finds, of all or of those of such turns.
async fn find(index: &Index, parity: Option<u64>) -> Fallible<u64> {
    let target = Target::Values(vec![1.0; DIMENSIONS]);
    let filter = parity.map(|parity| format!("{{\"parity\": {parity}}}"));
    Ok(index.query(VectorQuery { top_k: 100, filter, ..VectorQuery::new(target) }).await?.len() as u64)
}

/// One commit of two keys, a row, an object, and three changes of vectors.
pub(super) async fn joint_turn(world: &World, turn: u64) -> Fallible<()> {
    let bytes = turn.to_string().into_bytes();
    let mut upload = world.blobs.upload("joint", PutOptions::default())?;
    upload.write(&content(turn)).await?;
    let id = |turn: u64| format!("joint {turn}");
    let here = vec![vector("joint", turn), vector(id(turn), turn)];
    let gone: Vec<_> = (1..3).map(|back| id(turn.saturating_sub(back))).collect();
    let update = "UPDATE turn SET joint = ?1";
    let update = Statement::new(update, vec![Value::Integer(i64::try_from(turn).unwrap())]);
    let joint = Joint::new()
        .set(&world.durable, "joint", bytes.clone(), None)?
        .set(&world.relaxed, "joint", bytes, None)?
        .statement(&world.database, update)?
        .publish(upload.prepare().await?)?
        .vectors(world.index.prepare_delete(&gone).await?)
        .vectors(world.index.prepare_upsert(here).await?);
    world.store.commit(joint).await?;
    Ok(())
}

pub(super) async fn joint_found(world: &World) -> Fallible<u64> {
    let turn = integers(&world.database, "SELECT joint FROM turn").await?[0];
    let last = format!("joint {turn}");
    let found = [
        u64::try_from(number(&world.durable, "joint").await?).ok(),
        u64::try_from(number(&world.relaxed, "joint").await?).ok(),
        turn_of(&world.blobs, "joint").await?,
        turn_of_vector(&world.index, "joint").await?,
        turn_of_vector(&world.index, &last).await?,
    ];
    let expected = if turn == 0 { [Some(0), Some(0), None, None, None] } else { [Some(turn); 5] };
    assert_eq!(found, expected, "in the row it is {turn}");
    let before = format!("joint {}", turn.saturating_sub(1));
    assert_eq!(turn_of_vector(&world.index, &before).await?, None);
    Ok(turn)
}
