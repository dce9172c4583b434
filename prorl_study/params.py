"""Typed parameters of the study, read from `params.yaml`.

One dataclass per section; the docstring under a field gives unit, meaning and the paper's value. A
notebook's parameters cell holds the same names, so `collect` can gather them from its variables.
`params.yaml` is read with a YAML 1.2 reader: PyYAML takes `3e-06`, which DVC writes, for a string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ruamel.yaml import YAML

from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError


def _positive(section: object, *names: str) -> None:
    for name in names:
        if getattr(section, name) <= 0:
            raise StudyError(f"{name}={getattr(section, name)!r} must be above 0; change it in params.yaml.")


def _share(section: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(section, name) <= 1:
            raise StudyError(
                f"{name}={getattr(section, name)!r} must lie in [0, 1]; change it in params.yaml."
            )


def _among(where: str, section: object, **allowed: tuple[str, ...]) -> None:
    for name, values in allowed.items():
        if getattr(section, name) not in values:
            raise StudyError(
                f"{where}: {name}={getattr(section, name)!r} must be one of {', '.join(values)}; change it "
                "in params.yaml."
            )


@dataclass(frozen=True)
class DataParams:
    """Sizes of the splits that the stages use: the first problems of each split of the snapshot."""

    train_problems: int
    """Training problems in all, split over the domains by their weights, 40:24:25:37:10 for the paper's
    (paper: 136,000)."""
    validation_problems: int
    """Per domain; decisions look at these only."""
    test_problems: int
    """Per domain."""
    hard_problems: int
    """Per domain: compositions longer than any demonstration of the base."""
    ood_problems: int
    """Per held-out Reasoning Gym task."""
    floor_samples: int
    """Problems per task on which the floors (well-formed wrong answer, guesser) are measured."""

    def __post_init__(self) -> None:
        _positive(self, *asdict(self))


@dataclass(frozen=True)
class BaseModelParams:
    """The embedded base model and the teacher that it is distilled from."""

    vocabulary: int
    """Tokens in the tokenizer."""
    hidden_size: int
    """Width of the model."""
    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads."""
    intermediate_size: int
    """Width of the gated feed-forward layer."""
    demonstrations: int
    """Teacher demonstrations that supervised training draws from, over all domains."""
    sft_steps: int
    """Optimizer steps of supervised training."""
    sft_batch: int
    """Demonstrations per step."""
    sft_learning_rate: float
    """Peak rate of Muon (AdamW, for embeddings and norms: a sixth); warm-up over 5 %, cosine to a tenth."""
    habit_rate: float
    """Share of demonstrations that follow the domain's wrong strategy."""
    slip_rate: float
    """Share of demonstrations whose answer misses its format."""
    logic_slip_rate: float
    """The same for logic, where the paper's base fails mostly by format (2505.24864, App. F.1)."""
    gate_margin: float
    """pass@16 must exceed the better of greedy and cons@16 by this much in every domain; below 0 the gate
    only reports (the smoke profile's base is too small to pass)."""
    gate_problems: int
    """Validation problems per domain that the gate looks at."""

    def __post_init__(self) -> None:
        _share(self, "habit_rate", "slip_rate", "logic_slip_rate")
        _positive(self, "vocabulary", "hidden_size", "layers", "heads", "sft_steps", "sft_batch")


def _domains(named: list[str]) -> list[str]:
    return list(DOMAINS) if named == ["all"] else named


