"""Erasing from DVC's remotes and shared caches: a repository with remotes that are folders, or away, as DVC's configuration names them."""

import json
import subprocess
from pathlib import Path

import pytest

from lethe._util.errors import UserError
from lethe.erasure.dvc_objects import NO_OBJECT, NOT_NAMED, DvcObjects, check_kept
from lethe.erasure.git_objects import GitObjects
from lethe.erasure.stores import DELETE, YOURS
from support.erasures import IDS, SOUGHT

LIST, OTHER, CLEAN, MEMBER = "a" * 32, "b" * 32, "c" * 32, "d" * 32
FOLDER = "e" * 32 + ".dir"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose dvc.lock, not committed yet, names a list; an earlier one, which git still has, names a folder."""
    for key, value in {"DVC_ROOT": tmp_path, "GIT_CONFIG_GLOBAL": "/dev/null", "DVC_SITE_CACHE_DIR": tmp_path / "site"}.items():
        monkeypatch.setenv(key, str(value))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nouts: [{{md5: {FOLDER}}}]\n")
    subprocess.run([*git, "add", "dvc.lock"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nouts: [{{md5: {LIST}}}]\n")
    return tmp_path


def remote(project: Path, **settings: str) -> None:
    texts = (f"['remote \"{name}\"']\n    url = {url}\n" for name, url in settings.items())
    (project / ".dvc" / "config").write_text("".join(texts))


def put(folder: Path, name: str, content: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def at(hash_: str) -> str:
    return f"files/md5/{hash_[:2]}/{hash_[2:]}"


def store(project: Path, *keep: str) -> DvcObjects:
    return DvcObjects(SOUGHT, GitObjects(project, SOUGHT), keep)


def test_an_object_goes_where_this_project_names_it(project: Path) -> None:
    nas = project / "nas"
    remote(project, nas=str(nas))
    put(nas, at(LIST), f"id\n{IDS[0]}\n")
    put(nas, at(OTHER), f"id\n{IDS[0]}\n")
    put(nas, at(CLEAN), "nothing")
    put(nas, at(FOLDER), json.dumps([{"md5": MEMBER, "relpath": "list.csv"}]))
    put(nas, at(MEMBER), f"id\n{IDS[1]}\n")
    put(nas, "runs/a/b", f"outs: [{{md5: {LIST}}}]")
    put(nas, "runs/c/d", f"outs: [{{md5: {CLEAN}}}]")
    found = store(project)
    places = list(found.find())
    assert [(place.name, place.step) for place in places] == [  # objects last: without them the run would not be found
        (f"{nas}/runs/a/b", DELETE),
        (f"{nas}/{at(LIST)}", DELETE),
        (f"{nas}/{at(OTHER)}", YOURS),
        (f"{nas}/{at(MEMBER)}", DELETE),
    ]
    assert places[2].advice == NOT_NAMED.format(address=nas)
    assert list(found.unreachable()) == [
        f"other projects that use {nas}, and lose the objects that they have in common with this one (`--keep {nas}` leaves it alone)"
    ]
    for keep in ("nas", str(nas)):
        kept = store(project, keep)
        assert list(kept.find()) == []
        assert list(kept.unreachable()) == [f"{nas}, which is kept (--keep)"]
    check_kept(["nas", str(nas), f"{project}/.dvc/cache"])
    with pytest.raises(UserError, match=r"^keep is naz; it takes a remote of DVC, .*; the remotes are nas$"):
        check_kept(["nas", "naz"])
    for place in places:
        if place.step == DELETE:
            found.erase(place)
    assert [place.name for place in store(project).check()] == [f"{nas}/{at(OTHER)}"]
    left = sorted(path.relative_to(nas).as_posix() for path in nas.rglob("*") if path.is_file())
    assert left == sorted([at(OTHER), at(CLEAN), at(FOLDER), "runs/c/d"])


def test_the_cache_in_the_project_is_its_own_and_another_may_be_shared(project: Path) -> None:
    put(project / ".dvc" / "cache", at(OTHER), IDS[0])
    remote(project)
    assert [place.step for place in store(project).find()] == [DELETE]
    put(project / "shared", at(OTHER), IDS[0])
    put(project / "shared", at(LIST), IDS[0])
    (project / ".dvc" / "config").write_text(f"[cache]\n    dir = {project / 'shared'}\n")
    assert {place.name: place.step for place in store(project).find()} == {
        f"{project}/shared/{at(LIST)}": DELETE,
        f"{project}/shared/{at(OTHER)}": YOURS,
    }
    assert list(store(project, str(project / "shared")).find()) == []


def test_what_dvc_did_not_put_into_a_remote_is_left(project: Path) -> None:
    nas, legacy = project / "nas", f"{LIST[:2]}/{LIST[2:]}"
    remote(project, nas=str(nas))
    for name in ("people/list.csv", "list.csv", legacy):
        put(nas, name, f"id\n{IDS[0]}\n")
    put(project / ".dvc" / "tmp" / "exps", "forget.csv", f"id\n{IDS[0]}\n")
    found = list(store(project).find())
    assert {place.name: place.advice for place in found if place.step == YOURS} == dict.fromkeys(
        [f"{nas}/list.csv", f"{nas}/people/list.csv"], NO_OBJECT
    )
    for place in found:
        if place.step == DELETE:
            store_ = store(project)
            list(store_.find())
            store_.erase(place)
    assert sorted(path.name for path in nas.rglob("*") if path.is_file()) == ["list.csv", "list.csv"]
    assert not (project / ".dvc" / "tmp" / "exps" / "forget.csv").exists()


def test_a_remote_that_is_away_is_listed(project: Path) -> None:
    remote(project, folder="../away", bucket="gs://me:secret@bucket/x", web="http://localhost:1/x")
    found = {place.name: place for place in store(project).find()}
    assert {place.step for place in found.values()} == {YOURS}
    assert {name: place.holds for name, place in found.items()} == {
        str(project / "away"): "a remote that is not there now",
        "gs://bucket/x": "a remote that can't be opened: gs is supported, but requires 'dvc-gs' to be installed",
        "http://localhost:1/x": "a remote whose objects can't be listed from here",
    }
    assert "older versions of the objects in http://localhost:1/x, if it keeps any" in list(store(project).unreachable())
    (project / ".dvc" / "config").write_text("[remote]\n  url\n")
    (place,) = store(project).find()
    assert place.holds.startswith("a configuration that DVC does not read: ")
