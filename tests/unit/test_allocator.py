"""The allocator's settings, each tried in a process of its own."""

import subprocess
import sys

COUNT_FAULTS = """
import resource
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        bytearray(1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
WITH_SETTINGS = "from azaion_daemon.ops.allocator import reuse_memory_of_messages\nassert reuse_memory_of_messages()\n"


def page_faults(program: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    return int(done.stdout)


def test_memory_of_images_is_used_again_instead_of_mapped_anew() -> None:
    assert page_faults(WITH_SETTINGS + COUNT_FAULTS) * 5 < page_faults(
        "import ctypes\nctypes.CDLL(None).mallopt(-3, 128 << 10)\n" + COUNT_FAULTS
    )


GIVE_BACK = """
from azaion_daemon.ops.allocator import give_back_memory
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
parts = [bytearray(1 << 20) for _ in range(40)]
last = bytearray(1 << 20)
full = resident()
del parts
kept = resident()
assert give_back_memory()
print((full - kept) >> 20, (full - resident()) >> 20)
"""


def test_what_is_free_is_kept_for_the_next_messages_until_it_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_SETTINGS + GIVE_BACK],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    by_itself, given_back = map(int, done.stdout.split())
    assert by_itself < 5
    assert given_back > 35
