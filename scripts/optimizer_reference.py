"""Prints the table that src/training/optimizer/tests.rs holds our optimisers to, from PyTorch's.

Needs torch (2.x). A 2 x 2 matrix (decayed) and two offsets (not decayed) take four steps with given gradients and learning
rates; the gradients are clipped to a length of 1.5 together, as torch.nn.utils.clip_grad_norm_ does.
"""

import torch

MATRIX = [[0.5, -1.0], [2.0, 0.0]]
OFFSETS = [0.25, -0.75]
GRADIENTS = [  # of the matrix, row after row, then of the offsets
    [0.1, -0.2, 0.3, 0.4, -0.5, 0.6],
    [-1.0, 2.0, 0.0, 1.0, 0.5, -0.5],
    [0.05, 0.0, -0.01, 0.02, 0.0, 0.3],
    [3.0, -1.0, 2.0, 0.5, 1.0, -2.0],
]
RATES = [0.1, 0.05, 0.2, 0.01]
DECAY = 0.1

RULES = {
    "Sgd { momentum: 0.0, nesterov: false }": lambda groups: torch.optim.SGD(groups, lr=1.0),
    "Sgd { momentum: 0.9, nesterov: false }": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9),
    "Sgd { momentum: 0.9, nesterov: true }": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True),
    "AdamW { beta_1: 0.9, beta_2: 0.99 }": lambda groups: torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99)),
    "AdaGrad": lambda groups: torch.optim.Adagrad(groups, lr=1.0),
}

for name, make in RULES.items():
    matrix = torch.nn.Parameter(torch.tensor(MATRIX, dtype=torch.float64))
    offsets = torch.nn.Parameter(torch.tensor(OFFSETS, dtype=torch.float64))
    optimizer = make([
        {"params": [matrix], "weight_decay": DECAY},
        {"params": [offsets], "weight_decay": 0.0},
    ])
    for rate, gradient in zip(RATES, GRADIENTS):
        matrix.grad = torch.tensor(gradient[:4], dtype=torch.float64).reshape(2, 2)
        offsets.grad = torch.tensor(gradient[4:], dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_([matrix, offsets], 1.5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    values = torch.cat([matrix.flatten(), offsets]).tolist()
    print(f"(Optimizer::{name}, [{', '.join(f'{value:.7f}' for value in values)}]),")
