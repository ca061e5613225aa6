//! What the loops remember of one partition, in packed form: an asset is unpacked when a contribution to it arrives, and packed
//! again afterwards (pure).
//!
//! A contribution is kept in its encoded form. A flat record is kept only if merging the contributions does not give it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use windfall_schemas::asset::AssetRecord;
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::link::{Link, LinkKey, LinkedAsset};
use xxhash_rust::xxh3::Xxh3;

use crate::asset::{Asset, ContributionVerdict, SourceKey};
use crate::collection::CompiledCollection;
use crate::packed::{PackedMap, array, push_sized, sized, text};

/// An asset in unpacked form.
#[derive(Debug, Clone, Default)]
pub struct Unpacked {
    /// The asset.
    pub asset: Asset,
    /// Its contributions in their encoded form.
    encoded: BTreeMap<SourceKey, Box<[u8]>>,
}

impl Unpacked {
    /// Applies a record of the topic, as [`Asset::hear`] does; `value` is its encoded form.
    ///
    /// # Errors
    /// As [`Asset::hear`].
    pub fn hear<E>(
        &mut self,
        key: SourceKey,
        offset: i64,
        value: Option<&[u8]>,
        said: Result<Option<Contribution>, E>,
    ) -> Result<ContributionVerdict, E> {
        let heard = self.asset.hear(key.clone(), offset, said)?;
        if let (ContributionVerdict::Changed, Some(value)) = (heard, value) {
            self.encoded.insert(key, value.into());
        }
        Ok(heard)
    }
}

/// The contributions to the assets of one partition.
#[derive(Debug, Default)]
pub struct Contributions {
    /// By asset, for each source the hash of its key and its contribution.
    said: PackedMap,
    /// By asset, the sources whose newest contribution cannot be read, with its offset.
    pub unreadable: HashMap<String, BTreeMap<SourceKey, i64>>,
    /// Assets whose record would be larger than the limit.
    pub too_large: BTreeSet<String>,
    /// Assets with contributions beyond the offset that was folded to.
    pub ahead: HashSet<String>,
    /// Assets from which a contribution was withdrawn.
    withdrawn: HashSet<String>,
}

impl Contributions {
    /// Unpacks the contributions to an asset.
    ///
    /// # Panics
    /// When `read` cannot read what it could read before.
    pub fn unpack<E: std::fmt::Debug>(
        &self,
        asset_id: &str,
        read: impl Fn(&[u8]) -> Result<Contribution, E>,
    ) -> Unpacked {
        let mut unpacked = Unpacked::default();
        for (_, encoded) in Said::all(self.said.get(asset_id)) {
            let contribution = read(encoded).expect("it could be read before");
            let key = (contribution.source.clone(), contribution.source_key.clone());
            unpacked.encoded.insert(key.clone(), encoded.into());
            unpacked.asset.contributions.insert(key, Arc::new(contribution));
        }
        unpacked.asset.unreadable = self.unreadable.get(asset_id).cloned().unwrap_or_default();
        unpacked.asset.too_large = self.too_large.contains(asset_id);
        unpacked
    }

    /// Packs the contributions to an asset.
    pub fn pack(&mut self, asset_id: &str, Unpacked { asset, encoded }: &Unpacked) {
        let mut said = Said::default();
        for key in asset.contributions.keys() {
            said.push(hash(key), &encoded[key]);
        }
        self.put(asset_id, &said, asset.unreadable.clone());
        if asset.too_large {
            self.too_large.insert(asset_id.to_owned());
        } else {
            self.too_large.remove(asset_id);
        }
    }

    /// Applies a record of the topic; the contributions of the asset's other sources stay packed.
    pub fn fold<E>(
        &mut self,
        key: ContributionKey,
        offset: i64,
        value: Option<&[u8]>,
        read: impl Fn(&[u8]) -> Result<Contribution, E>,
    ) {
        let ContributionKey { asset_id, source, source_key } = key;
        let key = (source, source_key);
        let unreadable = self.unreadable.remove(&asset_id).unwrap_or_default();
        let mut asset = Asset { unreadable, ..Asset::default() };
        let (hash, before) = (hash(&key), self.said.get(&asset_id));
        let known = Said::all(before).find(|(of, _)| *of == hash).and_then(|(_, known)| read(known).ok());
        asset.contributions.extend(known.map(|known| (key.clone(), Arc::new(known))));
        if value.is_none() {
            self.withdrawn.insert(asset_id.clone());
        }
        // If it cannot be read, the asset notes that.
        let heard = asset.hear(key.clone(), offset, value.map(read).transpose()).ok();
        let mut said = Said::default();
        for (of, encoded) in
            Said::all(before).filter(|(of, _)| *of != hash || heard == Some(ContributionVerdict::Stale))
        {
            said.push(of, encoded);
        }
        if let (Some(ContributionVerdict::Changed), Some(value)) = (heard, value) {
            said.push(hash, value);
        }
        self.put(&asset_id, &said, asset.unreadable);
    }

