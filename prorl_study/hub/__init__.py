"""The paper's training sets and benchmarks: where they lie, what their rows mean, what is dropped and why.

One module per domain, each with the tables `TRAINING` and `BENCHMARKS` of its sources. `sources` reads them,
pinned by commit; `overlap` finds benchmark text in training problems; `gold` judges their own answers. Left
out: the embedded problems of the default study (`prorl_study.problems`), which need no hub.
"""

from prorl_study.hub import code, instruction, logic, math, stem
from prorl_study.hub.sources import Drop, Item, Read, Source, read

_MODULES = (math, code, stem, logic, instruction)
TRAINING: dict[str, Source] = {source.name: source for module in _MODULES for source in module.TRAINING}
BENCHMARKS: dict[str, Source] = {source.name: source for module in _MODULES for source in module.BENCHMARKS}

__all__ = ["BENCHMARKS", "TRAINING", "Drop", "Item", "Read", "Source", "read"]
