"""A model behind any OpenAI-compatible endpoint (OpenAI, vLLM, llama.cpp, Ollama), asked patiently and in parallel.

`openai:MODEL@URL`; without a URL, OpenAI's own. Too many requests, server errors, time-outs and lost connections are
waited for and tried again by OpenAI's client, a bounded number of times, as long as the server's Retry-After says. The
key is read from the environment alone and goes to no other host: `OPENAI_API_KEY` for api.openai.com,
`OMNI_LAB_API_KEY` for the rest. Videos go as section 4 of the paper has them: one frame a second, at most 48, each at
most 384 x 768 pixels.
"""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from itertools import groupby
from typing import Any

from lab.data.sample import Audio, Part, Sample, Text, Video
from lab.errors import LabError
from lab.evaluation.benchmarks.replies import Refused, opened

PREFIX = "openai:"
OPENAI_URL = "https://api.openai.com/v1"
DECODING = "temperature 0, seed 0"
FRAMES = "1 frame a second, at most 48, within 384 x 768"
NUM_PARALLEL = 4
MAX_RETRIES = 6
TIMEOUT_SECONDS = 120.0
# A reply without text in it, or that is no JSON, comes from a proxy in trouble: it is asked for again as often.
NUM_MALFORMED = 3
# The request is wrong, for this sample alone: too long, or against the provider's rules.
_REFUSING = (400, 413, 422)
_JPEG_QUALITY = 90
_PICTURES = ("PNG", "JPEG", "GIF", "WEBP")


def parse_endpoint(name: str) -> tuple[str, str]:
    """Read `openai:MODEL[@URL]`: the model's name there, and the base of the address, up to and with `/v1`.

    Raises:
        LabError: it is of another form, or the client's package is missing.
    """
    model, at, url = name.removeprefix(PREFIX).rpartition("@")
    if not at:
        model, url = url, OPENAI_URL
    if not name.startswith(PREFIX) or not model or not url.startswith(("http://", "https://")) or "?" in url:
        raise LabError(
            f"endpoint {name!r} is not of the form openai:MODEL@URL, such as openai:gpt-3.5-turbo@{OPENAI_URL} or "
            "openai:Qwen/Qwen2-VL-7B-Instruct@http://localhost:8000/v1"
        )
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise LabError("an endpoint is asked through the package openai: pip install 'omni-lab[evaluate]'") from error
    return model, url.rstrip("/")


