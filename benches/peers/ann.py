"""Searching and building the index against hnswlib and others, on the same vectors, in turns, one thread.

    python3 benches/peers/ann.py [--generate faces|sift | --data FILE] [--count 1000000] [--peers hnswlib faiss …] [--level avx2|portable] [--check]

`vultus bench vectors` reads or makes the vectors, scaled to unit length; all engines get the same, are asked all queries one after the other
in one thread, and are held to the same exact answers. Each is timed at one width of its search after the other, all engines in turns. What is
compared is queries a second at one recall, between the two widths that enclose it. Peers that don't install are left out and named.

With a level, both sides do without what later CPUs have: ours is told so, and hnswlib is compiled for it (it alone can be asked for that).
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import common

PACKAGES = ["hnswlib==0.8.0", "faiss-cpu==1.15.0", "usearch==2.26.0", "voyager==2.2.3", "qdrant-edge-py==0.9.0", "rabitqlib==0.7.1"]
common.inside(["numpy==2.4.6"], optional=PACKAGES)
sys.path.insert(0, str(common.ROOT / "benches" / "ann-benchmarks"))

import numpy as np  # noqa: E402
from ann_peers import PEERS  # noqa: E402
from client import Client  # noqa: E402

WIDTHS = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448]
# Recalls, and how many times the queries a second of hnswlib that we want at each.
TARGETS = {0.90: None, 0.95: 5.0, 0.99: 4.0}
BUILD_TARGET = 3.0
# What a C++ compiler is told for each level of ours, on x86-64, and the ratio that we want there.
LEVELS = {"avx2": ["-mavx2", "-mfma"], "portable": []}
LEVEL_TARGET = 2.0
# Queries whose exact answers are computed here as well.
CHECKED = 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--generate", choices=["faces", "sift"], default="faces")
    source.add_argument("--data", help="vectors of your own, as `vultus bench ann --help` says")
    parser.add_argument("--count", type=int, help="vectors; the first of a file (default: all, or a million that are made)")
    parser.add_argument("--queries", default="2000", help="how many, or a file of them")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="that build; searching has one")
    everyone = [name for name in PEERS if name != "hnsw_rs"]
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=everyone, help="default: all but hnsw_rs, which builds for an hour")
    parser.add_argument("--level", choices=list(LEVELS), help="the newest instructions that both sides use (default: all that this CPU has)")
    parser.add_argument("--program", help="a `vultus` that is built already")
    parser.add_argument("--out", help="also write the figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a ratio to hnswlib misses its target")
    # For a process of its own: load this peer's index, and say what that took.
    parser.add_argument("--load", nargs=2, metavar=("PEER", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.level and chosen.peers == everyone:
        chosen.peers = ["hnswlib"]
    if chosen.level and chosen.peers != ["hnswlib"]:
        parser.error("--level: only hnswlib is compiled for it")
    return chosen


def use_level(level):
    """Has both sides do without newer instructions."""
    os.environ["VULTUS_CPU_LEVEL"] = level
    folder = common.scratch(f"hnswlib-{level}")
    if not folder.exists():
        compilers = {name: " ".join([program, *LEVELS[level]]) for name, program in {"CC": "gcc", "CXX": "g++"}.items()}
        environment = {**os.environ, **compilers, "HNSWLIB_NO_NATIVE": "1"}
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir", "--no-binary", "hnswlib"]
        subprocess.run([*pip, "--target", folder, PACKAGES[0]], check=True, env=environment)
    # Also for the process that measures opening.
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))


def resident(process="self"):
    """Bytes of a process that are in memory: its own, and of files that it has mapped those that the system holds for it."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def load(name, folder):
    """Prints seconds until the first answer, and bytes that were added to memory until then and until all queries were answered."""
    queries = np.load(pathlib.Path(folder).parent / "queries.npy")
    peer = PEERS[name](folder, queries.shape[1])
    query = peer.prepare(queries[:1])
    before, begin = resident(), time.perf_counter()
    peer.load()
    peer.search(query, 10, 128)
    loaded = {"first_answer_seconds": time.perf_counter() - begin, "memory_bytes": resident() - before}
    peer.search(peer.prepare(queries), 10, 128)
    print(json.dumps({**loaded, "serving_memory_bytes": resident() - before}))


