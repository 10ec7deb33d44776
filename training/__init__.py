"""Trains the small models in models/: corpus, tokenizer, model, training loop, export, evaluation."""