    fn put(&mut self, asset_id: &str, said: &Said, unreadable: BTreeMap<SourceKey, i64>) {
        if said.0.is_empty() {
            self.said.remove(asset_id);
        } else {
            self.said.insert(asset_id, &[&said.0]);
        }
        if unreadable.is_empty() {
            self.unreadable.remove(asset_id);
        } else {
            self.unreadable.insert(asset_id.to_owned(), unreadable);
        }
    }

    /// Returns the assets that have a contribution.
    pub fn assets(&self) -> impl Iterator<Item = &str> {
        self.said.iter().map(|(asset_id, _)| asset_id)
    }

    /// Returns whether the asset has or had a contribution, even if it was withdrawn later.
    pub fn knows_of(&self, asset_id: &str) -> bool {
        let Self { said, unreadable, too_large: _, ahead, withdrawn } = self;
        said.get(asset_id).is_some()
            || unreadable.contains_key(asset_id)
            || ahead.contains(asset_id)
            || withdrawn.contains(asset_id)
    }
}

/// The packed contributions of several sources: the hash of each key, and the encoded contribution.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    fn push(&mut self, hash: [u8; 16], encoded: &[u8]) {
        self.0.extend_from_slice(&hash);
        push_sized(&mut self.0, encoded);
    }

    fn all(packed: Option<&[u8]>) -> impl Iterator<Item = ([u8; 16], &[u8])> {
        let mut left = packed.unwrap_or_default();
        std::iter::from_fn(move || (!left.is_empty()).then(|| (array(&mut left), sized(&mut left))))
    }
}

fn hash((source, source_key): &SourceKey) -> [u8; 16] {
    let mut hash = Xxh3::new();
    hash.update(&source.len().to_le_bytes());
    hash.update(source.as_bytes());
    hash.update(source_key.as_bytes());
    hash.digest128().to_le_bytes()
}

/// The last records of the assets of one partition, with their versions. A record that is gone leaves its version behind.
#[derive(Debug, Default)]
pub struct Lasts {
    /// By asset its version, the state of its record, and the record if it was folded.
    known: PackedMap,
    /// Records that differ from what the contributions amount to, of assets that are held.
    held: HashMap<String, Arc<AssetRecord>>,
}

/// The state of a last record; one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastState {
    /// A tombstone followed.
    Gone,
    /// Merging the contributions gives it.
    Merged,
    /// It was folded, and is kept in its encoded form.
    Folded,
    /// It was folded and is a deleted one; its tombstone is missing.
    Deleted,
    /// It stays published while the contributions amount to another one.
    Held,
}

impl LastState {
    const ALL: [Self; 5] = [Self::Gone, Self::Merged, Self::Folded, Self::Deleted, Self::Held];
}

impl Lasts {
    /// Adds the last record to an asset whose contributions are unpacked.
    pub fn unpack<E>(
        &self,
        collection: &CompiledCollection,
        asset_id: &str,
        asset: &mut Asset,
        read: impl FnOnce(&[u8]) -> Result<AssetRecord, E>,
    ) {
        let (version, state, encoded) = self.get(asset_id);
        let unreadable =
            || AssetRecord { asset_id: asset_id.to_owned(), deleted: true, version, ..AssetRecord::default() };
        asset.version = version;
        asset.current = state == LastState::Merged;
        asset.last = match state {
            LastState::Gone => None,
            LastState::Merged => asset.merge(collection).map(|merged| Arc::new(merged.record(asset_id, version))),
            LastState::Folded | LastState::Deleted => Some(Arc::new(read(encoded).unwrap_or_else(|_| unreadable()))),
            LastState::Held => self.held.get(asset_id).cloned(),
        };
    }

