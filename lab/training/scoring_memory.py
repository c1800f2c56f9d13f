"""What scoring answers takes besides the scorer's weights, in bytes: a pass forward, of which nothing is saved.

Section 3 of the paper (the pretrained model's loss on every sample), as `lab.training.scoring` computes it. In the
formulas, d is `hidden_size`, f `intermediate_size`, v the vocabulary, c the bytes of a number in matrix products and r
those of one in the residual stream; autocast casts a matrix anew for each product (in inference mode it keeps none).
The peak is the largest of three moments, each with the packed embeddings, r d a position:

- in a layer, at SwiGLU's product: stream, result of attention and norm, 3 r d; the angles of positions; three factors,
  3 c f; a cast matrix;
- at the head: the stream, r d; the cast matrix, c v d; and the logits, c v for each scored position;
- at the loss: the logits, in float32 too where they are not, and their logarithms of probabilities, 4 v each.
"""

from typing import Any

from torch import nn

from lab.errors import choose
from lab.training.saved_bytes import Precision


def scoring_bytes(language_model: nn.Module, precision: Precision, *, tokens: int, answer_tokens: int) -> int:
    """The peak of a pack of `tokens`, of which `answer_tokens` are scored, without weights.

    Not counted: what attention keeps, which is less than one of the three moments in all but Qwen3 with narrow layers
    and few scored tokens (it normalises queries and keys in float32).

    Raises:
        LabError: the language model's form has no formula.
    """
    config: Any = language_model.config
    choose(dict.fromkeys(("qwen2", "qwen3", "llama")), config.model_type, "form of language model for the formulas:")
    d, f, v = config.hidden_size, config.intermediate_size, config.vocab_size
    c, r = precision.compute, precision.residual
    head_dim = getattr(config, "head_dim", None) or d // config.num_attention_heads
    layer = tokens * (3 * r * d + 2 * r * head_dim + 3 * c * f) + (c * d * f if precision.autocast else 0)
    head = tokens * r * d + c * v * answer_tokens + (c * v * d if precision.autocast else 0)
    loss = (c + 4 + (4 if c < 4 else 0)) * v * answer_tokens
    return tokens * r * d + max(layer, head, loss)
