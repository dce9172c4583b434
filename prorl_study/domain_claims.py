"""The claims that are made of every domain, and what a domain beside the paper's five is held to in them.

`params.yaml` fixes measure, test and margin of each claim before the runs. It names the paper's five domains;
one that was added (docs/extend.md) is looked at as the first of them is, unless `params.yaml` has entries of
its own for it. Left out: what the claims say (`claims`), and how large a difference they can see (`power`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prorl_study.domains import DOMAINS, PAPER_DOMAINS
from prorl_study.params import ClaimParams

KINDS = ("gain", "gain-not-format", "boundary")
"""A claim's id is its kind and its domain: `gain-math`."""


def for_all_domains(tests: Mapping[str, ClaimParams]) -> dict[str, ClaimParams]:
    """`tests`, by claim, with an entry for every kind and domain."""
    added = {
        f"{kind}-{domain}": replace(tests[f"{kind}-{PAPER_DOMAINS[0]}"], claim=f"{kind}-{domain}")
        for kind in KINDS
        if f"{kind}-{PAPER_DOMAINS[0]}" in tests
        for domain in DOMAINS
        if domain not in PAPER_DOMAINS
    }
    return {**tests, **{name: test for name, test in added.items() if name not in tests}}
