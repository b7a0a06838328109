"""Which students are measured and for how long, and the surrogate that learns from them; tvt_ray.cluster does the training."""
