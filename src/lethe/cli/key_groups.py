"""Which keys a verb's --help shows: the keys in groups, and the groups that each verb reads."""

from fnmatch import fnmatchcase

# Title -> patterns of its keys; a key belongs to the first group that has it
GROUPS: dict[str, tuple[str, ...]] = {
    "Workspace and experiment": ("run.workspace", "run.experiment"),
    "Method": (),
    "Arguments of the method": (),
    "Search": ("search.*",),
    "Images": ("data.source", "data.root", "data.image_size", "data.resize", "data.mean", "data.std", "data.[!fm]*"),
    "Forget set": ("data.forget.*", "data.metadata"),
    "Network and given weights": ("model.*", "pretrain.checkpoint", "pretrain.classes", "pretrain.init"),
    "Reference bank": ("pretrain.seeds", "retrain.seeds"),
    "Training of the original": ("pretrain.*",),
    "Training of the retrained model, where it differs": ("retrain.*",),
    "Repeated runs": ("run.seeds", "run.originals"),
    "Parallel workers": ("run.workers", "run.gpus"),
    "Computing": ("run.seed", "run.device", "run.channels_last", "run.images", "run.threads"),
    "While and after training": ("run.precision", "run.cache", "run.evaluate*", "run.checkpoint_every", "run.log_model", "run.register_*"),
    "Scores": ("run.measures", "evaluate.*"),
    "Card": ("card.*",),
}
_HERE = "Workspace and experiment"
_DATA = ("Images", "Forget set")
_TRAINING = ("Network and given weights", "Training of the original")
_RETRAINED = "Training of the retrained model, where it differs"
_COMPUTING = ("Computing", "While and after training", "Scores")
_UNLEARNING = ("Arguments of the method", *_DATA, *_TRAINING, _RETRAINED, "Repeated runs", "Parallel workers", *_COMPUTING)
READS: dict[str, tuple[str, ...]] = {
    "fingerprint": (_HERE, *_UNLEARNING, "Reference bank"),
    "prepare": (_HERE, *_DATA),
    "pretrain": (_HERE, *_DATA, *_TRAINING, *_COMPUTING),
    "retrain": (_HERE, *_DATA, *_TRAINING, _RETRAINED, *_COMPUTING),
    "bank": (_HERE, "Reference bank", *_DATA, *_TRAINING, _RETRAINED, "Parallel workers", *_COMPUTING),
    "unlearn": (_HERE, "Method", *_UNLEARNING),
    "evaluate": (_HERE, "Method", "Computing", "Scores"),
    "search": (_HERE, "Search", "Arguments of the method", *_DATA, *_TRAINING, _RETRAINED, *_COMPUTING),
    "leaderboard": (_HERE, *_UNLEARNING),
    "report": (_HERE,),
    "card": (_HERE, "Method", "Card"),
    "erase": (_HERE, "Method", "Card"),
    "ledger": (_HERE,),
    "verify": (_HERE,),
    "demo": (_HERE, "Method", *_UNLEARNING),
}


def group_of(key: str) -> str:
    """Return the title of a key's group.

    Args:
        key: dotted key of a section; not of a method.

    Raises:
        KeyError: no group has it.
    """
    for title, patterns in GROUPS.items():
        if any(fnmatchcase(key, pattern) for pattern in patterns):
            return title
    raise KeyError(key)
