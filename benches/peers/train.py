"""One training step on the CPU against PyTorch: forward, semi-hard mining, triplet loss, backward, AdamW.

    python3 benches/peers/train.py [--batch 64] [--threads 2] [--check]

The same network from the same first weights on the same batch: the first losses must agree. PyTorch runs its own operators, channels
last, with the fused AdamW. Loading and augmenting crops is left out on both sides; ours makes its input from crops in each step.
"""

import argparse

import common

ARGUMENTS = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ARGUMENTS.add_argument("--batch", type=int, default=64)
ARGUMENTS.add_argument("--threads", type=int, default=2)
ARGUMENTS.add_argument("--check", action="store_true", help="exit with 1 when the ratio misses its target")
ARGUMENTS = ARGUMENTS.parse_args()

common.inside(["numpy==2.4.6", "torch==2.15.0"], ARGUMENTS.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import facenet  # noqa: E402

TARGET = 1.0


def main():
    ours = common.Ours(common.built(), ARGUMENTS.threads)
    batch, checkpoint = common.scratch("training-batch.f32"), common.scratch("training.checkpoint")
    begun = ours("train-begin", batch=ARGUMENTS.batch, output=batch, checkpoint=checkpoint)
    side, margin, each = int(begun["side"]), float(begun["margin"]), int(begun["each"])

    torch.set_num_threads(ARGUMENTS.threads)
    net = facenet.Net(side)
    facenet.load(net, facenet.read(checkpoint)[0], prefix="weight.")
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = facenet.adamw(net)
    x = torch.from_numpy(np.fromfile(batch, "<f4").reshape(-1, side, side, 3)).permute(0, 3, 1, 2)
    assert x.is_contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(x)) // each

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = facenet.losses(net, x, labels, margin)
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
