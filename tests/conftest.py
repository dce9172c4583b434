"""Tests use tiny models: one thread is faster than two, and two test runs at once do not fight over cores."""

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch

torch.set_num_threads(1)

# Tests of Ctrl-C must also hold where the suite itself was started in the background, with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
