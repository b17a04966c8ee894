"""The real worker with two processes for one training, on the CPU: `two_ranks.py FAULT JOBDIR`.

The library starts several processes only for several GPUs. Here its launch, its generated script and its ranks are the real ones; only that
they talk over gloo, and compute on the CPU, is arranged.
"""

import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # what the worker sets before it imports the library, which is imported here first
    os.environ["YOLO_CONFIG_DIR"] = str(Path(sys.argv[2]).absolute() / "home")

import torch
from torch import distributed, nn
from ultralytics.utils import LOCAL_RANK, RANK

from azaion_daemon.training.worker import trainer
from azaion_daemon.training.worker.__main__ import main

FAULT = sys.argv[1] if RANK == -1 else os.environ["TEST_FAULT"]


class TwoRanks(trainer.JobTrainer):
    """Two processes where there is no GPU."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.world_size = 2
        self.ddp = LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        distributed.init_process_group("gloo", rank=RANK, world_size=2)
        parallel = nn.parallel.DistributedDataParallel
        nn.parallel.DistributedDataParallel = lambda model, device_ids, **options: parallel(model, **options)  # type: ignore[misc,assignment]

    def final_eval(self) -> None:
        """The library's own wants a GPU in each rank."""
        distributed.barrier()

    def preprocess_batch(self, batch: Any) -> Any:
        if FAULT == "out of memory" and RANK == 1 and self.epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().preprocess_batch(batch)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import two_ranks  # type: ignore[import-not-found]  # by the name under which the ranks find it

    os.environ["TEST_FAULT"] = FAULT
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    trainer.JobTrainer = two_ranks.TwoRanks  # type: ignore[misc]
    sys.exit(main(Path(sys.argv[2]).absolute()))
