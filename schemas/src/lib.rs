//! The contract of Windfall's topics: schemas, keys, envelopes and the wire form.
