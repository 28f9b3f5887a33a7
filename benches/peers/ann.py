"""Searching and building the index against hnswlib and others, on vectors like those of faces, one thread.

    python3 benches/peers/ann.py [--count 1000000] [--peers hnswlib faiss usearch] [--check]

All engines get the same vectors and queries, are asked one query at a time, and are held to the same exact answers; each is timed at one width
of its search after the other, all engines in turns. What is compared is queries a second at one recall, between the two widths that enclose it.
Peers that don't install are left out and named.
"""

import argparse
import importlib
import math
import shutil
import statistics
import time

import common

common.inside(["numpy==2.4.6", "hnswlib==0.8.0", "faiss-cpu==1.15.0", "usearch==2.26.0"])

import numpy as np  # noqa: E402

K = 10
DIMENSIONS = 128
WIDTHS = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448]
# Recalls, and how many times the queries a second of hnswlib that we want at each.
TARGETS = {0.90: None, 0.95: 5.0, 0.99: 4.0}
BUILD_TARGET = 3.0
# Links and width of building: what each peer is given (the paper's M and efConstruction).
M, EF_CONSTRUCTION = 16, 200


class Hnswlib:
    name = "hnswlib"

    def __init__(self, vectors):
        self.index = importlib.import_module("hnswlib").Index("ip", DIMENSIONS)
        self.index.set_num_threads(1)
        self.index.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add_items(vectors, num_threads=1)

    def width(self, width):
        self.index.set_ef(width)

    def search(self, query):
        return self.index.knn_query(query, K, num_threads=1)[0]


class Faiss:
    name = "faiss HNSW"

    def __init__(self, vectors):
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(1)
        self.index = faiss.IndexHNSWFlat(DIMENSIONS, M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(vectors)

    def width(self, width):
        self.index.hnsw.efSearch = width

    def search(self, query):
        return self.index.search(query, K)[1]


class Usearch:
    name = "usearch"

    def __init__(self, vectors):
        index = importlib.import_module("usearch.index")
        self.index = index.Index(ndim=DIMENSIONS, metric="ip", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(vectors)), vectors, threads=1)

    def width(self, width):
        self.index.expansion_search = width

    def search(self, query):
        return self.index.search(query[0], K, threads=1).keys[None]


PEERS = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch}


def timed(peer, queries, truth, width):
    """Seconds for all queries one by one, and the recall."""
    peer.width(width)
    begin = time.perf_counter()
    found = [peer.search(queries[at : at + 1]) for at in range(len(queries))]
    seconds = time.perf_counter() - begin
    hits = sum(len(np.intersect1d(found, truth)) for found, truth in zip(found, truth))
    return seconds, hits / truth.size


def rate(points, recall):
    """Queries a second at a recall, from (recall, queries a second) in the order of the widths; None where they don't reach it."""
    for (low, slow), (high, fast) in zip(points, points[1:]):
        if low <= recall <= high and high > low:
            share = (recall - low) / (high - low)
            return math.exp((1 - share) * math.log(slow) + share * math.log(fast))
    return points[0][1] if points and points[0][0] >= recall else None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=2_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--peers", nargs="+", choices=list(PEERS), default=["hnswlib"])
    arguments.add_argument("--check", action="store_true", help="exit with 1 when a ratio to hnswlib misses its target")
    arguments = arguments.parse_args()

    folder = common.scratch(f"ann-{arguments.count}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = {name: folder / name for name in ("vectors.f32", "queries.f32", "truth.u32", "index")}
    program = common.built(package="vultus-index")
    ours = common.Ours(program)
    ours("make", count=arguments.count, queries=arguments.queries, folder=folder)
    vectors, queries = (np.fromfile(files[name], "<f4").reshape(-1, DIMENSIONS) for name in ("vectors.f32", "queries.f32"))
    print(f"{common.cpu()}; {len(vectors)} x {DIMENSIONS}, {len(queries)} queries, one thread, recall@{K}\n")

    built = ours("build", vectors=files["vectors.f32"], folder=files["index"])
    print(f"ours: built in {float(built['cpu']):.0f} CPU-s, {int(built['bytes']) / len(vectors):.0f} bytes a vector on disk")
    # A new process, so that what building took is not counted.
    ours = common.Ours(program)
    opened = ours("open", folder=files["index"], queries=files["queries.f32"])
    print(f"ours: {1e3 * float(opened['seconds']):.1f} ms to the first answer, {int(opened['resident']) / 2**20:.0f} MiB resident then")
    ours("truth", queries=files["queries.f32"], k=K, output=files["truth.u32"])
    truth = np.fromfile(files["truth.u32"], "<u4").reshape(-1, K)

    peers, missed = {}, []
    for name in arguments.peers:
        begin = time.process_time()
        try:
            peers[name] = PEERS[name](vectors)
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        seconds = time.process_time() - begin
        print(f"{PEERS[name].name}: built in {seconds:.0f} CPU-s, {seconds / float(built['cpu']):.2f} times ours", flush=True)
        if name == "hnswlib" and seconds / float(built["cpu"]) < BUILD_TARGET:
            missed.append(f"build: {seconds / float(built['cpu']):.2f}, target {BUILD_TARGET}")

    def ask(width):
        answer = ours("search", queries=files["queries.f32"], truth=files["truth.u32"], k=K, ef=width)
        return float(answer["seconds"]), float(answer["recall"])

    points = {name: [] for name in ["ours", *peers]}
    for width in WIDTHS:
        rounds = {name: [] for name in points}
        for _ in range(arguments.rounds):
            rounds["ours"].append(ask(width))
            for name, peer in peers.items():
                rounds[name].append(timed(peer, queries, truth, width))
        for name, found in rounds.items():
            points[name].append((found[0][1], len(queries) / statistics.median(seconds for seconds, _ in found)))
        print(f"width {width:>4}: " + "; ".join(f"{name} {at[-1][0]:.4f} {at[-1][1]:.0f}/s" for name, at in points.items()), flush=True)

    for recall, target in TARGETS.items():
        mine = rate(points["ours"], recall)
        for name in peers:
            theirs = rate(points[name], recall)
            if not mine or not theirs:
                print(f"recall {recall}: not reached by {'us' if not mine else name}")
                continue
            wanted = f", target {target}" if target and name == "hnswlib" else ""
            print(f"recall {recall}: ours {mine:.0f}/s, {PEERS[name].name} {theirs:.0f}/s, ratio {mine / theirs:.2f}{wanted}")
            if wanted and mine / theirs < target:
                missed.append(f"recall {recall}: {mine / theirs:.2f}, target {target}")
    if missed and arguments.check:
        raise SystemExit("\nmissed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
