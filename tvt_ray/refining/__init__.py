"""Which students are measured and for how long, and the surrogate that learns from them; cluster/ trains them."""
