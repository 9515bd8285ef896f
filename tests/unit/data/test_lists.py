"""Lists and tables of images as systems, spreadsheets and people write them: what each line means, or why it is refused."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lethe._util.errors import UserError
from lethe.data import splits
from lethe.data.images import Images
from lethe.data.request import DeletionRequest

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
TRAIN = ("bee/000.png", "bee/001.png", "bee/Zoo.PNG", f"{NFD}/000.png", f"{NFD}/009.png", "tench, Tinca tinca/1.png", "thé/a b.png")
TEST = ("bee/000.png", "bee/777.png", f"{NFD}/100.png")


@pytest.fixture
def images() -> Images:
    ids = (*(f"train/{name}" for name in TRAIN), *(f"test/{name}" for name in TEST))
    classes = ("bee", NFD, "tench, Tinca tinca", "thé")
    labels = np.array([classes.index(id_.split("/")[1]) for id_ in ids], np.int64)
    return Images(np.zeros((len(ids), 3, 1, 1), np.uint8), labels, ids, classes, len(TEST))


Listed = Callable[..., list[str]]


@pytest.fixture
def listed(images: Images, tmp_path: Path) -> Listed:
    """The ids that a file asks for, without the `train/` before them."""

    def call(content: str | bytes, **more: object) -> list[str]:
        path = tmp_path / "list.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        request = DeletionRequest(ids=path, **more)  # type: ignore[arg-type]
        return [images.ids[i].removeprefix("train/") for i in splits.draw(images, request, 0)["forget"]]

    return call


def refusal(call: Callable[[], object], start: str = "data.forget.ids is ") -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(start)
    return str(caught.value)


# --- spellings ----------------------------------------------------------------------------------------------------------

SPELLINGS = {
    r"train\bee\000.png": "bee/000.png",
    "./train/bee/000.png": "bee/000.png",
    '"train/bee/000.png"': "bee/000.png",
    "'train/bee/000.png'": "bee/000.png",
    "ROOT/train/bee/000.png": "bee/000.png",
    "ROOT/./train/bee/000.png": "bee/000.png",
    "/data/photos/train/bee/000.png": "bee/000.png",
    r"D:\photos\train\bee\000.png": "bee/000.png",
    "bee/001.png": "bee/001.png",
    r".\bee\001.png": "bee/001.png",
    "001.png": "bee/001.png",
    "train/bee/zoo.png": "bee/Zoo.PNG",
    "TRAIN\\BEE\\ZOO.PNG": "bee/Zoo.PNG",
    f"train/{NFC}/000.png": f"{NFD}/000.png",
    f"{NFC}/009.png": f"{NFD}/009.png",
    "train/tench, Tinca tinca/1.png": "tench, Tinca tinca/1.png",
    "tench, Tinca tinca/1.png": "tench, Tinca tinca/1.png",
    "train/thé/a b.png": "thé/a b.png",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_that_only_one_id_has(
    name: str, listed: Listed, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    name_ = name.replace("ROOT", str(root))
    found = SPELLINGS[name]
    for content in (f"{name_}\n", f"id\n{name_}\n"):
        assert listed(content, root=root) == [found]
        plain = name_ in images.ids or (content.startswith("id") and name_.startswith('"'))
        log = capsys.readouterr().err
        assert log.startswith(f"data.forget.ids is {tmp_path}/list.csv: names that are no ids were understood: 1 ") == (not plain)
        assert plain or f"which is train/{found}" in log


def test_roots_are_also_known_by_what_they_link_to(listed: Listed, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert listed(f"{tmp_path}/real/train/bee/000.png\n", root=tmp_path / "link") == ["bee/000.png"]


def test_what_several_ids_have_is_a_question(listed: Listed) -> None:
    assert "1 of 1 ids unknown, first bee/000.png, line 1; nearest: train/bee/000.png or test/bee/000.png" in refusal(
        lambda: listed("bee/000.png\n")
    )
    assert "; nearest: " in refusal(lambda: listed("000.png\n"))


def test_a_table_without_a_known_column_is_told_from_a_list(listed: Listed) -> None:
    said = refusal(lambda: listed("photo_name,reason\ntrain/bee/000.png,asked\n"))
    assert "(its first line, photo_name,reason, has no column id; data.forget.column names another)" in said
    assert "1 of 2 ids unknown, first a,b, line 2" in refusal(lambda: listed("train/bee/000.png\na,b\n"))


def test_a_path_of_another_root_is_not_taken(listed: Listed, tmp_path: Path) -> None:
    for path in ("/elsewhere/train/bee/000.png", r"C:\photos\train\bee\000.png"):
        said = refusal(lambda path=path: listed(f"{path}\n", root=tmp_path))  # type: ignore[misc]
        assert f"it is not below data.root ({tmp_path}), which has train/bee/000.png" in said
    said = refusal(lambda: listed("/data/photos/bee/000.png\n", root=tmp_path / "photos"))
    assert "1 of 1 ids unknown, first /data/photos/bee/000.png" in said, "what follows is no whole id"


def test_the_spelling_of_an_id_wins(tmp_path: Path) -> None:
    ids = ("train/a/X.png", "train/a/x.png", r"train/a\b.png", "train/a/b.png", "test/a/1.png", "test/a/2.png")
    images = Images(np.zeros((6, 3, 1, 1), np.uint8), np.zeros(6, np.int64), ids, ("a", "b"), 2)
    for name in ids[:4]:
        (tmp_path / "list.txt").write_text(f"{name}\n")
        assert [images.ids[i] for i in splits.draw(images, DeletionRequest(ids=tmp_path / "list.txt"), 0)["forget"]] == [name]


# --- files --------------------------------------------------------------------------------------------------------------

TWO = ["bee/001.png", "thé/a b.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("form", ["{0}\n{1}\n", "id\n{0}\n{1}", "ID;why\r\n{0};x\r\n{1};y\r\n;\r\n", "why\tid\nx\t{0}\ny\t{1}\n"])
def test_encodings(form: str, encoding: str, listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    text = form.format(*(f"train/{name}" for name in TWO))
    assert listed(text.encode(encoding)) == TWO
    assert ("read as Windows-1252" in capsys.readouterr().err) == (encoding == "cp1252")


def test_a_named_column(listed: Listed) -> None:
    text = "photo,id\nbee/001.png,1\nthé/a b.png,2\n"
    assert listed(text, column="photo") == listed(text, column="Photo") == TWO
    assert "(no column photos in its first line: photo,id); " in refusal(lambda: listed(text, column="photos"), "data.forget.ids").replace(
        "; nearest: photo", ""
    )


def test_commas(listed: Listed) -> None:
    name = "tench, Tinca tinca/1.png"
    for text in (f"{name}\n", f"id\n{name}\n", f'id\n"{name}"\n', f'id,why\n"{name}",asked\n', f"id;why\n{name};asked\n"):
        assert listed(text) == [name]


def test_duplicates_are_logged(listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed("train/bee/001.png\ntrain/thé/a b.png\nbee/001.png\n") == TWO
    assert "1 of 3 lines repeat an image, first train/bee/001.png, line 1 and again line 3" in capsys.readouterr().err


def test_row_numbers(listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    """As label-issue tools export them: positions among the train images, in the order of torchvision's ImageFolder."""
    for header in ("row", "index", "idx,score", "given_label,Index"):
        cells = header.lower().split(",")
        place = next(i for i, cell in enumerate(cells) if cell in ("row", "index", "idx"))
        rows = [",".join(number if i == place else "0.5" for i in range(len(cells))) for number in ("1", "6")]
        assert listed("\n".join([header, *rows])) == TWO
        assert "row numbers of train images, from 0, in their order: 1 is train/bee/001.png" in capsys.readouterr().err
    assert "line 3: row 7); it takes rows 0 to 6" in refusal(lambda: listed("row\n1\n7\n"))
    assert "with data.limit 3 it takes ids" in refusal(lambda: listed("row\n1\n", limit=3))
    assert "unknown" in refusal(lambda: listed("1\n6\n")), "numbers without a header that says so"


