"""A searcher behind a sampler, asked and told about a value that adds up over choices."""

from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits import Space
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.budget import Budget, Limits
from tvt_ray.vits.pit import PiTSpace
from tvt_ray.vits.vit import ViTSpace

# Too large to be found whole in a test, and small enough to be improved on in one.
MEDIUM = AutoFormerSpace(
    image_size=32,
    patch_size=8,
    embed_dim=(24, 36, 48),
    depth=(2, 3, 4, 5),
    num_heads=(2, 3),
    mlp_ratio=(1.5, 2.0),
)

# Found whole in a moment by every searcher; one for each of the table.
TINY: dict[str, Space] = {
    "autoformer": MEDIUM.model_copy(update={"embed_dim": (24,), "depth": (1, 2)}),
    "pit": PiTSpace(
        image_size=32,
        patch_size=8,
        stride=4,
        base_dim=(8,),
        mlp_ratio=(1.5, 2),
        num_heads=(1, 2),
        depth=((1, 1, 1),),
    ),
    "vit": ViTSpace(image_size=32, embed_dim=(24,), depth=(1, 2), head_dim=(8,), mlp_ratio=(1.5,), patch_size=(8, 16)),
}


def make(searcher, space, budget=None, seed=0, **settings):
    chosen = SearchSettings(**{"searcher": searcher, "population": 10, "tournament": 4, **settings})
    return Sampler(build_algorithm(chosen, space, seed), Limits(space, budget or Budget(), 10), seed)


def value(space, arch):
    return float(sum(space.encode(arch)))


def drive(sampler, space, count, tell=True):
    """Asks and tells `count` times; stops early when there is nothing more."""
    archs = []
    for _ in range(count):
        arch = sampler.ask()
        if arch is None:
            break
        archs.append(arch)
        if tell:
            sampler.tell(arch, (value(space, arch),))
    return archs


def replay(sampler, arch, values):
    """As a resumed run does with an earlier one's row."""
    sampler.skip(arch)
    sampler.tell(arch, values)


class Remembering(Sampler):
    """A sampler that remembers what it was told, in order."""

    def __init__(self, *args):
        super().__init__(*args)
        self.told = []

    def tell(self, arch, values):
        self.told.append((arch, values))
        super().tell(arch, values)
