"""tvt rank."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tvt_ray.cli.options import COMMON, add_options, config_of, count, path, positive
from tvt_ray.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tvt_ray.judging.study import RankResult
    from tvt_ray.judging.tables import RankedColumn


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its flags."""
    parser.description = "Says how well scores rank architectures whose trained accuracy is known."
    add_options(parser, "config", *(name for name in COMMON if name != "labels"))
    parser.add_argument(
        "--ground-truth", type=path, nargs="+", required=True, metavar="FILE", help="JSON lines: space, arch, *_acc"
    )
    parser.add_argument("--proxies", metavar="A,B,C", help="of <scores> (default: the default score, tvt, params)")
    parser.add_argument("--columns", metavar="A,B,C", help="accuracy columns (default: all)")
    for end in ("min", "max"):
        parser.add_argument(
            f"--{end}-params", dest=f"band_{end}", type=count, metavar="N", help="rank inside a band, as in 4M"
        )
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="repeat with other weights and images")
    parser.add_argument(
        "--labels",
        dest="num_labels",
        type=int,
        default=0,
        metavar="K",
        help="also the surrogate, trained on K rows and judged on the rest",
    )
    parser.add_argument("--draws", type=positive, default=20, metavar="N", help="of the rows that --labels takes")
    parser.add_argument("--out", type=path, metavar="DIR", help="also write Parquet tables and scatter plots")
    add_options(parser, "num-images", "seed", "ray-address")
    parser.set_defaults(command=execute)


def execute(args: argparse.Namespace) -> int:
    """Scores what is not in the cache, and prints."""
    from tvt_ray.judging import study
    from tvt_ray.judging.plots import write_tables
    from tvt_ray.judging.tables import LabelRequest
    from tvt_ray.storage.locations import check_writable

    config = config_of(args)
    if args.out:
        check_writable(args.out / "ranking.parquet")
    proxies = args.proxies.split(",") if args.proxies else dict.fromkeys([config.score.zero_cost, "tvt", "params"])
    columns = tuple(args.columns.split(",")) if args.columns else None
    labels = LabelRequest(args.num_labels, args.draws, config.seed)
    request = study.RankRequest(
        tuple(args.ground_truth), tuple(proxies), columns, args.band_min, args.band_max, args.seeds, labels
    )
    scored = study.score_ground_truth(config, request, args.ray_address)
    result = study.rank(config, request, scored)
    if args.out:
        write_tables(args.out, result.columns, scored)
    print_json(args, result) if args.json else _print(result, args.out)
    return 0


def _print(result: RankResult, out: Path | None) -> None:
    from tvt_ray.judging.study import LabelledRankResult
    from tvt_ray.judging.tables import mean_kendall

    labelled = result if isinstance(result, LabelledRankResult) else None
    held_out = [replace(each, proxy=f"{each.proxy}, as judged") for each in (labelled.held_out if labelled else ())]
    tables: dict[tuple[str, str], list[RankedColumn]] = {}
    for entry in (*result.columns, *held_out):
        tables.setdefault((entry.space, entry.column), []).append(entry)
    for (space, column), entries in tables.items():
        most = max(entries, key=lambda entry: entry.num_equal_pairs)
        pairs = f"{most.num_equal_pairs:,} pairs of {most.num_equal_shapes:,} shapes with equal parameters"
        _print_column(f"{space}, {column}: {entries[0].n} architectures, {pairs}", entries)
    means = {**mean_kendall(result.columns), **mean_kendall(held_out)}
    _print_means(result, means, len(tables))
    print("= params, = FLOPs: Kendall's tau within pairs that differ by 10 % at most, without ties (--json: intervals)")
    print("regret: accuracy lost by training the first choice (of 5: the best of the first five), in percentage points")
    print("gain: accuracy of the first choice over the median architecture, in percentage points")
    if labelled:
        print(
            f"measured: the surrogate, trained on {labelled.num_labels} rows and judged on the others, as is the score "
            f"beside it; means of {labelled.num_draws} draws, of which 95 % are in the interval"
        )
    if out:
        print(f"tables and plots  {out}")


def _print_column(title: str, entries: Sequence[RankedColumn]) -> None:
    header = ["proxy", "Kendall", "95 %", "= params", "= FLOPs", "regret", "of 5", "gain"]
    rows = [
        [
            entry.proxy,
            _signed(entry.kendall),
            _ends(entry.kendall_ci95),
            _signed(entry.kendall_equal_params),
            _signed(entry.kendall_equal_flops),
            *[f"{value:.2f}" for value in (entry.top1_regret, entry.top5_regret, entry.top1_gain)],
        ]
        for entry in sorted(entries, key=lambda entry: -(entry.kendall or 0))
    ]
    print_table(title, header, rows)


def _print_means(result: RankResult, means: Mapping[str, float], num_tables: int) -> None:
    noise: dict[str, list[float]] = {}
    for share in result.noise:
        noise.setdefault(share.proxy, []).append(share.noise_share)
    shares = {name: f"{100 * max(values):.0f} %" for name, values in noise.items()}
    columns = ["proxy", "mean Kendall", *(["noise"] if shares else [])]
    by_mean = sorted(means.items(), key=lambda pair: -pair[1])
    lines = [[name, _signed(mean), *([shares.get(name, "-")] if shares else [])] for name, mean in by_mean]
    if num_tables > 1 or shares:
        print_table(f"mean of {num_tables} columns" if num_tables > 1 else "noise", columns, lines)


def _ends(interval: tuple[float, float] | None) -> str:
    return " ".join(f"{end:.2f}" for end in interval or ()) or "-"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
