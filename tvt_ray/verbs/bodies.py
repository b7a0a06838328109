"""Which ViT stands on the stages: the score's first choice beside others of the space, each trained shortly.

What is shown is also what the search is worth: the chosen one beside the middle of the space, the smallest and the
largest, over the same images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tvt_ray.progress import say
from tvt_ray.scoring.rows import Row, verified
from tvt_ray.storage.locations import write_atomically
from tvt_ray.strict import parse_json
from tvt_ray.verbs.report import BODIES_FILE
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.short import (
    NUM_STEPS,
    SURE,
    accuracy_of,
    behind,
    likelihoods,
    pick,
    quadratic,
    short_task,
    train_shortly,
)
from tvt_ray.verbs.trainings import guided_or_not

NUM_BODIES = 6  # that are trained shortly beside the first: twelve took 100 s of eight minutes and gained nothing sure


@dataclass(frozen=True)
class Body:
    """An architecture, and what a short training of it reaches on validation."""

    arch_id: str
    role: str  # first by its score, smallest, middle, largest; empty: one between
    params: int
    val_acc: float  # percent
    log_likelihood: float
    behind: float  # what it is behind the chosen one, in standard errors of the difference; 0: it is the chosen one


def choose_body(session: Session) -> tuple[Body, ...]:
    """Some of the rows, the chosen one first: the score's first choice, unless another is surely better.

    Empty: there is no other.

    Kept in the run folder, and found there where it was done before.
    """
    file = session.folder.path / BODIES_FILE
    if file.is_file():
        return tuple(Body(**each) for each in parse_json(file.read_text()))
    config, space = session.config, session.config.space
    settings = guided_or_not(config.distill, session.verdict, session.teacher.name)
    rows = candidates(session)
    if len(rows) < 2:
        return ()
    archs = {row.arch_id: space.from_json(verified(row, space).arch) for row, _ in rows}
    tasks = [short_task(session, settings, arch, arch_id, NUM_STEPS) for arch_id, arch in archs.items()]
    logits, labels = train_shortly(session, tasks)
    found = {name: quadratic(each, labels) for name, each in logits.items()}
    best = pick(found)
    bodies = [
        Body(
            row.arch_id,
            role,
            row.params,
            accuracy_of(logits[row.arch_id], labels),
            float(likelihoods(logits[row.arch_id], labels).mean()),
            behind(found[best], found[row.arch_id]),
        )
        for row, role in rows
    ]
    bodies.sort(key=lambda body: (body.arch_id != best, -float(found[body.arch_id].mean())))
    write_atomically(file, json.dumps([asdict(body) for body in bodies], indent=1).encode())
    say(sentence(bodies))
    return tuple(bodies)


def candidates(session: Session) -> list[tuple[Row, str]]:
    """Rows of different shapes with their roles, the score's first choice first, then others spread by parameters."""
    ranking = session.folder.ranking(session.config.score, session.rows)
    shapes = [each.row for each in ranking.top(len(ranking.scored))]
    first, by_params = shapes[0], sorted(shapes, key=lambda row: (row.params, row.arch_id))
    spread = np.unique(np.linspace(0, len(by_params) - 1, min(NUM_BODIES, len(by_params))).round().astype(int))
    roles = {len(by_params) - 1: "largest", 0: "smallest", int(spread[len(spread) // 2]): "middle"}
    found = [(first, "first by its score")]
    found += [(by_params[i], roles.get(int(i), "")) for i in spread if by_params[i].arch_id != first.arch_id]
    return found


def sentence(bodies: Sequence[Body]) -> str:
    """The chosen one, and what it is ahead of."""
    chosen, *others = bodies
    by_role = {body.role: body for body in others if body.role}
    beside = [f"{role} {body.val_acc:.1f} % ({body.behind:+.1f} standard errors)" for role, body in by_role.items()]
    gains = [role for role, body in by_role.items() if body.behind >= SURE]
    worth = f"ahead of {', '.join(gains)}" if gains else "surely ahead of none of these: the choice gains nothing sure"
    return f"bodies: {chosen.arch_id} reaches {chosen.val_acc:.1f} % shortly trained; {'; '.join(beside)}; {worth}"
