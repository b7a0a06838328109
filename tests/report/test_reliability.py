import numpy as np

from tvt_ray.quality.statistics import quality_of
from tvt_ray.report.reliability import plot_reliability


def test_bars_are_accuracies_over_the_bins_that_have_images():
    probabilities = np.array([[0.9, 0.1], [0.88, 0.12], [0.6, 0.4]])
    bins = quality_of(np.array([0, 1, 0]), probabilities, ("a", "b"), num_bins=5).reliability
    (axes,) = plot_reliability(bins).axes
    assert [(round(bar.get_x()), bar.get_height()) for bar in axes.patches] == [(40, 100), (80, 50)]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == [0, 100]
