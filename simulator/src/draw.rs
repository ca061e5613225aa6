//! Random numbers that follow from a seed alone, so that a fleet and its life can be repeated.
//!
//! SplitMix64, written out here: the stream must not change when a library does.

/// A stream of numbers that follows from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    state: u64,
}

impl Draw {
    /// Makes the stream that belongs to `seed` and `parts`.
    pub(crate) fn keyed(seed: u64, parts: &[u64]) -> Self {
        Self { state: mix(seed, parts) }
    }

    /// Draws 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.state)
    }

    /// Draws a number below `bound`; 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Draws a number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(1) as u64) as i64
    }

    /// Draws a number from 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws yes with probability `share`.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Draws one of `choices`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Draws a waiting time with the given mean.
    pub(crate) fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// Mixes a seed and the parts of a name into one number.
pub(crate) fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(scramble(seed ^ 0x5851_F42D_4C95_7F2D), |state, part| {
        scramble(state.rotate_left(23) ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    })
}

/// Mixes a text into one number.
pub(crate) fn text(value: &str) -> u64 {
    value.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

fn scramble(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut draw = Draw { state: 0 };
        // The published test vector of SplitMix64 for seed 0.
        assert_eq!(draw.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(draw.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn numbers_stay_inside_their_bounds_and_reach_both_ends() {
        let mut draw = Draw::keyed(7, &[1]);
        let seen: std::collections::BTreeSet<i64> = (0..500).map(|_| draw.between(-2, 3)).collect();
        assert_eq!(seen, (-2..=3).collect());
        assert_eq!(draw.below(0), 0);
    }

    #[test]
    fn the_mean_of_many_waits_is_the_mean_asked_for() {
        let mut draw = Draw::keyed(7, &[2]);
        let mean = (0..20_000).map(|_| draw.wait(10.0)).sum::<f64>() / 20_000.0;
        assert!((9.5..10.5).contains(&mean), "{mean}");
    }
}