def size(path):
    # Blocks, since some files have holes.
    return sum(512 * file.stat().st_blocks for file in path.rglob("*") if file.is_file())


class Recall:
    """The share of true neighbors that is found; a vector as near as the farthest of them is as good."""

    def __init__(self, vectors, queries, truth):
        self.vectors, self.queries = vectors, queries
        self.least = self.similarity(truth).min(axis=1, keepdims=True) - 1e-6

    def similarity(self, rows):
        return np.stack([self.vectors[row] @ query for row, query in zip(rows, self.queries)])

    def of(self, found):
        found = np.asarray(found).astype("i8")
        is_row = found < len(self.vectors)
        near = self.similarity(np.where(is_row, found, 0)) >= self.least
        return float(np.mean(near & is_row & (found >= 0)))


def agree(vectors, queries, recall):
    """Exits unless our exact answers are those of a plain product."""
    best = queries[:CHECKED] @ vectors.T
    k = min(ARGUMENTS.k, len(vectors))
    kth = np.partition(best, -k, axis=1)[:, -k]
    common.agree("exact answers", recall.least[:CHECKED, 0] + 1e-6, kth, within=1e-5)


def rate(points, recall):
    """Queries a second at a recall, from (recall, queries a second) in the order of the widths; None where they don't reach it."""
    for (low, slow), (high, fast) in zip(points, points[1:]):
        if low <= recall <= high and high > low:
            share = (recall - low) / (high - low)
            return math.exp((1 - share) * math.log(slow) + share * math.log(fast))
    return points[0][1] if points and points[0][0] >= recall else None


def build(name, folder, vectors):
    """A peer with its index, and what that took."""
    peer = PEERS[name](folder, vectors.shape[1], ARGUMENTS.threads)
    begin = time.perf_counter(), time.process_time()
    peer.build(vectors)
    figures = {"build_seconds": time.perf_counter() - begin[0], "build_cpu_seconds": time.process_time() - begin[1]}
    if name == "hnsw_rs":
        return peer, {"build_seconds": peer.built_seconds, "build_cpu_seconds": peer.built_seconds}
    peer.save()
    figures["index_bytes"] = size(peer.folder)
    if name == "qdrant":
        # One process at a time has its folder.
        peer.index.close()
    command = [sys.executable, __file__, "--load", name, str(folder)]
    figures |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if name == "qdrant":
        peer.load()
    return peer, figures


def describe(name, figures, count):
    text = f"{name}: built in {figures['build_seconds']:.1f} s, {figures['build_cpu_seconds']:.1f} CPU-s"
    if "index_bytes" in figures:
        text += f"; {figures['index_bytes'] / count:.0f} bytes a vector on disk; first answer {1e3 * figures['first_answer_seconds']:.1f} ms"
        text += f" after opening, {figures['memory_bytes'] / 2**20:.0f} MiB more in memory then"
    if "serving_memory_bytes" in figures:
        text += f", {figures['serving_memory_bytes'] / 2**20:.0f} when all queries were answered"
    print(text, flush=True)


