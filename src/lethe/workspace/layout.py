"""The files of a workspace: the only place that knows their paths."""

from dataclasses import dataclass
from pathlib import Path

from lethe._util import manifest
from lethe._util.files import DAMAGED, OUTBOX, STATE
from lethe.workspace.run_names import RunId


@dataclass(frozen=True)
class Layout:
    """Give the path of every file under a workspace. Reads and writes nothing but the lists of what exists.

    Args:
        root: the workspace's folder. Runs are given as `RunId` or by name.
    """

    root: Path

    # --- images and splits --------------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """Images, splits, and what describes them."""
        return self.root / "data"

    @property
    def images(self) -> Path:
        """A copy of the source's images that is faster to read."""
        return self.data / "images.safetensors"

    @property
    def splits(self) -> Path:
        """Folder of the splits' files."""
        return self.data / "splits"

    def about(self, part: str) -> Path:
        """What DVC hashes in place of the images; `part`: train, held_out."""
        return self.data / f"{part}.json"

    def copies(self, kind: str) -> Path:
        """Copies among the images; `kind`: csv, which names them, or json, which counts them."""
        return self.data / f"copies.{kind}"

    @property
    def fingerprint(self) -> Path:
        """What the images and splits are asked to be, for DVC."""
        return self.data / "fingerprint.json"

    def recipe(self, name: str) -> Path:
        """The text that a DVC stage depends on; `name`: a method, a reference, or a declared number."""
        return self.root / "recipes" / f"{name}.txt"

    # --- runs ---------------------------------------------------------------------------------------------------------

    @property
    def models(self) -> Path:
        """Folder of the weights of all runs."""
        return self.root / "models"

    def weights(self, run: RunId | str) -> Path:
        """Weights of a run, as safetensors."""
        return self.models / f"{run}.safetensors"

    def epochs(self, run: RunId | str) -> Path:
        """A run's table of measurements by epoch, as CSV."""
        return self.root / "epochs" / f"{run}.csv"

    @property
    def all_logits(self) -> Path:
        """Folder of the logits tables of all runs."""
        return self.root / "logits"

    def logits(self, run: RunId | str) -> Path:
        """Logits table of a run, as safetensors."""
        return self.all_logits / f"{run}.safetensors"

    @property
    def all_scores(self) -> Path:
        """Folder of the scores of all runs."""
        return self.root / "scores"

    def scores(self, run: RunId | str) -> Path:
        """Score of a run, as JSON."""
        return self.all_scores / f"{run}.json"

    def metrics(self, run: RunId | str) -> Path:
        """A score's few numbers that `dvc metrics` shows."""
        return self.root / "metrics" / f"{run}.json"

    def exists(self, run: RunId | str) -> bool:
        """Whether there are weights or a logits table of the run."""
        return self.weights(run).exists() or self.logits(run).exists()

    def with_logits(self) -> list[RunId]:
        """Runs that have a logits table, by name."""
        return _runs(self.all_logits, ".safetensors")

    def with_scores(self) -> list[RunId]:
        """Runs that have a score file, by name."""
        return _runs(self.all_scores, ".json")

    # --- other models -------------------------------------------------------------------------------------------------

    @property
    def banks(self) -> Path:
        """Folder of all reference banks."""
        return self.root / "bank"

    def bank(self, key: str) -> Path:
        """Folder of a bank's logits tables; `key`: of the bank."""
        return self.banks / key

    def bank_logits(self, key: str, kind: str, seed: int) -> Path:
        """Return the logits table of a model in a bank.

        Args:
            key: of the bank.
            kind: original or retrained.
            seed: of the model.

        Returns:
            The path, which need not exist.
        """
        return self.bank(key) / f"{RunId(kind, seed)}.safetensors"

    def bank_seeds(self, key: str, kind: str) -> dict[int, Path]:
        """Return the logits tables of a kind that exist in a bank.

        Args:
            key: of the bank.
            kind: original or retrained.

        Returns:
            Seed -> file, sorted by file name.
        """
        found = {RunId.parse(path.stem): path for path in self.bank(key).glob("*.safetensors")}
        return {run.seed: found[run] for run in sorted(found, key=str) if run.seed is not None and run.method == kind}

    @property
    def others(self) -> Path:
        """Models on other deletion requests, which can be made again."""
        return self.root / "others"

    def shadow(self, kind: str, number: int, *, swap: bool) -> Path:
        """Return the file of a model on another deletion request.

        Args:
            kind: the method, `original` or `original.learned`.
            number: of a shadow model its number, of SWAP's model its seed.
            swap: whether it is a model of SWAP; otherwise a shadow model of U-LiRA.

        Returns:
            The path, which need not exist.
        """
        return self.others / _shadows(swap) / kind / f"{number}.safetensors"

    @property
    def originals(self) -> Path:
        """Runs from further originals (run.originals)."""
        return self.root / "originals"

    def original_runs(self, seed: int) -> Path:
        """Return the folder of a further original and of the runs from it, laid out as a workspace.

        Args:
            seed: of the original.
        """
        return self.originals / str(seed)

    def original_seeds(self) -> list[int]:
        """Seeds of the further originals."""
        return sorted(int(path.name) for path in self.originals.glob("*") if path.name.isdigit() and path.is_dir())

    def replication(self, method: str) -> Path:
        """Return the scores of a method's runs from all originals together.

        Args:
            method: its name.
        """
        return self.originals / f"{method}.json"

    # --- results ------------------------------------------------------------------------------------------------------

    @property
    def report(self) -> Path:
        """Folder of the report's pages, tables and figures."""
        return self.root / "report"

    @property
    def cards(self) -> Path:
        """Folder of the unlearning cards."""
        return self.root / "cards"

    def card(self, run: RunId | str, request: str) -> Path:
        """Return the path of the unlearning card of a run, without its suffix.

        Args:
            run: the run.
            request: short hash of the deletion request.

        Returns:
            The path, to which .json or another suffix is added.
        """
        return self.cards / f"{run}-{request}"

    def search(self, method: str) -> Path:
        """Folder of the results of a method's search."""
        return self.root / "search" / method

    def accepted(self, request: str) -> Path:
        """Return the weights that a request ended in, which take the original's place.

        Args:
            request: short pseudonym of the deletion request.
        """
        return self.root / "accepted" / f"{request}.safetensors"

    @property
    def ledger(self) -> Path:
        """The chain of what happened to each deletion request."""
        return self.root / "ledger.jsonl"

    @property
    def settings(self) -> Path:
        """The workspace's own layer of the configuration."""
        return self.root / "settings.yaml"

    # --- state: neither DVC's nor git's ---------------------------------------------------------------------------------

    @property
    def gitignore(self) -> Path:
        """Makes git ignore the whole workspace; not written where the workspace is the checkout."""
        return self.root / ".gitignore"

    @property
    def state(self) -> Path:
        """Folder of all state below."""
        return self.root / STATE

    @property
    def manifest(self) -> Path:
        """Hashes of the files that have no place for a hash of their own."""
        return self.root / manifest.NAME

    def lock(self, name: RunId | str) -> Path:
        """What holds a second process off; `name`: a run, `bank`, a search."""
        return self.locks / f"{str(name).replace('/', '.')}.lock"

    @property
    def locks(self) -> Path:
        """Folder of the locks of runs and searches."""
        return self.state / "locks"

    @property
    def resume(self) -> Path:
        """Folder of the resume states of runs."""
        return self.state / "resume"

    def clock(self, run: RunId | str) -> Path:
        """What the run took on this machine."""
        return self.state / "clock" / f"{run}.json"

    @property
    def outbox(self) -> Path:
        """Records that MLflow does not have yet."""
        return self.root / OUTBOX

    @property
    def damaged(self) -> Path:
        """Folder of lines of such records that were damaged, for inspection."""
        return self.root / DAMAGED

    @property
    def downloads(self) -> Path:
        """Folder of downloaded files, which are fetched again where they are missing."""
        return self.state / "downloads"

    @property
    def trials(self) -> Path:
        """Folder of the searches' SQLite database."""
        return self.state / "trials"

    def bank_state(self, key: str, machine: str) -> Path:
        """Return the folder of the resume states of a bank's models.

        Args:
            key: of the bank.
            machine: precision and device.

        Returns:
            The folder, which need not exist.
        """
        return self.bank_states / f"{key}-{machine}"

    @property
    def bank_states(self) -> Path:
        """Folder of the resume states of all banks."""
        return self.state / "bank"

    @property
    def other_states(self) -> Path:
        """Folder of the resume states of models on other requests."""
        return self.state / "others"

    def shadow_state(self, kind: str, *, swap: bool) -> Path:
        """Return the folder of the resume states of models on another deletion request.

        Args:
            kind: the method, `original` or `original.learned`.
            swap: whether they are models of SWAP; otherwise shadow models of U-LiRA.

        Returns:
            The folder, which need not exist.
        """
        return self.other_states / f"{_shadows(swap)}-{kind}"

    @property
    def secret(self) -> Path:
        """The secret under which ids are hashed, readable by its owner alone."""
        return self.state / "secret"

    @property
    def erased(self) -> Path:
        """Which images were erased, as pseudonyms: the journal of `erase`."""
        return self.state / "erased.json"

    @property
    def given(self) -> Path:
        """The keys by which the checkout itself, or a workspace of an earlier version, was made."""
        return self.state / "given.json"


def _shadows(swap: bool) -> str:
    return "swapped" if swap else "shadows"


def _runs(folder: Path, suffix: str) -> list[RunId]:
    paths = (*folder.glob(f"*{suffix}"), *folder.glob(f"*/*{suffix}"))
    names = sorted(path.relative_to(folder).as_posix().removesuffix(suffix) for path in paths)
    return [RunId.parse(name) for name in names]
