"""From a source to a batch: packages, audio files, pictures, corpora, splits, filters, recipes, packs (section 3)."""
