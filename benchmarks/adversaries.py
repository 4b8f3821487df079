"""Hostile people by name, and what each gains: figures beside the bounds that are promised.

    python benchmarks/adversaries.py

The adversaries are those of tests/adversary/identities.py. Exits with 1 when a bound is broken.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from p2plearn.gossip.ratings import DECAY
from tests.adversary import identities


def main() -> int:
    """Play each, print."""
    good = True
    print("the Sybil crowd: rates a bad course 5 and a good one 1")
    for number in (1, 10, 100, 1_000):
        with tempfile.TemporaryDirectory() as folder, identities.Stage(Path(folder)) as stage:
            came = identities.the_sybil_crowd(stage, number)
        print(
            f"  {number:5} identities: trusted figures moved: {came['trusted_moved']}; order moved by "
            f"{came['order_moved_by']:.3f} stars (at most {came['bound']:.3f}); same order: {came['same_order']}"
        )
        good &= not came["trusted_moved"] and came["order_moved_by"] <= came["bound"]
    print("the duped friend: somebody trusted vouches for an adversary's identities")
    for number in (1, 10, 1_000):
        with tempfile.TemporaryDirectory() as folder, identities.Stage(Path(folder)) as stage:
            came = identities.the_duped_friend(stage, number)
        print(
            f"  {number:5} identities: weight {came['weight_of_all']:.3f} together (at most {DECAY}; the friend has 1)"
        )
        good &= came["weight_of_all"] <= DECAY + 1e-9
    with tempfile.TemporaryDirectory() as folder, identities.Stage(Path(folder)) as stage:
        came = identities.the_impostor(stage)
    print(f"the impostor: {came['marked']} of {came['names']} look-alikes marked, {came['honest_marked']} honest names")
    good &= came["marked"] == came["names"] and not came["honest_marked"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
