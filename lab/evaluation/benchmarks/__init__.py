"""Public benchmarks on real checkpoints: what a benchmark is, and each kind of them (section 4 of the paper)."""
