"""The 3x3 layers of the embedding network: billions of multiply-adds a second of one thread, and their share of what the core can do.

    python3 benches/peers/layers.py [--batch 32] [--rounds 15] [--check]

The core's peak is measured in the same program, in every round. Needs no packages.
"""

import argparse
import statistics
import sys

import common

TARGET = 0.85


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=common.ROUNDS)
    arguments.add_argument("--check", action="store_true", help="exit with 1 when a layer's share misses the target")
    arguments = arguments.parse_args()
    ours = common.Ours(common.built())
    rounds = [ours("layers", batch=arguments.batch, repeat=4) for _ in range(arguments.rounds)]
    print(common.cpu())
    print(f"peak {statistics.median(float(found.pop('peak')) for found in rounds):.1f} GMAC/s, one thread, batch {arguments.batch}")
    missed = []
    for layer in rounds[0]:
        speeds, shares = zip(*(map(float, found[layer].split(",")) for found in rounds))
        share = statistics.median(shares)
        print(f"{layer:<24} {statistics.median(speeds):8.1f} GMAC/s {share:8.1%}  target {TARGET:.0%}")
        missed += [layer] if share < TARGET else []
    if missed and arguments.check:
        sys.exit("\nmissed: " + ", ".join(missed))


if __name__ == "__main__":
    main()
