"""The one error that users are meant to see: a sentence that names the value, the place and the fix.

The command line prints it without a traceback and exits with code 1. Anything else that escapes is a
bug and keeps its traceback.
"""


class StudyError(Exception):
    """Bad input or a missing file, in one sentence that names it and says how to mend it."""
