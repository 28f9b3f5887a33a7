"""vultus-index for ann-benchmarks: the folder goes to `ann_benchmarks/algorithms/vultus` there (see README.md)."""

import os
import pathlib
import shutil
import tempfile

import numpy as np

from ..base.module import BaseANN
from .client import NONE, Client


class Vultus(BaseANN):
    def __init__(self, metric, threads=1):
        if metric != "angular":
            raise NotImplementedError(f"vultus-index holds unit vectors, for angular data sets; this one is {metric}")
        self.name = "vultus"
        self.client = Client(os.environ.get("VULTUS_PROGRAM", "vultus"), threads)
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.ef = None

    def fit(self, X):
        vectors = unit(X)
        self.client.build(self.folder / "index", vectors)
        self.client.open(self.folder / "index", vectors[0])

    def set_query_arguments(self, ef):
        self.ef = ef
        self.name = f"vultus (ef {ef})"

    # Only the middle one of these three is timed where ann-benchmarks prepares queries.

    def prepare_query(self, q, n):
        self.prepared = self.client.encode({"search": {"k": n, "ef": self.ef}}, unit(q[None]))

    def run_prepared_query(self):
        self.found = self.client.send(self.prepared)[1]

    def get_prepared_query_results(self):
        return self.found[self.found != NONE]

    def query(self, q, n):
        self.prepare_query(q, n)
        self.run_prepared_query()
        return self.get_prepared_query_results()

    def batch_query(self, X, n):
        self.batch = self.client.search(unit(X), n, self.ef)[1]

    def get_batch_results(self):
        return [row[row != NONE] for row in self.batch]

    def get_memory_usage(self):
        """Kilobytes of the child: our own process holds nothing."""
        status = pathlib.Path(f"/proc/{self.client.child.pid}/status").read_text()
        return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))

    def done(self):
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def unit(rows):
    rows = np.asarray(rows, "f4")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise ValueError("a vector of zeros, or with a number that is not finite, has no direction")
    return rows / lengths
