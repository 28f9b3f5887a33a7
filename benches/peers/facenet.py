"""The network in PyTorch, with our weights, and the loss that it is trained by. Import it after `common.inside`."""

import json

import numpy as np
import torch
from torch import nn

# NetworkConfig::default() and Stage::default() of the library; the learning rate is what `train-begin` sets.
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
    def __init__(self, side, stem=STEM, stages=STAGES):
        super().__init__()
        self.stem = unit(3, stem, 3, 2, 1)
        side, channels, blocks = -(-side // 2), stem, []
        for out, count in stages:
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
        return nn.functional.normalize(self.head(x).flatten(1).float(), eps=1e-6)


def read(path):
    """The tensors of a safetensors file, by name, and its metadata: a length, a JSON header, and the bytes."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end], {"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
        tensors[name] = values.astype("<f4").reshape(entry["shape"])
    return tensors, metadata


def load(net, tensors, prefix=""):
    """Our tensors whose names begin with `prefix`: (kernel, kernel, in, out) to (out, in, kernel, kernel)."""
    parts = {"weight": "0.weight", "gamma": "1.weight", "beta": "1.bias"}
    statistics = {"running_mean": "1.running_mean", "running_variance": "1.running_var"}
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    places = {**parameters, **{name: buffer for name, buffer in buffers.items() if not name.endswith("batches_tracked")}}
    with torch.no_grad():
        for name, values in tensors.items():
            layer, _, part = name.removeprefix(prefix).rpartition(".")
            if name.startswith(prefix):
                place = places.pop(f"{layer}.{(parts | statistics)[part]}")
                values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
                place.copy_(torch.from_numpy(values.copy()))
    assert not places, f"the file lacks {list(places)}"


def semi_hard(distances, labels, margin):
    """Of each anchor and positive the nearest negative that is farther than the positive, by less than the margin."""
    same = labels[:, None] == labels[None, :]
    anchors, positives = torch.nonzero(same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), as_tuple=True)
    nearest = distances[anchors, positives][:, None]
    rows = distances[anchors]
    fits = ~same[anchors] & (rows > nearest) & (rows < nearest + margin)
    best, negatives = torch.where(fits, rows, torch.inf).min(1)
    found = best < torch.inf
    return anchors[found], positives[found], negatives[found]


def adamw(net):
    """The optimiser of `Stage::default()`, with the learning rate that `train-begin` sets."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


def losses(net, x, labels, margin):
    """The loss of one batch."""
    embeddings = net(x)
    distances = 2 - 2 * embeddings @ embeddings.T
    anchors, positives, negatives = semi_hard(distances.detach(), labels, margin)
    return (distances[anchors, positives] - distances[anchors, negatives] + margin).relu().mean()
