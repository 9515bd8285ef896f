"""`ledger verify`: the events of a workspace's ledger as a table, and whether its chain is whole."""

from lethe._util.log import log
from lethe.config.loader import Config
from lethe.workspace import ledger
from lethe.workspace.layout import Layout


def verify(config: Config) -> int:
    """Print the events of the ledger and every line that is not as it was written.

    Args:
        config: names the workspace.

    Returns:
        0 if the chain is whole, 1 otherwise.

    Raises:
        UserError: there is no ledger.
    """
    path = Layout(config.path(config.run.workspace)).ledger
    head, lines, faults = ledger.verify(path)
    for fault in faults:
        print(f"{path}: line {fault.line} {fault.what}")
    if faults:
        return 1
    for entry in ledger.read(config):
        print(f"{entry['n']:>4}  {entry['at']}  {entry['event']:<10} {entry['request'][:12]}  {entry.get('by', '')}".rstrip())
    log(f"{lines} lines, each follows the one before; note the last hash elsewhere against whoever edits the manifest, too: {head}")
    return 0
