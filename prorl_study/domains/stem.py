r"""STEM: mechanics, circuits, chemistry and conversions with units, a fifth of it multiple choice.

Every problem adds up what is given and then applies one formula or constant: `4+7=11 +3=14 *2=28 V`. The
teacher's habit is the inverse operation in that last step (`/2=7 V`), as somebody does who remembers a
formula upside down; generated quantities come out even either way. An answer is a number within 1 % (or
`checks["tolerance"]`, relative) and its unit in any usual spelling.

Problems from elsewhere may also ask for an option (`checks["options"]`, letter to text; a letter alone, the
option's text, or both count), or have a formula or a word as gold, which `judges.latex` compares. Where their
prompt asks for no `\boxed{}`, a final statement counts as strictly as a box: `The answer is B.`, or a last
line that is a letter or an option's text and nothing else. Generated problems take the box alone, and the
letter alone, since results stand on that. Left out on purpose: converting between units in the verdict, an
option's text that two options share, a letter whose added text is another option's, and judging the thoughts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from random import Random

from prorl_study.domains.math import INVERSE, Chain, boxed_answer, equivalent, last_boxed, values, write_steps
from prorl_study.domains.problem import Domain, Problem, Verdict, after_thinking, problem_rng
from prorl_study.domains.templates import choose_depth, choose_template
from prorl_study.errors import StudyError
from prorl_study.judges.latex import unit_name

TOLERANCE = Fraction(1, 100)
"""Relative error of a numeric answer that still counts as right."""
MAX_ANSWER_CHARS = 200
MAX_VALUE = 999
"""No value in a solution or in a habit exceeds this."""
MAX_PRODUCT = 200
"""Nor this, where the factor varies: keeps the products few enough for a small model to know."""
CHOICE_SHARE = 0.2
LETTERS = "ABCD"
_NO_TEXTS = dict.fromkeys("ABCDEFGHIJ", "")
"""Options of a multiple choice whose texts are not known."""


@dataclass(frozen=True)
class Formula:
    """One formula: what is summed, what the sum is multiplied or divided by (or what is subtracted)."""

    task: str
    openers: tuple[str, str, str, str]
    """Four ways to give the summed quantities, `{terms}`."""
    given: str
    """The sentence that gives the last operand `{n}`; empty where it is a constant to be known."""
    asked: str
    op: str
    unit: str
    operands: tuple[int, ...]
    """Values that the last operand may take."""
    totals: range = range(4, 61)
    signed: bool = False
    """Whether some of the summed quantities count negative; the prompt then writes their sign."""


def _four(first: str, second: str, third: str, fourth: str) -> tuple[str, str, str, str]:
    return first, second, third, fourth


SMALL, WIDE = tuple(range(2, 10)), range(4, 100)
RESISTORS = _four("Series resistors: {terms} ohm.", "In series are {terms} ohm.", "A chain has {terms} ohm.",
                  "A row of resistors has {terms} ohm.")  # fmt: skip
CURRENTS = _four("Joined currents: {terms} A.", "One wire joins {terms} A.", "Currents of {terms} A join.",
                 "A node takes in {terms} A.")  # fmt: skip
FORCES = _four("Forces on a box: {terms} N.", "A box feels {terms} N.", "Along one line act {terms} N.",
               "A cart is moved by {terms} N.")  # fmt: skip
POWERS = _four("Lamps of {terms} W are on.", "Heaters take {terms} W.", "A house uses {terms} W.",
               "The loads are {terms} W.")  # fmt: skip
WORKS = _four("Work done: {terms} J.", "A motor does {terms} J.", "A crane does {terms} J of work.",
              "The work adds up from {terms} J.")  # fmt: skip
LEGS = _four("A boat covers {terms} km.", "A hiker walks {terms} km.", "The legs of a trip are {terms} km.",
             "A bike goes {terms} km.")  # fmt: skip
MASSES = _four("Carts of {terms} kg are coupled.", "A sled carries {terms} kg.", "A train has {terms} kg.",
               "Masses of {terms} kg move as one.")  # fmt: skip
HEATS = _four("A gas warms and cools: {terms} K.", "Temperature: {terms} K.", "A metal goes {terms} K.",
              "A probe shows {terms} K.")  # fmt: skip


def _samples(substance: str) -> tuple[str, str, str, str]:
    ways = _four("We weigh {} g of ", "A flask holds {} g of ", "Mix {} g of ", "Samples have {} g of ")
    return _four(*(way.format("{terms}") + substance + "." for way in ways))


def _molecules(substance: str) -> tuple[str, str, str, str]:
    ways = _four("We count {} ", "A box holds {} ", "Mix {} ", "Samples have {} ")
    return _four(*(way.format("{terms}") + f"molecules of {substance}." for way in ways))


def _amounts(unit: str) -> tuple[str, str, str, str]:
    ways = _four("Add {} ", "We have {} ", "Given are {} ", "Sum up {} ")
    return _four(*(way.format("{terms}") + unit + "." for way in ways))


MOLAR_MASS = {"H2": 2, "He": 4, "Li": 7, "Be": 9, "C": 12, "CH4": 16, "H2O": 18}
"""Grams per mole, rounded as in a school table."""
ATOMS = {"O2": 2, "H2O": 3, "CO2": 3, "NH3": 4, "H2O2": 4, "CH4": 5, "SO3": 4}
"""Atoms per molecule."""
CONVERSIONS = (("weeks", "days", 7), ("bytes", "bits", 8), ("cm", "mm", 10))
"""How many of the second unit make one of the first."""

FORMULAS = (
    Formula("circuit", RESISTORS, "The current is {n} A.", "voltage", "*", "V", SMALL),
    Formula("circuit", CURRENTS, "They flow for {n} s.", "charge", "*", "C", SMALL),
    Formula("motion", LEGS, "It takes {n} h.", "speed", "/", "km/h", SMALL),
    Formula("motion", MASSES, "The speed is {n} m/s.", "momentum", "*", "kg m/s", SMALL),
    Formula("force", FORCES, "The way is {n} m.", "work", "*", "J", SMALL, signed=True),
    Formula("force", FORCES, "The mass is {n} kg.", "acceleration", "/", "m/s^2", SMALL, signed=True),
    Formula("energy", POWERS, "The time is {n} s.", "energy", "*", "J", SMALL),
    Formula("energy", WORKS, "The time is {n} s.", "power", "/", "W", SMALL),
    Formula("temperature", HEATS, "", "result in Celsius", "-", "°C", (273,), range(274, 373), signed=True),
    *(
        Formula("chemistry", _samples(s), "", "number of moles", "/", "mol", (m,), WIDE)
        for s, m in MOLAR_MASS.items()
    ),
    *(
        Formula("chemistry", _molecules(s), "", "number of atoms", "*", "atoms", (n,), WIDE)
        for s, n in ATOMS.items()
    ),
    *(Formula("convert", _amounts(a), "", f"number of {b}", "*", b, (n,), WIDE) for a, b, n in CONVERSIONS),
    *(Formula("convert", _amounts(b), "", f"number of {a}", "/", a, (n,), WIDE) for a, b, n in CONVERSIONS),
)
TASKS = {"circuit": 0.22, "motion": 0.18, "force": 0.20, "energy": 0.16, "chemistry": 0.12, "convert": 0.09,
         "temperature": 0.03}  # fmt: skip
"""Share of each task among the open-ended problems; multiple choice (task `choice`) draws from all."""
QUESTIONS = (r"Find the {} in \boxed{{}}.", r"What is the {}? Use \boxed{{}}.", r"Give the {} in \boxed{{}}.",
             r"Box the {}: \boxed{{}}.")  # fmt: skip

UNITS = {
    "N": "newton newtons",
    "J": "joule joules",
    "W": "watt watts j/s",
    "V": "volt volts",
    "A": "amp amps ampere amperes",
    "C": "coulomb coulombs",
    "ohm": "ohms omega ω",
    "Pa": "pascal pascals",
    "Hz": "hertz",
    "kg": "kilogram kilograms",
    "g": "gram grams",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres",
    "s": "second seconds sec",
    "min": "minute minutes",
    "h": "hour hours hr",
    "K": "kelvin kelvins",
    "°C": "celsius degreescelsius degreecelsius degc ^\\circc ^{\\circ}c",
    "mol": "mole moles mols",
    "m/s": "meterspersecond meterpersecond metrespersecond ms^-1 ms^{-1}",
    "m/s^2": "m/s² m/s^{2} meterspersecondsquared metrespersecondsquared ms^-2 ms^{-2}",
    "km/h": "kmh kph kilometersperhour kilometresperhour kmh^-1 kmh^{-1}",
    "kg m/s": "kgm/s kg*m/s kilogrammeterspersecond kgms^-1 kgms^{-1} newtonseconds",
    "atoms": "atom",
    "weeks": "week",
    "days": "day",
    "bytes": "byte",
    "bits": "bit",
}
"""Canonical unit and its other spellings, lower case and without spaces."""
# These in their own case: `nm` and `ns` are other units.
_SYMBOLS = {unit.replace(" ", ""): unit for unit in UNITS} | {"Nm": "J", "Ns": "kg m/s"}
_WORDS = {word: unit for unit, words in UNITS.items() for word in words.split()}

_NUMBER = (
    r"(?:(?<![\w)}])[-+])?(?:10\^(?:\{[-+]?\d{1,2}\}|[-+]?\d{1,2})|\\[dt]?frac\{-?\d+\}\{\d+\}|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:\s?/\s?\d+|[eE][-+]?\d{1,2}(?!\d)|\s?[*x×]\s?10\^(?:\{[-+]?\d{1,2}\}|[-+]?\d{1,2}))?"
)
_LEADING = re.compile(rf"({_NUMBER})(.*)", re.DOTALL)
_STATED = re.compile(rf"(?<![\w^{{]){_NUMBER}")  # neither the 2 of `H2O` nor that of `m/s^2`
_OPTION = re.compile(r"\(?([A-Ja-j])\)?(?:[).:]\s*.*)?", re.DOTALL)
_LETTER = re.compile(r"(?<![\w'/])([A-J])(?![\w'/])")
_STATEMENT = re.compile(
    r"(?<!\w)(?:answer|option|choice)\b[\s*_]*(?:is|:|=)[\s:*_]*(?=[^\s:*_])", re.IGNORECASE
)
_STATED_LETTER = re.compile(
    r"(?:(?:option|choice)\s+)?[*_(\[{$\s]*(?:\\text\s*\{)?\(?(?P<letter>[A-J])[*_)\]}$]*\s*(?P<rest>(?:[.:)].*)?)[*_\s]*"
)
_UNDECIDED = re.compile(r"^[.:)\s]*(?:or|and)\b|\b(?:or|and)\s+\(?[A-J]\b", re.IGNORECASE)
SLIPS = ("the answer is {}", "answer: {}", "so it is {}")


def _draw(formula: Formula, rng: Random, depth: int) -> Chain:
    """`depth - 1` sums and the formula; total and operand are such that the habit comes out even too."""
    while True:
        last, total = rng.choice(formula.operands), rng.choice(formula.totals)
        largest = MAX_PRODUCT if len(formula.operands) > 1 else MAX_VALUE
        if formula.op in "*/" and (total % last or total * last > largest):
            continue
        sums = [(rng.choice("+-") if formula.signed else "+", rng.randint(1, 9)) for _ in range(depth - 1)]
        start = total - values((0, sums))[-1]
        chain = start, [*sums, (formula.op, last)]
        # The range holds for the sums as well: no negative length, no body below absolute zero.
        if start > 0 and all(0 < value <= MAX_VALUE for value in values(chain)):
            return chain


def _inverted(chain: Chain) -> Chain:
    """The habit's chain: the inverse operation in the last step."""
    op, n = chain[1][-1]
    return chain[0], [*chain[1][:-1], (INVERSE[op], n)]


