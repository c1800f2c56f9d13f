"""Speech: recordings, voices made by programs, corpora of both, and their features."""