@dataclass(frozen=True)
class TrainParams:
    """The recipe of one arm and the size of its rollouts; see `recipe.py` for what each part does."""

    learning_rate: float
    """AdamW, constant (paper: 2e-6 for 1.5 B parameters)."""
    domains: list[str]
    """Domains that the arm trains on; a specialist has one. `[all]`, here and in the curriculum, names every
    domain of the study."""
    prompts_per_step: int
    """Groups that a rollout step trains on (paper: 256)."""
    rollouts_per_prompt: int
    """Group size n at the start (paper: 16, 32, 16)."""
    updates_per_rollout: int
    """Optimizer steps per rollout step (paper: 4)."""
    temperature: float
    """Rollout temperature (paper: 1.2)."""
    max_completion_tokens: int
    """Response cap at the start (paper: 8k, then 16k)."""
    curriculum: list[dict[str, Any]]
    """What changes from a number of sampled `tokens` on; see `curriculum.py` (paper: App. E)."""
    reward: str
    """What a verdict is paid: `verified`, or a control of `rewards.py` (`random`, `format`, `noisy`)."""
    clip_low: float
    """epsilon_low (paper: 0.2)."""
    clip_high: float
    """epsilon_high (paper: 0.4)."""
    kl_beta: float
    """Weight of the k3 KL to the reference in the loss (paper: silent; notes on 2507.12507: 1e-4)."""
    dynamic_sampling: bool
    """Drop groups without signal and refill, with quotas per domain."""
    max_sampling_rounds: int
    """Rollout rounds per step before the batch is filled with uninformative groups."""
    spread_above_floor: bool
    """A group informs by its scores above the task's floor, so that crumbs for format do not count."""
    loss_type: str
    """TRL's loss aggregation (paper: silent)."""
    scale_rewards: str
    """group: divide the advantage by the group's standard deviation (paper: Eq. 2)."""
    max_grad_norm: float
    """Gradient clipping (paper: silent)."""
    checkpoint_every: int
    """Rollout steps between checkpoints."""
    validate_every: int
    """Rollout steps between validations."""
    validation_prompts: int
    """Validation problems per domain in one check."""
    probe_every: int
    """Rollout steps between measurements of the KL gradient's share and of the size of a step."""
    min_delta: float
    """Rise of the validation score, a share of 1, that counts as one (and two standard errors at least)."""
    patience: int
    """Checks in a row without a rise that are a plateau."""
    max_drop: float
    """Fall of the validation score below the last check that rose, which ends a segment at once."""
    max_kl: float
    """KL to the reference that ends a segment (nats per token)."""
    alarm_kl: float
    """Stop when the mean KL to the reference exceeds this (nats per token)."""
    alarm_entropy: float
    """Stop when the token entropy falls below this (nats)."""

    def __post_init__(self) -> None:
        # Resolved here, so that whoever reads a recipe, or compares two, sees names.
        object.__setattr__(self, "domains", _domains(self.domains))
        entries = [e | {"domains": _domains(e["domains"])} if "domains" in e else e for e in self.curriculum]
        object.__setattr__(self, "curriculum", entries)
        _positive(
            self,
            "learning_rate",
            "prompts_per_step",
            "rollouts_per_prompt",
            "updates_per_rollout",
            "temperature",
            "max_completion_tokens",
            "max_sampling_rounds",
            "checkpoint_every",
            "validate_every",
            "validation_prompts",
            "probe_every",
            "min_delta",
            "patience",
            "max_drop",
            "max_kl",
        )
        _among("train", self, reward=("verified", "random", "format", "noisy"))
        groups, updates = self.prompts_per_step, self.updates_per_rollout
        if groups * self.rollouts_per_prompt % updates:
            raise StudyError(
                f"prompts_per_step={groups} times rollouts_per_prompt={self.rollouts_per_prompt} must be a "
                f"multiple of updates_per_rollout={updates}; change one of them in params.yaml."
            )


@dataclass(frozen=True)
class SegmentParams:
    """A stretch of training between two boundaries."""

    segment: str
    """Name of the segment; its model is `models/<segment>`."""
    previous: str
    """Model that the segment starts from: `base` or a segment."""
    tokens: int
    """Budget in sampled tokens, those of dropped groups and of validation included. What the segment before
    has left over comes on top."""
    reference: str
    """move: the reference becomes the policy that the segment starts from; keep: the previous one stays."""
    optimizer: str
    """fresh: AdamW starts empty (the paper's reset does both); keep: its state is carried over."""
    rule: str
    """stop: the stagnation rule may end the segment before its budget is spent; log: it only writes down that
    it would have. The last segment logs, so that all arms spend the same."""
    bump: float = 1.0
    """Factor on the learning rate in the first `bump_steps` rollout steps: a control for the fresh optimizer,
    whose first steps are large."""
    bump_steps: int = 0
    """Rollout steps."""

    def __post_init__(self) -> None:
        _positive(self, "tokens", "bump")
        _among(
            f"segment {self.segment}",
            self,
            reference=("move", "keep"),
            optimizer=("fresh", "keep"),
            rule=("stop", "log"),
        )


