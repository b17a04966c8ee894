"""What a training needs: GPUs and their driver, the libraries in the worker and whether they see the GPUs, the base model."""

import asyncio
from pathlib import Path

from azaion_daemon.ops.doctor.findings import AS_THE_DAEMON, Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.ops.reading import reading
from azaion_daemon.ops.wording import size
from azaion_daemon.sections import TrainingSettings
from azaion_daemon.store.records import Model
from azaion_daemon.training.capabilities import WORKER_S, Capabilities
from azaion_daemon.training.gpus import Discovery
from azaion_daemon.training.weights import Source, choose_source

_CUDA_PROVIDER = "CUDAExecutionProvider"
_SERVER = "Install requirements/server.txt again, as deploy/README.md says"


async def _gpus(patient: Patient) -> Finding:
    patient.discovery = await asyncio.to_thread(patient.gpus.discover)
    return judge_gpus(patient.discovery, patient.settings.training)


def judge_gpus(found: Discovery, training: TrainingSettings) -> Finding:  # noqa: PLR0911 - one return a cause reads best
    """Whether there are the GPUs that trainings are to run on. One that somebody uses is there all the same."""
    if training.gpus == "none":
        return Finding.ok("trainings run on the CPU (training.gpus: none)")
    if found.broken is not None:
        return Finding(Outcome.BROKEN, found.broken.rstrip("."), "Look at nvidia-smi and dmesg; after an update of the driver: reboot")
    if not found.gpus and training.gpus == "auto":
        return Finding(
            Outcome.WARNING,
            "there is no NVIDIA driver here, so trainings run on the CPU",
            "Install the driver if this machine has a GPU; if not, say so: training.gpus: none",
        )
    there = {gpu.uuid: gpu for gpu in found.gpus}
    wanted = list(there) if training.gpus == "auto" else list(training.gpus)
    if missing := [uuid for uuid in wanted if uuid not in there]:
        return Finding(
            Outcome.BROKEN, f"training.gpus names what this machine does not have: {', '.join(missing)}", "See them with: nvidia-smi -L"
        )
    if len(wanted) < training.gpus_per_job:
        remedy = "Lower training.gpus_per_job"
        return Finding(
            Outcome.BROKEN, f"a job takes {training.gpus_per_job} GPUs, and may have {len(wanted)}: none would ever start", remedy
        )
    if faults := [f"GPU {there[uuid].index}: {fault}" for uuid in wanted for fault in there[uuid].faults]:
        usable = sum(not there[uuid].faults for uuid in wanted)
        outcome = Outcome.WARNING if usable >= training.gpus_per_job else Outcome.BROKEN
        return Finding(outcome, "; ".join(faults), "It is not used meanwhile; what ends that stands beside each")
    named = [f"GPU {gpu.index} {gpu.name} with {size(gpu.memory_total_bytes)}" for gpu in (there[uuid] for uuid in wanted)]
    return Finding.ok(f"driver {found.driver}: {', '.join(named)}")


async def _worker(patient: Patient) -> Finding:
    patient.capabilities = await patient.worker(patient.settings.training.model)
    return judge_worker(patient.capabilities, patient.discovery, patient.settings.training)


def judge_worker(found: Capabilities, gpus: Discovery, training: TrainingSettings) -> Finding:  # noqa: PLR0911 - one return a cause reads best
    """Whether a worker has what it needs, and sees the GPUs that the driver shows."""
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    if missing := [error for error in found.errors if "cannot be imported" in error]:
        return Finding(Outcome.BROKEN, "; ".join(missing), _SERVER)
    on_cpu = training.gpus == "none" or (training.gpus == "auto" and not gpus.gpus and gpus.broken is None)
    if on_cpu:
        return Finding.ok(f"it can train, on the CPU: {versions}")
    why = f": {'; '.join(found.errors)}" if found.errors else ""
    if found.cuda is None:
        return Finding(Outcome.BROKEN, f"torch in the worker is a build for the CPU only, and trainings are to run on GPUs{why}", _SERVER)
    if not found.cuda_available:
        remedy = f"The driver must know CUDA {found.cuda} or newer: nvidia-smi shows which it knows; in Docker --gpus all"
        return Finding(Outcome.BROKEN, f"torch (CUDA {found.cuda}) in the worker cannot use the GPUs{why}", remedy)
    if unseen := [gpu.index for gpu in gpus.gpus if gpu.uuid not in found.gpus and not gpu.faults]:
        numbers = ", ".join(map(str, unseen))
        remedy = "Look at CUDA_VISIBLE_DEVICES in the daemon's environment, MIG mode, and dmesg"
        return Finding(Outcome.BROKEN, f"torch sees {len(found.gpus)} of {len(gpus.gpus)} GPUs, not GPU {numbers}{why}", remedy)
    if _CUDA_PROVIDER not in found.providers:
        remedy = "Install onnxruntime-gpu in the place of onnxruntime, as deploy/README.md says"
        return Finding(Outcome.WARNING, f"models would be evaluated on the CPU, which takes many times as long ({versions})", remedy)
    return Finding.ok(f"it can train, on {len(found.gpus)} GPUs with CUDA {found.cuda}: {versions}")


async def _base_model(patient: Patient) -> Finding:
    training, layout = patient.settings.training, patient.layout

    def find() -> Source:
        current: Model | None = None
        if layout.ledger.exists():
            with reading(layout) as ledger:
                current = next((model for model in ledger.models() if model.current), None)
        return choose_source(training, layout, current)

    source = await asyncio.to_thread(find)
    known = patient.capabilities is not None and patient.capabilities.model_known
    return await asyncio.to_thread(judge_source, source, layout.models / training.model, known=known)


def judge_source(source: Source, path: Path, *, known: bool) -> Finding:  # noqa: PLR0911 - one return a cause reads best
    """Whether the weights that a training would start from are there; `known`: the library has an architecture of that name."""
    note = f" ({source.why})" if source.why else ""
    if source.file is None and source.model.endswith(".yaml"):
        if known:
            return Finding.ok(f"{source.model} is an architecture that the library knows: it starts from random weights{note}")
        return Finding(
            Outcome.BROKEN, f"neither {path} is there nor does the library in the worker know {source.model}", "Correct TRAINING_MODEL"
        )
    if source.file is None:
        return Finding(
            Outcome.BROKEN, f"{path} is not there: nothing can be trained, and nothing is fetched", f"Put the base model to {path}"
        )
    try:
        with source.file.open("rb") as file:
            whole = bool(file.read(1))
    except OSError as error:
        return Finding(
            Outcome.BROKEN, f"{source.file} cannot be read: {error.strerror}", f"Give it to the user of the daemon. {AS_THE_DAEMON}"
        )
    if not whole:
        return Finding(Outcome.BROKEN, f"{source.file} is empty", "Put the whole base model there")
    if source.why:
        return Finding(Outcome.WARNING, source.why, "It changes with the next model that is accepted; or set training.start_from: base")
    return Finding.ok(f"{source.file} is there, {size(source.file.stat().st_size)}")


SUBJECTS = (
    Subject("GPUs", _gpus, area=Area.TRAINING, limit_s=30.0),
    # Importing torch reads much from the disk: not while its latency is measured.
    Subject("training worker", _worker, after=("disk latency", "GPUs"), area=Area.TRAINING, limit_s=WORKER_S + 5),
    Subject("base model", _base_model, after=("training worker",), area=Area.TRAINING),
)