def main():
    if ARGUMENTS.level:
        use_level(ARGUMENTS.level)
    folder = common.scratch("ann")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program = ARGUMENTS.program or common.executable("vultus", "build", "--release", "--package", "vultus-cli")
    source = ["--data", ARGUMENTS.data] if ARGUMENTS.data else ["--generate", ARGUMENTS.generate]
    count = ARGUMENTS.count or (None if ARGUMENTS.data else 1_000_000)
    source += ["--queries", ARGUMENTS.queries, *(["--count", str(count)] if count else [])]
    subprocess.run([program, "bench", "vectors", *source, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    vectors, queries = (np.load(folder / name) for name in ("vectors.npy", "queries.npy"))
    print(f"{common.cpu()}; {source[1]}, {len(vectors)} x {vectors.shape[1]}, {len(queries)} queries, one thread, recall@{ARGUMENTS.k}, {ARGUMENTS.level or 'all instructions'}\n")

    client = Client(program, ARGUMENTS.threads)
    figures = {"ours": client.build(folder / "ours", vectors)}
    client.close()
    # A new process, so that what building took is not counted.
    client = Client(program)
    opened = client.open(folder / "ours", queries[0])
    figures["ours"]["first_answer_seconds"] = opened["first_answer_seconds"]
    figures["ours"]["memory_bytes"] = opened["resident_bytes"] - opened["resident_before_bytes"]
    describe("ours", figures["ours"], len(vectors))
    recall = Recall(vectors, queries, client.truth(queries, ARGUMENTS.k))
    agree(vectors, queries, recall)

    peers, missed = {}, []
    for name in ARGUMENTS.peers:
        try:
            peers[name], figures[name] = build(name, folder / name, vectors)
        except Exception as error:  # Whatever a peer says is its reason, and no reason for the others to stop.
            print(f"{name}: left out ({type(error).__name__}: {error})")
            continue
        describe(name, figures[name], len(vectors))
        # CPU time comes in hundredths.
        cpu = figures[name]["build_cpu_seconds"] / max(figures["ours"]["build_cpu_seconds"], 0.01)
        wall = figures[name]["build_seconds"] / figures["ours"]["build_seconds"]
        print(f"{name}: {cpu:.2f} times our CPU-s, {wall:.2f} times our time", flush=True)
        if name == "hnswlib" and min(cpu, wall) < BUILD_TARGET:
            missed.append(f"build: {cpu:.2f} and {wall:.2f}, target {BUILD_TARGET}")

    prepared = {name: peer.prepare(queries) for name, peer in peers.items()}

    def ask(name, width):
        """Seconds for all queries, and what was found."""
        if name == "ours":
            return client.search(queries, ARGUMENTS.k, width)
        begin = time.perf_counter()
        found = peers[name].search(prepared[name], ARGUMENTS.k, width)
        # A process of its own says itself what it took.
        return getattr(peers[name], "searched_seconds", time.perf_counter() - begin), found

    points = {name: [] for name in figures}
    print()
    widths = [width for width in WIDTHS if width >= ARGUMENTS.k] or [ARGUMENTS.k]
    for width in widths:
        rounds = {name: [] for name in points}
        for _ in range(ARGUMENTS.rounds):
            for name in points:
                rounds[name].append(ask(name, width))
        for name, found in rounds.items():
            points[name].append((recall.of(found[0][1]), len(queries) / statistics.median(seconds for seconds, _ in found)))
        print(f"width {width:>4}: " + "; ".join(f"{name} {at[-1][0]:.4f} {at[-1][1]:.0f}/s" for name, at in points.items()), flush=True)

    print()
    figures["ours"]["serving_memory_bytes"] = resident(client.child.pid) - opened["resident_before_bytes"]
    print(f"ours, when all queries were answered: {figures['ours']['serving_memory_bytes'] / 2**20:.0f} MiB more in memory, nearly all of them mapped files")
    for wanted, target in TARGETS.items():
        target = LEVEL_TARGET if target and ARGUMENTS.level else target
        mine = rate(points["ours"], wanted)
        for name in peers:
            theirs = rate(points[name], wanted)
            if not mine or not theirs:
                print(f"recall {wanted}: not reached by {'us' if not mine else name}")
                continue
            aim = f", target {target}" if target and name == "hnswlib" else ""
            print(f"recall {wanted}: ours {mine:.0f}/s, {name} {theirs:.0f}/s, ratio {mine / theirs:.2f}{aim}")
            if aim and mine / theirs < target:
                missed.append(f"recall {wanted}: {mine / theirs:.2f}, target {target}")
    if ARGUMENTS.out:
        document = {"cpu": common.cpu(), "data": source[1], "vectors": len(vectors), "k": ARGUMENTS.k, "build_threads": ARGUMENTS.threads, "level": ARGUMENTS.level}
        names = ("width", "recall", "queries_per_second")
        curves = {name: [dict(zip(names, (width, *at))) for width, at in zip(widths, curve)] for name, curve in points.items()}
        document["engines"] = {name: {**figures[name], "points": curve} for name, curve in curves.items()}
        pathlib.Path(ARGUMENTS.out).write_text(json.dumps(document, indent=2) + "\n")
    if missed and ARGUMENTS.check:
        raise SystemExit("\nmissed: " + "; ".join(missed))


if __name__ == "__main__":
    ARGUMENTS = arguments()
    if ARGUMENTS.load:
        load(*ARGUMENTS.load)
    else:
        main()