@dataclass(frozen=True)
class ArmsParams:
    """The arms that are trained beside `train`, and how all of them are judged."""

    arms: dict
    """What each changes of `train` or of the segments' boundaries, by its name."""
    arm_problems: int
    """Test problems per domain, judged at every segment's end."""
    arm_samples: int
    """Samples per problem."""

    def __post_init__(self) -> None:
        _positive(self, "arm_problems", "arm_samples")


@dataclass(frozen=True)
class EvaluationParams:
    """One sampler for all models, and how its samples are summarised."""

    eval_temperature: float
    """Sampling temperature (paper: 0.6)."""
    top_p: float
    """Nucleus sampling (paper: 0.95)."""
    samples: int
    """Samples per problem (paper: 16)."""
    samples_more: int
    """Samples per problem for the base model and for the `hard` split."""
    max_tokens: int
    """Response cap, the same for all models (paper: 32k)."""
    tuned_temperatures: list[float]
    """Candidates for the best training-free base; chosen on validation."""
    batch_tokens: int
    """Tokens (prompt and response) that one generation batch may hold."""
    bootstrap_resamples: int
    """Resamples of problems for each interval."""


@dataclass(frozen=True)
class VerificationParams:
    """Who judges answers, and behind what; no result depends on these."""

    isolation: str
    """`walls` (bubblewrap), or `process` to go without, which is warned about."""
    workers: int
    """Pairs of processes that judge answers."""


@dataclass(frozen=True)
class OriginParams:
    """Where base model and problems come from; all empty is the embedded study, which needs no network."""

    base: str = ""
    """Base model: a local folder or a hub id; empty: the embedded model is trained."""
    revision: str = ""
    """Its commit on the hub, 40 hex digits; empty for a local folder."""
    training_sets: list[str] = field(default_factory=list)
    """Training sets of `prorl-study sources`, one or more per domain; empty: the embedded problems."""
    benchmark_sets: list[str] = field(default_factory=list)
    """Benchmarks of `prorl-study sources` that are the test split; `reasoning_gym_ood` is the split `ood`."""
    hard_sets: list[str] = field(default_factory=list)
    """Benchmarks that are the split `hard`; without one, claims about it have nothing to say."""
    hub_limit: int = 0
    """Problems that are read of each set at most; 0: all of them."""

    def __post_init__(self) -> None:
        if bool(self.training_sets) != bool(self.benchmark_sets):
            raise StudyError(
                f"origin: training_sets={self.training_sets} and benchmark_sets={self.benchmark_sets} must "
                "both be given or both be empty; change one of them in params.yaml."
            )
        if self.revision and not self.base:
            raise StudyError(
                f"origin: revision={self.revision!r} belongs to a model; name it, or take it out of "
                "params.yaml."
            )


ROLLOUT_ENGINES = ("loop", "vllm_colocate", "vllm_server")
IMPORTANCE_SAMPLING = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
"""TRL's modes. A ratio of whole sequences is a product over all tokens, so that of a long answer is near 0 or
huge; a ratio per token, truncated, is what suits answers of thousands of tokens."""


