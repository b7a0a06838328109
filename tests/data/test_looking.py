import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.data.samples import encode, picture
from tvt_ray.data.images import EncodedImages
from tvt_ray.data.looking import LOOK_AHEAD, ImageFacts, PixelBudget, in_order, look_at, shrunk
from tvt_ray.errors import UsageError


def test_no_more_pixels_are_decoded_at_a_time_than_the_budget_has():
    budget, lock, held, peak = PixelBudget(100), threading.Lock(), [0], [0]

    def work(num_pixels):
        with budget.taking(num_pixels):
            with lock:
                held[0] += num_pixels
                peak[0] = max(peak[0], held[0])
            time.sleep(0.001)
            with lock:
                held[0] -= num_pixels

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [40, 60, 30, 99] * 20))
    assert 60 < peak[0] <= 100


def test_an_image_beyond_the_budget_goes_alone_and_what_is_taken_is_given_back():
    budget, alone = PixelBudget(100), threading.Event()
    with budget.taking(1000):
        waiting = threading.Thread(target=lambda: [alone.set() for _ in [0] if budget.taking(1).__enter__() is None])
        waiting.start()
        assert not alone.wait(0.05)
    assert alone.wait(5)
    waiting.join()
    with pytest.raises(ZeroDivisionError), PixelBudget(5).taking(5):
        raise ZeroDivisionError


def test_few_images_are_looked_at_ahead_of_the_one_that_is_taken(monkeypatch):
    """So memory is bounded, however many there are."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    begun = []
    for number, given in enumerate(in_order(lambda job: begun.append(job) or job, range(60))):
        assert given == number
        assert len(begun) <= number + 2 * LOOK_AHEAD + 1
    assert sorted(begun) == list(range(60))


def test_the_first_exception_ends_the_looking():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda job: 1 / (job - 5), range(9)))


def test_headers_alone_are_read_where_nothing_more_is_asked():
    data = encode(picture(1, (400, 300)).convert("L"), "JPEG")
    source = EncodedImages([data, data[:1000]], ["whole", "cut"])
    assert [seen.facts for seen in look_at(source, [1, 0])] == [ImageFacts((400, 300), "L", None)] * 2
    for asked in ({"span": True}, {"side": 20}, {"span": True, "side": 20}):
        with pytest.raises(UsageError, match="corrupt image cut"):
            list(look_at(source, [0, 1], **asked))


def test_each_image_gives_what_is_asked():
    source = EncodedImages([encode(picture(i, (40 + i, 30))) for i in range(5)], [str(i) for i in range(5)])
    seen = list(look_at(source, [3, 1], span=True, side=15))
    assert [each.facts.size for each in seen] == [(43, 30), (41, 30)]
    assert [each.pixels.shape for each in seen] == [(15, 22, 3), (15, 20, 3)]
    assert all(each.facts.span > 200 for each in seen)
    assert [each.pixels for each in look_at(source, [3, 1], span=True)] == [None, None]


def test_shrinking_keeps_proportions_and_never_enlarges():
    assert shrunk(picture(0, (300, 100)), 50).size == (150, 50)
    assert shrunk(picture(0, (100, 301)), 50).size == (50, 150)
    assert shrunk(picture(0, (40, 301)), 50).size == (40, 301)
