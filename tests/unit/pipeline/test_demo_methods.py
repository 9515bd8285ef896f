"""Which methods the demo runs."""

from dataclasses import replace

from lethe.config.loader import load
from lethe.pipeline.stages import DEMO_METHODS, demo_methods


def test_the_demo_runs_with_a_params_file_of_an_earlier_version() -> None:
    """It lacks the section of lethe_too_strong, which is no registered method."""
    now = load(["--method", "ft"], overlay="demo")
    assert demo_methods(now) == [DEMO_METHODS[0], "ft", *DEMO_METHODS[1:]]
    earlier = replace(now, methods={name: section for name, section in now.methods.items() if name != "lethe_too_strong"})
    assert demo_methods(earlier) == ["model_1", "ft", "lethe"]