@dataclass(frozen=True)
class EngineParams:
    """What computes, and with how much at once; results depend on it by rounding and by chance alone."""

    launcher: str = ""
    """Command that starts the trainer's processes, such as `accelerate launch --config_file
    conf/accelerate/ddp_cpu.yaml`; empty: one process."""
    micro_batch: int = 0
    """Completions that a process passes backward at once; 0: all of an update's."""
    pass_tokens: int = 0
    """Tokens, padding included, that pass the model at once for log-probabilities; 0: 16 rows."""
    rollout_engine: str = "loop"
    """What samples in training: `loop` (the study's own), `vllm_colocate` or `vllm_server` (TRL's)."""
    vllm_server: str = ""
    """URL of `vllm serve` as conf/slurm/prorl.sbatch starts it, for `vllm_server`."""
    vllm_memory: float = 0.3
    """Share of the card's memory that a colocated vLLM takes."""
    importance_sampling: str = "token_truncate"
    """How TRL corrects for vLLM's log-probabilities, which differ from the trainer's."""
    evaluation_engine: str = "transformers"
    """What samples in evaluation: `transformers` or `vllm`."""
    report_to: list[str] = field(default_factory=list)
    """Trackers that TRL reports to, such as `tensorboard` or `wandb`; none by default."""
    deterministic: bool = False
    """Ask torch for algorithms that repeat to the bit, which costs speed on a GPU."""

    def __post_init__(self) -> None:
        _among(
            "engine",
            self,
            rollout_engine=ROLLOUT_ENGINES,
            evaluation_engine=("transformers", "vllm"),
            importance_sampling=IMPORTANCE_SAMPLING,
        )
        _share(self, "vllm_memory")
        if self.micro_batch < 0 or self.pass_tokens < 0:
            raise StudyError(
                f"engine: micro_batch={self.micro_batch}, pass_tokens={self.pass_tokens} must be 0 or more; "
                "change them in params.yaml."
            )
        if (self.rollout_engine == "vllm_server") != bool(self.vllm_server):
            raise StudyError(
                f"engine: rollout_engine={self.rollout_engine!r} does not fit vllm_server="
                f"{self.vllm_server!r}; the URL belongs to vllm_server alone."
            )


PLAIN_ENGINE = EngineParams()
"""One process, the study's own loop, each update's completions at once."""


@dataclass(frozen=True)
class BoundaryParams:
    """How far few models are sampled on few problems."""

    boundary_samples: int
    """Samples per problem and temperature (paper: 256)."""
    boundary_problems: int
    """Open-ended problems per domain and split (`test`, `hard`)."""

    def __post_init__(self) -> None:
        _positive(self, *asdict(self))


@dataclass(frozen=True)
class PowerParams:
    """What the sizes of experiments are reckoned with, before there are several seeds to measure it by."""

    seed_sd: list[float]
    """Assumed standard deviations of one arm's score between training seeds, points, shown side by side."""
    n_seeds: int
    """Training seeds per arm that are planned."""

    def __post_init__(self) -> None:
        _positive(self, "n_seeds")


@dataclass(frozen=True)
class AuditParams:
    """How many answers the sample browser shows."""

    pairs_per_domain: int
    """Problems per domain whose answers by base and trained model stand side by side."""
    audit_per_domain: int
    """Full-score answers per domain that are drawn uniformly."""
    audit_per_rule: int
    """Full-score answers per domain and rule that are drawn among those it marks."""

    def __post_init__(self) -> None:
        _positive(self, *asdict(self))


FAMILIES = ("primary", "estimate")


@dataclass(frozen=True)
class ClaimParams:
    """How one claim is looked at; fixed before the runs that it judges."""

    claim: str
    """Its id in `prorl_study.claims`."""
    family: str
    """`primary`: one of the few that are corrected together; `estimate`: an interval that stands alone."""
    measure: str
    """What is measured; above zero means as the claim says."""
    test: str
    """Where the interval, and for a primary claim the p-value, comes from."""
    margin: float
    """In `unit`: an interval inside plus or minus this is called no effect."""
    unit: str

    def __post_init__(self) -> None:
        _positive(self, "margin")
        if self.family not in FAMILIES:
            raise StudyError(
                f"claim {self.claim}: family={self.family!r} must be one of {', '.join(FAMILIES)}; "
                "change it under `claims` in params.yaml."
            )


Section = TypeVar(
    "Section",
    DataParams,
    BaseModelParams,
    TrainParams,
    SegmentParams,
    ArmsParams,
    EvaluationParams,
    VerificationParams,
    BoundaryParams,
    PowerParams,
    AuditParams,
    ClaimParams,
    OriginParams,
    EngineParams,
)


