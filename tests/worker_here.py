"""An executor for tests with memory://, which no other process sees."""

from stub_cascade import cascade_of

from cascade.prediction.batch import InProcess
from cascade.prediction.worker import Worker


class WorkerHere(InProcess):
    """An executor with one worker in this process."""

    is_remote = True

    def __init__(self):
        super().__init__(cascade_of())
        self._worker = Worker()
        self._worker._executor = InProcess(cascade_of())

    def run(self, sources, job):
        for source in sources:
            job.on_begin([source])
            job.on_finished(self._worker.predict([source], job.folder, job.batch_size))
