"""What parts of a model have in common: built by name with checked options, remembered, loaded with one clear error."""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from lab.errors import LabError, choose

T = TypeVar("T")
# ImportError: a package that the files need is missing; RuntimeError: weights that do not fit.
_REFUSALS = (
    *(OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, AssertionError),
    *(SafetensorError, UnpicklingError),
)


class Built:
    """Remembers the options that it was constructed with, so that a saved model can construct it again."""

    built_with: dict[str, Any]

    def __new__(cls, **options: Any) -> Self:
        """Constructors take keyword arguments only."""
        part = super().__new__(cls)
        part.built_with = options
        return part


def build_by_name(choices: Mapping[str, Callable[..., T]], name: str, what: str, options: Mapping[str, Any]) -> T:
    """Call `choices[name]` with keyword options; `what` says in a message what the choices are.

    Raises:
        LabError: an unknown name, an option that it does not have, or a missing one; the message lists the choices.
    """
    part = choose(choices, name, what)
    parameters = inspect.signature(part).parameters
    for option in options:
        choose(parameters, option, f"option of {what} {name!r}:")
    missing = [key for key, p in parameters.items() if p.default is inspect.Parameter.empty and key not in options]
    if missing:
        raise LabError(f"{what} {name!r} also needs: {', '.join(missing)}")
    return part(**options)


def check_positive(**sizes: int) -> None:
    """Refuse a size below 1 by its name."""
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} is {size}; expected at least 1")


@contextmanager
def loading(what: str, expected: str) -> Iterator[None]:
    """Name what a library could not load, why, and what is `expected` instead."""
    try:
        yield
    except _REFUSALS as error:
        why, *more = str(error).strip().splitlines() or [type(error).__name__]
        why = f"{why} {more[0].strip()}" if more and why.endswith(":") else why
        raise LabError(f"cannot load {what}: {why}; expected {expected}") from error


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Without dropout or batch statistics; after it, each module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


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


def tokenizer_facts(tokenizer: Any) -> list[Any]:
    """How text becomes token ids, what the special ones are, and how a chat is written."""
    cut = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return [cut, sorted(tokenizer.special_tokens_map.items()), tokenizer.chat_template]
