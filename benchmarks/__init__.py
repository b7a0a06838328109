"""Speed, survival, and what the choices of a run are worth: `python -m benchmarks NAME`, a file each."""
