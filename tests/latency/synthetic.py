"""Profiles whose times are made up, so that what they predict is known."""

from tvt_ray.latency.measure import NUM_CLASSES, make_batch, parts_of, whole_archs
from tvt_ray.latency.profile import Device, DeviceProfile, this_device

TIMES = {"block": 1.0, "relative_block": 2.0, "pool": 0.5, "patches": 0.25, "conv_stem": 0.75, "head": 0.125}
OTHER = Device(kind="cpu", name="another processor", cores=3)


def true_ms(space, arch, batch_size=1):
    """Of an architecture: every part of a kind takes equally long, and a student a tenth of a millisecond more."""
    return 0.1 + batch_size * sum(TIMES[part.kind] for part in space.parts(arch, NUM_CLASSES))


def synthetic_batch(space, batch_size=1):
    parts, archs = parts_of(space), whole_archs(space, 12)
    times = {part: batch_size * TIMES[part.kind] for part in parts}
    return make_batch(space, batch_size, times, archs, [true_ms(space, arch, batch_size) for arch in archs])


def synthetic_profile(space, batch_sizes=(1, 4), device=None):
    batches = tuple(synthetic_batch(space, size) for size in batch_sizes)
    return DeviceProfile(device=device or this_device("cpu"), threads=1, torch="2.6.0", space=space, batches=batches)
