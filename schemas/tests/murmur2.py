"""Writes the table of partitions that the tests compare with, by another implementation of murmur2.

    pip install kafka-python && python3 murmur2.py > murmur2.tsv
"""

import random

from kafka.partitioner.default import murmur2

rng = random.Random(20261121)
print("# key in hexadecimal, murmur2 as Java's int, partition of 12")
for number in range(1000):
    # Every length from 0, so that each remainder of four bytes comes up; then keys framed as ours are.
    if number < 64:
        key = bytes(rng.randrange(256) for _ in range(number))
    else:
        org, device = f"org{rng.randrange(9)}".encode(), f"SIM{rng.randrange(10**7):07}".encode()
        key = bytes([0]) + rng.randrange(1, 2**31).to_bytes(4, "big")
        key += bytes([2 * len(org)]) + org + bytes([2 * len(device)]) + device
    hashed = murmur2(key)
    signed = hashed - 2**32 if hashed >= 2**31 else hashed
    print(f"{key.hex()}\t{signed}\t{(hashed & 0x7FFFFFFF) % 12}")
