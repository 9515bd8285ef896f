"""Synthetic evaluation contexts: a model that remembers the forget set to a degree, next to references that never saw it."""

from dataclasses import replace

import numpy as np

from lethe.data.shadow_splits import replacements
from lethe.evaluation.context import Cost, EvaluationContext
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, Array, LogitsTable
from lethe.testing.tables import bank, drawn, of_phi

LEAK = 3.0  # what phi gains where an image is remembered


def context(leak: float, models: int = 6, table: LogitsTable | None = None, **more: object) -> EvaluationContext:
    """Make a model that remembers the forget set to a degree, with everything that a measure can need.

    Args:
        leak: what phi, the log odds of the true class, gains on forget; 0: the model never saw it.
        models: number of retrained models, and of models of the method.
        table: the model's logits table; None: a drawn one.
        more: in place of fields of the context.

    Returns:
        The context, with original, models of the method, costs and all columns.
    """
    model = table or drawn(1, leak, "unlearned")
    known = {
        "original": drawn(50, LEAK, "original"),
        "unlearned": [model, *bank(models - 1, leak, 300, "unlearned")],
        "cost": Cost(2.0, 3e9, 3e10, 1000),
    }
    theirs = [with_columns(each, 0.0, number) for number, each in enumerate(bank(models))]
    own = with_columns(model, leak, models)
    own = replace(own, columns={**own.columns, **of_others(own, leak)})
    return EvaluationContext(own, theirs, **(known | more))  # type: ignore[arg-type]


def with_columns(table: LogitsTable, leak: float, own: int = 0) -> LogitsTable:
    """Add columns: a probe that is right for seven in ten unseen images and for more remembered ones, answers on perturbed images, features
    that models share except for a part of their own (larger with a leak), and outcomes of relearning, sooner with a leak.

    Args:
        table: of the model.
        leak: as `context` takes it.
        own: seed of the features' own part.

    Returns:
        The table with the columns.
    """
    generator = np.random.default_rng(7)
    number = len(table.ids)
    lucky = generator.random(number) < 0.7 + 0.09 * leak * (table.split == 1)
    counts = np.clip(8 + 2 * leak + generator.normal(0, 2, (number, 3)), 0, 16)
    shared = generator.normal(0, 1, (number, 8))
    apart = np.random.default_rng(own).normal(0, 1, (number, 8)) * (1 + leak)
    steps = np.tile(np.arange(61) >= 40 - int(10 * leak), (number, 1))
    columns = {"probe": lucky, "residual": counts, "relearn": steps}
    features = {"features": (shared + apart).astype(np.float32)}
    return replace(table, columns={name: column.astype(np.uint8) for name, column in columns.items()} | features)


def of_others(table: LogitsTable, leak: float) -> dict[str, Array]:
    """Draw columns of models on other requests: SWAP's never saw forget and remembers F'; each of 24 shadow models forgot half of the pool,
    never saw a quarter, and the rest does not concern it.

    Args:
        table: of the model.
        leak: as `context` takes it.

    Returns:
        Column -> values [N, ...].
    """
    generator = np.random.default_rng(2)
    other = replacements(table.rows("forget"), table.rows("validation"), table.labels)
    pool = np.concatenate([table.rows("forget"), other])
    phi = drawn(90).phi.copy()
    phi[other] += leak
    role = np.zeros((len(table.ids), 24), np.uint8)
    role[pool] = generator.permuted(np.tile(np.repeat([FORGOT, FORGOT, NEVER_SAW, 0], 6), (len(pool), 1)), axis=1)
    hard = generator.normal(0, 2, (len(table.ids), 1))
    phi_NK = hard + generator.normal(0, 1, role.shape) + leak * (role == FORGOT)
    return {"swapped": of_phi(phi).logits, SHADOWS[0]: phi_NK.astype(np.float32), SHADOWS[1]: role}
