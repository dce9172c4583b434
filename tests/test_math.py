"""Claims about the math domain: its problems, its teacher, and what its verifier accepts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from math_verify import parse
from math_verify import verify as math_verify
from samples import needs_samples, rows

from prorl_study.domains import SPLITS, after_thinking
from prorl_study.domains.math import DOMAIN, TASKS, boxed_answer, canonical, equivalent, last_boxed
from prorl_study.domains.problem import Problem, Verdict
from prorl_study.domains.templates import DEPTHS, HELD_OUT_SPLITS
from prorl_study.errors import StudyError
from prorl_study.judges import fresh, latex

PER_SPLIT = 120
PROBLEMS = [DOMAIN.generate(7, split, i) for split in SPLITS for i in range(PER_SPLIT)]
TRAIN = [DOMAIN.generate(7, "train", i) for i in range(1500)]


def test_a_problem_depends_on_seed_split_and_index_alone() -> None:
    assert [DOMAIN.generate(7, split, i) for split in SPLITS for i in range(PER_SPLIT)] == PROBLEMS
    assert DOMAIN.generate(8, "train", 0) != DOMAIN.generate(7, "train", 0) != DOMAIN.generate(7, "train", 1)


def test_every_task_occurs_in_every_split() -> None:
    assert {(p.split, p.task) for p in PROBLEMS} == {(split, task) for split in SPLITS for task in TASKS}


def test_the_right_completion_scores_one_strictly_and_leniently() -> None:
    for problem in PROBLEMS:
        for lenient in (False, True):
            verdict = DOMAIN.verify(problem, DOMAIN.solve(problem), lenient)
            assert (verdict.score, verdict.solved, verdict.status) == (1.0, True, "correct"), problem


def test_habit_and_garbage_are_well_formed_and_always_wrong() -> None:
    for i, problem in enumerate(PROBLEMS):
        for completion in (DOMAIN.habit(problem, Random(i)), DOMAIN.garbage(problem, Random(i))):
            verdict = DOMAIN.verify(problem, completion, False)
            assert (verdict.score, verdict.status) == (0.0, "wrong"), (problem, completion)


def test_habit_and_solution_share_their_steps_up_to_one_decision() -> None:
    for problem in PROBLEMS:
        right, wrong = DOMAIN.solve(problem), DOMAIN.habit(problem, Random(0))
        thought = wrong.partition("</think>")[0]
        assert right.startswith(thought) and right != wrong
        assert right[len(thought) :].partition("</think>")[0].count("=") == 1


def test_a_slip_costs_the_strict_score_only() -> None:
    for i, problem in enumerate(PROBLEMS):
        slipped = DOMAIN.slip(DOMAIN.solve(problem), Random(i))
        assert DOMAIN.verify(problem, slipped, False).status == "unparseable"
        assert DOMAIN.verify(problem, slipped, True).solved, slipped


@pytest.mark.parametrize("task", TASKS)
def test_guesses_are_well_formed_and_rarely_right(task: str) -> None:
    problems = [p for p in TRAIN if p.task == task]
    verdicts = [DOMAIN.verify(p, DOMAIN.guess(p, Random(i)), False) for i, p in enumerate(problems)]
    assert {v.status for v in verdicts} == {"correct", "wrong"}
    assert sum(v.score for v in verdicts) / len(verdicts) < 0.2


def test_wordings_of_the_held_out_splits_do_not_occur_elsewhere() -> None:
    held_out = {p.template for p in PROBLEMS if p.split in HELD_OUT_SPLITS}
    assert held_out and held_out.isdisjoint(p.template for p in PROBLEMS if p.split not in HELD_OUT_SPLITS)


def test_depths_are_those_of_the_split() -> None:
    for split in SPLITS:
        assert {p.difficulty for p in PROBLEMS if p.split == split} == set(DEPTHS[split])
    assert all(len(p.checks["steps"]) == p.difficulty for p in PROBLEMS)


def test_texts_are_short_enough_for_the_small_model() -> None:
    for problem in PROBLEMS:
        assert len(problem.prompt[0]["content"]) <= 220
        assert max(len(DOMAIN.solve(problem)), len(DOMAIN.habit(problem, Random(0)))) <= 150


def test_the_stated_equation_holds_for_its_answer() -> None:
    for problem in (p for p in PROBLEMS if p.task == "equation"):
        equation = problem.prompt[0]["content"].split(" = ")
        left = equation[0].split()[-1]
        right = equation[1].split(". ")[0].split("?")[0]
        x = int(problem.answer)
        spelled = "".join(
            f"*{c}" if c in "x(" and i and right[i - 1].isdigit() else c for i, c in enumerate(right)
        )
        assert eval(spelled, {"x": x}) == int(left), problem.prompt


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{1} and \boxed{\frac{1}{\sqrt{2}}} done {", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{5} then \boxed{6", "5"),
        (r"} \boxed{\boxed{3}}", "3"),
        (r"\boxed{6", None),
        ("7", None),
    ],
)
def test_last_boxed_handles_nested_and_open_braces(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        (r"<think>1+1=2</think>\boxed{2}", "2", "2"),
        (r"<think>1</think>\boxed{ 2 } as wanted.", "2", "2"),
        (r"<think>\boxed{2}</think>done", None, "2"),
        ("<think>3+4=7</think>the answer is 7.", None, "7"),
        ("<think>3-4=-1</think>so it is -1", None, "-1"),
        ("<think>3+4=7", None, "7"),
        ("so 1,250 apples", None, "1250"),
        (r"it is \frac{3}{4} of it", None, r"\frac{3}{4}"),
        ("it is 3/4", None, r"\frac{3}{4}"),
        (r"\boxed{$\dfrac12$.}", r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed{1 1/2}", "1 1/2", "1 1/2"),
        (r"\boxed{\cos x + 1}", r"\cos x+1", r"\cos x+1"),
        (r"\boxed{}", None, None),
        ("no idea", None, None),
        ("", None, None),
    ],
)
def test_extraction(completion: str, strict: str | None, lenient: str | None) -> None:
    assert (DOMAIN.extract(completion, False), DOMAIN.extract(completion, True)) == (strict, lenient)


@pytest.mark.parametrize(
    ("gold", "answer", "status"),
    [
        ("7", "7", "correct"),
        ("7", "07", "correct"),
        ("7", "7.0", "correct"),
        ("7", "x=7", "correct"),
        ("7", r"\sqrt{49}", "correct"),
        (r"\frac{1}{2}", "0.5", "correct"),
        (r"\frac{1}{2}", "2/4", "correct"),
        (r"\frac{1}{2}", r"\dfrac{1}{2}", "correct"),
        (r"\frac{1}{3}", "0.33", "wrong"),
        ("1000", "1,000", "correct"),
        ("x^2+1", "1 + x^2", "correct"),
        ("(1,2)", "(2,1)", "wrong"),
        ("7", "8", "wrong"),
        ("7", "6,7", "wrong"),
        ("7", "6 or 7", "wrong"),
        ("7", r"\frac{7}{0}", "wrong"),
        ("7", "((((", "wrong"),
        ("7", r"\begin{matrix}", "wrong"),
        ("7", "\x00\ud800", "wrong"),
        ("7", "7" * 201, "refused"),
        ("7", "  ", "unparseable"),
    ],
)
def test_verdict(gold: str, answer: str, status: str) -> None:
    problem = replace(PROBLEMS[0], answer=gold)
    verdict = DOMAIN.verify(problem, rf"<think>0</think>\boxed{{{answer}}}", False)
    assert (verdict.status, verdict.score) == (status, float(status == "correct")), verdict


def judge(gold: str, answer: str, checks: dict[str, object] | None = None, question: str = "") -> Verdict:
    prompt = [{"role": "user", "content": question}]
    problem = Problem(domain="math", answer=gold, checks=checks or {}, prompt=prompt)
    return DOMAIN.verify(problem, rf"<think>0</think>\boxed{{{answer}}}", False)


def test_comparing_rationals_directly_agrees_with_math_verify() -> None:
    forms = ["2", "-2", "4/2", "1/2", "2/4", "3/12", "0", r"\frac{1}{2}", r"\frac{6}{3}", "2/0"]
    read = {form: parse(rf"\boxed{{{form}}}", parsing_timeout=None) for form in forms}
    for gold in forms[:-1]:
        for answer in forms:
            same = math_verify(read[gold], read[answer], timeout_seconds=None)
            assert judge(gold, answer).solved == equivalent(gold, answer) == same, (gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1,2", "2,1"),
        ("1,2", r"\{2,1\}"),
        (r"\{1,2\}", r"\{2, 1, 1\}"),
        ("3i,-3i", r"\pm 3i"),
        ("7,-2", r"-2 \text{ and } 7"),
        (r"3\pm\sqrt2", r"3+\sqrt{2}, 3-\sqrt{2}"),
        ("x=1,y=2", "y=2, x=1"),
        ("x=1,y=2", "1,2"),
        ("(2, 3), (3, 2)", "(3,2),(2,3)"),
        (r"\emptyset", r"\{\}"),
        (r"\emptyset", r"\text{no solution}"),
        (r"\left( 4, \frac{\pi}{12} \right)", r"(4,\pi/12)"),
        ("x>3", r"(3,\infty)"),
        (r"1<x\le 2", "(1,2]"),
        (r"x \in [1,2]", r"1 \le x \leq 2"),
        (r"x>\frac{1}{2} \text{ or } x<-\frac{1}{3}", r"(-\infty,-\frac13)\cup(\frac12,\infty)"),
        (r"(-\infty,2)\cup(2,\infty)", r"\mathbb{R}\setminus\{2\}"),
        (r"\mathbb{R}", r"(-\infty,\infty)"),
        ("3", "x=3"),
        ("x=3", "3"),
        ("y=2x+1", "2x-y+1=0"),
        ("x^2+y^2=1", "y^2+x^2-1=0"),
        (r"x+y\le 3", r"3 \ge y+x"),
        ("4", "2+2=4"),
        (r"\sqrt{2}", r"\sqrt{2} \approx 1.41"),
        (r"50\%", "0.5"),
        (r"50\%", r"50 \text{ percent}"),
        (r"\frac{3}{2}", "1 1/2"),
        (r"1\frac{1}{2}", "1.5"),
        (r"-1\frac{1}{2}", "-1.5"),
        (r"\frac{1}{3}", "0.333333"),
        (r"\frac13", r"0.\overline{3}"),
        ("2500", r"2.5\times 10^{3}"),
        (r"11,\! 111,\! 100", "11111100"),
        ("1000", r"1\,000"),
        ("5000000", r"5\text{ million}"),
        (r"5\text{ cm}", "5"),
        (r"5\text{ cm}", "5 centimeters"),
        (r"5\text{ cm}^2", r"5 \text{ square centimeters}"),
        ("5", "5 apples"),
        (r"10\sqrt{3}\text{ cm}", r"10\sqrt 3"),
        (r"72^\circ", "72"),
        (r"72^{\circ}", r"72 \text{ degrees}"),
        (r"\$18.90", "18.9"),
        (r"\$18.90", r"18.90\text{ dollars}"),
        (r"\text{east}", "East."),
        (r"\text{(E)}", "E"),
        ("C", r"\text{C}"),
        ("2516_8", "2516"),
        ("2516_8", r"2516_{\text{eight}}"),
        (r"\begin{pmatrix} 1 & 1/2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&0.5\\3&4\end{bmatrix}"),
        ("4 p(p-1)", "4p^2-4p"),
        ("(1)(2)(4)", "8"),
        ("(2+i)(2-i)", "5"),
        ("(x+1)(x+2)", "x^2+3x+2"),
        ("1:2", "2:4"),
        ("1:2:3", "2:4:6"),
        ("10!", "3628800"),
        (r"f(x) = x - 1 \text{ or } f(x) = -x - 1.", "x-1, -x-1"),
    ],
)
def test_the_same_answer_in_another_form_is_right(gold: str, answer: str) -> None:
    assert judge(gold, answer).score == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1,1,2", "1,2"),
        ("1,2", "1,2,3"),
        ("1,2", "(1,2)"),
        ("(1,2)", "1,2"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("[1,2]", "(1,2)"),
        ("(1,2]", "[1,2)"),
        ("(1,2)", r"\{1,2\}"),
        (r"\pm 2", "2"),
        ("x=1,y=2", "2,1"),
        ("x=1,y=2", "y=1, x=2"),
        (r"\emptyset", "0"),
        (r"\emptyset", r"\{0\}"),
        (r"\emptyset", r"\{\emptyset\}"),
        (r"x\ge 3", "x>3"),
        ("x>3", "x<3"),
        (r"x+y\le 3", r"x+y\ge 3"),
        (r"(-\infty,2)\cup(2,\infty)", r"\mathbb{R}\setminus\{3\}"),
        (r"(-\infty,2)\cup(2,\infty)", r"(-\infty,\infty)"),
        ("x=3", "y=3"),
        ("x=3", "2x=6"),
        ("x^2=-1", "x^2=-2"),
        ("5", "2+2=5"),
        (r"x \ne 2", "2"),
        (r"50\%", "50"),
        ("50", r"50\%"),
        (r"0.5\%", "0.5"),
        (r"\frac{1}{3}", "0.33"),
        (r"\frac{1}{3}", "0.33333"),
        (r"\frac{1}{3000000}", "0.000000"),
        (r"\sqrt{2}", "1.41"),
        ("0.0000001", "0.0000002"),
        (r"1.2\times10^{-8}", r"1.3\times 10^{-8}"),
        ("5", "2 3"),
        ("5", "2(3)"),
        ("7", "(1)(2)(4)"),
        ("100200", "100, 200"),
        ("5", "5x"),
        ("5x", "5"),
        ("5m", "5"),
        ("5", r"5\text{ million}"),
        ("2", r"2 \text{ or more}"),
        (r"5\text{ cm}", "5 m"),
        (r"5\text{ cm}", r"5\text{ cm}^2"),
        (r"\$5", r"5\text{ cents}"),
        (r"\text{east}", "seat"),
        (r"\text{east}", r"\text{west}"),
        (r"\text{(E)}", "D"),
        ("R", "r"),
        ("2516_8", "2516_9"),
        ("2516", "2516_8"),
        ("4:2:1", "2:1:1"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
        ("(2, 3), (3, 2)", "(3,2),(3,2)"),
        # Right to a mathematician, but not taken: nothing is converted.
        (r"5\text{ cm}", r"50\text{ mm}"),
        (r"30^\circ", r"\frac{\pi}{6}"),
    ],
)
def test_another_answer_is_wrong(gold: str, answer: str) -> None:
    verdict = judge(gold, answer)
    assert (verdict.score, verdict.status) == (0.0, "wrong")


def test_order_counts_where_the_problem_says_so() -> None:
    ordered = {"ordered": True}
    assert judge("1,2", "1, 2", ordered).solved and judge("1,2", "(1,2)", ordered).solved
    assert judge("100,200,300", "100, 200, 300", ordered).solved
    for answer in ("2,1", r"\{2,1\}", "1,2,2", "1", "1,2,3", "(2,1)"):
        assert not judge("1,2", answer, ordered).solved, answer


def test_any_of_the_alternatives_is_right() -> None:
    checks = {"answers": [r"\frac{1}{2}", "x+1"]}
    for gold in ("", "7"):
        assert judge(gold, "0.5", checks).solved and judge(gold, "1+x", checks).solved
        assert judge(gold, "7", checks).solved == (gold == "7")
        assert not judge(gold, "8", checks).solved


def test_a_bare_percentage_or_base_is_right_where_the_question_asks_for_it() -> None:
    assert judge("50", r"50\%", question="What percent is it?").solved
    assert judge(r"50\%", "50", question="What percent is it?").solved
    assert not judge(r"50\%", "5000", question="What percent is it?").solved
    assert judge("2516", "2516_8", question="Write it in base 8.").solved


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1}, \boxed{2}", "1, 2"),
        (r"$\boxed{1}$ and $\boxed{2}$.", "1, 2"),
        (r"$x=\boxed{1}$, or $x=\boxed{2}$", "1, 2"),
        (r"\boxed{1} \text{ and } \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"\boxed{1}, \boxed{1}", "1"),
        (r"First \boxed{1}. Then \boxed{2}.", "2"),
        (r"\boxed{1} is wrong and the answer is \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\boxed{2}}}", "2"),
        (r"\boxed{1", None),
    ],
)
def test_boxes_that_one_sentence_joins_make_one_list(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer


def test_equal_answers_vote_together_and_every_verdict_names_its_answer() -> None:
    assert judge("7", "7").answer == judge("8", " $7$. ").answer == "7"
    assert judge("1,250", "1,250").answer == "1250"
    assert judge("100200", "100, 200").answer == "100, 200"
    assert judge("7", "").answer is None
    assert judge("7", "7" * 201).answer == "7" * 201


HOSTILE = [
    r"__import__('os').system('touch {}')",
    r"\text{__import__('os').system('touch {}')}",
    r"x_{__import__('os').system('touch {}')}",
    "(" * 99 + "1" + ")" * 99,
    "{" * 99 + "1" + "}" * 99,
    r"\frac{" * 25 + "1" + "}{2}" * 25,
    r"\sqrt{" * 28 + "2" + "}" * 28,
    "-" * 199,
    "[" * 199,
    "|" * 199,
    "1:" * 99,
    "\x00",
    "7\x00",
    "\ud800",
    "x_{" * 60,
    r"\left(" * 30,
    r"\pm" * 60,
    r"\in" * 60,
    ",".join("1" * 99),
    r"\begin{pmatrix}" * 12,
    r"\begin{pmatrix}1&2\\3\end{pmatrix}",
    r"\frac{1}{0}",
    r"\infty-\infty",
    "1e999",
    "1e9999",
    "10_{99999}",
    "½",
    "٣",
]
GOLDS = ["7", r"\frac{1}{2}", "x+1", "(1,2)", "1,2", r"\text{east}", "x>3", "1:2", "y=2x", r"\mathbb{R}"]


def test_hostile_answers_are_verdicts_and_nothing_of_them_is_compiled(tmp_path: Path) -> None:
    """In a process of its own, since an audit hook cannot be taken off again."""
    target = tmp_path / "touched"
    cases = [answer.replace("{}", str(target)) for answer in HOSTILE]
    program = """