class Endpoint:
    """A `TextModel` behind an address; a few requests at a time.

    Args:
        name: as `parse_endpoint` takes it.
        max_new_tokens: at which a reply is cut.
        num_parallel: requests at one time.
        max_retries: of one request, after the first try.
        timeout_seconds: for one try.

    Raises:
        LabError: as `parse_endpoint`, or OpenAI's own address without its key.
    """

    def __init__(
        self,
        name: str,
        *,
        max_new_tokens: int,
        num_parallel: int = NUM_PARALLEL,
        max_retries: int = MAX_RETRIES,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._model, url = parse_endpoint(name)
        import openai

        self.key = f"{PREFIX}{self._model}@{url}, {DECODING}, {max_new_tokens} new tokens"
        self._where = f"endpoint {self._model!r} at {url}"
        self._max_new_tokens, self._num_parallel = max_new_tokens, num_parallel
        official = url == OPENAI_URL
        variable = "OPENAI_API_KEY" if official else "OMNI_LAB_API_KEY"
        secret = os.environ.get(variable)
        if official and not secret:
            raise LabError(f"{url} asks for a key; set the environment variable {variable}")
        # The client reads these of OpenAI's own from the environment, and would send them to any host.
        own: Any = {} if official else {"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit}
        self._client: Any = openai.OpenAI(
            api_key=secret or "none",
            base_url=url,
            max_retries=max_retries,
            timeout=timeout_seconds,
            default_headers=own,
        )

    def reply(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Refused]]:
        """Ask for each, `num_parallel` at a time, and give each reply as it comes.

        Raises:
            LabError: the endpoint stays away or keeps failing, does not know the model or the key, or replies what is
                no chat completion. What was under way is still given; no further request is begun.
        """
        pool = ThreadPoolExecutor(self._num_parallel)
        futures: dict[Future[str | Refused], int] = {
            pool.submit(self._ask, sample): place for place, sample in enumerate(samples)
        }
        failed: LabError | None = None
        waiting = set(futures)
        try:
            for future in as_completed(futures):
                waiting.discard(future)
                if isinstance(error := future.exception(), LabError):
                    failed = error
                    break
                yield futures[future], future.result()
            # `as_completed` would wait for ever for what is cancelled here.
            pool.shutdown(wait=True, cancel_futures=True)
            for future in waiting:
                if not future.cancelled() and not isinstance(future.exception(), LabError):
                    yield futures[future], future.result()
        finally:  # also where who asked has stopped listening, or was interrupted
            pool.shutdown(wait=True, cancel_futures=True)
        if failed is not None:
            raise failed

    def _ask(self, sample: Sample) -> str | Refused:
        import openai

        messages = messages_of(sample)
        for _ in range(NUM_MALFORMED):
            try:
                said = self._client.chat.completions.create(
                    model=self._model, messages=messages, max_tokens=self._max_new_tokens, temperature=0, seed=0
                )
                return str(said.choices[0].message.content or "")
            except openai.APIStatusError as error:
                if error.status_code in _REFUSING:
                    return Refused(f"{error.status_code}: {_first_line(error)}")
                raise LabError(f"{self._where} answers {error.status_code}: {_first_line(error)}") from error
            except openai.APIConnectionError as error:  # time-outs too
                raise LabError(f"{self._where} cannot be reached ({_first_line(error)}); is it running?") from error
            except (openai.APIResponseValidationError, ValueError, AttributeError, IndexError, TypeError):
                continue
        raise LabError(
            f"{self._where} replied {NUM_MALFORMED} times what is no chat completion; is this its /v1 address?"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def messages_of(sample: Sample) -> list[dict[str, Any]]:
    """A sample as chat completions take it; a turn of one text is that text.

    Raises:
        LabError: a file that cannot be read, or is of no kind that endpoints take.
    """
    told: list[dict[str, Any]] = []
    for role, turn in groupby(sample.content, key=lambda part: part.role):
        parts = list(turn)
        content: Any = [one for part in parts for one in _parts(part)]
        if len(parts) == 1 and isinstance(parts[0], Text):
            content = parts[0].text
        told.append({"role": role, "content": content})
    return told


def _parts(part: Part) -> list[dict[str, Any]]:
    if isinstance(part, Text):
        return [{"type": "text", "text": part.text}]
    if isinstance(part, Video):
        return [_picture(frame, "jpeg") for frame in _frames(part)]
    if isinstance(part, Audio):
        return [{"type": "input_audio", "input_audio": {"data": _base64(_wave(part)), "format": "wav"}}]
    with opened(part) as file:
        content = file.read()
    return [_picture(content, _format_of(content))]


def _format_of(picture: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture), formats=_PICTURES) as opened:
            return {"MPO": "jpeg"}.get(str(opened.format), str(opened.format).lower())  # a JPEG of several pictures
    except OSError as error:
        raise LabError(f"a picture begins with {picture[:12]!r}; expected PNG, JPEG, GIF or WebP") from error


def _picture(content: bytes, kind: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{_base64(content)}"}}


def _frames(part: Video) -> Iterator[bytes]:
    from PIL import Image

    for frame in part.read().frames:
        kept = io.BytesIO()
        Image.fromarray(frame).save(kept, "JPEG", quality=_JPEG_QUALITY)
        yield kept.getvalue()


def _wave(part: Audio) -> bytes:
    """Any sound file as 16 kHz mono WAV, which is what all servers read."""
    import soundfile

    kept = io.BytesIO()
    soundfile.write(kept, part.read(), 16_000, format="WAV", subtype="PCM_16")
    return kept.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
