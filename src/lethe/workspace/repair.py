"""How a damaged file of a workspace is made again: the command that does, or what else there is to do."""

from pathlib import Path

from lethe._util import manifest
from lethe._util.checkout import command, send_command
from lethe._util.errors import UserError
from lethe.config.loader import STAGE
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId


def remedy(path: Path, workspace: Path | None = None) -> str:
    """Return what to do about a damaged file.

    Args:
        path: of the file, which exists or not.
        workspace: that it is in; None: the nearest.

    Returns:
        Words that follow a semicolon; of a file that was changed and may have been on purpose, also the command that accepts it. "" for a
        file that is in no workspace.
    """
    path = path.absolute()
    root = workspace or manifest.workspace_of(path)
    if root is None:
        return ""
    layout, accept = Layout(root.absolute()), ""
    if path != layout.ledger and path.is_file() and manifest.state(path) is False:
        accept = f"; `{command('verify', '--accept', str(path), *_workspace(layout))}` takes it as it is, if it was changed on purpose"
    return _remedy(layout, path) + accept


def _remedy(layout: Layout, path: Path) -> str:
    by_hand = {
        layout.ledger: "nothing can make a ledger again: compare it with a copy",
        layout.erased: "restore it from a copy: it says which images were erased",
        layout.settings: "restore it from a copy, or correct the keys in it and give them on the next command line",
        layout.manifest: "remove it; files that were written before can then not be verified",
    }
    if path in by_hand:
        return by_hand[path]
    if path.is_relative_to(layout.outbox) and len(path.relative_to(layout.outbox).parts) > 2:
        return f"`{send_command(layout.root)}` sends all but what is damaged, which it keeps in {layout.damaged}"
    if path.is_relative_to(layout.outbox):
        return "remove its folder; its records are then not sent to MLflow"
    if any(path.is_relative_to(folder) for folder in (layout.resume, layout.bank_states, layout.other_states)):
        return "remove it; the run then starts from its beginning"
    if path.is_relative_to(layout.accepted("-").parent):
        return "restore it from a copy: no command makes it again"
    if path.is_relative_to(layout.state):
        return "remove it; only what it remembers is lost"
    try:
        return f"remove it, then `{maker(layout, path)}` makes it again"
    except UserError:  # its name is that of no run: somebody put it there
        return "remove it; no command makes such a file"


def maker(layout: Layout, path: Path) -> str:
    """Return the command that makes a file of a workspace.

    Args:
        layout: of the workspace.
        path: of the file.

    Returns:
        The command as it is typed, with `--run.workspace` where the workspace is not the current folder.
    """
    home, search = _workspace(layout), layout.search("-").parent
    for folder, verb in (
        (layout.data, "prepare"),
        (layout.banks, "bank"),
        (layout.others, "evaluate"),
        (layout.recipe("-").parent, "fingerprint"),
        (layout.report, "report"),
    ):
        if path.is_relative_to(folder):
            return command(verb, *home)
    if path.is_relative_to(layout.cards):
        run_name = path.relative_to(layout.cards).with_suffix("").as_posix()
        return command("report", "card", "--method", RunId.parse(run_name.rpartition("-")[0] or run_name).key, *home)
    if path.is_relative_to(search):
        return command("search", "--search.method", path.relative_to(search).parts[0], *home)
    trained, scored = (layout.epochs("-").parent, layout.models), (layout.metrics("-").parent, layout.all_logits, layout.all_scores)
    folder = next((folder for folder in (*trained, *scored) if path.is_relative_to(folder)), layout.originals)
    if folder == layout.originals:
        return command("unlearn", *home)
    run = RunId.parse(path.relative_to(folder).with_suffix("").as_posix())
    if folder in scored:
        return command("evaluate", "--method", run.key, *home)
    return command(STAGE[run.key], *home) if run.key in STAGE else command("unlearn", "--method", run.key, *home)


def _workspace(layout: Layout) -> list[str]:
    """The words that name the workspace on a command line."""
    return [] if layout.root.resolve() == Path.cwd().resolve() else ["--run.workspace", str(layout.root)]
