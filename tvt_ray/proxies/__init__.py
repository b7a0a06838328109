"""Readings of an untrained student. Adding one is a file here and a row in `PROXIES`.

Parameters, FLOPs and depth are read off the architecture by arithmetic (tvt_ray/vits) and stand in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tvt_ray.proxies.attention_entropy import attention_entropy
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
from tvt_ray.proxies.probe import Probe
from tvt_ray.proxies.rank_sum import rank_sum
from tvt_ray.proxies.snip import snip
from tvt_ray.proxies.synflow import synflow
from tvt_ray.proxies.tvt import attention_similarity, l2_norm
from tvt_ray.proxies.zen import zen
from tvt_ray.proxies.zico import zico
from tvt_ray.vits.student import Student

Readings: TypeAlias = Mapping[str, float]  # by name

# What a proxy reads beside the student's weights, each including what is before it.
Needs: TypeAlias = Literal["weights", "images", "teacher"]


@dataclass(frozen=True)
class Proxy:
    """A row of PROXIES: gives the reading of its name, and what it needs decides what a run prepares."""

    read: Callable[[Student, Probe], float]
    needs: Needs = "images"


# The reading's name -> what gives it. Whoever needs weights alone still looks at the size of the probe's images.
PROXIES: dict[str, Proxy] = {
    "attention_similarity": Proxy(attention_similarity, "teacher"),
    "l2_norm": Proxy(l2_norm, "weights"),
    "rank_sum": Proxy(rank_sum, "weights"),
    "log_norm": Proxy(log_norm, "weights"),
    "snip": Proxy(snip),
    "grasp": Proxy(grasp),
    "synflow": Proxy(synflow, "weights"),
    "fisher": Proxy(fisher),
    "grad_norm": Proxy(grad_norm),
    "jacob_cov": Proxy(jacob_cov),
    "nwot": Proxy(nwot),
    "ntk": Proxy(ntk),
    "linear_regions": Proxy(linear_regions),
    "zen": Proxy(zen, "weights"),
    "zico": Proxy(zico),
    "dss": Proxy(dss, "weights"),
    "diswot": Proxy(diswot, "teacher"),
    "attention_entropy": Proxy(attention_entropy),
}


def need_teacher(names: Iterable[str]) -> bool:
    """Whether any of these readings compares with a teacher."""
    return any(PROXIES[name].needs == "teacher" for name in names)


__all__ = ["PROXIES", "Needs", "Probe", "Proxy", "Readings", "need_teacher"]
