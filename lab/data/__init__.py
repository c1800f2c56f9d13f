"""From a source to a batch: packages, audio files, corpora, splits, text, features (the audio data of section 3)."""
