"""What the workspaces have in common in which erasures and damages are tried: 200 digits, a small network, a few epochs, one thread."""

KEYS = (
    "--data.source",
    "digits",
    "--data.limit",
    "20",
    "--data.forget.count",
    "40",
    "--model.architecture",
    "convnet",
    "--run.threads",
    "1",
)
KEYS += ("--pretrain.epochs", "3", "--pretrain.final_epochs", "1", "--pretrain.batch_size", "16", "--pretrain.min_steps", "0")
