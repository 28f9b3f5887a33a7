"""What every comparison with a peer needs: its packages, our side as a child process, fair turns, and a table.

Our side is `benches/peer.rs`. Environment: `CARGO` (default `cargo`), `CARGO_TARGET_DIR` (default `target`), and `VULTUS_PEERS`, a
Python environment that has the packages already (default: one is made in the target folder, once for each set of packages).
"""

import hashlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
FILES = TARGET / "peers"
CARGO = os.environ.get("CARGO", "cargo")

# Rounds of each side, and seconds that a round takes at least.
ROUNDS = 15
ROUND_SECONDS = 0.2
# Thread pools spin for a while after their work; a turn waits until the other side's have gone to sleep.
PAUSE_SECONDS = 0.25


def inside(packages, threads=1, optional=()):
    """Goes on in an environment that has `packages` (pinned), with `threads` for the libraries that ask for a number when they start.

    Those that are optional are tried one by one; importing one that could not be installed fails.
    """
    if os.environ.get("VULTUS_PEERS_INSIDE"):
        return
    folder = os.environ.get("VULTUS_PEERS")
    if not folder:
        digest = hashlib.sha256("\n".join([*packages, *optional]).encode()).hexdigest()[:12]
        folder = FILES / f"venv-{digest}"
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin" / "pip", "install", "--quiet", *packages], check=True)
            for package in optional:
                subprocess.run([folder / "bin" / "pip", "install", "--quiet", package], check=False)
            (folder / "complete").touch()
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    environment = {**os.environ, "VULTUS_PEERS_INSIDE": "1", **{name: str(threads) for name in names}}
    python = str(pathlib.Path(folder) / "bin" / "python")
    os.execve(python, [python, *sys.argv], environment)


def scratch(name):
    """A file that the two sides exchange."""
    FILES.mkdir(parents=True, exist_ok=True)
    return FILES / name


def built(features=()):
    """Builds our side; returns the program."""
    words = [word for feature in features for word in ("--features", feature)]
    return executable("peer", "bench", "--no-run", "--bench", "peer", "--package", "vultus", *words)


def executable(name, *arguments):
    """What cargo builds under this name when it is given these arguments."""
    command = [CARGO, *arguments, "--message-format", "json-render-diagnostics"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    artifacts = [json.loads(line) for line in lines]
    return [a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == name][-1]


class Ours:
    """Our side, with so many threads. Each question is a method call: `ours("embed-fp32", repeat=3)`."""

    def __init__(self, program, threads=1):
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.child = subprocess.Popen([program], cwd=ROOT, env=environment, **pipes)

    def __call__(self, name, **values):
        self.child.stdin.write(" ".join([name, *(f"{key}={value}" for key, value in values.items())]) + "\n")
        self.child.stdin.flush()
        kind, _, rest = self.child.stdout.readline().rstrip("\n").partition(" ")
        if kind != "ok":
            sys.exit(f"{name}: our side says: {rest or 'nothing'}")
        return dict(word.split("=", 1) for word in rest.split())

    def timer(self, name, **values):
        """Seconds of one run, as `interleave` wants it."""
        return lambda repeat: float(self(name, repeat=repeat, **values)["seconds"])


def timer(run):
    """The same for something that Python calls."""

    def timed(repeat):
        begin = time.perf_counter()
        for _ in range(repeat):
            run()
        return (time.perf_counter() - begin) / repeat

    return timed


def interleave(ours, theirs, rounds=ROUNDS):
    """Seconds of `rounds` rounds of each side, in turns, after two that warm up and say how often a round repeats."""
    repeats = [max(1, round(ROUND_SECONDS / min(side(1), side(2)))) for side in (ours, theirs)]
    seconds = ([], [])
    for _ in range(rounds):
        for side, repeat, found in zip((ours, theirs), repeats, seconds):
            time.sleep(PAUSE_SECONDS)
            found.append(side(repeat))
    return seconds


class Table:
    """Prints one line a measure, and remembers which ratios miss their targets."""

    def __init__(self, machine=None):
        self.missed = []
        print(f"{machine or cpu()}; medians [quartiles] in ms; ratio = theirs / ours, above 1 we are faster\n")
        print(f"{'measure':<42} {'ours':>28} {'theirs':>28} {'ratio':>7} {'target':>7}")

    def add(self, name, ours, theirs, target=None, per=1):
        """`per`: how many crops, photos or layers the seconds are for."""
        ratio = statistics.median(theirs) / statistics.median(ours)
        print(f"{name:<42} {spread(ours, per):>28} {spread(theirs, per):>28} {ratio:>7.3f} {target or '':>7}", flush=True)
        if target and ratio < target:
            self.missed.append(f"{name}: {ratio:.3f}, target {target}")

    def end(self, check):
        """Exits with 1 when `check` and a target was missed."""
        if self.missed and check:
            sys.exit("\nmissed: " + "; ".join(self.missed))


def spread(seconds, per):
    low, middle, high = (1e3 * value / per for value in statistics.quantiles(seconds, n=4))
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def agree(name, ours, theirs, within=1e-4):
    """Prints the largest difference; exits with 1 where it is above `within`."""
    difference = float(abs(ours - theirs).max())
    print(f"{name}: largest difference {difference:.1e}", flush=True)
    if not difference <= within:
        sys.exit(f"{name}: ours and theirs are not the same function")


def cpu():
    """The processor's name and the instruction sets that matter here."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wanted = ["avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8"]
    flags = [flag for flag in wanted if flag in entries.get("flags", "").split()]
    return f"{entries.get('model name', platform.machine())}, {os.cpu_count()} CPUs, {' '.join(flags)}"