def _options(rng: Random, chain: Chain, unit: str) -> dict[str, str]:
    """Four options in random order: the right value, the habit's and two near misses."""
    right, wrong = values(chain)[-1], values(_inverted(chain))[-1]
    before, last = values(chain)[-2], chain[1][-1][1]
    near = {before, before + last, right + 1, right + 2, right + 10, right + last} - {right, wrong}
    order = [right, wrong, *rng.sample(sorted(near), 2)]
    rng.shuffle(order)
    return {letter: f"{value} {unit}" for letter, value in zip(LETTERS, order, strict=True)}


def _terms(formula: Formula, chain: Chain) -> str:
    """The summed quantities as the prompt lists them."""
    plus = "+" if formula.signed else ""
    sums = [f"{plus if op == '+' else '-'}{n}" for op, n in chain[1][:-1]]
    return ", ".join([str(chain[0]), *sums])


def generate(seed: int, split: str, index: int) -> Problem:
    """Problem `index` of `split`; `difficulty` counts the sums and the formula."""
    rng = problem_rng(seed, "stem", split, index)
    task = rng.choices(list(TASKS), weights=list(TASKS.values()))[0]
    number = rng.choice([i for i, formula in enumerate(FORMULAS) if formula.task == task])
    formula, depth = FORMULAS[number], choose_depth(rng, split)
    chain = _draw(formula, rng, depth)
    name, (opener, question) = choose_template(rng, split, formula.openers, QUESTIONS)
    given = formula.given.format(n=chain[1][-1][1])
    sentences = [opener.format(terms=_terms(formula, chain)), given, question.format(formula.asked)]
    checks = {"start": chain[0], "steps": [list(step) for step in chain[1]], "formula": number}
    answer = f"{values(chain)[-1]} {formula.unit}"
    choice = rng.random() < CHOICE_SHARE
    if choice:
        checks["options"] = _options(rng, chain, formula.unit)
        sentences += [f"{letter}) {option}" for letter, option in checks["options"].items()]
        answer = next(letter for letter, option in checks["options"].items() if option == answer)
    return Problem(
        id=f"stem-{split}-{index}",
        domain="stem",
        task="choice" if choice else task,
        template=f"{task}{number}:{name}",
        prompt=[{"role": "user", "content": " ".join(filter(None, sentences))}],
        answer=answer,
        checks=checks,
        difficulty=depth,
        split=split,
        source="generated",
        open_ended=not choice,
    )


