"""What git's objects and DVC's experiments still hold after an erasure: a repository of three commits, without DVC's command line."""

import subprocess
from pathlib import Path

import pytest

from lethe.erasure.dvc_objects import DvcObjects
from lethe.erasure.git_objects import PRUNE, GitObjects
from lethe.erasure.stores import DELETE, YOURS
from support.erasures import IDS, SOUGHT


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitObjects:
    for key, value in {"DVC_ROOT": tmp_path, "GIT_CONFIG_GLOBAL": "/dev/null", "DVC_SITE_CACHE_DIR": tmp_path / "site"}.items():
        monkeypatch.setenv(key, str(value))
    return GitObjects(tmp_path, SOUGHT)


def committed(folder: Path, **files: str) -> str:
    """Commit files, and return the commit."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    run = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "add", "."], cwd=folder, check=True)
    subprocess.run([*run, "commit", "-qm", "x"], cwd=folder, check=True)
    return subprocess.run([*run, "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_history_and_experiments(git: GitObjects, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc" / "cache" / "files" / "md5" / "ab").mkdir(parents=True)
    (tmp_path / ".dvc" / "cache" / "files" / "md5" / "ab" / "cdef").write_text(IDS[1])
    (tmp_path / ".dvc" / ".gitignore").write_text("/cache\n/tmp\n")
    (tmp_path / ".dvc" / "config").touch()
    first = committed(tmp_path, list_csv=f"id\n{IDS[0]}\n", dvc_lock="outs: [{md5: '99'}]")
    second = committed(tmp_path, list_csv="id\n", dvc_lock="outs: [{md5: abcdef}]")
    third = committed(tmp_path, notes_txt=f"{IDS[2]} and {IDS[0]}", dvc_lock="outs: [{md5: '99'}]")
    refs = {"clean": first, "names": second, "holds": third, "celery/stash": first, "exec/EXEC_HEAD": second}
    for name, commit in refs.items():
        subprocess.run(["git", "update-ref", f"refs/exps/{name}", commit], cwd=tmp_path, check=True)
    subprocess.run(["git", "reset", "-q", "--hard", second], cwd=tmp_path, check=True)

    history = {place.name: (place.holds, place.step) for place in git.find()}
    assert history == {
        "list.csv in git's history": ("1 id", YOURS),
        "notes.txt in git's history": ("2 ids", YOURS),
    }
    store = DvcObjects(SOUGHT, git)
    places = list(store.find())
    assert [(Path(place.name).name, place.step) for place in places] == [
        ("holds", DELETE),
        ("names", DELETE),
        ("stash", YOURS),
        ("cdef", DELETE),
    ]
    for place in [one for one in places if one.step == DELETE] * 2:  # twice changes nothing
        store.erase(place)
    assert any(PRUNE in line for line in store.unreachable())
    left = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert left.stdout.split() == ["refs/exps/celery/stash", "refs/exps/clean", "refs/exps/exec/EXEC_HEAD"]
    assert list(DvcObjects(SOUGHT, GitObjects(tmp_path, SOUGHT)).check()) == []
    subprocess.run(PRUNE, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert [place.name for place in GitObjects(tmp_path, SOUGHT).check()] == ["list.csv in git's history"]


def test_without_a_repository(git: GitObjects, tmp_path: Path) -> None:
    assert (list(git.find()), list(git.experiments(["ab"])), list(git.unreachable())) == ([], [], [])
    assert (list(DvcObjects(SOUGHT, git).find()), list(DvcObjects(SOUGHT, git).unreachable())) == ([], [])


def test_names_in_the_cache_outside_of_the_project(git: GitObjects, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    store = DvcObjects(SOUGHT, git)
    assert list(store.find()) == [] and store._seen
    from dvc.repo import Repo

    photo = tmp_path / IDS[0]
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"pixels")
    with Repo(str(tmp_path)) as repo:
        repo.add(str(photo))
    places = {place.name: place for place in store.find()}
    assert places[str(store._seen)].step == DELETE and "id" in places[str(store._seen)].holds
    store.erase(places[str(store._seen)])
    assert str(store._seen) not in {place.name for place in store.find()}
