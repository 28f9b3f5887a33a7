"""A training step and embedding on an NVIDIA GPU against PyTorch on the same one, in turns.

    python3 benches/peers/gpu.py [--batch 512] [--precision bf16] [--compile] [--check]

Builds our side with the feature `cuda`, which needs a CUDA toolkit and cuDNN; without a GPU it says so and is done. The same network
from the same weights: first losses and embeddings must agree within what 16 bits lose. PyTorch runs channels last, with automatic mixed
precision, cuDNN's own benchmark of algorithms and the fused AdamW; `--compile` compiles its network too.

A step: PyTorch finds its inputs on the GPU, ours begins with crops in memory. Embedding: both begin and end in memory, and send as many
bytes: PyTorch 56 x 56 pixels of floats, ours 112 x 112 pixels of bytes, averaged there.
"""

import argparse
import subprocess
import sys

import common

ARGUMENTS = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ARGUMENTS.add_argument("--batch", type=int, default=512)
ARGUMENTS.add_argument("--precision", choices=["f32", "bf16"], default="bf16", help="f32 is TF32 on both sides")
ARGUMENTS.add_argument("--compile", action="store_true", help="let PyTorch compile its network")
ARGUMENTS.add_argument("--check", action="store_true", help="exit with 1 when a ratio misses its target")
ARGUMENTS = ARGUMENTS.parse_args()


def skip(why):
    print(f"skipped: {why}")
    sys.exit(0)


def gpu():
    """The name of the first GPU; none where the driver does not say one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return found[0] if found else None


NAME = gpu() or skip("no NVIDIA GPU answers nvidia-smi")

common.inside(["numpy==2.4.6", "torch==2.15.0"], threads=4)

import json  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

import facenet  # noqa: E402

# Ours against PyTorch without its compiler.
TARGET = 1.0
# Largest differences of a loss and of a number of an embedding.
WITHIN = {"f32": 5e-3, "bf16": 5e-2}[ARGUMENTS.precision]


def autocast():
    return torch.autocast("cuda", torch.bfloat16, enabled=ARGUMENTS.precision == "bf16")


def compiled(net):
    return torch.compile(net) if ARGUMENTS.compile else net


def training(ours, table):
    batch, checkpoint = common.scratch("gpu-batch.f32"), common.scratch("gpu.checkpoint")
    where = {"device": "cuda", "precision": ARGUMENTS.precision}
    begun = ours("train-begin", batch=ARGUMENTS.batch, output=batch, checkpoint=checkpoint, **where)
    side, margin, each = int(begun["side"]), float(begun["margin"]), int(begun["each"])
    net = facenet.Net(side)
    facenet.load(net, facenet.read(checkpoint)[0], prefix="weight.")
    net = net.to("cuda", memory_format=torch.channels_last).train()
    optimizer, run = facenet.adamw(net), compiled(net)
    x = torch.from_numpy(np.fromfile(batch, "<f4").reshape(-1, side, side, 3)).permute(0, 3, 1, 2).to("cuda")
    labels = torch.arange(len(x), device="cuda") // each

    def forward(x):
        with autocast():
            return run(x)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = facenet.losses(forward, x, labels, margin)
        loss.backward()
        optimizer.step()
        # As ours does: a step is over when its loss is known.
        return loss.item()

    first = np.array([float(ours("train", repeat=1)["loss"])])
    common.agree("loss of the first step", first, np.array([step()]), WITHIN)
    seconds = common.interleave(ours.timer("train"), common.timer(step))
    table.add(f"training step of {ARGUMENTS.batch}, {ARGUMENTS.precision}, a crop", *seconds, TARGET, per=ARGUMENTS.batch)


def embedding(ours, table):
    batch, embeddings = common.scratch("gpu-embed.f32"), common.scratch("gpu-embeddings.f32")
    where = {"precision": ARGUMENTS.precision}
    side = int(ours("embed-gpu-begin", batch=ARGUMENTS.batch, output=batch, embeddings=embeddings, **where)["side"])
    tensors, metadata = facenet.read(common.ROOT / "models" / "facenet.safetensors")
    config = json.loads(metadata["network"])
    stages = [(stage["channels"], stage["blocks"]) for stage in config["stages"]]
    net = facenet.Net(side, config["stem"], stages)
    facenet.load(net, tensors)
    net = net.eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Sequential):
            module[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(module[0], module[1])
            module[1] = torch.nn.Identity()
    dtype = torch.bfloat16 if ARGUMENTS.precision == "bf16" else torch.float32
    net = compiled(net.to("cuda", dtype, memory_format=torch.channels_last))
    x = torch.from_numpy(np.fromfile(batch, "<f4").reshape(-1, side, side, 3)).pin_memory()

    @torch.inference_mode()
    def run():
        there = x.to("cuda", non_blocking=True).permute(0, 3, 1, 2).to(dtype)
        return net(there).cpu().numpy()

    found = np.fromfile(embeddings, "<f4").reshape(ARGUMENTS.batch, -1)
    common.agree("embeddings", found, run(), WITHIN)
    seconds = common.interleave(ours.timer("embed-gpu"), common.timer(run))
    table.add(f"embed {ARGUMENTS.batch}, {ARGUMENTS.precision}, a crop", *seconds, TARGET, per=ARGUMENTS.batch)


def main():
    if not torch.cuda.is_available():
        skip("PyTorch finds no GPU")
    ours = common.Ours(common.built(["cuda"]), threads=4)
    found = ours("gpu")
    if found["found"] != "yes":
        skip(found["why"].replace("_", " "))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    table = common.Table(NAME)
    training(ours, table)
    embedding(ours, table)
    table.end(ARGUMENTS.check)


if __name__ == "__main__":
    main()