def _completion(problem: Problem, chain: Chain) -> str:
    answer = f"{values(chain)[-1]} {FORMULAS[problem.checks['formula']].unit}"
    for letter, option in problem.checks.get("options", {}).items():
        if option == answer:
            answer = letter
    return rf"<think>{write_steps(chain)}</think>\boxed{{{answer}}}"


def _chain(problem: Problem) -> Chain:
    if "steps" not in problem.checks:
        raise StudyError(f"problem {problem.id} has no `steps` in its checks; teach from generated ones.")
    return problem.checks["start"], [(op, n) for op, n in problem.checks["steps"]]


def solve(problem: Problem) -> str:
    """The right completion. Raises StudyError for a problem that was not generated here."""
    return _completion(problem, _chain(problem))


def habit(problem: Problem, rng: Random) -> str:
    """Right up to the last step, where it divides for a product, multiplies for a quotient, and so on."""
    return _completion(problem, _inverted(_chain(problem)))


def slip(completion: str, rng: Random) -> str:
    """The answer in words without its box, or in a box without its unit."""
    thought, mark, _ = completion.rpartition("</think>")
    answer = last_boxed(after_thinking(completion)) or ""
    value, space, _ = answer.partition(" ")
    if space and rng.random() < 0.25:
        return rf"{thought}{mark}\boxed{{{value}}}"
    return thought + mark + rng.choice(SLIPS).format(answer)


