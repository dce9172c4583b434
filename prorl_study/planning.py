"""What a run costs, said before it starts: tokens, operations, hours, memory and disk, by arithmetic alone.

Every number follows from `params.yaml` and the rates of `cards`, which the report names with their sources.
Hours of the embedded study are not reckoned: its run cards have them. Left out: what judges take of the CPU,
downloads, the start and compilation of engines, and work that is lost when a run is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from prorl_study import arms, compute, hub
from prorl_study.boundary_sampling import boundary_models
from prorl_study.cards import (
    H100,
    LOOP_SHARE,
    PROMPT_TOKENS,
    TRAINING_SHARE,
    Machine,
    Model,
    disk,
    machine_of,
    memory,
    model_of,
)
from prorl_study.curriculum import Phase, phases
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.evaluation import TRAIN_PROBLEMS
from prorl_study.hub.splits import OOD
from prorl_study.params import Params, SegmentParams, TrainParams

STEP_SECONDS = 15.0
"""Per rollout step, assumed: weights to the engine, judging, logging, a share of the checkpoints."""


@dataclass(frozen=True)
class Guess:
    """What nobody can know before the run."""

    answer: float
    """Mean length of an answer, as a share of its cap; in evaluation of the longest cap of training, where
    that is shorter."""
    informative: float
    """Share of groups that dynamic sampling keeps."""


LIKELY = Guess(answer=0.61, informative=0.41)
"""2505.24864, Fig. 2: answers of 3,000 to 7,000 tokens under a cap of 8,192; 2510.01180: 41 % at n = 16."""
WORST = (LIKELY, Guess(1.0, 0.41), Guess(0.61, 1.0), Guess(1.0, 1.0))
"""Every answer as long as its cap, in evaluation too; every group kept, so that all of it is trained on."""


# ---- stages ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """One stage. Tokens are counted as the trainer counts them."""

    stage: str
    sampled: float
    """Answer tokens."""
    trained: float = 0.0
    """Prompt and answer tokens that training passes over."""
    steps: float = 0.0
    """Rollout steps."""
    flops: float = 0.0
    hours: float = 0.0
    card_hours: float = 0.0
    """Hours times the cards that are held, idle ones included."""


def estimate(study: Params, machine: Machine, guess: Guess = LIKELY) -> list[Cost]:
    """The stages that need a card, in their order. Raises StudyError as `model_of` and `phases` do."""
    model, chain, how = model_of(study), list(study.segments.values()), study.evaluation
    rate = machine.rate * (1.0 if study.engine.evaluation_engine == "vllm" else LOOP_SHARE)
    longest = max(phase.max_completion_tokens for _, phase in phases(study.train, list(DOMAINS)))
    cap = how.max_tokens if guess.answer == 1 else min(how.max_tokens, longest)

    def judged(stage: str, answers: float) -> Cost:
        tokens = answers * guess.answer * cap
        hours = tokens / rate / 3600
        return Cost(stage, tokens, 0.0, 0.0, compute.FORWARD * model.passed * tokens, hours, hours)

    beside = arms.plans(study.train, chain, study.arms, study.seed)
    parts = [judged("", arm_answers(study) * (1 + len(beside) * len(chain)))]
    for plan in beside:
        again = _chain(study, plan.train, plan.segments, machine, guess, model)
        parts += again[arms.shared(plan, study.train, chain) :]
    return [
        judged("base_model", gate_answers(study)),
        *_chain(study, study.train, chain, machine, guess, model),
        _sum(parts, "arms"),
        judged("benchmarks", benchmark_answers(study)),
        judged("boundary", boundary_answers(study)),
    ]


def _chain(
    study: Params,
    train: TrainParams,
    chain: Sequence[SegmentParams],
    machine: Machine,
    guess: Guess,
    model: Model,
) -> list[Cost]:
    """A cost per segment of one arm."""
    plan, start, costs = phases(train, list(DOMAINS)), 0, []
    for segment in chain:
        end = start + segment.tokens
        parts = [
            _stretch(study, train, phase, tokens, machine, guess, model)
            for phase, tokens in _in_phases(plan, start, end)
        ]
        costs.append(_sum(parts, f"train_{segment.segment}"))
        start = end
    return costs


def _in_phases(plan: Sequence[tuple[int, Phase]], start: float, end: float) -> Iterator[tuple[Phase, float]]:
    """The phases between two numbers of sampled tokens, each with how many of these fall into it."""
    ends = [first for first, _ in plan[1:]] + [float("inf")]
    for (first, phase), last in zip(plan, ends, strict=True):
        if (tokens := min(end, last) - max(start, first)) > 0:
            yield phase, tokens


def _stretch(
    study: Params,
    train: TrainParams,
    phase: Phase,
    tokens: float,
    machine: Machine,
    guess: Guess,
    model: Model,
) -> Cost:
    """`tokens` sampled tokens of one phase, validation among them."""
    answers, group = train.prompts_per_step * phase.rollouts_per_prompt, phase.rollouts_per_prompt
    mean = guess.answer * phase.max_completion_tokens
    drawn = answers / (guess.informative if train.dynamic_sampling else 1.0)
    checked = train.validation_prompts * len(phase.domains) / train.validate_every
    steps = tokens / ((drawn + checked) * mean)
    trained = steps * answers * (mean + PROMPT_TOKENS)
    prompt = steps * (drawn / group + checked) * PROMPT_TOKENS
    counted = {"sampled": tokens, "prompt": prompt, "trained": trained}
    flops = compute.training_flops(counted, model.passed, train.kl_beta > 0)
    passing = flops - compute.FORWARD * model.passed * (tokens + prompt)
    samplers = machine.serving if study.engine.rollout_engine == "vllm_server" else machine.training
    rate = machine.rate * (LOOP_SHARE if study.engine.rollout_engine == "loop" else 1.0)
    seconds = tokens / (rate * samplers) + passing / (1e12 * machine.training_tflops * machine.training)
    hours = (seconds + steps * STEP_SECONDS) / 3600
    return Cost("", tokens, trained, steps, flops, hours, hours * machine.held)


def _sum(parts: Sequence[Cost], stage: str) -> Cost:
    """All `parts`, one after the other."""
    names = [field.name for field in fields(Cost)[1:]]
    return Cost(stage, *(sum(getattr(part, name) for part in parts) for name in names))


# ---- answers -----------------------------------------------------------------------------------------------

UNKNOWN_SIZE = 256
"""Problems of a benchmark of unknown size: one of the four in Eurus-2's 1,024 rows."""


