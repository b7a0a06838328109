"""The `tvt` command: flags become settings, results go to standard output, the rest to standard error."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say
from tvt_ray.storage import Location, as_location

Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """One line and exit code 2 for wrong usage, without the usage text before it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done; 2 wrong usage or config, one line; 1 the run failed, one line."""
    return run(build_parser(), argv)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parses and executes, turning the two kinds of error into their lines and codes."""
    args = parser.parse_args(argv)
    command: Command = args.command
    args.stdout = sys.stdout
    # Ray's own threads print warnings to standard output, where --json promises one object as the last line.
    quiet = contextlib.redirect_stdout(sys.stderr) if getattr(args, "json", False) else contextlib.nullcontext()
    try:
        with quiet:
            for name in ("run_dir", "student"):  # not while parsing: a bucket is asked for its region over the network
                if isinstance(getattr(args, name, None), str):
                    setattr(args, name, as_location(getattr(args, name)))
            try:
                return command(args)
            finally:
                _leave_cluster()
    except UsageError as error:
        return _fail(2, str(error))
    except RunError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return _fail(1, f"interrupted{_resume_hint(args)}")


def _leave_cluster() -> None:
    """While standard output is still redirected; Ray is not imported for commands that did not need it."""
    cluster = sys.modules.get("tvt_ray.cluster")
    if cluster is not None:
        cluster.disconnect()


def _resume_hint(args: argparse.Namespace) -> str:
    """The command that goes on, once there is a run to go on with."""
    run_dir: Location | str | None = getattr(args, "run_dir", None)
    if (
        run_dir is None
        or isinstance(run_dir, str)
        or not hasattr(args, "resume_command")
        or not (run_dir / "config.yaml").exists()
    ):
        return ""
    return f"; go on with: {args.resume_command(args)}"


def _fail(code: int, message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tvt", description="Training-free Vision Transformer search on tiny datasets.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    add_search(commands.add_parser("search", help="score untrained ViTs and keep the best", allow_abbrev=False))
    add_distill(
        commands.add_parser("distill", help="train a run's best architectures with the teacher", allow_abbrev=False)
    )
    teacher = commands.add_parser("teacher", help="train or evaluate a teacher", allow_abbrev=False)
    actions = teacher.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)
    add_teacher_train(actions.add_parser("train", help="train one on a dataset", allow_abbrev=False))
    add_teacher_eval(actions.add_parser("eval", help="print its accuracy", allow_abbrev=False))
    add_score(commands.add_parser("score", help="score one architecture", allow_abbrev=False))
    add_rank(commands.add_parser("rank", help="compare scores with trained accuracies", allow_abbrev=False))
    add_report(commands.add_parser("report", help="rank and plot a run's rows", allow_abbrev=False))
    add_predict(commands.add_parser("predict", help="classify images with a trained student", allow_abbrev=False))
    add_check_data(commands.add_parser("check-data", help="read a dataset and say what is in it", allow_abbrev=False))
    return parser


def script_parser(prog: str, add: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    """The parser of search.py and distill.py: one command, no subcommands."""
    parser = Parser(prog=prog, allow_abbrev=False)
    add(parser)
    return parser


def _share(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number such as 0.25, or auto; got {text!r}") from None


def add_common(parser: argparse.ArgumentParser, config: bool = True) -> None:
    if config:
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help="YAML settings (default: those of configs/digits.yaml)"
        )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="digits, cifar10, cifar100, flowers102, chaoyang, imagefolder:PATH, parquet:PATH",
    )
    parser.add_argument("--teacher", metavar="NAME", help="resnet20, 32, 44, 56, 110 or timm:NAME")
    parser.add_argument("--teacher-weights", metavar="FILE", help="its trained weights (safetensors or a state dict)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting, as in probe.num_images=64; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard output")


def overrides(args: argparse.Namespace) -> list[Mapping[str, Any]]:
    """Flags and --set as config layers, the latter last; a flag that was not given is no override."""
    from tvt_ray.config import parse_assignment

    named = {
        "data.name": "dataset",
        "teacher.name": "teacher",
        "teacher.weights": "teacher_weights",
        "search.num_samples": "num_samples",
        "search.searcher": "searcher",
        "search.gpus_per_trial": "gpus_per_trial",
        "search.archs_per_trial": "archs_per_trial",
        "probe.num_images": "num_images",
        "seed": "seed",
        "score.name": "score",
        "budget.max_params": "max_params",
        "budget.max_flops": "max_flops",
        "budget.min_params": "min_params",
        "budget.min_flops": "min_flops",
        "distill.epochs": "epochs",
        "distill.num_workers": "num_workers",
        "teacher_training.epochs": "teacher_epochs",
    }
    layers: list[Mapping[str, Any]] = []
    for key, flag in named.items():
        value = getattr(args, flag, None)
        if value is not None:
            for part in reversed(key.split(".")):
                value = {part: value}
            layers.append(value)
    return [*layers, *map(parse_assignment, args.set)]


