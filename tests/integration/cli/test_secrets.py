"""No file that a run leaves, and no line that it prints, has a secret that it was given."""

from support.project import Project

STORAGE = "postgresql://me:geheim-1@host.example/db?sslmode=verify-full&sslpassword=geheim-2&token=geheim-3"
SECRETS = {"HF_TOKEN": "geheim-4", "AWS_SECRET_ACCESS_KEY": "geheim-5", "PGPASSWORD": "geheim-6", "MLFLOW_TRACKING_PASSWORD": "geheim-7"}


def test_a_whole_run_keeps_no_secret(project: Project) -> None:
    words = ["--method", "model_1", "--search.storage", STORAGE]
    said = [project.ran(*stage, *words, **SECRETS) for stage in (("unlearn",), ("report", "card"))]
    said.append(project.run("unlearn", *words, "--model.architecture", STORAGE, **SECRETS))
    assert said[-1].returncode == 2
    for done in said:
        assert "geheim" not in done.stdout + done.stderr
    kept = [str(path.relative_to(project.root)) for path in project.root.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
    assert not kept
    assert project.rows(method="model_1")