def splits_of(study: Params) -> dict[str, dict[str, int]]:
    """Problems per split and domain that the stages sample, `ood` under logic: what `problems.select` or
    `hub.splits.build` takes. Raises StudyError for a benchmark that is not known."""
    data, origin = study.data, study.origin
    ood = data.ood_problems * len(hub.logic.HELD_OUT)
    if not origin.benchmark_sets:
        test, hard = (dict.fromkeys(DOMAINS, count) for count in (data.test_problems, data.hard_problems))
    else:
        test = _per_domain(study, [name for name in origin.benchmark_sets if name != OOD], data.test_problems)
        found = _per_domain(study, origin.hard_sets, data.hard_problems)
        hard = {name: min(count, data.hard_problems) for name, count in found.items()}
        ood = min(ood, hub.BENCHMARKS[OOD].expected) if OOD in origin.benchmark_sets else 0
    train, validation = (dict.fromkeys(test, n) for n in (TRAIN_PROBLEMS, data.validation_problems))
    return {"train": train, "validation": validation, "test": test, "hard": hard, "ood": {"logic": ood}}


def _per_domain(study: Params, names: Sequence[str], most: int) -> dict[str, int]:
    """Problems by domain, at most so many of each set."""
    if strange := [name for name in names if name not in hub.BENCHMARKS]:
        raise StudyError(f"origin: no such benchmark: {', '.join(strange)}; see `prorl-study sources`.")
    found: dict[str, int] = {}
    for source in (hub.BENCHMARKS[name] for name in names):
        count = min(source.expected or UNKNOWN_SIZE, most, study.origin.hub_limit or most)
        found[source.domain] = found.get(source.domain, 0) + count
    return found


def _totals(study: Params) -> dict[str, int]:
    return {split: sum(counts.values()) for split, counts in splits_of(study).items()}


def _capped(counts: Mapping[str, int], most: int) -> int:
    """Problems in all, at most so many of each domain."""
    return sum(min(count, most) for count in counts.values())


def gate_answers(study: Params) -> int:
    """As `gate.measure` draws them."""
    problems = _capped(splits_of(study)["validation"], study.base_model.gate_problems)
    return problems * (study.evaluation.samples_more + 1)


def arm_answers(study: Params) -> int:
    """Answers that judge one model among the arms."""
    return _capped(splits_of(study)["test"], study.arms.arm_problems) * study.arms.arm_samples


def benchmark_answers(study: Params) -> int:
    """As `evaluation.evaluate_model` draws them; the base's best temperature is taken to be another one."""
    how, sizes = study.evaluation, _totals(study)
    others, every = len(set(how.tuned_temperatures) - {how.eval_temperature}), sum(sizes.values())
    base = every * (how.samples_more + 1) + others * sizes["validation"] * how.samples
    base += sizes["test"] * how.samples * bool(others)
    segment = every * (how.samples + 1) + sizes["hard"] * (how.samples_more - how.samples)
    return base + len(study.segments) * segment


def boundary_answers(study: Params) -> int:
    """As `boundary_sampling.measure` draws them; each model's best temperature is taken to be another one."""
    how, models, splits = study.evaluation, len(boundary_models(list(study.segments))), splits_of(study)
    others = len(set(how.tuned_temperatures) - {how.eval_temperature})
    problems = sum(_capped(splits[split], study.boundary.boundary_problems) for split in ("test", "hard"))
    deep = models * 2 * problems * study.boundary.boundary_samples
    return deep + (models - 1) * others * _totals(study)["validation"] * how.samples


