"""What the domains' verifiers stand on: judging that is more than a few lines, one module a matter.

Everything here runs inside a verification worker (see `prorl_study.verification`). Left out: the walls,
the limits and the batches, which are `prorl_study.verification`'s.
"""
