"""Our cell of a study against the same cell wired from stock parts."""
