import torch

from tvt_ray.data.preprocess import normalize, resize
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings


def test_a_teacher_sees_its_own_size_and_normalisation(tmp_path):
    settings = TeacherSettings(name="timm:inception_v4", pretrained=False, image_size=96)  # mean and std of 0.5
    teacher, raw = build_teacher(settings, 3).freeze(), torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        ours, _ = teacher(normalize(raw))
        theirs, _ = teacher.backbone(resize((raw - 0.5) / 0.5, 96))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_teacher_of_imagenets_normalisation_sees_images_as_they_are():
    teacher, images = build_teacher(TeacherSettings(), 3).freeze(), torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images)[0], teacher.backbone(images)[0])


def test_a_frozen_teacher_neither_learns_nor_counts():
    teacher = build_teacher(TeacherSettings(), 3)
    assert teacher.training
    assert teacher.freeze() is teacher
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
