"""README.md of a student: its model card, which hubs read the head of and people the rest."""

from __future__ import annotations

import html
import re

import yaml

from tvt_ray.data.layout import listing
from tvt_ray.exports.folder import Facts, History, Origin, StudentCard, public_name
from tvt_ray.quality.statistics import wilson
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.vits.budget import format_count

CARD_FILE = "README.md"
SPLITS = (("train", "images to train on"), ("val", "to validate"), ("test", "to test"))
UNKNOWN = "It is not known: nothing in the student's folder says it."


def write_model_card(folder: Location, card: StudentCard, weights: bytes, history: History) -> None:
    """Writes the model card into the student's folder."""
    write_atomically(folder / CARD_FILE, model_card(card).encode())


def model_card(card: StudentCard) -> str:
    """Markdown with timm's and the hub's front matter. It names no place on the machine that made it."""
    origin, cost = card.origin or Origin(), card.space.cost(card.arch, len(card.class_names))
    is_timm = card.space.timm_model(card.arch) is not None
    head = {
        "library_name": "timm" if is_timm else "tvt_ray",
        "license": "other",
        "license_name": "not-chosen-yet",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *(["timm"] if is_timm else []), "tvt_ray"],
    }
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    recipe = f"```yaml\n{yaml.safe_dump(dict(origin.recipe), sort_keys=False)}```"
    parts = {
        "Architecture": f"{card.space.describe(card.arch)} (space `{card.space.name}`).",
        "Accuracy": _accuracy(card, origin),
        "Data": _data(card, origin.data),
        "Teacher": _teacher(card.results),
        "Search": _search(origin.search),
        "Recipe": recipe if origin.recipe else UNKNOWN,
        "Limits": _limits(card, origin),
        "Use": _use(card),
        "Licence": "No licence was chosen. Set `license` at the top before you pass the student on.",
        "Versions": f"{versions}." if versions else UNKNOWN,
    }
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n# {card.arch_id}\n\n"
        f"A Vision Transformer for {len(card.class_names)} classes of images at {_pixels(card)}, found by tvt_ray.\n"
        f"It has {format_count(cost.params)} parameters and takes {format_count(cost.flops)} multiply-accumulates "
        "for an image.\n\n" + "\n".join(f"## {title}\n{text}\n" for title, text in parts.items())
    )


def _pixels(card: StudentCard) -> str:
    return f"{card.space.image_size} x {card.space.image_size} pixels"


def with_section(card: str, title: str, text: str) -> str:
    """The card with this section: in its old one's place, else at the end."""
    section = f"## {title}\n{text}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return card[: found.start()] + section + card[found.end() :] if found else f"{card.rstrip()}\n{section}"


def _accuracy(card: StudentCard, origin: Origin) -> str:
    """With Wilson's interval, where the number of test images is known."""
    top1, count = card.results.get("test_acc"), origin.data.get("test")
    if top1 is None:
        return UNKNOWN
    said = f"{top1:.2f} % of the test images are named right"
    if count:
        low, high = wilson(round(top1 * count / 100), count)
        said += f" ({count:,} images; 95 % interval {low:.1f} to {high:.1f})"
    val, teacher = card.results.get("val_acc"), card.results.get("teacher_test_acc")
    said += f", and {val:.2f} % of those that validate" if val is not None else ""
    if card.results.get("learned_from") == "train and val":
        said += ". The images that validated were learned from too, in the end"
    said += f". The teacher names {teacher:.2f} % of the test images right" if teacher is not None else ""
    return f"{said}. Nothing was chosen by the test images."


def _data(card: StudentCard, data: Facts) -> str:
    name = data.get("name") or public_name(str(card.results.get("dataset", "")))
    if not name:
        return UNKNOWN
    counts = ", ".join(f"{data[split]:,} {what}" for split, what in SPLITS if split in data)
    said = f"`{name}`" + (f": {counts}. Fingerprint of all: `{data.get('fingerprint')}`" if counts else "")
    return f"{said}.\n\nClasses: {listing(map(_plain, card.class_names), 20)}."


def _plain(name: str) -> str:
    """A name in Markdown that is neither HTML nor a link there."""
    return re.sub(r"([\[\]`\\])", r"\\\1", html.escape(name, quote=False))


def _teacher(results: Facts) -> str:
    if "teacher" not in results:
        return UNKNOWN
    follows = {True: "The student learned from it and from labels", False: "The student learned from labels alone"}
    return f"`{results['teacher']}`. {follows.get(bool(results.get('guided')))}."


def _search(search: Facts) -> str:
    if "score" not in search:
        return UNKNOWN
    said = f"{search['num_scored']:,} architectures of {search['num_shapes']:,} shapes were scored without training. "
    if search.get("num_measured"):
        said += f"{search['num_measured']:,} of them were trained shortly. "
    said += f"They are ranked by `{search['score']}`"
    place, short = search.get("place"), search.get("num_short")
    if short:
        return said + f", where this one has place {place:,}. Short trainings of {short:,} on frozen stages chose it."
    return said + (f", and this one has place {place:,}." if place else ". This one was given, not chosen by that.")


def _limits(card: StudentCard, origin: Origin) -> str:
    lines = [
        "It knows the classes above and no others: any image becomes one of them.",
        f"It sees the centred square of an image at {_pixels(card)}. What is smaller or elsewhere is not seen.",
        "Its accuracy is that on images like those of its dataset. `tvt evaluate` measures it on others.",
        "Its probabilities are not calibrated.",
    ]
    count = origin.data.get("test")
    if count and count < 1000:
        lines.append(f"Only {count:,} images test it: see the interval.")
    return "\n".join(f"- {line}" for line in lines)


def _use(card: StudentCard) -> str:
    model = card.space.timm_model(card.arch)
    code = ["import tvt_ray", 'tvt_ray.load_student("FOLDER").predict([image])  # PIL images -> [(label, probability)]']
    if model is not None:
        code += [] if model.is_stock else ["import tvt_ray.exports.timm_vit  # registers the model with timm"]
        code += ["import timm", 'timm.create_model("local-dir:FOLDER", pretrained=True)']
    return "```python\n" + "\n".join(code) + "\n```"