def test_an_id_that_is_only_held_out(listed: Listed) -> None:
    assert "1 of 2 ids are of held-out images, first test/bee/777.png, line 2" in refusal(lambda: listed("bee/001.png\nbee/777.png\n"))


# --- by property ----------------------------------------------------------------------------------------------------------

TABLE = """id,user,camera
train/bee/000.png,u1,a
bee/001.png,u1,b
train/thé/a b.png,"Doe, J",a
test/bee/777.png,u1,a
test/bee/000.png,u9,a
train/gone.png,u7,c
"""


@pytest.fixture
def where(images: Images, tmp_path: Path) -> Listed:
    def call(*conditions: str, table: str = TABLE, **more: object) -> list[str]:
        (tmp_path / "metadata.csv").write_text(table)
        request = DeletionRequest(where=conditions, metadata=tmp_path / "metadata.csv", **more)  # type: ignore[arg-type]
        return [images.ids[i].removeprefix("train/") for i in splits.draw(images, request, 0)["forget"]]

    return call


def test_a_person_is_forgotten(where: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    assert where("user=u1") == ["bee/000.png", "bee/001.png"]
    assert "1 of 3 images with it are held-out images" in capsys.readouterr().err
    assert where("user=Doe, J") == ["thé/a b.png"]
    assert where("user=u1", "user=Doe, J") == ["bee/000.png", "bee/001.png", "thé/a b.png"]
    assert where("user=u1", "camera=b") == ["bee/001.png"]
    assert where("user=u1", table=TABLE.replace("id,", "file,"), column="file") == ["bee/000.png", "bee/001.png"]


def test_properties_that_no_image_has(where: Listed, images: Images) -> None:
    start = "data.forget.where is "
    assert "has no column usr; nearest: user); it has id, user, camera" in refusal(lambda: where("usr=u1"), start)
    assert "has that; nearest: u9); it takes" in refusal(lambda: where("user=u99"), start)
    assert "all 1 images with it are held-out" in refusal(lambda: where("user=u9"), start)
    assert "it takes column=value" in refusal(lambda: where("u1"), start)
    assert "unknown, first train/gone.png, line 7" in refusal(lambda: where("user=u7"), "data.metadata is ")
    assert "no column id in its first line" in refusal(lambda: where("user=u1", table="user\nu1\n"), "data.metadata is ")
    assert "there is no table" in refusal(lambda: splits.draw(images, DeletionRequest(where=("user=u1",)), 0), start)


# --- forms of files ---------------------------------------------------------------------------------------------------------

FORMS = {
    "JSON list": '["train/bee/000.png", "train/bee/001.png"]',
    "JSON objects": '[{"id": "train/bee/000.png", "why": "x"}, {"id": "train/bee/001.png"}]',
    "JSON with one list": '{"ids": ["train/bee/000.png", "train/bee/001.png"]}',
    "JSON lines": '{"file_name": "train/bee/000.png"}\n{"file_name": "train/bee/001.png"}\n',
    "comments": "# by the legal department\n\ntrain/bee/000.png   \n  train/bee/001.png\n#\n",
    "comments before a header": "# export\nid;why\ntrain/bee/000.png;x\ntrain/bee/001.png;y\n",
    "Excel's separator": "sep=;\r\nID;Why\r\ntrain/bee/000.png;x\r\ntrain/bee/001.png;y\r\n",
    "a mark and semicolons": "\ufeffID;Name\r\ntrain/bee/000.png;Müller\r\ntrain/bee/001.png;Öz\r\n",
    "pipes": "id|why\ntrain/bee/000.png|x\ntrain/bee/001.png|y\n",
    "addresses": "file:///data/photos/train/bee/000.png\ntrain/bee/00%31.png\n",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms_that_programs_write(text: str, listed: Listed) -> None:
    assert listed(text, root=Path("/here/photos")) == ["bee/000.png", "bee/001.png"]


def test_a_name_may_begin_with_a_bracket(listed: Listed) -> None:
    assert "first [1].png, line 1" in refusal(lambda: listed("[1].png\n[2].png\n")), "not taken for broken JSON"


def test_comments_are_logged_and_need_a_space(images: Images, listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that begins with # must not be passed over in silence."""
    listed("# one\ntrain/bee/000.png\n# two\n")
    assert "lines that begin with # are comments: 2, the first is line 1" in capsys.readouterr().err
    assert "first #1.png, line 2" in refusal(lambda: listed("train/bee/000.png\n#1.png\n"))
    assert "first # 1.png, line 3" in refusal(lambda: listed("id,why\ntrain/bee/000.png,a\n# 1.png,b\n"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("['train/bee/000.png', 'b.png']\n", "begins with [ and is no JSON"),
        ('[["train/bee/000.png"]]', "JSON that is no list of names or of objects"),
        ('[{"image": "train/bee/000.png"}, {"foto": "a"}]', "line 2 has no id"),
        ('[{"foto": "train/bee/000.png"}]', "JSON whose objects have no id: foto"),
        ("train/bee/\n", "it is a folder of 3 images"),
        (b"%PDF-1.4\n%\xe2\xe3\x00\x00", "zero bytes"),
    ],
)
def test_forms_that_are_refused(content: str | bytes, reason: str, listed: Listed) -> None:
    assert reason in refusal(lambda: listed(content))
