"""Not a test: trains one segment with FSDP2 on the CPU, as `accelerate launch sharded_on_cpu.py CONFIG.json`.

accelerate shards weights on cards alone: told to use the CPU, it would go on with plain copies. It shards
there too once it takes the processes for those of cards, which is all that is changed here.
"""

from __future__ import annotations

import sys

from accelerate import DistributedType, PartialState

from prorl_study import segments

begin = PartialState.__init__


def as_on_cards(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = as_on_cards
    segments.main(sys.argv[1:])