def config_of(args: argparse.Namespace) -> Any:
    from tvt_ray.config import load_config

    return load_config(args.config, overrides(args))


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column left and whole, the others right."""
    table = Table()
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    print(title)
    Console().print(table)


def _print_json(args: argparse.Namespace, result: Any) -> None:
    sys.stderr.flush()
    print(json.dumps(result), file=args.stdout, flush=True)


# search ---------------------------------------------------------------------------------------------------------------


def add_search(parser: argparse.ArgumentParser) -> None:
    parser.description = "Scores untrained ViTs against a trained teacher, without training them, and keeps the best."
    add_common(parser)
    parser.add_argument("--num-samples", type=int, metavar="N", help="different architectures to score")
    parser.add_argument("--searcher", help="random, exhaustive, evolution, tpe, nsga2")
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where rows, report and students go: a folder, or s3://…, gs://… (default: runs/…)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--score", metavar="NAME", help="tvt_ray (default), tvt, or a single proxy")
    for name, unit in (("params", "6M"), ("flops", "1.5G")):
        for end in ("min", "max"):
            parser.add_argument(f"--{end}-{name}", metavar="N", help=f"budget, as in {unit}")
    parser.add_argument(
        "--gpus-per-trial",
        type=_share,
        metavar="SHARE",
        help="fraction of a GPU for each scoring actor; auto: as its memory allows",
    )
    parser.add_argument(
        "--archs-per-trial", type=int, metavar="N", help="architectures per Tune trial (default: about four seconds')"
    )
    parser.add_argument("--distill-top-k", type=int, metavar="K", help="train the K best afterwards")
    parser.add_argument("--epochs", type=int, metavar="N", help="of that training")
    parser.add_argument("--num-workers", type=int, metavar="N", help="of that training, per student")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running cluster (default: RAY_ADDRESS, or Ray on this machine)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run and how long it would take")
    parser.set_defaults(command=search_command, resume_command=_search_resume_command)


def _search_resume_command(args: argparse.Namespace) -> str:
    from tvt_ray.runs import RunFolder

    return RunFolder(args.run_dir).search_command


def search_command(args: argparse.Namespace) -> int:
    from tvt_ray import pipeline
    from tvt_ray.runs import RunFolder

    if args.distill_top_k is not None and args.distill_top_k < 1:
        raise UsageError(f"--distill-top-k is at least 1; got {args.distill_top_k}")
    config = _resumed_config(args) if args.resume else config_of(args)
    if args.dry_run:
        plan = pipeline.dry_run(config)
        _print_json(args, plan) if args.json else print("\n".join(pipeline.estimate_text(plan)))
        return 0
    args.run_dir = args.run_dir or Path("runs") / _run_name(config)
    result = pipeline.search(config, args.run_dir, args.resume, args.ray_address)
    output = dataclasses.asdict(result)
    if result.note:
        say(result.note)
    if not args.json:
        _print_search(result, RunFolder(args.run_dir))
    if args.distill_top_k:
        students = pipeline.distill(
            config, args.run_dir, args.distill_top_k, resume=args.resume, ray_address=args.ray_address
        )
        output["students"] = students
        if not args.json:
            _print_students(students)
    if args.json:
        _print_json(args, output)
    return 0


def _resumed_config(args: argparse.Namespace) -> Any:
    """The stored config with this call's flags on top; the run folder checks that they fit the stored rows."""
    from tvt_ray.config import load_config
    from tvt_ray.runs import RunFolder

    if args.run_dir is None:
        raise UsageError("--resume needs --run-dir: which run to go on with")
    stored = RunFolder(args.run_dir).config()
    if args.config is not None:
        return load_config(args.config, overrides(args))
    return load_config(None, [stored.model_dump(mode="json"), *overrides(args)])


def _run_name(config: Any) -> str:
    dataset = config.data.name.replace(":", "-").replace("/", "_")[-40:]
    return f"{config.space.name}_{dataset}_{time.strftime('%Y%m%d-%H%M%S')}"


