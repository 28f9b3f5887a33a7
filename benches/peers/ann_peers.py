"""The peers of `ann.py`: each builds, saves, loads and searches in its own way, with what it needs and no more.

A peer is given the paper's M and efConstruction where it has them. `search` takes all queries at once where the peer does, so that what calling it
from Python costs is not counted against it; Qdrant's takes requests, which are made beforehand.
"""

import importlib
import pathlib
import shutil

import numpy as np

import common

M, EF_CONSTRUCTION = 16, 200


class Peer:
    """In a folder of its own. `threads` build; one searches."""

    def __init__(self, folder, dimensions, threads=1):
        self.folder, self.dimensions, self.threads = pathlib.Path(folder), dimensions, threads
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = str(self.folder / "index")
        self.module = importlib.import_module(self.imports)

    def prepare(self, queries):
        """Queries as `search` wants them."""
        return queries


class Hnswlib(Peer):
    imports = "hnswlib"

    def build(self, vectors):
        self.index = self.module.Index("ip", self.dimensions)
        self.index.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add_items(vectors, num_threads=self.threads)

    def save(self):
        self.index.save_index(self.file)

    def load(self):
        self.index = self.module.Index("ip", self.dimensions)
        self.index.load_index(self.file)

    def search(self, queries, k, width):
        self.index.set_ef(width)
        return self.index.knn_query(queries, k, num_threads=1)[0]


class Faiss(Peer):
    imports = "faiss"

    def build(self, vectors):
        self.module.omp_set_num_threads(self.threads)
        self.index = self.module.IndexHNSWFlat(self.dimensions, M, self.module.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(vectors)

    def save(self):
        self.module.write_index(self.index, self.file)

    def load(self):
        self.index = self.module.read_index(self.file)

    def search(self, queries, k, width):
        self.module.omp_set_num_threads(1)
        self.index.hnsw.efSearch = width
        return self.index.search(queries, k)[1]


class Usearch(Peer):
    imports = "usearch.index"

    def build(self, vectors):
        options = {"metric": "ip", "dtype": "f32", "connectivity": M, "expansion_add": EF_CONSTRUCTION}
        self.index = self.module.Index(ndim=self.dimensions, **options)
        self.index.add(np.arange(len(vectors)), vectors, threads=self.threads)

    def save(self):
        self.index.save(self.file)

    def load(self):
        self.index = self.module.Index.restore(self.file, view=True)

    def search(self, queries, k, width):
        self.index.expansion_search = width
        return np.asarray(self.index.search(queries, k, threads=1).keys).reshape(len(queries), k)


class Voyager(Peer):
    imports = "voyager"

    def build(self, vectors):
        space = self.module.Space.InnerProduct
        self.index = self.module.Index(space, self.dimensions, M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add_items(vectors, num_threads=self.threads)

    def save(self):
        self.index.save(self.file)

    def load(self):
        self.index = self.module.Index.load(self.file)

    def search(self, queries, k, width):
        return self.index.query(queries, k=k, num_threads=1, query_ef=max(width, k))[0]


class Qdrant(Peer):
    """Bytes, twice as many as are wanted compared again by their vectors: its own recipe. Building includes turning rows into its points."""

    imports = "qdrant_edge"

    def build(self, vectors):
        edge = self.module
        shutil.rmtree(self.file, ignore_errors=True)
        # Above the two limits in kilobytes there would be no graph, or several.
        graph = edge.HnswIndexConfig(M, EF_CONSTRUCTION, full_scan_threshold=1, max_indexing_threads=self.threads)
        params = edge.EdgeVectorParams(
            self.dimensions,
            edge.Distance.Dot,
            hnsw_config=graph,
            quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, always_ram=True),
        )
        optimizers = edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1, max_segment_size=1_000_000_000)
        config = edge.EdgeConfig(params, optimizers=optimizers, max_search_threads=1, wal_enabled=False)
        self.index = edge.EdgeShard.create(self.file, config)
        for start in range(0, len(vectors), 10_000):
            rows = vectors[start : start + 10_000].tolist()
            points = [edge.Point(start + at, row) for at, row in enumerate(rows)]
            self.index.update(edge.UpdateOperation.upsert_points(points))
        self.index.optimize()

    def save(self):
        self.index.flush()

    def load(self):
        self.index = self.module.EdgeShard.load(self.file)

    def prepare(self, queries):
        return queries.tolist()

    def search(self, queries, k, width):
        edge = self.module
        params = edge.SearchParams(hnsw_ef=width, quantization=edge.QuantizationSearchParams(rescore=True, oversampling=2.0))
        found = [self.index.query(edge.QueryRequest(k, query=edge.Query.Nearest(query), params=params)) for query in queries]
        return np.array([[point.id for point in points] for points in found])


class SymphonyQG(Peer):
    imports = "rabitqlib"

    def build(self, vectors):
        # A degree is a multiple of 32 there.
        self.index = self.module.SymqgIndex(self.dimensions, 2 * M, metric="l2")
        self.index.build(vectors, EF_CONSTRUCTION, self.threads)

    def save(self):
        self.index.save(self.file)

    def load(self):
        self.index = self.module.SymqgIndex.load(self.file)

    def search(self, queries, k, width):
        return self.index.search(queries, k, max(width, k), 1)[0]


class HnswRs(Peer):
    """Rust, so in a process of its own (`index/benches/hnsw_rs.rs`); it builds with one thread, and is not saved."""

    imports = "client"

    def build(self, vectors):
        arguments = ["bench", "--no-run", "--bench", "hnsw_rs", "--package", "vultus-index"]
        self.index = self.module.Client(common.executable("hnsw_rs", *arguments))
        self.built_seconds = self.index.build("", vectors)["build_seconds"]

    def search(self, queries, k, width):
        self.searched_seconds, found = self.index.search(queries, k, width)
        return found


PEERS = {
    "hnswlib": Hnswlib,
    "faiss": Faiss,
    "usearch": Usearch,
    "voyager": Voyager,
    "qdrant": Qdrant,
    "symphonyqg": SymphonyQG,
    "hnsw_rs": HnswRs,
}
