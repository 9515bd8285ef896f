"""Names of runs: the only place that spells and parses them.

A run of a method is `hybrid_4`, one of several seeds `hybrid_4.seed3`, a link of a chain of runs `as_run/model_1`, a model of the
reference bank `bank/retrained.seed2`. The same text names its files, its lock and its MLflow run."""

import re
from dataclasses import dataclass, replace

from lethe._util.errors import UserError

_NAME = re.compile(r"(?:(?P<chain>[^/]+)/)?(?P<method>[^/]+?)(?:\.seed(?P<seed>0|[1-9]\d*))?")


@dataclass(frozen=True)
class RunId:
    """Identify a run within a workspace.

    Args:
        method: the method (or variant), or a reference: `original`, `retrained`.
        seed: its seed, where it is one of several seeds of the method; None for a run by itself and for the mean over several.
        chain: the chain of runs that it is a link of (`as_run`), or the collection that it is a member of (`bank`, `search`).
    """

    method: str
    seed: int | None = None
    chain: str | None = None

    def __str__(self) -> str:
        """Spell the name.

        >>> str(RunId("model_1", chain="as_run")), str(RunId("hybrid_4", 3)), str(RunId("retrained", 2, "bank"))
        ('as_run/model_1', 'hybrid_4.seed3', 'bank/retrained.seed2')
        """
        chain = "" if self.chain is None else f"{self.chain}/"
        return f"{chain}{self.method}" + ("" if self.seed is None else f".seed{self.seed}")

    @classmethod
    def parse(cls, name: str) -> "RunId":
        """Read a name that `str` spelled.

        >>> RunId.parse("as_run/model_1"), RunId.parse("hybrid_4.seed3")
        (RunId(method='model_1', seed=None, chain='as_run'), RunId(method='hybrid_4', seed=3, chain=None))

        Raises:
            UserError: the text names no run.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise UserError(f"{name!r} is no name of a run; it takes <method>, <chain>/<method>, and .seed<k> after either")
        seed = found["seed"]
        return cls(found["method"], None if seed is None else int(seed), found["chain"])

    @property
    def key(self) -> str:
        """Return the value of `--method` that makes the run: a link of a chain is made by its chain."""
        return self.chain or self.method

    @property
    def all_seeds(self) -> "RunId":
        """Return the run that represents all seeds: this one without its seed."""
        return replace(self, seed=None)

    def with_seed(self, seed: int) -> "RunId":
        """The same run by one seed of several."""
        return replace(self, seed=seed)


def trial_name(method: str, number: int, seed: int | None = None) -> str:
    """Spell the name of the MLflow run of a search trial.

    Args:
        method: the method that is searched.
        number: of the trial.
        seed: of a run within the trial, where it has several seeds; None for the trial itself.

    Returns:
        search/<method>/<number>, followed by /seed<seed> for one of its seeds.

    >>> trial_name("hybrid_4", 17), trial_name("hybrid_4", 17, seed=3)
    ('search/hybrid_4/17', 'search/hybrid_4/17/seed3')
    """
    return f"search/{method}/{number}" + ("" if seed is None else f"/seed{seed}")
