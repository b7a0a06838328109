from tests.data.samples import picture
from tvt_ray.stages.setup import load_data


def test_what_was_found_while_reading_is_said_once(photos, config_of, capsys):
    """However many stages of a call load the data."""
    (photos / "README.md").write_text("")
    picture(0).save(photos / "bees" / "copy.png")
    data = load_data(config_of(photos))
    assert len(data.notes) in (2, 3)  # where the copy is carved to depends on the seed
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("data: ")] == [f"data: {note}" for note in data.notes]
    load_data(config_of(photos))
    assert "data: " not in capsys.readouterr().err
