//! Fields of any bytes, see [`crate::fuzzing`]: as they are, and sealed, so that what is behind the seal is reached.

use std::time::UNIX_EPOCH;

use super::super::super::encryption::{Encryption, EncryptionKeys};
use super::{DIGEST_BYTES, Evidence, FIELDS, Key, OBSERVATION_BYTES, ROW_FIELDS, SCHEMA, Seal, Values};

/// The fields before the seal, in their order, parted by zero bytes; what comes after is an embedding.
pub(crate) fn check(data: &[u8]) {
    let seal = Seal::new(b"secret", Encryption::new(&EncryptionKeys::default()));
    let mut parts = data.splitn(FIELDS.len(), |byte| *byte == 0);
    let fields: Vec<&[u8]> = parts.by_ref().take(FIELDS.len() - 1).collect();
    let embedding = parts.next();
    let mut values: Values = fields.iter().map(|field| Some(field.to_vec())).collect();
    values.push(embedding.map(<[u8]>::to_vec));
    assert!(seal.read(values.clone()).is_err() || embedding.is_none() && data.is_empty());
    values.pop();
    values.push(Some(seal.digest(fields.iter().copied()).to_vec()));
    evidence(&seal, data);
    let Ok(Some(entry)) = seal.read(values.clone()) else { return };
    let written = seal.write(&entry).unwrap_or_default();
    let written = written.into_iter().skip(1).map(|(_, value)| Some(value)).collect();
    assert_eq!(seal.read(written), Ok(Some(entry.clone())));
    // Without the document and the seal.
    values.pop();
    values.remove(2);
    let head = seal.described(values.clone());
    assert_eq!(head.map(|head| head.key), Some(entry.key));
    let Some(content) = embedding else { return };
    assert!(seal.read_embedding(&entry, content).is_err());
    let record = [&[SCHEMA], &seal.embedding_digest(&entry, content)[..], content].concat();
    let Ok(home) = seal.read_embedding(&entry, &record) else { return };
    let model = home.model.as_deref().unwrap_or_default();
    let again = seal.embedding_of(&entry, &home.partition, &home.embedding.0, model);
    assert_eq!(again.and_then(|record| seal.read_embedding(&entry, &record).ok()).as_ref(), Some(&home));
    values.push(Some(record));
    assert_eq!(values.len(), ROW_FIELDS.len());
    let row = seal.read_row(&home.partition, values);
    assert!(row.is_ok_and(|row| row.is_some_and(|row| row.codes == home.embedding.0)));
}

fn evidence(seal: &Seal, data: &[u8]) {
    let (key, at) = (Key([1; 32]), UNIX_EPOCH);
    let (found, damaged) = seal.read_evidence(&key, at, data);
    assert!(found.is_empty() && (damaged || data.is_empty()));
    let sealed: Vec<u8> = data
        .as_chunks::<OBSERVATION_BYTES>()
        .0
        .iter()
        .flat_map(|one| [one.as_slice(), &seal.observation_digest(&key, at, one)].concat())
        .collect();
    assert_eq!(sealed.len() % (OBSERVATION_BYTES + DIGEST_BYTES), 0);
    let (found, _) = seal.read_evidence(&key, at, &sealed);
    let written: Vec<u8> =
        found.observations().iter().flat_map(|one| seal.observation(&key, at, *one)).collect();
    let again: (Evidence, bool) = seal.read_evidence(&key, at, &written);
    assert_eq!(again, (found, false));
}
