"""The networks: pure `torch.nn`. Imports torch and the standard library only."""
