"""Readings of an untrained student. Adding one is a file here and a row in `PROXIES`."""

from tvt_ray.proxies.base import Components, Probe, Proxy, build_probe
from tvt_ray.proxies.tvt import student_capability, teacher_aware

# name -> function; each gives the component of that name
PROXIES: dict[str, Proxy] = {"t": teacher_aware, "s": student_capability}

__all__ = ["PROXIES", "Components", "Probe", "Proxy", "build_probe"]