# ---- for people to read ------------------------------------------------------------------------------------


def report(study: Params, measured: Path, rate: float | None = None) -> str:
    """The estimate with everything that it assumes; `measured` and `rate` as of `machine_of`. Raises
    StudyError as `estimate` does."""
    if not study.origin.base:
        return (
            f"{_table(estimate(study, H100))}\nThe embedded model: its hours are known once it has run. "
            "Samples that agree are drawn once, so that `boundary` takes far fewer tokens."
        )
    machine, model = machine_of(study, measured, rate), model_of(study)
    costs = estimate(study, machine)
    each = zip(*(estimate(study, machine, guess) for guess in WORST), strict=True)
    worst = [max(cost.hours for cost in same) for same in each]
    parts = {name: gb for name, gb in memory(study, machine).items() if gb}
    return "\n".join(
        [
            f"Profile {study.profile}: {study.origin.base}, {model.weights / 1e9:.2f} billion weights",
            f"on {_cards(study, machine)}",
            _table(costs, worst),
            f"Memory of a training card: {sum(parts.values()):.1f} of {machine.memory_gb:.0f} GB",
            f"  {', '.join(f'{name} {gb:.1f}' for name, gb in parts.items())}",
            f"Disk: up to {disk(study):,.0f} GB of models and checkpoints",
            *_beside(study, machine, costs),
            *_assumed(machine, rate),
        ]
    )


def _table(costs: Sequence[Cost], worst: Sequence[float] = ()) -> str:
    """Tokens in millions; hours only where their `worst` are given, one per cost."""
    lines = [f"{'stage':<12}{'steps':>8}{'sampled M':>12}{'trained M':>12}{'FLOPs':>10}"]
    if worst:
        lines[0] += f"{'hours':>9}{'at most':>9}{'GPU-hours':>11}"
    for number, cost in enumerate([*costs, _sum(costs, "all")]):
        line = f"{cost.stage:<12}{cost.steps:>8,.0f}{cost.sampled / 1e6:>12,.1f}{cost.trained / 1e6:>12,.1f}"
        line += f"{cost.flops:>10.1e}"
        if worst:
            most = [*worst, sum(worst)][number]
            line += f"{cost.hours:>9,.1f}{most:>9,.1f}{cost.card_hours:>11,.1f}"
        lines.append(line)
    return "\n".join(lines)


def _cards(study: Params, machine: Machine) -> str:
    if machine.held == 1:
        return f"one {machine.card}"
    serving = f", {machine.serving} serve" if study.engine.rollout_engine == "vllm_server" else ""
    at_work = f"{machine.training} train{serving}"
    return f"{machine.held} x {machine.card} while training ({at_work}), one otherwise"


def _beside(study: Params, machine: Machine, costs: Sequence[Cost]) -> Iterator[str]:
    """What the same costs without a server of its own, and what the paper's run has cost."""
    if study.engine.rollout_engine != "vllm_server":
        return
    from prorl_study.paper import load_paper

    engine = replace(study.engine, rollout_engine="vllm_colocate", vllm_server="")
    without = estimate(replace(study, engine=engine), replace(machine, training=machine.held, serving=0))
    one, other = _sum(costs, ""), _sum(without, "")
    paper = load_paper()["hyperparameters"]["gpu_hours"]
    yield f"GPU-hours: {one.card_hours:,.0f}; the paper: {paper['value']:,} ({paper['source']})"
    yield (
        f"  without a server (rollout_engine: vllm_colocate), {machine.held} cards training and sampling: "
        f"{other.card_hours:,.0f}, in {other.hours:,.0f} hours"
    )


def _assumed(machine: Machine, rate: float | None) -> Iterator[str]:
    said = {
        f"{machine.rate:,.0f} answer tokens a second and card by vLLM": "yours" if rate else "yours: --rate",
        f"{LOOP_SHARE:.0%} of that without vLLM": "",
        f"training at {machine.training_tflops:.0f} TFLOPS a card": (
            "measured by make gpu-check"
            if machine.tflops
            else f"{TRAINING_SHARE:.0%} of the data sheet's {machine.sheet_tflops:.0f}; yours: make gpu-check"
        ),
        f"answers of {LIKELY.answer:.0%} of the cap": "2505.24864, Fig. 2: 3,000 to 7,000 tokens of 8,192",
        f"{LIKELY.informative:.0%} of groups informative": "2510.01180, n = 16",
        f"prompts of {PROMPT_TOKENS} tokens": "",
        f"{STEP_SECONDS:.0f} s a step for judging and weights": "",
    }
    yield "Assumed, where nothing else is said:"
    yield from (f"  {what}{f' ({why})' if why else ''}" for what, why in said.items())
    yield "At most, at these rates: every answer as long as its cap, or every group informative, or both."
