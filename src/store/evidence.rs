//! What trials said of an entry: whether its reply was the one that upstream gave to other prompts. Kept with the
//! entry, bounded, and gone with it.
//!
//! Filled by `cache::verified`, which alone knows what follows from it.

/// Observations kept of an entry.
pub const MOST_OBSERVATIONS: usize = 32;

/// Bytes of an observation as it is stored.
pub(super) const OBSERVATION_BYTES: usize = 9;

/// The first byte of an observation whose replies agreed, and of one whose did not.
const AGREED: u8 = b'+';
const DIFFERED: u8 = b'-';

/// One trial: the entry was not served, and its reply compared with upstream's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Tells it from others, so that none counts twice: random.
    pub id: u32,
    /// The score at which the entry was found: the probability, 0 to 1, that its reply would have done.
    pub score: f32,
    /// Whether the replies say the same.
    pub same: bool,
}

/// The observations of an entry, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence(Vec<Observation>);

impl Observation {
    /// As it is stored: whether it agrees, score, id; numbers little-endian.
    pub(super) fn to_bytes(self) -> [u8; OBSERVATION_BYTES] {
        let mut bytes = [if self.same { AGREED } else { DIFFERED }; OBSERVATION_BYTES];
        let content = self.score.to_le_bytes().into_iter().chain(self.id.to_le_bytes());
        bytes.iter_mut().skip(1).zip(content).for_each(|(byte, written)| *byte = written);
        bytes
    }

    /// What [`Self::to_bytes`] wrote; `None` for what it never writes.
    pub(super) fn of_bytes(bytes: [u8; OBSERVATION_BYTES]) -> Option<Self> {
        let [kind, content @ ..] = bytes;
        let (score, id) = content.split_first_chunk::<4>()?;
        let (score, id) = (f32::from_le_bytes(*score), id.first_chunk::<4>()?);
        let known = (kind == AGREED || kind == DIFFERED) && (0.0..=1.0).contains(&score);
        known.then_some(Self { id: u32::from_le_bytes(*id), score, same: kind == AGREED })
    }
}

impl Evidence {
    /// Adds an observation; one that is there already is not added again. Where there is no room the oldest
    /// agreement goes, and only where there is none the oldest of all: that replies differed must not be
    /// forgotten for want of room.
    pub fn add(&mut self, observation: Observation) {
        if self.0.iter().any(|other| other.id == observation.id) {
            return;
        }
        self.0.push(observation);
        if self.0.len() > MOST_OBSERVATIONS {
            let least = self.0.iter().position(|observation| observation.same).unwrap_or(0);
            self.0.remove(least);
        }
    }

    /// The observations, oldest first; at most [`MOST_OBSERVATIONS`].
    pub fn observations(&self) -> &[Observation] {
        &self.0
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Observation> for Evidence {
    fn from_iter<I: IntoIterator<Item = Observation>>(observations: I) -> Self {
        let mut evidence = Self::default();
        for observation in observations {
            evidence.add(observation);
        }
        evidence
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_observation_comes_back(id: u32, score in 0.0_f32..=1.0, same: bool) {
            let observation = Observation { id, score, same };
            prop_assert_eq!(Observation::of_bytes(observation.to_bytes()), Some(observation));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: [u8; OBSERVATION_BYTES]) {
            if let Some(observation) = Observation::of_bytes(bytes) {
                prop_assert_eq!(observation.to_bytes(), bytes);
            }
        }

        #[test]
        fn it_is_bounded_and_keeps_what_differed(sames in proptest::collection::vec(any::<bool>(), 0..100)) {
            let number = |index| u32::try_from(index).unwrap();
            let all = sames.iter().enumerate();
            let evidence: Evidence =
                all.map(|(index, same)| Observation { id: number(index), score: 0.5, same: *same }).collect();
            let differed = sames.iter().filter(|same| !**same).count();
            let kept = evidence.observations().iter().filter(|observation| !observation.same).count();
            prop_assert_eq!(evidence.observations().len(), sames.len().min(MOST_OBSERVATIONS));
            prop_assert_eq!(kept, differed.min(MOST_OBSERVATIONS));
            prop_assert!(evidence.observations().is_sorted_by_key(|observation| observation.id));
        }
    }

    #[test]
    fn nothing_counts_twice() {
        let observation = Observation { id: 7, score: 0.9, same: true };
        let evidence: Evidence = [observation, observation].into_iter().collect();
        assert_eq!(evidence.observations(), [observation]);
    }
}
