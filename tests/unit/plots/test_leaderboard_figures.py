"""Which methods a leaderboard's figures name."""

from typing import Any

from lethe.plots import leaderboard_figures
from lethe.plots.leaderboard_figures import MOST_NAMED


def test_the_nearest_methods_are_told_apart_and_the_others_are_one() -> None:
    names = [f"method_{number}" for number in range(42)]
    points: dict[str, dict[float, list[dict[str, Any]]]] = {
        name: {0.1: [{"avg_gap.svc": float(42 - number)}, {"avg_gap.svc": None}]} for number, name in enumerate(names)
    }
    looks = leaderboard_figures._looks(points)
    named = [name for name in names if looks[name]["label"] == name]
    assert named == names[-MOST_NAMED:]
    assert len({(looks[name]["color"], looks[name]["marker"]) for name in named}) == MOST_NAMED
    assert [look["label"] for name, look in looks.items() if name not in named].count("other methods") == 1