def _print_search(result: Any, folder: Any) -> None:
    from tvt_ray.space.base import format_count

    rows = [
        [entry["arch_id"], f"{entry['score']:.4f}", format_count(entry["params"]), format_count(entry["flops"])]
        for entry in result.best
    ]
    _print_table(f"best of {result.num_scored:,} architectures", ["architecture", "score", "parameters", "FLOPs"], rows)
    failed = f", {result.num_failed:,} failed" if result.num_failed else ""
    print(
        f"{result.num_scored:,} different architectures scored{failed} in {result.wall_s:,.0f} s "
        f"({result.archs_per_s:,.0f} a second while scoring, on {result.num_workers} workers)"
    )
    print(f"rows    {folder.rows_folder}\nreport  {folder.report_file}")
    print(f"train   python distill.py --run-dir {shlex.quote(str(folder.path))} --top-k 2")


# distill --------------------------------------------------------------------------------------------------------------


def add_distill(parser: argparse.ArgumentParser) -> None:
    parser.description = "Trains the best architectures of a run with the run's teacher."
    add_common(parser, config=False)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings instead of the run's own")
    parser.add_argument("--run-dir", required=True, metavar="DIR", help="the run that search made")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--top-k", type=int, metavar="K", help="the K best (default: 1)")
    which.add_argument("--arch-id", metavar="ID", help="one architecture of the run")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--num-workers", type=int, metavar="N", help="Ray Train workers per student")
    parser.add_argument("--resume", action="store_true", help="keep finished students, go on with unfinished ones")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running cluster (default: RAY_ADDRESS, or Ray on this machine)"
    )
    parser.set_defaults(command=distill_command, resume_command=_distill_resume_command)


def _distill_resume_command(args: argparse.Namespace) -> str:
    from tvt_ray.runs import RunFolder

    return RunFolder(args.run_dir).distill_command(args.top_k, args.arch_id)


def distill_command(args: argparse.Namespace) -> int:
    from tvt_ray import pipeline
    from tvt_ray.config import difference
    from tvt_ray.runs import RunFolder

    if args.top_k is not None and args.top_k < 1:
        raise UsageError(f"--top-k is at least 1; got {args.top_k}")
    config = _resumed_config(args)
    changed = difference(config, RunFolder(args.run_dir).config())
    if changed and not changed.startswith(("teacher.", "teacher_training.")):
        raise UsageError(f"{args.run_dir} holds another run: {changed}")
    students = pipeline.distill(config, args.run_dir, args.top_k, args.arch_id, args.resume, args.ray_address)
    _print_json(args, {"students": students}) if args.json else _print_students(students)
    return 0


def _print_students(students: Sequence[Mapping[str, Any]]) -> None:
    from tvt_ray.space.base import format_count

    rows = []
    for s in students:
        accuracies = [f"{s[key]:.2f}" for key in ("val_acc", "test_acc", "teacher_test_acc")]
        rows.append([s["arch_id"], format_count(s["params"]), *accuracies])
    # Without a column for the epochs, which all students of a call share, the table fits 80 characters.
    columns = ["architecture", "params", "val %", "test %", "teacher %"]
    _print_table(f"students after {students[0]['epochs']} epochs", columns, rows)
    for s in students:
        print(f'load it   tvt_ray.load_student("{s["path"]}")')


# teacher --------------------------------------------------------------------------------------------------------------