import json, sys
from prorl_study.domains.math import DOMAIN
from prorl_study.domains.problem import Problem
from prorl_study.judges.fresh import NeedsFreshFork
golds, cases = json.load(sys.stdin)
compiled = []

def watch(event, arguments):
    source = arguments[0] if event == "compile" else None
    # Import compiles files; sympy writes `monomial_...` functions from the number of variables alone.
    if isinstance(source, bytes) and not source.startswith(b"def monomial_") and arguments[1] == "<string>":
        compiled.append(repr(source))
    if event in ("os.system", "subprocess.Popen", "os.exec"):
        compiled.append(event)

def score(gold, case):
    verdict = DOMAIN.verify(Problem(domain="math", answer=gold), r"\\boxed{" + case + "}", False)
    assert verdict.status in ("correct", "wrong", "unparseable", "refused"), (gold, case)
    return verdict.score

# Importing sympy compiles much; one of each kind brings all of it in.
assert score("x+1", "1+x") == score("(0,1)", "0<x<1") == score("x+y=1", "2x+2y=2") == 1
assert score(r"\\mathbb{R}", r"(-\\infty,\\infty)") == 1 and score("x+1", "x+2") == score("2^x", "3") == 0
sys.addaudithook(watch)
for gold in golds:
    for case in cases:
        try:
            assert score(gold, case) == 0, (gold, case)
        except NeedsFreshFork:
            assert gold == r"\\text{east}" or "\\\\" in case, (gold, case)
