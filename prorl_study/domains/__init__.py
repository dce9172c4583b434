"""The five domains of the study, one module each, with the same blocks under the same names.

Adding a domain is: a module beside these, and an entry in `DOMAINS`.
"""

from prorl_study.domains import code, instruction, logic, math, stem
from prorl_study.domains.problem import SPLITS, STATUSES, Domain, Problem, Verdict, after_thinking

DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (math.DOMAIN, code.DOMAIN, stem.DOMAIN, logic.DOMAIN, instruction.DOMAIN)
}

__all__ = ["DOMAINS", "SPLITS", "STATUSES", "Domain", "Problem", "Verdict", "after_thinking"]
