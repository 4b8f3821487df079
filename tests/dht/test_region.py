"""Regions against the truth: where all peers are known, which are nearest to a key is a matter of sorting."""

from __future__ import annotations

import random

from p2plearn.dht.lookup import WIDTH, place
from p2plearn.dht.region import PEERS, region_around


def nearest(network: list[bytes], key: bytes, most: int) -> list[bytes]:
    return sorted(network, key=lambda peer: place(peer) ^ place(key))[:most]


def make(peers: int, seed: int) -> tuple[random.Random, list[bytes]]:
    chance = random.Random(seed)
    return chance, [chance.randbytes(32) for _ in range(peers)]


def test_every_key_of_a_region_gets_exactly_its_nearest_peers() -> None:
    covered = 0
    for seed in range(6):
        chance, network = make(2000, seed)
        target = chance.randbytes(32)
        region = region_around(target, nearest(network, target, PEERS), PEERS)
        if region is None:
            continue
        assert target in region
        for key in (chance.randbytes(32) for _ in range(3000)):
            if key in region:
                covered += 1
                assert region.nearest(key) == nearest(network, key, WIDTH)
    assert covered > 50


def test_one_lookup_for_each_region_covers_ten_thousand_courses() -> None:
    chance, network = make(1000, 7)
    unknown = sorted((chance.randbytes(32) for _ in range(10_000)), key=place)
    lookups = 0
    while unknown:
        lookups += 1
        target = unknown.pop(0)
        region = region_around(target, nearest(network, target, PEERS), PEERS)
        unknown = [key for key in unknown if region is None or key not in region]
    assert lookups < 1000 / WIDTH


def test_who_finds_fewer_than_asked_for_knows_everybody() -> None:
    chance, network = make(30, 3)
    target = chance.randbytes(32)
    region = region_around(target, nearest(network, target, PEERS), PEERS)
    assert region is not None
    for key in (chance.randbytes(32) for _ in range(100)):
        assert key in region
        assert region.nearest(key) == nearest(network, key, WIDTH)


def test_too_few_are_no_region() -> None:
    chance, network = make(2000, 5)
    target = chance.randbytes(32)
    assert region_around(target, nearest(network, target, WIDTH), WIDTH) is None
    assert region_around(target, [target] * WIDTH, WIDTH) is None
    nobody = region_around(target, [], WIDTH)
    assert nobody is not None
    assert nobody.nearest(target) == []
