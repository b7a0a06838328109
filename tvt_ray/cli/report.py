"""tvt report."""

from __future__ import annotations

import argparse

from tvt_ray.cli.options import OUTPUT, add_options, path, plugins_of, positive
from tvt_ray.cli.output import print_archs, print_json
from tvt_ray.errors import UsageError
from tvt_ray.plugins import load_plugins


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Puts a run's rows in order, by another score if asked, and writes report.html anew."
    parser.add_argument("run_dir", metavar="RUN", help="its folder or URI")
    add_options(parser, "score", "set", *OUTPUT)
    parser.add_argument("--top-k", type=positive, default=10, metavar="K", help="how many to list (default: 10)")
    parser.add_argument(
        "--out", type=path, metavar="FILE", help=".html: the report goes there, and the run stays as it is"
    )
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Writes report and top list, and prints. Another score becomes the run's, unless the report goes elsewhere."""
    from tvt_ray.runs.folder import Choice, RunFolder
    from tvt_ray.verbs.report import reported

    load_plugins(plugins_of(args))
    if args.top_k < 1:
        raise UsageError(f"--top-k is at least 1; got {args.top_k}")
    ranking, page = reported(args.run_dir, args.score, args.out)
    space = RunFolder(args.run_dir).config().space
    best = [Choice.of(each, space) for each in ranking.top(args.top_k)]
    if args.json:
        counts = {"num_rows": len(ranking.scored), "num_shapes": ranking.num_shapes}
        found = {"best": [each.to_json() for each in best], "report": None if page is None else str(page)}
        print_json(args, {"run_dir": str(args.run_dir), "score": ranking.by, **counts, **found})
        return 0
    title = f"best of {len(ranking.scored):,} architectures by {ranking.by}, of {ranking.num_shapes:,} shapes"
    print_archs(title, space, best)
    if page is not None:
        print(f"report  {page}")
    return 0
