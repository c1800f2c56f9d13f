"""From a trained cell to a verdict: decoding, normalised error rates, intervals, and what they say of a claim."""
