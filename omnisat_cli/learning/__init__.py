"""Making training data, pretraining, fine-tuning, probing, evaluating."""