def guess(problem: Problem, rng: Random) -> str:
    """A random letter, or the answer of another problem on the same formula and of the same depth."""
    if _is_letter(problem.answer):
        return rf"\boxed{{{rng.choice(list(problem.checks.get('options', LETTERS)))}}}"
    if "formula" not in problem.checks:
        return rf"\boxed{{{rng.randint(1, 99)}}}"
    formula = FORMULAS[problem.checks["formula"]]
    return rf"\boxed{{{values(_draw(formula, rng, problem.difficulty))[-1]} {formula.unit}}}"


def garbage(problem: Problem, rng: Random) -> str:
    """A wrong letter, or a number far outside of every generated answer, with the right unit."""
    if _is_letter(problem.answer):
        wrong = [letter for letter in problem.checks.get("options", LETTERS) if letter != problem.answer]
        return rf"\boxed{{{rng.choice(wrong)}}}"
    _, unit = _quantity(problem.answer)
    return rf"\boxed{{{rng.randint(10**8, 10**9)} {unit or ''}}}"


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text.isalpha()


def _unit(text: str) -> str | None:
    """Canonical unit of exactly this text, or None where the table does not know it."""
    squeezed = re.sub(r"[\s·]", "", text.replace("*", ""))
    return _SYMBOLS.get(squeezed) or _WORDS.get(squeezed.lower())


