"""Instruction following: a line about a subject under one to four of IFEval's verifiable instructions.

Generated problems use fourteen of IFEval's 25 instruction types. The verifier and `from_ifeval_row` take
all 25 and 56 of IFBench's 58, judged by the checkers of the library `if-verifiable`. The score is the
fraction of instructions followed; solved means all of them (IFEval's prompt-level accuracy), strict or,
where the problem's checks say `"loose": True`, under IFEval's eight loose readings of the answer. The
teacher's habit is to ignore the last instruction of the prompt. Its plain line breaks every instruction,
so none is followed by accident.

Left out: the types that `judges.instructions` names as unjudgeable (problems with them are refused). Loose
readings forgive wrong content, such as a comma in the first line, so `lenient` has no part in them: it only
looks for the answer in more places, so that a gain under it is no gain in format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from prorl_study.domains.problem import Domain, Problem, Verdict, after_thinking, problem_rng
from prorl_study.domains.templates import choose_template
from prorl_study.judges.instructions import CannotJudge, build, follows, plain_kwargs

DEPTHS = {
    "demonstrations": {1: 1, 2: 1},
    "train": {1: 2, 2: 3, 3: 2},
    "validation": {1: 2, 2: 3, 3: 2},
    "test": {1: 2, 2: 3, 3: 2},
    "hard": {4: 1},
}
"""Instructions per problem and their weights. Own table: four is the most that fits a short answer, and
there is no `ood` split."""
MAX_ANSWER = 40_000
"""Characters; a longer answer is refused unread."""

# Subject: the word that the plain line uses for it, and the one to use where that word is forbidden.
SUBJECTS = {
    "river": ("calm", "clear"),
    "garden": ("green", "pretty"),
    "forest": ("dark", "quiet"),
    "city": ("big", "busy"),
    "sea": ("blue", "deep"),
    "house": ("old", "warm"),
    "school": ("new", "open"),
    "mountain": ("high", "cold"),
    "market": ("loud", "full"),
    "bridge": ("long", "strong"),
    "winter": ("white", "hard"),
    "summer": ("hot", "bright"),
}
WORDS = ("moon", "bread", "lamp", "horse", "music", "paper", "glass", "apple", "wind", "milk", "gold")
END_PHRASES = ("That is all.", "See you soon.", "Have a good day.", "Thank you so much.")
PLACEHOLDERS = ("[name]", "[place]", "[time]")
BULLETS = ("- good", "- safe", "- free", "- near")
FILLER = "It is a good day to go there."

NO_COMMA, QUOTATION = "punctuation:no_comma", "startend:quotation"
LOWER, UPPER = "change_case:english_lowercase", "change_case:english_capital"
END, TITLE = "startend:end_checker", "detectable_format:title"
BULLET, HIGHLIGHT = "detectable_format:number_bullet_lists", "detectable_format:number_highlighted_sections"
POSTSCRIPT, PLACEHOLDER = "detectable_content:postscript", "detectable_content:number_placeholders"
EXISTENCE, FORBIDDEN, FREQUENCY = "keywords:existence", "keywords:forbidden_words", "keywords:frequency"
LENGTH = "length_constraints:number_words"


def _wordings(pattern: str, *starts: str) -> tuple[str, ...]:
    return tuple(pattern.format(start) for start in starts)


# Four wordings each; a template's third index picks the column. Of length, one row per direction.
FEWER = "fewer words"
WORDINGS = {
    NO_COMMA: ("Use no commas.", "Do not use commas.", "Leave out all commas.", "Avoid commas."),
    LOWER: ("Use only small letters.", "Write in lowercase.", "No capital letters.", "Keep it lowercase."),
    UPPER: ("Use only capital letters.", "Write in capitals.", "No small letters.", "Keep to capitals."),
    QUOTATION: ("Wrap it in double quotes.", "Put it all in quotes.", "Quote it all.", "Use double quotes."),
    END: _wordings("{}: {{end_phrase}}", "End with", "Finish with", "Last words", "Close with"),
    TITLE: ("Add a <<title>>.", "Give it a <<title>>.", "Put a <<title>> on top.", "Start with a <<title>>."),
    BULLET: _wordings("{} {{num_bullets}} bullet points.", "Use", "Add", "Have", "List"),
    POSTSCRIPT: _wordings("{} a {{postscript_marker}} note.", "Add", "Put", "Write", "Include"),
    PLACEHOLDER: _wordings("{} {{num_placeholders}} [placeholders].", "Use", "Add", "Have", "Put"),
    EXISTENCE: _wordings("{}: {{words}}.", "Include", "Use the words", "Mention", "Say"),
    FORBIDDEN: _wordings("{} {{words}}.", "Do not say", "Never use", "Avoid the word", "Leave out"),
    FREQUENCY: _wordings("{} {{keyword}} {{frequency}} times.", "Say", "Use", "Write", "Repeat"),
    HIGHLIGHT: _wordings("{} {{num_highlights}} with *stars*.", "Highlight", "Mark", "Set", "Stress"),
    LENGTH: ("Use {num_words} words or more.", "Write at least {num_words} words.",
             "Have {num_words} or more words.", "No less than {num_words} words."),
    FEWER: ("Use less than {num_words} words.", "Write fewer than {num_words} words.",
            "Have under {num_words} words.", "Stay below {num_words} words."),
}  # fmt: skip
HEAVIER = {END: 2, BULLET: 2, EXISTENCE: 2, FREQUENCY: 2, LENGTH: 3}
TYPES = {name: HEAVIER.get(name, 1) for name in WORDINGS if name != FEWER}
"""Instruction types and their weights. Heavier are those that cannot be followed unread: they ask for a
certain word or count, or bound the length, so that a text which piles up every instruction fails."""
EXCLUSIVE = ({LOWER, UPPER}, {END, POSTSCRIPT})
"""Types that cannot stand together: both cases, and two pieces that each claim the end."""

OPENERS = (
    "Write a line about the {subject}.",
    "Say something about the {subject}.",
    "Give me a text about the {subject}.",
    "Tell me about the {subject}.",
)
LEADS = ("Rules:", "Please note:", "Follow this:", "Keep in mind:")

Kwargs = dict[str, Any]


def compose(subject: str, ids: list[str], kwargs: list[Kwargs]) -> str:
    """The text about `subject` that obeys exactly these instructions.

    Pieces follow the order of the instructions, so that the next piece is the next thing to read in the
    prompt; only a title goes first and a required end goes last.
    """
    obey = dict(zip(ids, kwargs, strict=True))
    forbidden = obey.get(FORBIDDEN, {}).get("forbidden_words", [])
    plain, other = SUBJECTS[subject]
    quality = other if plain in forbidden else plain
    verb = "love" if "like" in forbidden else "like"
    marks = obey.get(HIGHLIGHT, {}).get("num_highlights", 0)
    noun = f"*{subject}*" if marks > 1 else subject
    quality = f"*{quality}*" if marks else quality
    text = f"The {noun} is {quality}, and we {verb} it."
    if NO_COMMA in obey:
        text = text.replace(",", "")
    length = obey.get(LENGTH, {}).get("relation")
    if length == "less than":
        text = f"The {noun} is {quality}."
    for name, values in obey.items():
        if name == BULLET:
            text += "".join(f"\n{bullet}" for bullet in BULLETS[: values["num_bullets"]]) + "\n"
            continue
        piece = {
            PLACEHOLDER: lambda v: " ".join(PLACEHOLDERS[: v["num_placeholders"]]),
            EXISTENCE: lambda v: f"See the {' and '.join(v['keywords'])}.",
            FREQUENCY: lambda v: " ".join([v["keyword"]] * v["frequency"]) + ".",
            POSTSCRIPT: lambda v: f"{v['postscript_marker']} Come soon.",
            LENGTH: lambda v: FILLER if length == "at least" else "",
        }.get(name, lambda v: "")(values)
        if piece:
            text += ("" if text.endswith("\n") else " ") + piece
    if END in obey:
        text += ("" if text.endswith("\n") else " ") + obey[END]["end_phrase"]
    text = text.strip()
    if TITLE in obey:
        text = f"<<The {subject}>>\n{text}"
    if LOWER in obey or UPPER in obey:
        text = text.lower() if LOWER in obey else text.upper()
    return f'"{text}"' if QUOTATION in obey else text


def _draw_instructions(rng: Random, subject: str, depth: int) -> tuple[list[str], list[Kwargs]]:
    ids: list[str] = []
    while len(ids) < depth:
        name = rng.choices(list(TYPES), weights=list(TYPES.values()))[0]
        if name not in ids and not any(name in pair and pair & set(ids) for pair in EXCLUSIVE):
            ids.append(name)
    words = rng.sample(WORDS, 3)
    # The short line has neither a comma nor "like", which those instructions need to be there to break.
    shorter = LENGTH in ids and NO_COMMA not in ids and rng.random() < 0.7
    breakable = (SUBJECTS[subject][0],) if shorter else (SUBJECTS[subject][0], "like")
    drawn: dict[str, Kwargs] = {
        END: {"end_phrase": rng.choice(END_PHRASES)},
        BULLET: {"num_bullets": rng.randint(2, 4)},
        POSTSCRIPT: {"postscript_marker": rng.choice(("P.S.", "P.P.S"))},
        PLACEHOLDER: {"num_placeholders": rng.randint(2, 3)},
        EXISTENCE: {"keywords": sorted(words[: rng.randint(1, 2)])},
        FORBIDDEN: {"forbidden_words": [rng.choice(breakable)]},
        FREQUENCY: {"keyword": words[2], "frequency": rng.randint(2, 3), "relation": "at least"},
        HIGHLIGHT: {"num_highlights": rng.randint(1, 2)},
    }
    kwargs = [drawn.get(name, {}) for name in ids]
    if LENGTH in ids:
        # The bound lies between the text's words without this instruction and with it.
        rest = [(name, values) for name, values in zip(ids, kwargs, strict=True) if name != LENGTH]
        without = compose(subject, [name for name, _ in rest], [values for _, values in rest])
        count = len(re.findall(r"\w+", without))
        kwargs[ids.index(LENGTH)] = (
            {"num_words": count - rng.randint(0, 3), "relation": "less than"}
            if shorter
            else {"num_words": count + rng.randint(3, 8), "relation": "at least"}
        )
    return ids, kwargs


def _is_english(text: str) -> bool:
    import langdetect  # seeded, so that the same text always gets the same answer

    langdetect.DetectorFactory.seed = 0
    try:
        return langdetect.detect(text) == "en"
    except langdetect.LangDetectException:
        return False


def generate(seed: int, split: str, index: int) -> Problem:
    """Item `index` of `split`, which may be any but `ood`. Where case is asked for, the right text is one
    that language detection takes for English."""
    rng = problem_rng(seed, "instruction", split, index)
    depth = rng.choices(list(DEPTHS[split]), weights=list(DEPTHS[split].values()))[0]
    template, (opener, lead, style) = choose_template(rng, split, OPENERS, LEADS, (0, 1, 2, 3))
    while True:  # ends: nine short texts in ten are taken for English
        subject = rng.choice(list(SUBJECTS))
        ids, kwargs = _draw_instructions(rng, subject, depth)
        answer = compose(subject, ids, kwargs)
        if not {LOWER, UPPER} & set(ids) or _is_english(answer):
            break
    sentences = []
    for name, values in zip(ids, kwargs, strict=True):
        words = ", ".join(values.get("keywords", values.get("forbidden_words", [])))
        row = FEWER if values.get("relation") == "less than" else name
        sentences.append(WORDINGS[row][style].format(words=words, **values))
    text = " ".join([opener.format(subject=subject), lead, *sentences])
    return Problem(
        id=f"instruction-{split}-{index}",
        domain="instruction",
        task=f"follow_{depth}",
        template=template,
        prompt=[{"role": "user", "content": text}],
        answer=answer,
        checks={"instruction_id_list": ids, "kwargs": kwargs, "subject": subject},
        difficulty=depth,
        split=split,
        source="generated",
    )


def solve(problem: Problem) -> str:
    return problem.answer


def habit(problem: Problem, rng: Random) -> str:
    """The same text without what the last instruction asks for."""
    checks = problem.checks
    return compose(checks["subject"], checks["instruction_id_list"][:-1], checks["kwargs"][:-1])


def slip(text: str, rng: Random) -> str:
    """The answer left inside the think part; one slip that misses every instruction type alike."""
    return f"<think>{text}</think>"


def guess(problem: Problem, rng: Random) -> str:
    """A text for as many instructions of this kind, drawn without reading the prompt."""
    subject = rng.choice(list(SUBJECTS))
    return compose(subject, *_draw_instructions(rng, subject, problem.difficulty))


def garbage(problem: Problem, rng: Random) -> str:
    """The plain line, which breaks every instruction; made too long where there is a limit."""
    plain = compose(problem.checks["subject"], [], [])
    limited = any(values.get("relation") == "less than" for values in problem.checks["kwargs"])
    return " ".join([plain, FILLER, FILLER, FILLER]) if limited else plain


def _answer(text: str, lenient: bool) -> str:
    """Strict: what follows the think part. Lenient: also an answer left inside it, or inside a fence."""
    answer = after_thinking(text).strip()
    if answer.startswith("<think>"):
        answer = ""  # never closed, so nothing follows it
    if lenient:
        answer = answer or re.sub(r"</?think>", "", text).strip()
        answer = re.sub(r"\A```\w*\n(.*?)\n?```\Z", r"\1", answer, flags=re.DOTALL).strip()
    return answer


def extract(text: str, lenient: bool) -> str | None:
    return _answer(text, lenient) or None


def from_ifeval_row(row: Mapping[str, Any], loose: bool = False) -> Problem:
    """A problem from a row of IFEval, IFBench, or one of NVIDIA's two sets for training.

    Taken are `prompt`, or the messages in `input` or in `responses_create_params`; `instruction_id_list`;
    and `kwargs` or `instruction_kwargs`, each also inside `args`. Arguments may be absent, null, or name
    every key with nulls; lists may be JSON text. Raises ValueError for a row without a prompt or without
    instructions, or with another number of arguments. Whether it can be judged, `unjudgeable` says.
    """

    def parsed(value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    args = {**row, **(parsed(row.get("args")) or {})}
    ids = list(parsed(args.get("instruction_id_list")) or [])
    kwargs = list(parsed(args.get("kwargs") or args.get("instruction_kwargs")) or [None] * len(ids))
    messages = row.get("prompt") or row.get("input")
    messages = messages or (row.get("responses_create_params") or {}).get("input")
    if not ids or not messages or len(kwargs) != len(ids):
        raise ValueError(f"not an instruction row: {len(ids)} instructions, {len(kwargs)} arguments")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    checks: dict[str, Any] = {
        "instruction_id_list": ids,
        "kwargs": [plain_kwargs(parsed(values)) for values in kwargs],
    }
    return Problem(
        id=f"instruction-row-{row.get('key', row.get('id', ''))}",
        domain="instruction",
        task=f"follow_{len(ids)}",
        prompt=[{"role": turn["role"], "content": turn["content"]} for turn in messages],
        checks={**checks, "loose": True} if loose else checks,
        difficulty=len(ids),
        source="row",
    )


def _checkers(problem: Problem) -> list[Any]:
    """One checker per instruction. Raises CannotJudge where there is one that cannot be judged."""
    ids, kwargs = (problem.checks.get(key) or [] for key in ("instruction_id_list", "kwargs"))
    if not ids or len(ids) != len(kwargs):
        raise CannotJudge(f"{len(ids)} instructions with {len(kwargs)} arguments")
    return [build(name, values) for name, values in zip(ids, kwargs, strict=True)]


def unjudgeable(problem: Problem) -> str:
    """Why the verifier refuses every answer to this problem, or "" where it judges them."""
    try:
        _checkers(problem)
    except CannotJudge as error:
        return str(error)
    return ""


def verify(problem: Problem, text: str, lenient: bool) -> Verdict:
    """Check every instruction with its checker; score is the fraction followed. Never raises on text.

    Strict, or loose where `problem.checks["loose"]` is true. A checker that raises counts as not followed
    and is named in `reason`. A problem that is `unjudgeable` in part is `refused`, whatever the answer.
    """
    answer = _answer(text, lenient)
    try:
        checkers = _checkers(problem)
    except CannotJudge as error:
        return Verdict(0.0, False, "refused", str(error), answer or None)
    if len(answer) > MAX_ANSWER:
        return Verdict(0.0, False, "refused", f"answer over {MAX_ANSWER} characters", answer)
    if not answer:
        return Verdict(0.0, False, "unparseable", "no answer after the think part")
    missed = []
    for checker in checkers:
        kept, failure = follows(checker, answer, loose=problem.checks.get("loose", False))
        if not kept:
            missed.append(f"{checker.id} ({failure})" if failure else checker.id)
    score = (len(checkers) - len(missed)) / len(checkers)
    status = "correct" if not missed else "partial" if score else "wrong"
    return Verdict(score, not missed, status, f"missed {', '.join(missed)}" if missed else "", answer)


DOMAIN = Domain(
    name="instruction",
    weight=10,
    graded=True,
    generate=generate,
    solve=solve,
    habit=habit,
    slip=slip,
    guess=guess,
    garbage=garbage,
    verify=verify,
    extract=extract,
)
