"""How parts learn: stages of training, the one loop, checkpoints, and the pretraining of the character model."""
