"""One training step on the CPU against PyTorch: forward, semi-hard mining, triplet loss, backward, AdamW.

    python3 benches/peers/train.py [--batch 64] [--threads 2] [--check]

The same network from the same first weights on the same batch: the first losses must agree. PyTorch runs its own operators, channels
last, with the fused AdamW. Loading and augmenting crops is left out on both sides; ours makes its input from crops in each step.
"""

import argparse
import json

import common

ARGUMENTS = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ARGUMENTS.add_argument("--batch", type=int, default=64)
ARGUMENTS.add_argument("--threads", type=int, default=2)
ARGUMENTS.add_argument("--check", action="store_true", help="exit with 1 when the ratio misses its target")
ARGUMENTS = ARGUMENTS.parse_args()

common.inside(["numpy==2.4.6", "torch==2.15.0"], ARGUMENTS.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

TARGET = 1.0
# NetworkConfig::default() and Options::default() of the library; the learning rate is what `train-begin` sets.
STEM, STAGES = 32, [(64, 2), (128, 2), (192, 2)]
WEIGHT_DECAY, LEARNING_RATE = 5e-4, 1e-9


def unit(channels, out, kernel, stride, padding):
    return nn.Sequential(nn.Conv2d(channels, out, kernel, stride, padding, bias=False), nn.BatchNorm2d(out, eps=1e-5))


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.first, self.second = unit(channels, out, 3, stride, 1), unit(out, out, 3, 1, 1)
        self.shortcut = None if stride == 1 and channels == out else unit(channels, out, 1, stride, 0)

    def forward(self, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return torch.relu_(self.second(torch.relu_(self.first(x))) + shortcut)


class Net(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.stem = unit(3, STEM, 3, 2, 1)
        side, channels, blocks = -(-side // 2), STEM, []
        for out, count in STAGES:
            for place in range(count):
                blocks.append(Block(channels, out, 1 if place else 2))
                channels = out
            side = -(-side // 2)
        self.blocks = nn.ModuleList(blocks)
        self.head = unit(channels, 128, side, 1, 0)

    def forward(self, x):
        x = torch.relu_(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return nn.functional.normalize(self.head(x).flatten(1), eps=1e-6)


def read(path):
    """The tensors of a safetensors file, by name: a length, a JSON header, and the bytes."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = {name: entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        yield name, np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])


def load(net, path):
    """Our first weights: (kernel, kernel, in, out) to (out, in, kernel, kernel)."""
    parts = {"weight": "0.weight", "gamma": "1.weight", "beta": "1.bias"}
    places = dict(net.named_parameters())
    with torch.no_grad():
        for name, values in read(path):
            # A checkpoint's other tensors are moments, which are zero, and running statistics, which training does not use.
            kind, _, rest = name.partition(".")
            layer, _, part = rest.rpartition(".")
            if kind == "weight" and part in parts:
                place = places.pop(f"{layer}.{parts[part]}")
                values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
                place.copy_(torch.from_numpy(values.copy()))
    assert not places, f"the checkpoint lacks {list(places)}"


def semi_hard(distances, labels, margin):
    """Of each anchor and positive the nearest negative that is farther than the positive, by less than the margin."""
    same = labels[:, None] == labels[None, :]
    anchors, positives = torch.nonzero(same & ~torch.eye(len(labels), dtype=torch.bool), as_tuple=True)
    nearest = distances[anchors, positives][:, None]
    rows = distances[anchors]
    fits = ~same[anchors] & (rows > nearest) & (rows < nearest + margin)
    best, negatives = torch.where(fits, rows, torch.inf).min(1)
    found = best < torch.inf
    return anchors[found], positives[found], negatives[found]


def main():
    ours = common.Ours(common.built(), ARGUMENTS.threads)
    batch, checkpoint = common.scratch("training-batch.f32"), common.scratch("training.checkpoint")
    begun = ours("train-begin", batch=ARGUMENTS.batch, output=batch, checkpoint=checkpoint)
    side, margin, each = int(begun["side"]), float(begun["margin"]), int(begun["each"])

    torch.set_num_threads(ARGUMENTS.threads)
    net = Net(side)
    load(net, checkpoint)
    net = net.to(memory_format=torch.channels_last).train()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    x = torch.from_numpy(np.fromfile(batch, "<f4").reshape(-1, side, side, 3)).permute(0, 3, 1, 2)
    assert x.is_contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(x)) // each

    def step():
        optimizer.zero_grad(set_to_none=True)
        embeddings = net(x)
        distances = 2 - 2 * embeddings @ embeddings.T
        anchors, positives, negatives = semi_hard(distances.detach(), labels, margin)
        loss = (distances[anchors, positives] - distances[anchors, negatives] + margin).relu().mean()
        loss.backward()
        optimizer.step()
        return loss

    first = np.array([float(ours("train", repeat=1)["loss"])])
    common.agree("loss of the first step", first, np.array([step().item()]))
    table = common.Table()
    seconds = common.interleave(ours.timer("train"), common.timer(step))
    table.add(f"training step of {ARGUMENTS.batch}, {ARGUMENTS.threads} threads", *seconds, TARGET)
    table.end(ARGUMENTS.check)


if __name__ == "__main__":
    main()
