import threading
from concurrent.futures import CancelledError

import pytest

from baal_widgets.jobs import Course, Job


def test_a_job_gives_what_its_work_gives():
    assert Job(lambda job: 42).start().result(5) == 42
    assert Job(lambda job: 42).run().result() == 42


def test_an_error_waits_for_whoever_asks():
    job = Job(lambda job: 1 / 0).start()
    with pytest.raises(ZeroDivisionError):
        job.result(5)
    assert job.progress.phase == "stopped"


def test_progress_is_what_was_last_reported():
    go, reported = threading.Event(), threading.Event()

    def work(job):
        job.report("half", 0.5, "on the way")
        reported.set()
        go.wait(5)

    job = Job(work).start()
    reported.wait(5)
    assert (job.progress.phase, job.progress.fraction, job.progress.message) == ("half", 0.5, "on the way")
    assert not job.done
    go.set()
    job.result(5)
    assert job.progress.fraction == 1


def test_cancelling_takes_effect_at_the_next_report():
    def work(job):
        while True:
            job.report("going", 0.1)

    job = Job(work).start()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(5)
    assert job.done


def test_a_course_goes_from_nothing_to_all_and_knows_the_time_of_phases_that_were_taken_before():
    rates = {"train": 100.0}
    job = Job(lambda _: None)
    course = Course(job, {"train": 2, "test": 4, "score": 0}, {"train": 0.8, "test": 0.1, "score": 0.1}, rates)
    course.report("train", 0.5, loss=1.5)
    assert job.progress.fraction == pytest.approx(0.5 * 0.8 / 0.9)
    assert job.progress.loss == 1.5
    assert job.progress.eta is None  # nobody knows how long testing takes
    course.report("test", 0.5)
    assert rates["train"] < 1
    assert 0 <= job.progress.eta < 1
    course.report("test", 1.0)
    assert job.progress.fraction == pytest.approx(1)
    course.end()
    assert rates.keys() == {"train", "test"}
    course.report("train", 0.1)
    assert 0 <= job.progress.eta <= 2 * rates["train"] + 4 * rates["test"]


def test_time_left_is_never_negative():
    job = Job(lambda _: None)
    job.report("train", 0.5, eta=-3.0)
    assert job.progress.eta == 0
