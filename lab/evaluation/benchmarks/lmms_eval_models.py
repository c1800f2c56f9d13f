"""Which model class of lmms-eval loads a checkpoint, and the arguments it is given.

A class is lmms-eval's `--model`: the code that loads the weights and turns a question into their input. It does not
follow from a checkpoint's name, so only those that lmms-eval itself names as a class's default are known.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.lmms_eval_process import LmmsEval

MODEL_CLASSES = {
    "LanguageBind/Video-LLaVA-7B-hf": "video_llava",
    "OpenGVLab/VideoChat2_HD_stage4_Mistral_7B_hf": "videochat2",
    "Qwen/Qwen2-Audio-7B-Instruct": "qwen2_audio",
    "Qwen/Qwen2-VL-7B-Instruct": "qwen2_vl",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "VITA-MLLM/VITA-1.5": "vita",
    "baichuan-inc/Baichuan-Omni-1d5": "baichuan_omni",
    "llava-hf/llava-1.5-7b-hf": "llava_hf",
    "lmms-lab/llava-onevision-qwen2-7b-ov": "llava_onevision",
    "openbmb/MiniCPM-o-2_6": "minicpm_o",
}
"""Checkpoints that a class of lmms-eval 0.7.3 has as its default, as `pretrained` -> that class."""
# They ask an endpoint, so that there are no weights to be known.
_ENDPOINTS = ("async_openai", "claude", "gemini", "gpt4v", "litellm", "openai")
_ADDRESSES = ("OPENAI_API_BASE", "OPENAI_API_URL")
# Classes that do not call the model `pretrained`.
_ARGUMENTS = {
    **dict.fromkeys(_ENDPOINTS, "model_version"),
    **dict.fromkeys(("longvila", "sglang", "vllm", "vllm_generate"), "model"),
}


def model_class_of(model: str, given: str | None, found: LmmsEval) -> str:
    """The class that was asked for, by its first name, or the known one.

    Raises:
        LabError: neither is there, this lmms-eval has no such class, or the model's name cannot be an argument.
    """
    if "," in model:
        raise LabError(f"model {model!r} has a comma, which parts lmms-eval's arguments; expected a name without")
    name = given or MODEL_CLASSES.get(model)
    if name is None:
        raise LabError(
            f"which model class of lmms-eval loads {model!r} is not known here; give --option model_class=..., as "
            f"qwen2_vl (`{' '.join(found.command)} models` lists them); known for {', '.join(MODEL_CLASSES)}"
        )
    return choose(found.model_classes(), name, f"model class of lmms-eval {found.version}")


def endpoint_of(model_class: str) -> str:
    """Where a class that asks an endpoint will ask, in words; empty for one that loads weights."""
    if model_class not in _ENDPOINTS:
        return ""
    places = [f"{name}={os.environ[name]}" for name in _ADDRESSES if os.environ.get(name)]
    return ", ".join(places) or "as in model_args, or the class's default"


def model_arguments(model: str, model_class: str, more: str) -> str:
    """lmms-eval's `--model_args`."""
    named = str(Path(model).resolve()) if Path(model).is_dir() else model
    return f"{_ARGUMENTS.get(model_class, 'pretrained')}={named}{',' if more else ''}{more}"


def more_arguments(options: Mapping[str, str]) -> str:
    """The option `model_args`, as it is.

    Raises:
        LabError: it is of another form, or holds a key.
    """
    given = options.get("model_args", "")
    parts = [one.partition("=") for one in given.split(",")] if given else []
    if "api_key" in [name for name, _, _ in parts]:  # all options are recorded, in a file that git has
        raise LabError("option model_args holds an api_key; set the environment variable OPENAI_API_KEY instead")
    if not all(name and equals for name, equals, _ in parts):
        raise LabError(f"option model_args is {given!r}; expected NAME=VALUE,NAME=VALUE")
    return given
