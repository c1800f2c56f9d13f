"""What a model is made of: audio encoders, audio projectors, language models, and the model that joins them."""
