"""What must be so before torch and ultralytics are imported: nothing is fetched, installed, sent or written outside the job."""

import faulthandler
import importlib.util
import json
import os
from contextlib import suppress
from pathlib import Path

import psutil

from azaion_daemon.training.jobs import JobDirectory, JobSpec

_NOWHERE = "http://127.0.0.1:9"  # the discard port: a connection is refused at once
_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")  # the library fetches them, even when told to be offline, unless they are there
_LOWEST_IO = 7
_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


def variables(job: JobDirectory, spec: JobSpec) -> dict[str, str]:
    """The environment variables that the libraries read; the processes they start inherit them."""
    home = str(job.library_home)
    # Ranks talk to each other, and nobody else to them: not even in a network of their own.
    alone = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if len(spec.gpus) > 1 else {}
    return {**alone, **offline(home), "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus)}


def offline(home: str) -> dict[str, str]:
    """Those that keep the libraries to themselves; what they write for themselves goes to `home`."""
    proxies = {name: _NOWHERE for scheme in ("http", "https", "all") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())}
    return {
        **proxies,  # the check of mixed precision fetches yolo26n.pt without asking whether it is offline
        "no_proxy": "",
        "NO_PROXY": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "GITHUB_ACTIONS": "true",  # how the library is told that nobody watches: a line a minute, not ten redrawn bars a second
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": home,
        "ULTRALYTICS_SAFE_LOAD": "true",  # a checkpoint is a pickle: of one, nothing but tensors and the library's own classes is made
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.29 on tells its maker about every model that it loads
        "XDG_CACHE_HOME": home,
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": home,
        "YOLO_OFFLINE": "true",
    }


def prepare(job: JobDirectory, spec: JobSpec) -> None:
    """Make this process and the library's home in the job ready."""
    faulthandler.enable()
    os.environ.update(variables(job, spec))
    os.nice(max(0, spec.nice - os.getpriority(os.PRIO_PROCESS, 0)))
    with suppress(OSError, psutil.Error):  # best effort still, lest a busy disk starve it; data loaders inherit it
        psutil.Process().ionice(psutil.IOPRIO_CLASS_BE, _LOWEST_IO)
    with suppress(OSError):  # when memory runs out, the worker goes rather than the daemon
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    job.run.mkdir(exist_ok=True)
    job.checkpoints.mkdir(exist_ok=True)
    os.chdir(job.run)  # names that are not absolute are looked for here
    _library_home(job)


def _library_home(job: JobDirectory) -> None:
    home = job.library_home / "Ultralytics"
    home.mkdir(parents=True, exist_ok=True)
    for font in _FONTS:
        (home / font).unlink(missing_ok=True)  # the environment that it points into may be gone
        (home / font).symlink_to(_any_font())
    settings = {
        "settings_version": "0.0.8",
        "datasets_dir": str(job.run / "datasets"),
        "weights_dir": str(job.run / "weights"),
        "runs_dir": str(job.run / "runs"),
        "uuid": "",
        "sync": False,
        "api_key": "",
        "openai_api_key": "",
        **dict.fromkeys(_INTEGRATIONS, False),
        "vscode_msg": False,
        "openvino_msg": False,
    }
    (home / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


def _any_font() -> Path:
    found = importlib.util.find_spec("matplotlib")  # not imported: that takes a second and is not needed for training
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf"
