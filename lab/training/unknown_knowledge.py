"""Unknown knowledge: questions whose answer the model never gives are left out of its fine-tuning.

Section 3 of the paper. Differs from the paper: how it tells what the model does not know is not found. This is SliCK's
rule (Gekhman et al. 2024, "Does Fine-Tuning LLMs on New Knowledge Encourage Hallucinations?", EMNLP 2024, arXiv
2405.05904): the model answers each question greedily and with answers drawn at a temperature, under several prompts;
what none of them gets right is unknown. There the prompts are ten draws of four worked examples, 16 answers are drawn
for each at temperature 0.5. Right is an exact match, there and here, of what the normaliser leaves.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from lab.data.filters.filtering import Filtered, first_reason
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import Sample
from lab.errors import LabError, choose
from lab.parts.decoding import draw
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example, OmniModel

UNKNOWN = "the model never answers it"
QUESTION = "{question}"
DEFAULT_PROMPTS = ("Question: {question}\nAnswer:",)


def measure_knowledge(
    language_model: LanguageModel,
    samples: Sequence[Sample],
    *,
    prompts: Sequence[str] = DEFAULT_PROMPTS,
    num_samples: int = 16,
    temperature: float = 0.5,
    max_new_tokens: int = 32,
    normalizer: str = "lowercase_alphanumeric",
    batch_size: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Ask every question under every prompt, once greedily and `num_samples` times drawn; one line a question.

    Columns: `id`, `category`, `greedy_right` and `sampled_right` (shares, 0 to 1), `answer`, `given` (the first greedy
    answer). Categories are SliCK's: `highly_known` (greedy answers always right), `maybe_known` (sometimes),
    `weakly_known` (only drawn ones), `unknown` (none). `prompts` hold `{question}`; with one prompt nothing is
    `maybe_known`. Questions of like length share a batch of `batch_size` questions, which moves no answer but for
    rounding.

    Raises:
        LabError: an empty question, an answer that the normaliser leaves nothing of, or a prompt that is too long (the
            sample is named), no prompt or one without `{question}`, an unknown normaliser, or a number
            out of range.
    """
    normalize = choose(NORMALIZERS, normalizer, "normaliser")
    if num_samples < 1 or batch_size < 1:
        raise LabError(f"num_samples and batch_size are {num_samples} and {batch_size}, expected at least 1 each")
    if not prompts or any(QUESTION not in prompt for prompt in prompts):
        raise LabError(f"prompts are {list(prompts)}, expected at least one, each with {QUESTION} in it")
    for one in samples:
        if not one.asked.strip() or not normalize(one.answer):
            raise LabError(
                f"sample {one.id!r} asks {one.asked!r} with the answer {one.answer!r}; expected a question, and an "
                f"answer of which {normalizer!r} leaves something: drop such samples first"
            )
    codec, model = language_model.codec, OmniModel(language_model=language_model).eval()
    asked = [
        (i, number, codec.encode(prompt.replace(QUESTION, one.asked)))
        for i, one in enumerate(samples)
        for number, prompt in enumerate(prompts)
    ]
    asked.sort(key=lambda entry: len(entry[2]))
    greedy, drawn = [0] * len(samples), [0] * len(samples)
    given = [""] * len(samples)
    for at in range(0, len(asked), batch_size):
        batch = asked[at : at + batch_size]
        found = draw(
            model,
            # What is answered goes on where the prompt ends.
            [Example(content=[[]], answer=tokens) for _, _, tokens in batch],
            [samples[i].id if number == 0 else f"{samples[i].id} (prompt {number})" for i, number, _ in batch],
            num_samples=num_samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
        for (i, number, _), tokens_of_answers in zip(batch, found, strict=True):
            texts = [codec.decode(tokens) for tokens in tokens_of_answers]
            hits = [normalize(text) == normalize(samples[i].answer) for text in texts]
            greedy[i] += hits[0]
            drawn[i] += sum(hits[1:])
            if number == 0:
                given[i] = texts[0]
        if progress:
            progress(min(at + batch_size, len(asked)), len(asked))
    return pd.DataFrame(
        {
            "id": [one.id for one in samples],
            "category": [_category(*counts, len(prompts)) for counts in zip(greedy, drawn, strict=True)],
            "greedy_right": [count / len(prompts) for count in greedy],
            "sampled_right": [count / (len(prompts) * num_samples) for count in drawn],
            "answer": [one.answer for one in samples],
            "given": given,
        }
    )


def _category(greedy: int, drawn: int, num_prompts: int) -> str:
    if greedy:
        return "highly_known" if greedy == num_prompts else "maybe_known"
    return "weakly_known" if drawn else "unknown"


def unknown_knowledge(knowledge: pd.DataFrame, *, least_right: float = 0.0) -> Filtered:
    """Leave out what is unknown; with `least_right` also what fewer than that share of the drawn answers got right.

    `knowledge` is a table of `measure_knowledge`. A question whose greedy answers are right stays.

    Raises:
        LabError: `least_right` outside 0 to 1.
    """
    if not 0 <= least_right <= 1:
        raise LabError(f"least_right is {least_right}, expected a share from 0 to 1")
    seldom = (knowledge["greedy_right"] == 0) & (knowledge["sampled_right"] < least_right)
    unsure = f"fewer than {least_right:g} of the drawn answers are right"
    reasons = first_reason({UNKNOWN: (knowledge["category"] == "unknown").to_numpy(), unsure: seldom.to_numpy()})
    return Filtered(list(knowledge["id"]), reasons, name="unknown_knowledge", parameters={"least_right": least_right})
