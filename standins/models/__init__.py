"""Small models that the project pretrains itself or unpacks from packages."""
