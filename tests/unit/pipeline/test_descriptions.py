"""What the description of an MLflow run says of its metrics."""

from lethe.config.loader import load
from lethe.pipeline.run_logging import describe


def test_metrics_of_a_sample_say_so_with_their_interval() -> None:
    assert "evaluate_retain" not in describe(load([]), "model_1")
    text = describe(load(["--run.evaluate_retain", "5000"]), "model_1")
    assert "are of the same 5,000 retain images (run.evaluate_retain)" in text
    assert "at 90 % the accuracy's 95 % interval is ±0.8 points, at 99 % ±0.3" in text  # as its key's help says
