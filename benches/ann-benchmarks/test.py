"""Runs the module as ann-benchmarks would, with a stand-in for its base class; needs numpy and the program.

    python test.py target/debug/vultus
"""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
K = 10


def main(program):
    os.environ["VULTUS_PROGRAM"] = os.path.abspath(program)
    with tempfile.TemporaryDirectory() as folder:
        packages = pathlib.Path(folder) / "ann_benchmarks" / "algorithms"
        shutil.copytree(HERE, packages / "vultus")
        (packages / "base").mkdir()
        (packages / "base" / "module.py").write_text("class BaseANN:\n    pass\n")
        sys.path.insert(0, folder)
        module = importlib.import_module("ann_benchmarks.algorithms.vultus.module")

        command = [program, "bench", "vectors", "--generate", "faces", "--count", "2000", "--queries", "50", "--out", folder]
        subprocess.run(command, check=True)
        vectors, queries = (np.load(pathlib.Path(folder) / name) for name in ("vectors.npy", "queries.npy"))
        truth = np.argsort(-queries @ vectors.T, axis=1)[:, :K]

        algorithm = module.Vultus("angular")
        # Lengths are the module's business.
        algorithm.fit(3 * vectors)
        algorithm.set_query_arguments(100)
        found = [algorithm.query(2 * query, K) for query in queries]
        algorithm.batch_query(queries, K)
        assert np.array_equal(found, algorithm.get_batch_results()), "one by one and together give different answers"
        hits = sum(len(np.intersect1d(found, truth)) for found, truth in zip(found, truth))
        assert hits > 0.99 * truth.size, f"{hits} of {truth.size} neighbors found"
        assert len(algorithm.query(queries[0], 3000)) == 2000, "there are no more than there are vectors"
        assert algorithm.get_memory_usage() > 1000
        algorithm.done()
        assert not algorithm.folder.exists() and algorithm.client.child.returncode == 0

        refused = {NotImplementedError: lambda: module.Vultus("euclidean"), ValueError: lambda: module.unit([[0.0, 0.0]])}
        for error, run in refused.items():
            try:
                run()
            except error:
                continue
            raise AssertionError(f"{error.__name__} expected")
    print(f"{hits / truth.size:.4f} of the neighbors found; ok")


if __name__ == "__main__":
    main(sys.argv[1])