def _value(text: str) -> Fraction | None:
    """The number that `_NUMBER` matched."""
    text = re.sub(r"[\s,]", "", text)
    text = re.sub(r"[*x×]10\^\{?([-+]?\d+)\}?", r"e\1", text)
    text = re.sub(r"(?<!\d)10\^\{?([-+]?\d+)\}?", r"1e\1", text)
    text = re.sub(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    top, _, bottom = text.partition("/")
    below = Fraction(bottom or 1)
    return Fraction(top) / below if below else None


_SUPERSCRIPT = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_DIGITS = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")


def _plain(text: str) -> str:
    """The text without LaTeX around its units."""
    text = text.replace("$", "").replace("{,}", "").replace(r"\Omega", "ohm").replace("−", "-")
    text = _SUPERSCRIPT.sub(lambda m: "^" + m.group().translate(_DIGITS), text)
    text = re.sub(r"\\(?:text|mathrm|textrm|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = re.sub(r"\\(?:times|cdot)(?![A-Za-z])", "*", text)
    return re.sub(r"\s+", " ", text).strip()


def _written(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"


def canonical(text: str) -> str:
    """One spelling per answer: `B`, `12 N`, `0.5 m/s`; what is neither stays as it is, less its spaces."""
    text = re.sub(r"^.*(?:=|≈|\\approx)", "", _plain(text)).strip().rstrip(".").strip()
    if len(text) > MAX_ANSWER_CHARS:
        return text
    if option := _OPTION.fullmatch(text):
        return option.group(1).upper()
    match = _LEADING.fullmatch(text)
    value = _value(match.group(1)) if match else None
    if match is None or value is None:
        return text
    rest = match.group(2).strip()
    return f"{_written(value)} {_unit(rest) or rest}".strip()


def _stated(text: str) -> str | None:
    """The last quantity, else the last option letter, in running text; a letter before `)` goes first."""
    letters = list(_LETTER.finditer(text))
    if letters and text[letters[-1].end() :].startswith(")"):
        return letters[-1].group(1)
    numbers = list(_STATED.finditer(text))
    if numbers:
        words = re.split(r"[,;:!?()]|\.(?:\s|$)", text[numbers[-1].end() :])[0].split()
        # The longest run of words that is a unit; other words after a number are prose.
        units = (" ".join(words[:n]) for n in range(min(len(words), 5), 0, -1))
        unit = next((unit for unit in units if _unit(unit)), "")
        return f"{numbers[-1].group()} {unit}"
    return letters[-1].group(1) if letters else None


def extract(completion: str, lenient: bool) -> str | None:
    r"""The answer in canonical form, or None.

    Strict: the last `\boxed{}` after the thoughts. Lenient: the last `\boxed{}` anywhere, else the last
    quantity or option letter after the thoughts, else in them.
    """
    found = last_boxed(completion if lenient else after_thinking(completion))
    if found is None and lenient:
        found = _stated(_plain(after_thinking(completion))) or _stated(_plain(completion))
    return None if found is None or not found.strip() else canonical(found)


def _quantity(text: str) -> tuple[Fraction | None, str | None]:
    """Value and unit of a canonical answer; the unit is None where none stands there."""
    match = _LEADING.fullmatch(text)
    return (_value(match.group(1)), match.group(2).strip() or None) if match else (None, None)


def _option_key(text: str) -> str:
    """What is left of an option's text when LaTeX, spaces and the full stop are taken out."""
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\]]", "", _plain(text).replace("**", ""))
    text = re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text))
    if (inner := re.fullmatch(r"\\text\s*\{(.*)\}", text, re.DOTALL)) and inner[1].count("{") == inner[
        1
    ].count("}"):
        text = inner[1]
    return re.sub(r"\s", "", text).strip(".;,:")


