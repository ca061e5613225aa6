//! The partitioner agrees with other clients, key by key.

use windfall_schemas::partition::{for_key, murmur2};

/// Made by `murmur2.py` with another implementation.
const TABLE: &str = include_str!("murmur2.tsv");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_thousand_keys_have_the_partition_that_other_clients_give_them() {
    let mut keys = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [key, hash, partition] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let key = bytes(key);
        assert_eq!(murmur2(&key), hash.parse::<i32>().unwrap(), "{line}");
        assert_eq!(for_key(&key, 12), partition.parse::<i32>().unwrap(), "{line}");
        keys += 1;
    }
    assert_eq!(keys, 1000);
}
