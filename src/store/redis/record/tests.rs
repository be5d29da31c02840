//! Records are read as they were written, and what is not whole or belongs elsewhere is found out.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::embed::Embedding;
use crate::store::encryption::tests::keys;
use crate::store::tests::{altered, entries};

fn seal(secret: &[u8], encrypted: bool) -> Seal {
    Seal::new(secret, Encryption::new(&keys(if encrypted { &[1] } else { &[] })))
}

/// The values that Redis would give for these fields.
fn stored(fields: &[(&'static str, Vec<u8>)], asked: &[&str]) -> Values {
    let value = |name: &&str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    asked.iter().map(value).collect()
}

proptest! {
    #[test]
    fn an_encrypted_entry_shows_nothing_and_its_fields_are_of_their_entry_and_place(
        entry in entries(), values in prop::collection::vec(-1.0_f32..1.0, 1..50)
    ) {
        let entry = altered(&entry, |exchange| {
            (exchange.prompt, exchange.model) = ("a canary of a prompt", "a canary of a model");
        });
        let (one, plain) = (seal(b"one", true), seal(b"one", false));
        let mut fields = one.write(&entry).unwrap();
        prop_assert!(fields.iter().all(|(_, value)| memchr::memmem::find(value, b"canary").is_none()));
        prop_assert_eq!(plain.read(stored(&fields, &FIELDS)), Err(Damage::Locked));
        prop_assert!(plain.described(stored(&fields, &HEAD_FIELDS)).is_none());
        let described = one.described(stored(&fields, &HEAD_FIELDS)).unwrap();
        prop_assert_eq!(described.prompt(), entry.prompt());
        let in_plain = plain.write(&entry).unwrap();
        prop_assert_eq!(&one.read(stored(&in_plain, &FIELDS)).unwrap().unwrap(), &entry);
        if let Some(embedding) = Embedding::new(values) {
            let placed = Placed { partition: Partition([3; 32]), embedding };
            let mut row = fields.clone();
            row.push(("embedding", one.embedding(&entry, &placed, "canary").unwrap()));
            prop_assert_eq!(
                plain.read_row(&Partition([3; 32]), stored(&row, &ROW_FIELDS)), Err(Damage::Locked)
            );
            prop_assert!(one.read_row(&Partition([3; 32]), stored(&row, &ROW_FIELDS)).unwrap().is_some());
            prop_assert!(row.iter().all(|(_, value)| memchr::memmem::find(value, b"canary").is_none()));
        }
        // Exchanged, and sealed again by whoever has the secret, but not the key.
        let (query, response) = (fields[2].1.clone(), fields[3].1.clone());
        fields[2].1 = response;
        fields[3].1 = query;
        let digest = one.digest(fields[1..7].iter().map(|(_, value)| value.as_slice()));
        fields[7].1 = digest.to_vec();
        prop_assert_eq!(one.read(stored(&fields, &FIELDS)), Err(Damage::Broken));
    }

    #[test]
    fn an_entry_comes_back_as_it_was_and_to_those_with_its_secret_alone(entry in entries(), encrypted: bool) {
        let (two, seal) = (seal(b"two", encrypted), seal(b"one", encrypted));
        let fields = seal.write(&entry).unwrap();
        prop_assert_eq!(seal.read(stored(&fields, &FIELDS)), Ok(Some(entry)));
        prop_assert_eq!(two.read(stored(&fields, &FIELDS)), Err(Damage::Broken));
    }

    #[test]
    fn a_changed_field_or_one_of_another_entry_is_found_out(
        entry in entries(), other in entries(), field in 0..FIELDS.len(), bit in 0_u32..8, at: prop::sample::Index,
        encrypted: bool
    ) {
        let seal = seal(b"one", encrypted);
        let whole = stored(&seal.write(&entry).unwrap(), &FIELDS);
        let mut changed = whole.clone();
        match changed[field].as_mut() {
            Some(value) if !value.is_empty() => {
                let at = at.index(value.len());
                value[at] ^= 1 << bit;
            }
            value => _ = value.map(|value| value.push(b'x')),
        }
        prop_assert_eq!(seal.read(changed), Err(Damage::Broken));
        let mut mixed = whole.clone();
        mixed[field] = stored(&seal.write(&other).unwrap(), &FIELDS)[field].clone();
        if mixed != whole {
            prop_assert_eq!(seal.read(mixed), Err(Damage::Broken));
        }
        let mut missing = whole;
        missing[field] = None;
        prop_assert_eq!(seal.read(missing), Err(Damage::Broken));
    }

    #[test]
    fn any_values_are_read_without_a_panic(values: Vec<Option<Vec<u8>>>, encrypted: bool) {
        let seal = seal(b"one", encrypted);
        let _ = seal.read(values.clone());
        let _ = seal.read_row(&Partition([1; 32]), values.clone());
        let _ = seal.described(values);
    }

    #[test]
    fn observations_come_back_to_their_entry_alone(
        seen in prop::collection::vec((any::<u32>(), 0.0_f32..=1.0, any::<bool>()), 1..20),
        at: prop::sample::Index, bit in 0_u32..8, cut: bool
    ) {
        let seal = seal(b"one", false);
        let evidence: Evidence =
            seen.into_iter().map(|(id, score, same)| Observation { id, score, same }).collect();
        let all = evidence.observations().iter();
        let mut field: Vec<u8> =
            all.flat_map(|observation| seal.observation(&Key([1; 32]), UNIX_EPOCH, *observation)).collect();
        let read = |field: &[u8]| seal.read_evidence(&Key([1; 32]), UNIX_EPOCH, field);
        prop_assert_eq!(read(&field), (evidence.clone(), false));
        prop_assert_eq!(seal.read_evidence(&Key([2; 32]), UNIX_EPOCH, &field), (Evidence::default(), true));
        let at = at.index(field.len());
        if cut { field.remove(at); } else { field[at] ^= 1 << bit; }
        let (read, damaged) = read(&field);
        prop_assert!(damaged && read.observations().len() < evidence.observations().len());
        prop_assert!(read.observations().iter().all(|one| evidence.observations().contains(one)));
    }

    #[test]
    fn an_embedding_comes_back_to_its_entry_and_partition_alone(
        entry in entries(), values in prop::collection::vec(-1.0_f32..1.0, 1..400), cut: prop::sample::Index,
        encrypted: bool
    ) {
        let seal = seal(b"one", encrypted);
        let Some(embedding) = Embedding::new(values) else { return Ok(()) };
        let placed = Placed { partition: Partition([3; 32]), embedding };
        let record = seal.embedding(&entry, &placed, "a model").unwrap();
        prop_assert_eq!(Seal::partition_of(&record), Some(Partition([3; 32])));
        let mut fields = seal.write(&entry).unwrap();
        fields.push(("embedding", record.clone()));
        let row = seal.read_row(&Partition([3; 32]), stored(&fields, &ROW_FIELDS)).unwrap().unwrap();
        prop_assert_eq!(Some(row.codes), Codes::of(placed.embedding.values()));
        prop_assert_eq!(row.entry.prompt(), entry.prompt());
        prop_assert_eq!(seal.read_row(&Partition([4; 32]), stored(&fields, &ROW_FIELDS)), Ok(None));
        let other = Entry { created_at: entry.created_at + Duration::from_millis(1), ..entry };
        let mut others = seal.write(&other).unwrap();
        others.push(("embedding", record.clone()));
        prop_assert_eq!(seal.read_row(&Partition([3; 32]), stored(&others, &ROW_FIELDS)), Err(Damage::Broken));
        fields.pop();
        fields.push(("embedding", record[..cut.index(record.len())].to_vec()));
        prop_assert_eq!(seal.read_row(&Partition([3; 32]), stored(&fields, &ROW_FIELDS)), Err(Damage::Broken));
    }
}

#[test]
fn what_is_of_another_key_is_counted_and_garbage_that_looks_like_it_is_not() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let entry = entries().new_tree(runner).unwrap().current();
    let placed =
        Placed { partition: Partition([3; 32]), embedding: Embedding::new(vec![0.5, 0.25]).unwrap() };
    let row = |encrypted| {
        let seal = seal(b"one", encrypted);
        let mut fields = seal.write(&entry).unwrap();
        fields.push(("embedding", seal.embedding(&entry, &placed, "a model").unwrap()));
        fields
    };
    let reader = seal(b"one", false);
    let mut garbage = row(false);
    for (name, value) in &mut garbage {
        if *name == "metadata" {
            *value = [&[encryption::VERSION][..], &[7; 80]].concat();
        }
    }
    let read = |fields: &[(&'static str, Vec<u8>)]| {
        reader.described(stored(fields, &HEAD_FIELDS));
        reader.read_row(&placed.partition, stored(fields, &ROW_FIELDS))
    };
    assert_eq!((read(&garbage), reader.encryption().unreadable()), (Err(Damage::Locked), 0));
    assert_eq!((read(&row(true)), reader.encryption().unreadable()), (Err(Damage::Locked), 1));
}

#[test]
fn what_is_not_there_is_none() {
    let seal = seal(b"one", false);
    assert_eq!(seal.read(vec![None; FIELDS.len()]), Ok(None));
    assert_eq!(seal.read_row(&Partition([1; 32]), vec![None; ROW_FIELDS.len()]), Ok(None));
    assert!(seal.described(vec![None; HEAD_FIELDS.len()]).is_none());
}
