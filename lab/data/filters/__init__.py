"""Filters: which samples stay, by loss, likeness, quality or topic, and what each left out (paper, section 3)."""
