"""What a reader sees: the claim judged, the tables, and the one style of the figures."""
