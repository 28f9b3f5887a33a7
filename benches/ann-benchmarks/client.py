"""The index as a child process: `vultus bench lines`, whose help and source say what it is asked and answers.

Knows nothing of ann-benchmarks and of our own harness (`benches/peers/ann.py`); both use it.
"""

import json
import os
import subprocess

import numpy as np

# Where there is no neighbour.
NONE = 0xFFFFFFFF


class Client:
    """One process. Vectors and queries are arrays of float32 whose rows are of unit length; a vector is known by its row."""

    def __init__(self, program="vultus", threads=1):
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.child = subprocess.Popen([program, "bench", "lines"], env=environment, **pipes)

    def build(self, folder, vectors):
        """Writes an index into a new folder."""
        return self.ask({"build": {"folder": str(folder), "dimensions": vectors.shape[1]}}, vectors)[0]

    def open(self, folder, query):
        """Opens it and asks one query."""
        return self.ask({"open": {"folder": str(folder), "dimensions": len(query)}}, query)[0]

    def search(self, queries, k, ef):
        """Seconds, and a row of k neighbors for each query: `NONE` where there are fewer."""
        answer, rows = self.ask({"search": {"k": k, "ef": ef}}, queries)
        return answer["seconds"], rows.reshape(-1, k)

    def truth(self, queries, k):
        """The nearest k of each query, by comparing with every vector."""
        return self.ask({"truth": {"k": k}}, queries)[1].reshape(-1, k)

    def close(self):
        self.child.stdin.close()
        self.child.wait()

    def ask(self, question, numbers):
        return self.send(self.encode(question, numbers))

    @staticmethod
    def encode(question, numbers):
        """A question as bytes."""
        numbers = np.ascontiguousarray(numbers, "<f4").tobytes()
        return json.dumps({"ask": question, "bytes": len(numbers)}).encode() + b"\n" + numbers

    def send(self, question):
        """What is answered, and rows behind it."""
        self.child.stdin.write(question)
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError("vultus bench lines ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"vultus bench lines: {answer['error']}")
        return answer["ok"], np.frombuffer(self.child.stdout.read(answer["bytes"]), "<u4")
