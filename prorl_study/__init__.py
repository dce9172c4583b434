"""Helpers of the ProRL study: the notebooks tell the story, this package does the work, DVC remembers.

The package never knows of notebooks, and imports run one way:
paths, params -> domains, judges -> verification -> problems -> trainer, segments -> sampling, evaluation
-> statistics -> measures, claims -> figures, reporting.
"""

__version__ = "0.1.0"

import warnings as _warnings

# Shown as red text in the first cell of every notebook; the study's own bars need no widgets.
_warnings.filterwarnings("ignore", message="IProgress not found")