def build(section: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """`section(**values)` with each name and type checked.

    Raises StudyError that names the key, its value and `where` it stands. An int is accepted where a
    float is expected; a bool is never accepted for a number.
    """
    hints = get_type_hints(section)
    unknown = sorted(set(values) - set(hints))
    needed = [f.name for f in fields(section) if f.default is MISSING and f.default_factory is MISSING]
    missing = sorted(set(needed) - set(values))
    if unknown:
        raise StudyError(f"{where}: no such parameter: {', '.join(unknown)}; known: {', '.join(hints)}.")
    if missing:
        raise StudyError(f"{where}: missing parameter: {', '.join(missing)}; add it.")
    checked = {}
    for name, value in values.items():
        wanted = hints[name]
        if wanted is float and type(value) is int:
            value = float(value)
        plain = wanted if isinstance(wanted, type) else list
        if type(value) is not plain:
            raise StudyError(
                f"{where}: {name}={value!r} is {type(value).__name__}, must be {plain.__name__}; correct it."
            )
        checked[name] = value
    return section(**checked)


def collect(section: type[Section], variables: Mapping[str, Any]) -> Section:
    """Gather a section from a notebook's variables: `collect(DataParams, globals())`."""
    names = [f.name for f in fields(section) if f.name in variables]
    return build(section, {name: variables[name] for name in names}, "the notebook's parameters cell")


@dataclass(frozen=True)
class Params:
    """All of `params.yaml`."""

    profile: str
    seed: int
    data: DataParams
    base_model: BaseModelParams
    train: TrainParams
    segments: dict[str, SegmentParams]
    arms: ArmsParams
    evaluation: EvaluationParams
    boundary: BoundaryParams
    power: PowerParams
    audit: AuditParams
    claims: dict[str, ClaimParams]
    verification: VerificationParams
    origin: OriginParams
    engine: EngineParams


SECTIONS = {
    "data": DataParams,
    "base_model": BaseModelParams,
    "train": TrainParams,
    "arms": ArmsParams,
    "evaluation": EvaluationParams,
    "boundary": BoundaryParams,
    "power": PowerParams,
    "audit": AuditParams,
    "verification": VerificationParams,
    "origin": OriginParams,
    "engine": EngineParams,
}


def load_yaml(path: Path) -> dict[str, Any]:
    """The file as plain data, read as YAML 1.2. Raises StudyError where it is missing or no mapping."""
    if not path.is_file():
        raise StudyError(f"{path} is missing; restore it with `git checkout {path.name}`.")
    value = YAML(typ="safe").load(path)
    if not isinstance(value, dict):
        raise StudyError(f"{path} holds no mapping; restore it with `git checkout {path.name}`.")
    return value


def load(path: Path) -> Params:
    """`params.yaml` as typed parameters. Raises StudyError for an unknown, missing or ill-typed key."""
    raw = load_yaml(path)
    known = ["profile", "seed", "segments", "claims", *SECTIONS]
    unknown, missing = sorted(set(raw) - set(known)), sorted(set(known) - set(raw))
    if unknown:
        raise StudyError(f"{path.name}: no such section: {', '.join(unknown)}; known: {', '.join(known)}.")
    if missing:
        raise StudyError(f"{path.name}: missing section: {', '.join(missing)}; add it.")
    sections = {name: build(cls, raw[name], f"{path.name}, {name}") for name, cls in SECTIONS.items()}
    segments = {
        name: build(SegmentParams, {"segment": name, **values}, f"{path.name}, segments.{name}")
        for name, values in raw["segments"].items()
    }
    seen = {"base"}
    for segment in segments.values():
        if segment.previous not in seen:
            raise StudyError(
                f"{path.name}, segments.{segment.segment}: previous={segment.previous!r} must be one of "
                f"{', '.join(sorted(seen))}; list segments in the order in which they run."
            )
        seen.add(segment.segment)
    if segments and (last := list(segments.values())[-1]).rule != "log":
        raise StudyError(
            f"{path.name}, segments.{last.segment}: rule={last.rule!r} must be 'log' in the last segment, "
            "which spends what is left."
        )
    return Params(
        profile=raw["profile"],
        seed=raw["seed"],
        segments=segments,
        claims=claim_params(raw["claims"], path.name),
        **sections,
    )


def claim_params(raw: Mapping[str, Any], where: str) -> dict[str, ClaimParams]:
    """The section `claims`, by id. Raises StudyError as `build` does."""
    return {
        name: build(ClaimParams, {"claim": name, **values}, f"{where}, claims.{name}")
        for name, values in raw.items()
    }
