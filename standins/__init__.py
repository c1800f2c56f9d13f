"""What stands in for hub data and weights on machines without a hub; `lab` reaches it by name alone."""
