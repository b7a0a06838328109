"""Readings of an untrained student. Adding one is a file here and a row in `PROXIES`.

Parameters, FLOPs and depth are read off the architecture by arithmetic (tvt_ray/space) and stand in every row.
"""

from tvt_ray.proxies.attention_entropy import attention_entropy
from tvt_ray.proxies.base import Components, Probe, Proxy, build_probe
from tvt_ray.proxies.diswot import diswot
from tvt_ray.proxies.dss import dss
from tvt_ray.proxies.fisher import fisher
from tvt_ray.proxies.grad_norm import grad_norm
from tvt_ray.proxies.grasp import grasp
from tvt_ray.proxies.jacob_cov import jacob_cov
from tvt_ray.proxies.linear_regions import linear_regions
from tvt_ray.proxies.log_norm import log_norm
from tvt_ray.proxies.ntk import ntk
from tvt_ray.proxies.nwot import nwot
from tvt_ray.proxies.rank_sum import rank_sum
from tvt_ray.proxies.snip import snip
from tvt_ray.proxies.synflow import synflow
from tvt_ray.proxies.tvt import student_capability, teacher_aware
from tvt_ray.proxies.zen import zen
from tvt_ray.proxies.zico import zico

# name -> function; each gives the component of that name
PROXIES: dict[str, Proxy] = {
    "t": teacher_aware,
    "s": student_capability,
    "r": rank_sum,
    "log_norm": log_norm,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "fisher": fisher,
    "grad_norm": grad_norm,
    "jacob_cov": jacob_cov,
    "nwot": nwot,
    "ntk": ntk,
    "linear_regions": linear_regions,
    "zen": zen,
    "zico": zico,
    "dss": dss,
    "diswot": diswot,
    "attention_entropy": attention_entropy,
}

__all__ = ["PROXIES", "Components", "Probe", "Proxy", "build_probe"]
