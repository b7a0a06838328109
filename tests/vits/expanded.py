"""Larger ViTs made of small ones, in which every block, head and channel stands twice: known what is to be chosen."""

import itertools

import torch

from tvt_ray.vits.weight_selection import heads_of
from tvt_ray.vits.weight_source import BLOCK, stages_of


def expanded(student):
    """(state, heads by block) of a ViT twice as deep and wide; each copy stands behind what it is a copy of."""
    own, heads = student.state_dict(), heads_of(student)
    widths = [len(own[f"{blocks[0]}.norm1.weight"]) for blocks in stages_of(own)]
    order = [twice(range(widths[0]))]  # of each stage: whose copy stands where
    for narrow, wide in itertools.pairwise(widths):  # a pool makes as many of each channel in the larger one
        order.append([channel * (wide // narrow) + i for channel in order[-1] for i in range(wide // narrow)])
    state = {}
    for key, value in own.items():
        match = BLOCK.fullmatch(key)
        if match is None:
            state[key] = other(key, value, order)
            continue
        block, stage, number, name = match.groups()
        for copy in range(2):
            new = f"{block.removesuffix(number)}{2 * int(number) + copy}"
            state[f"{new}.{name}"] = of_block(name, value, order[int(stage or 0)], heads[block])
    counts = {}
    for block, count in heads.items():
        head, _, number = block.rpartition(".")
        counts |= {f"{head}.{2 * int(number) + copy}": 2 * count for copy in range(2)}
    return state, counts


def twice(indices):
    return [index for index in indices for _ in range(2)]


def of_block(name, value, channels, heads):
    layer, _, kind = name.rpartition(".")
    if "relative_" in name:
        return value.repeat_interleave(2, 1)
    if layer == "attn.qkv":
        rows = value.unflatten(0, (3, heads, -1)).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(0, 2)
        return rows if kind == "bias" else rows[:, channels]
    if layer == "attn.proj" and kind == "weight":
        inputs = value.unflatten(1, (heads, -1)).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
        return inputs[channels]
    if layer == "mlp.fc1":
        return value.repeat_interleave(2, 0) if kind == "bias" else value.repeat_interleave(2, 0)[:, channels]
    if layer == "mlp.fc2" and kind == "weight":
        return value.repeat_interleave(2, 1)[channels]
    return value[channels]


def other(key, value, order):
    """Outside the blocks."""
    part, kind = key.split(".")[0], key.rpartition(".")[2]
    if part == "patch_embed" and "backbone" not in key and "proj" in key and value.ndim == 4 and value.shape[1] > 3:
        return value.repeat_interleave(2, 1)[order[0]]
    if part == "patch_embed" and "backbone" in key:
        wide = value.repeat_interleave(2, 0)
        return wide.repeat_interleave(2, 1) if value.ndim == 4 and value.shape[1] > 3 else wide
    if part == "patch_embed":
        return value[order[0]]
    if part == "cls_token" or (part == "pos_embed" and value.ndim == 3):
        return value[:, :, order[0]]
    if part == "pos_embed":
        return value[:, order[0]]
    if part == "pools":
        _, number, layer, _ = key.split(".")
        rows = value[order[int(number) + 1]]
        return rows[:, order[int(number)]] if layer == "fc" and kind == "weight" else rows
    if part == "head":
        return value[:, order[-1]] if kind == "weight" else value
    return value[order[-1]]


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
