"""What the verbs of one call share is made once."""

import pytest

from tests.data.samples import picture
from tvt_ray.errors import UsageError
from tvt_ray.verbs.session import MADE_BY, Session, session_of


def test_images_are_loaded_once_and_their_notes_are_logged_once(photos, config_of, tmp_path, capsys):
    (photos / "README.md").write_text("")
    picture(0).save(photos / "bees" / "copy.png")
    with Session.open(config_of(photos), tmp_path / "run") as session:
        assert session.data is session.data
        session.begin()
    assert len(session.data.notes) in (2, 3)  # where the copy is carved to depends on the seed
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("data: ")] == [f"data: {note}" for note in session.data.notes]


def test_the_folder_is_locked_from_the_beginning_of_a_verb_to_the_end_of_the_session(photos, config_of, tmp_path):
    config = config_of(photos)
    with Session.open(config, tmp_path / "run") as session, Session.open(config, tmp_path / "run") as other:
        session.begin()
        with pytest.raises(UsageError, match="is in use by another tvt process"):
            _ = other.lock
    with Session.open(config, tmp_path / "run", resume=True) as later:
        later.begin()


def test_what_is_wrong_with_the_images_is_found_before_the_folder_is_made(photos, config_of, tmp_path):
    config = config_of(photos, probe={"num_images": 100})
    with Session.open(config, tmp_path / "run") as session, pytest.raises(UsageError, match="probe"):
        session.begin()
    assert not (tmp_path / "run").exists()


def test_a_session_of_a_run_has_its_settings_and_what_changes_them(run_folder, config_of, photos):
    with session_of(str(run_folder.path), {"distill": {"epochs": 7}}) as session:
        assert session.config == run_folder.config().with_(distill={"epochs": 7})
        assert [row.arch_id for row in session.rows] == [row.arch_id for row in run_folder.rows().read()]
        with session_of(session, {"distill": {"epochs": 9}}) as same:
            assert same is session
        assert session.config.distill.epochs == 9
    with (
        pytest.raises(UsageError, match=r"did you mean 'distill\.epochs'"),
        session_of(run_folder.path, {"distill": {"epoch": 7}}),
    ):
        pass
    other = config_of(photos, seed=3)
    with session_of(run_folder.path, other) as session:
        assert session.config == other.resolved()


@pytest.mark.slow
def test_what_another_config_makes_otherwise_is_made_anew(photos, config_of, tmp_path):
    """Nothing of the images before, nor of a teacher that other settings name."""
    with Session.open(config_of(photos), tmp_path / "run") as session:
        images, identity = session.data, session.identity
        session.begin()
        session.config = session.config.with_(distill={"epochs": 3}, score={"calibration_samples": 4})
        assert (session.data, session.identity) == (images, identity)
        assert session.data is images
        session.config = session.config.with_(data={"val_fraction": 0.3})
        assert len(session.data.val) > len(images.val)
        assert session.identity.fingerprint != identity.fingerprint
        with pytest.raises(UsageError, match="holds a run on other images"):
            session.keep_images()
        first = session.teacher
        session.config = session.config.with_(refine={"num_students": 9})
        assert session.teacher is first
        session.config = session.config.with_(teacher={"name": "resnet32"})
        assert session.teacher.name == "resnet32"


def test_every_section_of_the_config_that_makes_something_is_one(config_of, photos):
    sections = {section for names in MADE_BY.values() for section in names}
    assert sections <= set(type(config_of(photos)).model_fields)
    assert all(hasattr(Session, name) for name in MADE_BY)
