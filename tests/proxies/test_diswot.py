import torch

from tvt_ray.proxies.diswot import _teacher_head_gradient


def test_diswot_differentiates_the_teachers_classifier_without_running_it(probe):
    """The teacher's gradient, computed from its logits, is autograd's for a Linear on its pooled last stage."""
    pooled = probe.teacher_maps[-1].mean((2, 3))
    weight = torch.zeros(probe.teacher_logits.shape[1], pooled.shape[1], requires_grad=True)
    logits = pooled @ weight.mT + probe.teacher_logits
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, probe.labels), weight)
    assert torch.allclose(_teacher_head_gradient(probe), expected, atol=1e-6)