def add_teacher_train(parser: argparse.ArgumentParser) -> None:
    parser.description = "Trains a teacher on a dataset and keeps the weights that do best on validation."
    add_common(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where its weights go (.safetensors)")
    parser.add_argument("--epochs", dest="teacher_epochs", type=int, metavar="N")
    parser.set_defaults(command=teacher_train_command)


def teacher_train_command(args: argparse.Namespace) -> int:
    from tvt_ray.distill.teacher import save_teacher, teacher_accuracy, train_teacher
    from tvt_ray.pipeline import load_data

    config = config_of(args)
    if args.out.suffix != ".safetensors":
        raise UsageError(f"--out ends in .safetensors; got {args.out}")
    if config.teacher.weights:
        raise UsageError("teacher train starts without weights; teacher.pretrained names what a timm CNN starts from")
    data = load_data(config)
    teacher, val_acc = train_teacher(config.teacher, config.teacher_training, data)
    save_teacher(teacher, args.out)
    test_acc = teacher_accuracy(teacher, data.test)
    result = {
        "teacher": teacher.name,
        "dataset": data.name,
        "val_acc": val_acc,
        "test_acc": test_acc,
        "path": str(args.out),
    }
    text = (
        f"{teacher.name} on {data.name}: {val_acc:.2f} % on validation, {test_acc:.2f} % on test; weights in {args.out}"
    )
    _print_json(args, result) if args.json else print(text)
    return 0


def add_teacher_eval(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints a teacher's top-1 accuracy on a split of a dataset."
    add_common(parser)
    parser.add_argument("--split", default="test", help="train, val, test (default) or all")
    parser.set_defaults(command=teacher_eval_command)


def teacher_eval_command(args: argparse.Namespace) -> int:
    from tvt_ray.distill.teacher import get_teacher, teacher_accuracy
    from tvt_ray.pipeline import load_data

    config = config_of(args)
    data = load_data(config)
    parts = [data.train, data.val, data.test] if args.split == "all" else [data.split(args.split)]
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    num_images = sum(map(len, parts))
    top1 = sum(teacher_accuracy(teacher, part) * len(part) for part in parts) / num_images
    result = {
        "teacher": teacher.name,
        "dataset": data.name,
        "split": args.split,
        "num_images": num_images,
        "top1": round(top1, 4),
    }
    text = f"{teacher.name} on {data.name}, {args.split}: {top1:.2f} % of {num_images:,} images"
    _print_json(args, result) if args.json else print(text)
    return 0


# score, report, predict, check-data -----------------------------------------------------------------------------------


def add_score(parser: argparse.ArgumentParser) -> None:
    parser.description = "Scores one architecture and prints its readings."
    add_common(parser)
    parser.add_argument("--arch", type=Path, required=True, metavar="FILE", help="the architecture as JSON")
    parser.add_argument("--run-dir", metavar="DIR", help="take config and calibration from this run")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--score", metavar="NAME", help="tvt_ray (default), tvt, or a single proxy")
    parser.set_defaults(command=score_command)


def score_command(args: argparse.Namespace) -> int:
    from tvt_ray.pipeline import score_one

    config = _resumed_config(args) if args.run_dir else config_of(args)
    result = score_one(config, args.arch, args.run_dir)
    if args.json:
        _print_json(args, result)
        return 0
    flat = {**result, **result["components"]}
    del flat["components"]
    print(
        "\n".join(f"{key:8} {value:,}" if isinstance(value, int) else f"{key:8} {value}" for key, value in flat.items())
    )
    return 0


def add_rank(parser: argparse.ArgumentParser) -> None:
    parser.description = "Says how well scores rank architectures whose trained accuracy is known."
    add_common(parser)
    parser.add_argument(
        "--ground-truth", type=Path, nargs="+", required=True, metavar="FILE", help="JSON lines: space, arch, *_acc"
    )
    parser.add_argument(
        "--proxies", metavar="A,B,C", help="scores and proxies (default: the default score, tvt, params)"
    )
    parser.add_argument("--columns", metavar="A,B,C", help="accuracy columns (default: all)")
    parser.add_argument("--num-images", type=int, metavar="N", help="images in the probe")
    for end in ("min", "max"):
        parser.add_argument(
            f"--{end}-params", dest=f"band_{end}", type=_count, metavar="N", help="rank inside a band, as in 4M"
        )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="repeat with other weights and images, average"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write Parquet tables and a scatter plot per column"
    )
    parser.add_argument("--ray-address", metavar="ADDRESS", help="a running cluster (default: as in search)")
    parser.set_defaults(command=rank_command)


def _count(text: str) -> int:
    from tvt_ray.space.base import parse_count

    try:
        return int(parse_count(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rank_command(args: argparse.Namespace) -> int:
    from tvt_ray import ranking
    from tvt_ray.report import write_ranking

    config = config_of(args)
    proxies = args.proxies.split(",") if args.proxies else dict.fromkeys([config.score.name, "tvt", "params"])
    columns = tuple(args.columns.split(",")) if args.columns else None
    request = ranking.RankRequest(
        tuple(args.ground_truth), tuple(proxies), columns, args.band_min, args.band_max, args.seeds
    )
    scored = ranking.score_ground_truth(config, request, args.ray_address)
    result = ranking.rank(config, request, scored)
    if args.out:
        write_ranking(args.out, result["columns"], scored)
    _print_json(args, result) if args.json else _print_rank(result, args.out)
    return 0


def _print_rank(result: Mapping[str, Any], out: Path | None) -> None:
    from tvt_ray.ranking import mean_kendall

    tables: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in result["columns"]:
        tables.setdefault((entry["space"], entry["column"]), []).append(entry)
    header = ["proxy", "Kendall", "95 %", "Spearman", "Pearson", "regret", "of 5", "gain"]
    for (space, column), entries in tables.items():
        ordered = sorted(entries, key=lambda entry: -(entry["kendall"] or 0))
        rows = [
            [
                entry["proxy"],
                _signed(entry["kendall"]),
                " ".join(f"{end:.2f}" for end in entry["kendall_ci95"] or ()) or "-",
                _signed(entry["spearman"]),
                _signed(entry["pearson"]),
                *[f"{entry[key]:.2f}" for key in ("top1_regret", "top5_regret", "top1_gain")],
            ]
            for entry in ordered
        ]
        _print_table(f"{space}, {column}: {entries[0]['n']} architectures", header, rows)
    means = sorted(mean_kendall(result["columns"]).items(), key=lambda pair: -pair[1])
    noise: dict[str, list[float]] = {}
    for entry in result.get("noise", ()):
        noise.setdefault(entry["proxy"], []).append(entry["noise_share"])
    shares = {name: f"{100 * max(values):.0f} %" for name, values in noise.items()}
    columns = ["proxy", "mean Kendall", *(["noise"] if shares else [])]
    lines = [[name, _signed(mean), *([shares[name]] if shares else [])] for name, mean in means]
    if len(tables) > 1 or shares:
        _print_table(f"mean of {len(tables)} columns" if len(tables) > 1 else "noise", columns, lines)
    print("regret: accuracy lost by training the first choice (of 5: the best of the first five), in percentage points")
    print("gain: accuracy of the first choice over the median architecture, in percentage points")
    if out:
        print(f"tables and plots  {out}")


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.description = "Ranks a run's rows (by another score if asked) and writes report.html anew."
    parser.add_argument("run_dir", metavar="RUN", help="its folder or URI")
    parser.add_argument("--score", metavar="NAME", help="re-rank by another score without scoring again")
    parser.add_argument("--top-k", type=int, default=10, metavar="K")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    parser.set_defaults(command=report_command)


def report_command(args: argparse.Namespace) -> int:
    from tvt_ray.pipeline import rerank
    from tvt_ray.space.base import format_count

    result = rerank(args.run_dir, args.score, args.top_k)
    if args.json:
        _print_json(args, result)
        return 0
    for rank, entry in enumerate(result["best"], 1):
        costs = f"{format_count(entry['params']):>7} parameters {format_count(entry['flops']):>7} FLOPs"
        print(f"{rank:3}  {entry['score']:10.4f}  {costs}  {entry['arch_id']}")
    print(f"report  {result['report']}")
    return 0


def add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Classifies images with a trained student."
    parser.add_argument("student", metavar="FOLDER", help="a run's distill/<arch_id>")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    parser.set_defaults(command=predict_command)


def predict_command(args: argparse.Namespace) -> int:
    from tvt_ray.data.images import decode
    from tvt_ray.distill.export import load_student

    student = load_student(args.student)
    found = student.predict([decode(path, str(path)) for path in args.images])
    entries = [
        {"image": str(path), "label": label, "probability": p}
        for path, (label, p) in zip(args.images, found, strict=True)
    ]
    if args.json:
        _print_json(args, {"predictions": entries})
    else:
        print("\n".join(f"{entry['image']}  {entry['label']}  {entry['probability']:.3f}" for entry in entries))
    return 0


def add_check_data(parser: argparse.ArgumentParser) -> None:
    parser.description = "Reads a dataset, decodes every image, and says what is in it."
    add_common(parser)
    parser.set_defaults(command=check_data_command)


def check_data_command(args: argparse.Namespace) -> int:
    from tvt_ray.pipeline import describe_data

    described = describe_data(config_of(args))
    if args.json:
        _print_json(args, described)
        return 0
    splits = ("train", "val", "test")
    rows = [[name, *[f"{counts[split]:,}" for split in splits]] for name, counts in described["classes"].items()]
    rows.append(["all", *[f"{described['num_images'][split]:,}" for split in splits]])
    _print_table(f"{described['dataset']}: {described['num_classes']} classes", ["class", *splits], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
