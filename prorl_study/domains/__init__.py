"""The domains of the study, one module each, with the same blocks under the same names.

A module in this folder that defines `DOMAIN` is a domain of the study: in its data, its training, its
evaluation, its plots and its claims. The paper's five come first; others follow by name. docs/extend.md adds
one.
"""

from importlib import import_module
from pkgutil import iter_modules

from prorl_study.domains import code, instruction, logic, math, stem
from prorl_study.domains.problem import SPLITS, STATUSES, Domain, Problem, Verdict, after_thinking
from prorl_study.errors import StudyError

DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (math.DOMAIN, code.DOMAIN, stem.DOMAIN, logic.DOMAIN, instruction.DOMAIN)
}
"""By name, the paper's first."""
PAPER_DOMAINS = tuple(DOMAINS)
"""Those that the paper has numbers for, in its order."""

RESERVED = ("all", "overall")
"""Names of rows over all domains in tables and results."""


def _added(module: str) -> Domain | None:
    """The `DOMAIN` of a module beside the paper's, None where it has none.

    Raises StudyError that names a module which cannot be imported, and a `DOMAIN` that is of no use.
    """
    where = f"prorl_study/domains/{module}.py"
    try:
        found = getattr(import_module(f"{__name__}.{module}"), "DOMAIN", None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise StudyError(f"{where} cannot be imported ({reason}); mend it, or take it away.") from error
    if found is None:
        return None
    if not isinstance(found, Domain):
        raise StudyError(f"{where}: DOMAIN is a {type(found).__name__}, must be a Domain; correct it.")
    if found.name != module or type(found.weight) is not int or found.weight < 1:
        raise StudyError(
            f"{where}: name={found.name!r} must be {module!r}, as its file, and weight={found.weight!r} a "
            "whole number of 1 or more; correct it."
        )
    if module in RESERVED:
        raise StudyError(f"{where}: {module!r} stands for all domains together; choose another name.")
    return found


for _module in sorted({module.name for module in iter_modules(__path__)} - set(PAPER_DOMAINS)):
    if _found := _added(_module):
        DOMAINS[_module] = _found

__all__ = ["DOMAINS", "PAPER_DOMAINS", "SPLITS", "STATUSES", "Domain", "Problem", "Verdict", "after_thinking"]
