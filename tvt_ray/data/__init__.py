"""Datasets, their splits, and the tensors that networks see."""
