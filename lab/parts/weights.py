"""The identity of a module's weights, under which what was computed with them is kept."""

import hashlib

import torch
from torch import nn


def weights_sha256(module: nn.Module) -> str:
    """Hash names, shapes, types and values of a module's parameters and buffers, in the order of their names.

    One on the meta device has no values.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if not tensor.is_meta:
            # Flat first, because a tensor without axes (BatchNorm's counter) cannot be viewed as bytes.
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
