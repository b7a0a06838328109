import json

import numpy as np

from tvt_ray.quality.evaluation import Evaluation, Mistake
from tvt_ray.quality.statistics import quality_of


def test_json_has_the_figures_beside_what_they_are_of_with_four_digits():
    quality = quality_of(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), ("a", "b"))
    mistakes = (Mistake("a/1.png", "a", "b", 80.00004),)
    found = Evaluation("s", "digits", "f", "test", quality, mistakes, ("told",), "p.html", "f.json").to_json()
    assert json.loads(json.dumps(found)) == found
    contract = "student dataset split num_images top1 top1_ci95 balanced_accuracy majority ece nll classes confusion"
    assert found.keys() >= {*contract.split(), "page", "file", "brier", "num_bins", "reliability", "notes"}
    assert (found["student"], found["split"], found["num_images"], found["num_bins"]) == ("s", "test", 3, 15)
    assert (found["top1"], found["balanced_accuracy"], found["majority"]) == (66.6667, 75.0, 66.6667)
    assert found["classes"][0].keys() == {"name", "support", "recall", "recall_ci95", "precision", "f1"}
    assert found["confusion"] == [[1, 1], [0, 1]]
    assert found["mistakes"] == [{"image": "a/1.png", "truth": "a", "predicted": "b", "confidence": 80.0}]
