"""Windows of imagery and labels as batches of tensors."""
