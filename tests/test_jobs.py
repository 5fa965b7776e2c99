import threading
from concurrent.futures import CancelledError

import pytest

from baal_widgets.jobs import Job


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
