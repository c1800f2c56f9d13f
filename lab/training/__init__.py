"""How parts learn: stages of training, the one loop, checkpoints, and the losses that a model has."""