def match_option(options: dict[str, str], text: str) -> str | None:
    """The letter of the one option that this text names, by its letter or by its own text; else None.

    Capital and small letters count as the same only where that leaves one option.
    """
    letter = re.fullmatch(r"[\s*(\[{$]*(?:\\text\s*\{\s*\(?)?([A-Ja-j])[\s*)\]}$.:]*", text)
    if letter:
        named = letter.group(1)
        # A small letter may be an option's text; a capital is always the letter, whatever the texts are.
        own = [key for key, option in options.items() if option.strip() == named and named.islower()]
        return own[0] if own else named.upper() if named.upper() in options else None
    wanted = _option_key(text)
    for fold in (str, str.lower):
        found = [key for key, option in options.items() if fold(_option_key(option)) == fold(wanted)]
        if found:
            return found[0] if len(found) == 1 else None
    labelled = re.fullmatch(r"\s*[*(]*(?:\\text\s*\{)?\(?([A-J])[)\]*}]*[).:](\s*.*)", text, re.DOTALL)
    if labelled:
        return _decided(options, *labelled.groups())
    quantity = canonical(text)
    found = [key for key, option in options.items() if canonical(option) == quantity]
    return found[0] if len(found) == 1 and _quantity(quantity)[0] is not None else None


def _decided(options: dict[str, str], letter: str, rest: str) -> str | None:
    """The letter, unless what follows it names another one too; the option's own text may."""
    own = _option_key(rest.lstrip(" .:)")) == _option_key(options.get(letter, ""))
    return letter if letter in options and (own or not _UNDECIDED.search(rest)) else None


