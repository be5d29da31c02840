//! Records of any bytes, see [`crate::fuzzing`]: as they are, and sealed, so that what is behind the seal is reached.

use super::super::super::super::encryption::{Encryption, EncryptionKeys};
use super::{Kind, SCHEMA, Seal};

pub(crate) fn check(data: &[u8]) {
    let seal = Seal::new(&[7; 32], Encryption::new(&EncryptionKeys::default()));
    assert!(seal.read_entry(1, data).is_err() && seal.read_evidence(1, data).is_err());
    assert!(seal.read_embedding(1, data).is_err());
    let sealed = |kind| {
        let record = [&[SCHEMA], data].concat();
        seal.close(kind, 1, record).unwrap_or_default()
    };
    if let Ok(entry) = seal.read_entry(1, &sealed(Kind::Entry)) {
        let again = seal.entry(1, &entry).and_then(|record| seal.read_entry(1, &record).ok());
        assert_eq!(again, Some(entry));
    }
    let record = sealed(Kind::Embedding);
    if let Ok((partition, codes)) = seal.read_embedding(1, &record) {
        assert_eq!(seal.embedding(1, &partition, &codes), Some(record));
    }
    if let Ok(evidence) = seal.read_evidence(1, &sealed(Kind::Evidence)) {
        let again = seal.evidence(1, &evidence).and_then(|record| seal.read_evidence(1, &record).ok());
        assert_eq!(again, Some(evidence));
    }
}
