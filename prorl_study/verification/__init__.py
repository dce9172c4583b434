"""Verdicts on model output, given by worker processes under limits and never by the study's own process.

`pool` is what the study calls, `handle` its end of one worker, `worker` what runs on the other side
(with `processes`, its view of /proc), `channel` the messages between them, `limits` what one item may
use. Not covered yet: judged programs still see the file system and the network (see `worker`).
"""

from prorl_study.verification.limits import Limits
from prorl_study.verification.pool import Stats, VerificationPool

__all__ = ["Limits", "Stats", "VerificationPool"]
