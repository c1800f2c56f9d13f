"""The paper's numbers as data (`cells.csv`, `tables.toml`), and beside them what was measured here, with a verdict."""
