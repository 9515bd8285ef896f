"""Published accuracies in percent: Tables 7 (six models) and 8 (four hybrids), and the two references.

The tables are those of the project report "Efficient Machine Unlearning for Deep Neural Networks" (CIFAR-10, ResNet-18). They come from
its notebook, in which every method starts from the result of the previous one. The report has no retrained model; the references are
those published with the starting kit that it used: original 99.5 on train images (retain and forget) and 88.3 on test; retrained 99.5 on
retain and 88.2 on forget. Numbers that were not published are absent."""

SOURCE = (
    'Tables 7 and 8 of the project report "Efficient Machine Unlearning for Deep Neural Networks" (CIFAR-10, ResNet-18), '
    "produced by its notebook in one chain; original and retrained: the published checkpoints that it starts from, with one decimal; "
    "their validation accuracy and the test accuracy of the retrained model were not published"
)
SIZES = {"retain": 45_000, "forget": 5_000, "validation": 5_000, "test": 5_000}
ARCHITECTURE = "resnet18"

REFERENCES: dict[str, dict[str, float]] = {
    "original": {"retain": 99.5, "forget": 99.5, "test": 88.3},
    "retrained": {"retain": 99.5, "forget": 88.2},
}


def _row(retain: float, forget: float, validation: float, test: float) -> dict[str, float]:
    return {"retain": retain, "forget": forget, "validation": validation, "test": test}


TABLE_7 = {
    "model_1": _row(100.00, 99.22, 88.40, 88.54),
    "model_2": _row(100.00, 99.14, 88.36, 88.60),
    "model_3": _row(100.00, 98.30, 87.62, 88.10),
    "model_4": _row(99.96, 96.10, 86.76, 86.58),
    "model_5": _row(92.31, 74.30, 77.90, 77.24),
    "model_6": _row(99.88, 96.56, 86.70, 86.52),
}
TABLE_8 = {
    "hybrid_1": _row(46.51, 37.22, 44.56, 44.86),
    "hybrid_2": _row(93.27, 67.82, 72.26, 71.70),
    "hybrid_3": _row(100.00, 71.76, 85.36, 85.08),
    "hybrid_4": _row(98.42, 66.64, 78.88, 78.02),
}

ALL = REFERENCES | TABLE_7 | TABLE_8
