"""A model behind any OpenAI-compatible endpoint (OpenAI, vLLM, llama.cpp, Ollama), asked patiently and in parallel.

`openai:MODEL@URL`; without a URL, OpenAI's own. Too many requests, server errors, time-outs and lost connections are
waited for and tried again, a bounded number of times, as long as the server's Retry-After says. The key is read from
the environment alone and goes to no other host: `OPENAI_API_KEY` for api.openai.com, `OMNI_LAB_API_KEY` for the rest.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError
from lab.evaluation.benchmarks.conversations import Conversation, Refused
from lab.evaluation.benchmarks.in_parallel import in_parallel
from lab.evaluation.benchmarks.media_parts import message_of

PREFIX = "openai:"
OPENAI_URL = "https://api.openai.com/v1"
NUM_PARALLEL = 4
MAX_RETRIES = 6
TIMEOUT_SECONDS = 120.0
# A reply without text in it, or that is no JSON, comes from a proxy in trouble: it is asked for again as often.
NUM_MALFORMED = 3
# The request is wrong, for this sample alone: too long, or against the provider's rules.
_REFUSING = (400, 413, 422)


@dataclass(frozen=True)
class EndpointName:
    """The model's name there, and the base of the address, up to and with `/v1`."""

    model: str
    url: str


def parse_endpoint(name: str) -> EndpointName:
    """Read `openai:MODEL[@URL]`.

    Raises:
        LabError: it is of another form, or the client's package is missing.
    """
    named, at, url = name.removeprefix(PREFIX).rpartition("@")
    if not at:
        named, url = url, OPENAI_URL
    if not name.startswith(PREFIX) or not named or not url.startswith(("http://", "https://")) or "?" in url:
        raise LabError(
            f"endpoint {name!r} is not of the form openai:MODEL@URL, such as openai:gpt-3.5-turbo@{OPENAI_URL} or "
            "openai:Qwen/Qwen2-VL-7B-Instruct@http://localhost:8000/v1"
        )
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise LabError("an endpoint is asked through the package openai: pip install 'omni-lab[evaluate]'") from error
    return EndpointName(named, url.rstrip("/"))


class Endpoint:
    """A `TextModel` behind an address; a few requests at a time.

    Args:
        name: which model where.
        max_new_tokens: at which a reply is cut.
        num_parallel: requests at one time.
        max_retries: of one request, after the first try.
        timeout_seconds: for one try.
    """

    def __init__(
        self,
        name: EndpointName,
        *,
        max_new_tokens: int,
        num_parallel: int = NUM_PARALLEL,
        max_retries: int = MAX_RETRIES,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        import openai

        self.key = f"{PREFIX}{name.model}@{name.url}, temperature 0, seed 0, {max_new_tokens} new tokens"
        self.num_requests = 0
        """Sent by this object, but for those that the client has tried again by itself."""
        self._name, self._max_new_tokens, self._num_parallel = name, max_new_tokens, num_parallel
        official = name.url == OPENAI_URL
        variable = "OPENAI_API_KEY" if official else "OMNI_LAB_API_KEY"
        secret = os.environ.get(variable)
        if official and not secret:
            raise LabError(f"{name.url} asks for a key; set the environment variable {variable}")
        # The client reads these of OpenAI's own from the environment, and would send them to any host.
        own: Any = {} if official else {"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit}
        self._client: Any = openai.OpenAI(
            api_key=secret or "none",
            base_url=name.url,
            max_retries=max_retries,
            timeout=timeout_seconds,
            default_headers=own,
        )

    def reply(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, str | Refused]]:
        """Ask for each, `num_parallel` at a time.

        Raises:
            LabError: the endpoint stays away or keeps failing, does not know the model or the key, or replies what is
                no chat completion; what was under way is still given.
        """
        return in_parallel(lambda index: self._ask(conversations[index]), len(conversations), self._num_parallel)

    def _ask(self, conversation: Conversation) -> str | Refused:
        import openai

        where = f"endpoint {self._name.model!r} at {self._name.url}"
        messages = [message_of(turn) for turn in conversation]
        for _ in range(NUM_MALFORMED):
            self.num_requests += 1
            try:
                said = self._client.chat.completions.create(
                    model=self._name.model,
                    messages=messages,
                    max_tokens=self._max_new_tokens,
                    temperature=0,
                    seed=0,
                )
                message = said.choices[0].message
                return str(message.content or "")
            except openai.APIStatusError as error:
                if error.status_code in _REFUSING:
                    return Refused(f"{error.status_code}: {_first_line(error)}")
                raise LabError(f"{where} answers {error.status_code}: {_first_line(error)}") from error
            except openai.APIConnectionError as error:  # time-outs too
                raise LabError(f"{where} cannot be reached ({_first_line(error)}); is it running?") from error
            except (openai.APIResponseValidationError, ValueError, AttributeError, IndexError, TypeError):
                continue
        raise LabError(f"{where} replied {NUM_MALFORMED} times what is no chat completion; is this its /v1 address?")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
