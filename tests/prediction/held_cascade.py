"""The command line of cascade, whose workers wait in certain blocks until they are stopped or killed."""

from functools import partial

from cascade.cli import main
from cascade.prediction import cluster
from cascade.prediction.worker import Worker

PATIENCE_SECONDS = 300.0


class HeldWorker(Worker):
    """Processes inputs named hold* only after `stop`, which ends the run."""

    def predict(self, sources, folder, batch_size):
        if any(source.name.startswith("hold") for source in sources) and not self._stop.wait(PATIENCE_SECONDS):
            raise TimeoutError("nobody has stopped this worker")
        return super().predict(sources, folder, batch_size)


if __name__ == "__main__":
    cluster.usable_threads = lambda: 2  # each of two workers always has blocks: the loss of any is noticed
    cluster.open_cluster = partial(cluster.open_cluster, worker_class=HeldWorker)
    main()