print(json.dumps(compiled))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps([GOLDS, cases]), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [] and not target.exists()


@pytest.mark.parametrize(
    "answer", [r"\sum_{n=0}^{\infty} \frac{1}{n!}", r"\int_0^1 x\,dx", r"\lim_{x\to 0} x"]
)
def test_what_sympy_may_run_as_code_waits_for_a_fork_of_its_own(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    latex._expression.cache_clear()
    with pytest.raises(fresh.NeedsFreshFork):
        judge("x+1", answer)
    monkeypatch.setattr(fresh, "_throwaway", True)
    assert judge("x+1", answer).status == "wrong"
    assert judge(r"\frac{1}{2}", r"\int_0^1 x\,dx").solved
    latex._expression.cache_clear()


def test_the_teacher_refuses_problems_without_steps() -> None:
    with pytest.raises(StudyError, match="steps"):
        DOMAIN.solve(replace(PROBLEMS[0], checks={}))


def test_what_follows_the_last_thought_counts() -> None:
    problem = replace(PROBLEMS[0], answer="7")
    text = r"<think>a</think>\boxed{7}<think>b</think>\boxed{8}"
    assert after_thinking(text) == r"\boxed{8}"
    assert not DOMAIN.verify(problem, text, False).solved


@needs_samples
@pytest.mark.parametrize("name", ["deepscaler", "math_train", "gsm8k_train"])
def test_gold_answers_of_public_sets_are_accepted(name: str) -> None:
    golds = [row["answer"].rpartition("####")[2].strip() for row in rows(name)[:60]]
    assert len(golds) == 60
    for i, gold in enumerate(golds):
        problem = replace(PROBLEMS[0], answer=gold, checks={}, task="hub")
        assert DOMAIN.verify(problem, rf"<think>so</think>\boxed{{{gold}}}", False).solved, gold
        # One spelling per answer changes no answer, and not everything is accepted.
        assert equivalent(gold, canonical(gold)), gold
        assert not DOMAIN.verify(problem, DOMAIN.garbage(problem, Random(i)), False).solved, gold
