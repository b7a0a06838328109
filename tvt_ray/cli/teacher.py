"""tvt teacher train and tvt teacher eval."""

from __future__ import annotations

import argparse

from tvt_ray.cli.options import COMMON, Parser, add_options, own_config_of, path, positive
from tvt_ray.cli.output import print_json
from tvt_ray.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Gives the command its two actions, and those their flags."""
    parser.description = "Trains or evaluates a teacher."
    actions = parser.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)
    _add_train(actions.add_parser("train", help="train one on a dataset"))
    _add_eval(actions.add_parser("eval", help="print its accuracy"))


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = "Trains a teacher on a dataset and keeps the weights that do best on validation."
    add_options(parser, "config", *COMMON)
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="where its weights go (.safetensors)")
    parser.add_argument("--epochs", dest="teacher_epochs", type=positive, metavar="N", help="of the training")
    parser.set_defaults(command=_train)


def _train(args: argparse.Namespace) -> int:
    from tvt_ray.runs.inputs import load_data
    from tvt_ray.storage.locations import check_writable
    from tvt_ray.teachers.provide import save_teacher
    from tvt_ray.teachers.training import teacher_accuracy, train_teacher

    if args.teacher_epochs is not None:
        args.set = [f"teacher_training.epochs={args.teacher_epochs}", *args.set]
    config = own_config_of(args)
    if args.out.suffix != ".safetensors":
        raise UsageError(f"--out ends in .safetensors; got {args.out}")
    if config.teacher.weights:
        raise UsageError("teacher train starts without weights; teacher.pretrained names what a timm CNN starts from")
    check_writable(args.out)
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
    accuracies = f"{val_acc:.2f} % on validation, {test_acc:.2f} % on test"
    print_json(args, result) if args.json else print(f"{teacher.name} on {data.name}: {accuracies}; in {args.out}")
    return 0


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints a teacher's top-1 accuracy on a split of a dataset."
    add_options(parser, "config", *COMMON)
    parser.add_argument("--split", default="test", help="train, val, test (default) or all")
    parser.set_defaults(command=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from tvt_ray.runs.inputs import load_data
    from tvt_ray.teachers.provide import get_teacher
    from tvt_ray.teachers.training import teacher_accuracy

    config = own_config_of(args)
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
    print_json(args, result) if args.json else print(text)
    return 0
