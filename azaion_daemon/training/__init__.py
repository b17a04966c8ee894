"""From a snapshot to a judged model: jobs, GPUs, worker processes."""
