"""Studies: an ablation's cells, their identity, the sweep that runs what is missing, and what was tracked."""
