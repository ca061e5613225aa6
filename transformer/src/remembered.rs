//! What the loops remember of one partition, packed: an asset is unpacked when something is said of it, and packed again (pure).
//!
//! A contribution is kept as it was read. A record that is what the contributions amount to is not kept at all, since merging
//! them gives it again; any other one is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use windfall_schemas::asset::AssetRecord;
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::link::{Link, LinkKey, LinkedAsset};
use xxhash_rust::xxh3::Xxh3;

use crate::asset::{Applied, Asset, SourceKey};
use crate::collection::CompiledCollection;
use crate::packed::{PackedMap, array, push_sized, sized, text};

/// An asset on which something is said now.
#[derive(Debug, Clone, Default)]
pub struct Unpacked {
    /// The asset.
    pub asset: Asset,
    /// Its contributions as they were read.
    encoded: BTreeMap<SourceKey, Box<[u8]>>,
}

impl Unpacked {
    /// Takes over what a record of the topic says, as [`Asset::hear`] does. `value` is what was read.
    ///
    /// # Errors
    /// As [`Asset::hear`].
    pub fn hear<E>(
        &mut self,
        key: SourceKey,
        offset: i64,
        value: Option<&[u8]>,
        said: Result<Option<Contribution>, E>,
    ) -> Result<Applied, E> {
        let heard = self.asset.hear(key.clone(), offset, said)?;
        if let (Applied::Changed, Some(value)) = (heard, value) {
            self.encoded.insert(key, value.into());
        }
        Ok(heard)
    }
}

/// What the sources say of the assets of one partition.
#[derive(Debug, Default)]
pub struct Contributions {
    /// By asset, for each source the hash of its key and what it says.
    said: PackedMap,
    /// Sources of which the newest contribution cannot be read, by asset, with its offset.
    pub unreadable: HashMap<String, BTreeMap<SourceKey, i64>>,
    /// Assets of which the record would be larger than a record may be.
    pub too_large: BTreeSet<String>,
    /// Assets of which contributions lie beyond the offset that was folded to.
    pub ahead: HashSet<String>,
    /// Assets of which a contribution was withdrawn.
    withdrawn: HashSet<String>,
}

impl Contributions {
    /// Unpacks what the sources say of an asset.
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

    /// Remembers what the sources say of an asset.
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

    /// Takes over what a record of the topic says. Of the asset's other sources nothing is unpacked.
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
        // Whether it could be read is kept in the asset.
        let heard = asset.hear(key.clone(), offset, value.map(read).transpose()).ok();
        let mut said = Said::default();
        for (of, encoded) in Said::all(before).filter(|(of, _)| *of != hash || heard == Some(Applied::Stale)) {
            said.push(of, encoded);
        }
        if let (Some(Applied::Changed), Some(value)) = (heard, value) {
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

    /// Names the assets that somebody says something of.
    pub fn assets(&self) -> impl Iterator<Item = &str> {
        self.said.iter().map(|(asset_id, _)| asset_id)
    }

    /// Says whether something was said of an asset, even if it was withdrawn later.
    #[must_use]
    pub fn knows_of(&self, asset_id: &str) -> bool {
        let Self { said, unreadable, too_large: _, ahead, withdrawn } = self;
        said.get(asset_id).is_some()
            || unreadable.contains_key(asset_id)
            || ahead.contains(asset_id)
            || withdrawn.contains(asset_id)
    }
}

/// What several sources say: the hash of each one's key, and its contribution as it was read.
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
    /// By asset its version, what became of its record, and the record if it was folded.
    known: PackedMap,
    /// Records of assets that are held while their sources say something else.
    held: HashMap<String, Arc<AssetRecord>>,
}

/// What became of a record; one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A tombstone followed.
    Gone,
    /// It is what the contributions amount to.
    Merged,
    /// It was folded, and is kept as it was read.
    Folded,
    /// So was the last one of an asset that is gone; its tombstone is missing.
    Deleted,
    /// It stands while the sources say something else.
    Held,
}

impl State {
    const ALL: [Self; 5] = [Self::Gone, Self::Merged, Self::Folded, Self::Deleted, Self::Held];
}

impl Lasts {
    /// Adds to an asset of which the contributions are unpacked what was last published of it.
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
        asset.current = state == State::Merged;
        asset.last = match state {
            State::Gone => None,
            State::Merged => asset.merge(collection).map(|merged| Arc::new(merged.record(asset_id, version))),
            State::Folded | State::Deleted => Some(Arc::new(read(encoded).unwrap_or_else(|_| unreadable()))),
            State::Held => self.held.get(asset_id).cloned(),
        };
    }

    /// Remembers what was last published of an asset.
    pub fn pack(&mut self, asset_id: &str, Asset { last, version, current, .. }: &Asset) {
        self.held.remove(asset_id);
        let state = match last {
            None => State::Gone,
            Some(_) if *current => State::Merged,
            Some(last) => {
                self.held.insert(asset_id.to_owned(), Arc::clone(last));
                State::Held
            }
        };
        self.put(asset_id, *version, state, &[]);
    }

    /// Takes over a record of the topic. One that cannot be read is replaced when its asset is merged next: it equals no other,
    /// and without any contribution a tombstone ends it.
    pub fn fold<E>(
        &mut self,
        asset_id: &str,
        value: Option<&[u8]>,
        read: impl FnOnce(&[u8]) -> Result<AssetRecord, E>,
    ) {
        let (version, ..) = self.get(asset_id);
        self.held.remove(asset_id);
        match value.map(|value| (value, read(value))) {
            None => self.put(asset_id, version, State::Gone, &[]),
            Some((_, Err(_))) => self.put(asset_id, version, State::Deleted, &[]),
            Some((value, Ok(record))) => {
                let state = if record.deleted { State::Deleted } else { State::Folded };
                self.put(asset_id, record.version, state, value);
            }
        }
    }

    fn get(&self, asset_id: &str) -> (i64, State, &[u8]) {
        self.known.get(asset_id).map_or((-1, State::Gone, &[]), taken_apart)
    }

    fn put(&mut self, asset_id: &str, version: i64, state: State, encoded: &[u8]) {
        self.known.insert(asset_id, &[&version.to_le_bytes(), &[state as u8], encoded]);
    }

    /// Names the assets of which a record stands, and says whether it says that the asset is gone.
    pub fn standing(&self) -> impl Iterator<Item = (&str, bool)> {
        let states = self.known.iter().map(|(asset_id, packed)| (asset_id, taken_apart(packed).1));
        states.filter(|(_, state)| *state != State::Gone).map(|(asset_id, state)| {
            let held = || self.held.get(asset_id).is_some_and(|last| last.deleted);
            (asset_id, state == State::Deleted || state == State::Held && held())
        })
    }

    /// Says whether nothing was ever published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn taken_apart(mut packed: &[u8]) -> (i64, State, &[u8]) {
    let version = i64::from_le_bytes(array(&mut packed));
    let [state] = array(&mut packed);
    (version, State::ALL[usize::from(state)], packed)
}

/// The links of one partition, by source.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<String, PackedMap>);

impl Links {
    /// Unpacks the link of a source record.
    #[must_use]
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
