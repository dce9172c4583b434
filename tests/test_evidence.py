"""What rows of the long experiments say together, on rows whose answers are known."""

import numpy as np
import pytest

from prorl_study import evidence


def row(arm: str, seed: int, points: list[tuple[float, float]], base: str = "main", **others):
    ends = [{"flops": f, "tokens": 10 * i, "strict": {"a": s, "b": s}} for i, (f, s) in enumerate(points, 1)]
    return {
        "name": f"x-{arm}-{base}-{seed}",
        "arm": arm,
        "seed": seed,
        "base": base,
        "budget": 100,
        "flops": points[-1][0],
        "ends": ends,
        **others,
    }


def test_arms_are_paired_by_base_seed_and_budget_and_unpaired_runs_are_left_out():
    rows = [
        row("a", 1, [(1, 0.5)]),
        row("a", 2, [(1, 0.6)]),
        row("a", 2, [(1, 0.7)], base="other"),
        row("a", 3, [(1, 0.9)]),
        row("b", 2, [(1, 0.1)]),
        row("b", 1, [(1, 0.3)]),
        row("b", 3, [(1, 0.0)], budget=50),
        row("c", 1, [(1, 0.0)]),
    ]
    assert evidence.differences(rows, "a", "b") == pytest.approx([20, 50])
    assert evidence.differences(rows, "b", "a") == pytest.approx([-20, -50])
    assert evidence.differences(rows, "a", "nobody").size == 0


def test_at_equal_cost_the_dearer_run_is_read_off_where_the_cheaper_one_ends():
    rows = [row("cheap", 1, [(1.0, 0.2), (2.0, 0.4)]), row("dear", 1, [(1.5, 0.1), (3.5, 0.5)])]
    # after 2 operations the dear run is a quarter of the way from 10 to 50 percent
    assert evidence.differences_at_equal_cost(rows, "cheap", "dear") == pytest.approx([40 - 20])
    assert evidence.differences(rows, "cheap", "dear") == pytest.approx([40 - 50])
    with pytest.raises(ValueError, match="lie outside of x-dear-main-1's"):
        evidence.score_at(rows[1], 1.0)


def test_a_curve_is_found_again_from_its_own_points():
    x = np.linspace(5_000, 240_000, 12)
    y = 0.6 - (0.6 - 0.2) * np.exp(-1.5e-5 * (x - x[0]))
    curve = evidence.fit_curve(x, y)
    assert curve is not None
    assert (curve.start, curve.asymptote) == pytest.approx((0.2, 0.6), abs=1e-4)
    assert curve.rate == pytest.approx(1.5e-5, rel=1e-3) and curve.residual < 1e-5


def test_too_few_points_make_no_curve():
    assert evidence.fit_curve([1, 2, 3], [0.1, 0.2, 0.3]) is None
