"""How fast the losses are beside PyTorch's: `python -m benchmarks.run`. README.md says how to read it."""