    /// Remembers what was last published of an asset.
    pub fn pack(&mut self, asset_id: &str, Asset { last, version, current, .. }: &Asset) {
        self.held.remove(asset_id);
        let state = match last {
            None => LastState::Gone,
            Some(_) if *current => LastState::Merged,
            Some(last) => {
                self.held.insert(asset_id.to_owned(), Arc::clone(last));
                LastState::Held
            }
        };
        self.put(asset_id, *version, state, &[]);
    }

    /// Applies a record of the topic. One that cannot be read counts as a deleted record that equals no other: the next merge of
    /// its asset replaces it, or writes a tombstone if there is no contribution.
    pub fn fold<E>(
        &mut self,
        asset_id: &str,
        value: Option<&[u8]>,
        read: impl FnOnce(&[u8]) -> Result<AssetRecord, E>,
    ) {
        let (version, ..) = self.get(asset_id);
        self.held.remove(asset_id);
        match value.map(|value| (value, read(value))) {
            None => self.put(asset_id, version, LastState::Gone, &[]),
            Some((_, Err(_))) => self.put(asset_id, version, LastState::Deleted, &[]),
            Some((value, Ok(record))) => {
                let state = if record.deleted { LastState::Deleted } else { LastState::Folded };
                self.put(asset_id, record.version, state, value);
            }
        }
    }

    fn get(&self, asset_id: &str) -> (i64, LastState, &[u8]) {
        self.known.get(asset_id).map_or((-1, LastState::Gone, &[]), taken_apart)
    }

    fn put(&mut self, asset_id: &str, version: i64, state: LastState, encoded: &[u8]) {
        self.known.insert(asset_id, &[&version.to_le_bytes(), &[state as u8], encoded]);
    }

    /// Returns the assets whose last record no tombstone followed, and whether that record is a deleted one.
    pub fn standing(&self) -> impl Iterator<Item = (&str, bool)> {
        let states = self.known.iter().map(|(asset_id, packed)| (asset_id, taken_apart(packed).1));
        states.filter(|(_, state)| *state != LastState::Gone).map(|(asset_id, state)| {
            let held = || self.held.get(asset_id).is_some_and(|last| last.deleted);
            (asset_id, state == LastState::Deleted || state == LastState::Held && held())
        })
    }

    /// Returns whether nothing was ever published.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn taken_apart(mut packed: &[u8]) -> (i64, LastState, &[u8]) {
    let version = i64::from_le_bytes(array(&mut packed));
    let [state] = array(&mut packed);
    (version, LastState::ALL[usize::from(state)], packed)
}

/// The links of one partition, by source.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<String, PackedMap>);

impl Links {
    /// Unpacks the link of a source record.
    pub fn get(&self, LinkKey { source, source_key }: &LinkKey) -> Option<Link> {
        self.0.get(source)?.get(source_key).map(|packed| link(source, source_key, packed))
    }

    /// Remembers a link.
    pub fn insert(&mut self, link: &Link) {
        let Link { source, source_key, source_partition, source_offset, assets } = link;
        let mut packed = [&source_partition.to_le_bytes()[..], &source_offset.to_le_bytes()].concat();
        for LinkedAsset { asset_id, claimed_ms } in assets {
            packed.extend_from_slice(&claimed_ms.to_le_bytes());
            push_sized(&mut packed, asset_id.as_bytes());
        }
        if !self.0.contains_key(source) {
            self.0.insert(source.clone(), PackedMap::default());
        }
        self.0.get_mut(source).expect("it was added").insert(source_key, &[&packed]);
    }

    /// Forgets a link.
    pub fn remove(&mut self, LinkKey { source, source_key }: &LinkKey) {
        if let Some(links) = self.0.get_mut(source) {
            links.remove(source_key);
        }
    }

    /// Unpacks all links.
    pub fn iter(&self) -> impl Iterator<Item = Link> {
        self.0.iter().flat_map(|(source, links)| links.iter().map(move |(key, packed)| link(source, key, packed)))
    }
}

fn link(source: &str, source_key: &str, mut packed: &[u8]) -> Link {
    let source_partition = i32::from_le_bytes(array(&mut packed));
    let source_offset = i64::from_le_bytes(array(&mut packed));
    let mut assets = Vec::new();
    while !packed.is_empty() {
        let claimed_ms = i64::from_le_bytes(array(&mut packed));
        assets.push(LinkedAsset { asset_id: text(sized(&mut packed)).to_owned(), claimed_ms });
    }
    Link { source: source.to_owned(), source_key: source_key.to_owned(), source_partition, source_offset, assets }
}
