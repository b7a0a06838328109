"""Which students are measured, and for how long: decided here, without Ray; tvt_ray.cluster does what it says."""