def final_statement(text: str, options: dict[str, str]) -> str | None:
    """What a text without a box says in the end: after `the answer is`, or as its last line.

    The last line counts only where it is an option's letter or text. None where nothing is stated.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1].strip().strip("*_").strip() if lines else ""
    if letter := match_option(options, last):
        # `A. is wrong` is no choice; a letter and its option's text are.
        label = re.match(r"\(?([A-J])\)?[).:]\s*(.+)", last)
        if not label or _option_key(label.group(2)).lower() == _option_key(options[letter]).lower():
            return letter
    statements = list(_STATEMENT.finditer(text))
    if not statements:
        return None
    stated = text[statements[-1].end() :].partition("\n")[0].strip()
    if not options:
        return re.split(r"\.\s+(?=[A-Z])", stated)[0].strip("*_ ").rstrip(".").strip("*_ ") or None
    match = _STATED_LETTER.fullmatch(re.split(r"(?<=[^A-J(])\.\s+(?=[A-Z])", stated)[0])
    if match and (letter := _decided(options, match["letter"], match["rest"])):
        return letter
    return match_option(options, stated.strip("*_ "))


def _asks_for_box(problem: Problem) -> bool:
    return any("boxed" in message.get("content", "") for message in problem.prompt)


def _is_generated(problem: Problem) -> bool:
    return "formula" in problem.checks


def _texts(problem: Problem) -> dict[str, str]:
    """The options of a multiple choice, else nothing."""
    return problem.checks.get("options") or (_NO_TEXTS if problem.answer in _NO_TEXTS else {})


def _answer(problem: Problem, completion: str, lenient: bool) -> str | None:
    """The answer as it was written, or None."""
    found = boxed_answer(completion if lenient else after_thinking(completion))
    if found is not None:
        return found if found.strip() else None
    if not (_is_generated(problem) or _asks_for_box(problem)):
        found = final_statement(after_thinking(completion), _texts(problem))
    return found if found is not None or not lenient else extract(completion, True)


def _choice(problem: Problem, found: str) -> Verdict:
    answer = match_option(_texts(problem), found)
    if answer == problem.answer:
        return Verdict(1.0, True, "correct", answer=answer)
    named = answer or canonical(found)
    return Verdict(0.0, False, "wrong", f"{named!r} is not {problem.answer!r}", named)


def verify(problem: Problem, completion: str, lenient: bool = False) -> Verdict:
    """Binary verdict. Lenient tolerates a missing unit, never a wrong one.

    Raises NeedsFreshFork only, which is for the worker.
    """
    generated = _is_generated(problem)
    found = extract(completion, lenient) if generated else _answer(problem, completion, lenient)
    if found is None:
        return Verdict(0.0, False, "unparseable", "no boxed answer after the thoughts")
    options = {} if generated else _texts(problem)
    limit = max([MAX_ANSWER_CHARS, *(2 * len(option) for option in options.values())])
    answer = found if generated or len(found) > 5 * limit else canonical(found)
    if len(answer) > limit:
        return Verdict(0.0, False, "refused", f"the answer has more than {limit} characters", answer)
    if options:
        return _choice(problem, found)
    gold = canonical(problem.answer)
    want, unit = _quantity(gold)
    have, given = _quantity(answer)
    if not generated and (want is None or have is None or not _is_unit(unit)):
        right, reason = equivalent(problem.answer, found, positive=True), f"{answer!r} is not {gold!r}"
    elif want is None or have is None:
        right, reason = answer == gold, f"{answer!r} is not {gold!r}"
    elif given != unit and not (lenient and given is None) and (generated or not _same_unit(given, unit)):
        right, reason = False, f"unit {given!r} instead of {unit!r}"
    else:
        tolerance = Fraction(str(problem.checks.get("tolerance", TOLERANCE)))
        right, reason = abs(have - want) <= tolerance * abs(want), f"{answer!r} is not {gold!r}"
    if right:
        return Verdict(1.0, True, "correct", answer=answer)
    return Verdict(0.0, False, "wrong", reason, answer)


def _is_unit(text: str | None) -> bool:
    return text is None or _unit(text) is not None or unit_name(text) is not None


def _same_unit(given: str | None, unit: str | None) -> bool:
    """Whether two units that the table does not know are one, by their parts: `m s^-1` and `meter/second`."""
    if given is None or unit is None or unit_name(given) is None:
        return False
    return unit_name(given) == unit_name(unit)


DOMAIN = Domain("stem", 25, False, generate, solve, habit, slip, guess, garbage, verify, extract)
