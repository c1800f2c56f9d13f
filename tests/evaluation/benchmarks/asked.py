"""Samples as benchmarks ask them: media first, then the words."""

from lab.data.sample import Part, Sample, Text


def asked(text: str, *media: Part, id: str = "1") -> Sample:
    """One question."""
    return Sample(id=id, content=(*media, Text(text)))
