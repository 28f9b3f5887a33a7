"""Photos a second of `vultus ingest`, end to end, at two revisions of this repository.

    python3 benches/peers/ingest.py --photos PHOTOS… --before REVISION [--after REVISION] [--rounds 5]

Each revision is checked out and built in the target folder, and the two take turns, each time with a fresh gallery. Needs no packages.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess

import common


def built(revision):
    """The program of a revision, in a worktree of its own."""
    names = {"cwd": common.ROOT, "check": True, "stdout": subprocess.PIPE, "text": True}
    commit = subprocess.run(["git", "rev-parse", "--verify", revision + "^{commit}"], **names).stdout.strip()
    tree, program = common.FILES / f"tree-{commit[:12]}", common.FILES / f"build-{commit[:12]}"
    if not tree.exists():
        common.FILES.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "worktree", "prune"], **names)
        subprocess.run(["git", "worktree", "add", "--detach", tree, commit], **names)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(program)}
    command = [common.CARGO, "build", "--release", "--locked", "--package", "vultus-cli"]
    subprocess.run(command, cwd=tree, env=environment, check=True)
    return program / "release" / "vultus"


def photos_a_second(program, photos):
    gallery = common.scratch("ingest.gallery")
    shutil.rmtree(gallery, ignore_errors=True)
    command = [program, "ingest", *photos, "--gallery", gallery, "--json"]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    return done["photos"] / done["seconds"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", nargs="+", required=True, type=pathlib.Path, help="folders, or tar shards")
    arguments.add_argument("--before", required=True, metavar="REVISION")
    arguments.add_argument("--after", default="HEAD", metavar="REVISION", help="default: HEAD, without what is not committed")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments = arguments.parse_args()
    photos = [path.resolve() for path in arguments.photos]
    programs = {name: built(name) for name in (arguments.before, arguments.after)}
    speeds = {name: [] for name in programs}
    for _ in range(arguments.rounds):
        for name, program in programs.items():
            speeds[name].append(photos_a_second(program, photos))
    print(common.cpu())
    for name, found in speeds.items():
        print(f"{name:<30} {statistics.median(found):8.1f} photos/s [{min(found):.1f}, {max(found):.1f}]")
    before, after = (statistics.median(speeds[name]) for name in (arguments.before, arguments.after))
    print(f"after / before: {after / before:.2f}")


if __name__ == "__main__":
    main()
