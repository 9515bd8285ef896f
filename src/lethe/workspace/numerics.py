"""What a result depends on apart from its recipe and its data: the arithmetic, as declared numbers.

A result is out of date when one of these numbers is raised, never because a file was edited, renamed or moved. Raise a number
when the same recipe on the same data would give other results beyond the order of sums; tests/contract/test_golden.py fails as long as the
arithmetic moved and the number did not. Number 1 of `engine` and `reading` is what commit 8948325 computed. That commit identified its
arithmetic by the hashes of its source files, so these hashes are what number 1 is called, and its workspaces are still up to date."""

# Optimizer steps: engine, losses, orders, schedules, batches, augmentation, architectures, small convolutions, frozen prefix
ENGINE = 1
# From weights to a logits table: batches, architectures, logits, the probe, perturbed copies, relearning
READING = 1
# The draw into retain, forget, validation and test (a change of pixels is `sources.EDITION`)
SPLITS = 1
# From logits tables to scores
MEASURES = 15
# From scores to the report's tables, figures and words
REPORT = 7
# Objectives, pruning, spaces and winners of a search
SEARCH = 6
# Of these what a trial's values depend on: trials of another number are kept and do not count. Winners are computed from all that count
TRIALS = 3

_FIRST = {
    "compute": "54263b6eddc72d2105ea3a33d69dc4871e043e8718673cf405d77603484aa480",
    "data": "9f25f914b97107f9949aa10d68ed3798f9bbad8e87f19a1105b231a937c1a3fe",
    "edits": "1744b29720ef49d85575a1a23c60391bf0a5ccb191bc242e7a7182a7d6e8917f",
    "engine": "cea9929e16d56d3344df6a518f95684cbee7be90bef330ad207b70e0378b7327",
    "losses": "c13e1ecb4854723d88095917f2cffd1241cb97289883a2088b1e0fb551adafb6",
    "model": "0ecd3cfab72132ef1dd6b8b2d687ac297aafb777fdc302c71acf3d12505c5aed",
    "order": "d6f42f4ac6256a914cfcf630417bba4223babed17dcee5825393876a12dfa988",
    "prefix": "ec5b967b9cfb9511d8688cd048d3104128b5336c3491e5a1d9608f9ac0376964",
    "quick": "29c5ab939381b4f2a585de04bf35b6b149850dca4f6a1703f1e700904f407eb6",
    "recipe": "b59e4cbc2a83436f338c0e34edc26635e367cc91cf4aa5af5dd6416948c5eca7",
    "schedule": "6c28d0d573617ee6474b7cb32743f63a4ec5cd023300653d63d81229c92875fa",
    "select": "219a62cc9c60a1007fd89ff287e81e53888c05652931ea374a40488c090e0b7e",
    "features": "4f10bdab877fef059d661979d647efa0006448c89c5cfe37c943dbde5ce577da",
    "predict": "bf527e1445f8d0c76cb12c2f23c1cb3a07debb9d3e2e7b412291ce262e8fc2c6",
    "reading": "cefff712e266c1166ca634441eec11faae417c163fd7d97c40ce24a99860ebcb",
}
_FIRST_ENGINE = ("compute", "data", "edits", "engine", "losses", "model", "order", "prefix", "quick", "recipe", "schedule", "select")
_FIRST_READING = ("data", "features", "model", "predict", "quick", "reading")


def engine() -> str:
    """The content of recipes/engine.py.txt, on which every DVC stage that trains depends."""
    return "".join(f"{name}.py {_FIRST[name]}\n" for name in _FIRST_ENGINE) if ENGINE == 1 else f"engine {ENGINE}\n"


def reading(relearning: bool) -> tuple[str, ...]:
    """What a logits table says of the arithmetic that read it; `relearning`: its columns hold the outcome of optimizer steps, too."""
    read = tuple(_FIRST[name] for name in _FIRST_READING) if READING == 1 else (f"reading {READING}",)
    stepped = (_FIRST["engine"],) if ENGINE == 1 else (f"engine {ENGINE}",)
    return (*read, *stepped) if relearning else read


def raised() -> dict[str, int]:
    """The numbers above 1 among those that DVC stages depend on by recipes/<name>.txt: a stage's list of dependencies names the file once
    its number is raised, so that nothing runs again before."""
    return {name: number for name, number in {"measures": MEASURES, "report": REPORT, "search": SEARCH}.items() if number > 1}
