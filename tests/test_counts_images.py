"""Counts that know their images: the value, masks, image folders and COCO annotations."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import steelyard.counts._coco as coco_module
from steelyard import class_weights
from steelyard.counts import ClassCounts, count_classes

relaxed = settings(deadline=None, max_examples=50)
MASKS = np.array([[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]], [[2, 2, 2], [2, 2, 9]]])
OF_MASKS = ClassCounts([0, 1, 2, 9], [11, 1, 5, 1], images=[2, 1, 1, 1], image_pixels=[12, 6, 6, 6], num_images=3)

# 1 The value


def test_it_knows_its_images_and_hands_out_copies() -> None:
    before = OF_MASKS.to_json()
    assert (OF_MASKS.images.tolist(), OF_MASKS.image_pixels.tolist(), OF_MASKS.num_images) == (
        [2, 1, 1, 1],
        [12, 6, 6, 6],
        3,
    )
    assert OF_MASKS.images.dtype == OF_MASKS.image_pixels.dtype == torch.int64
    OF_MASKS.images[0] = OF_MASKS.image_pixels[0] = 99
    assert OF_MASKS.to_json() == before
    plain = ClassCounts([0], [1])
    assert (plain.images, plain.image_pixels, plain.num_images) == (None, None, None)
    assert ClassCounts([0], [1], images=[1], num_images=2).image_pixels is None


@pytest.mark.parametrize(
    "counts", [OF_MASKS, ClassCounts("ab", [3, 0], images=[2, 0], num_images=7), ClassCounts([], [])]
)
def test_round_trips(counts: ClassCounts, tmp_path: Path) -> None:
    counts.save(tmp_path / "counts.json")
    for again in (
        ClassCounts.load(tmp_path / "counts.json"), pickle.loads(pickle.dumps(counts)), copy.deepcopy(counts),
        eval(repr(counts)),
    ):  # fmt: skip
        assert again == counts
        assert hash(again) == hash(counts)
        assert again.num_images == counts.num_images


def test_json_without_images_still_loads() -> None:
    old = '{"kind": "steelyard.ClassCounts", "version": 1, "total": 4, "classes": [0, 1], "counts": [3, 1]}'
    assert ClassCounts.from_json(old) == ClassCounts([0, 1], [3, 1])
    assert "images" not in ClassCounts([0, 1], [3, 1]).to_json()


def test_different_images_make_different_counts() -> None:
    base = {"images": [2], "image_pixels": [9], "num_images": 3}
    others = [
        base | change for change in ({"images": [1]}, {"image_pixels": [8]}, {"num_images": 4}, {"image_pixels": None})
    ]
    values = [ClassCounts([0], [4]), *(ClassCounts([0], [4], **given) for given in (base, *others))]
    assert len(set(values)) == 6


def test_addition_adds_images_by_class() -> None:
    other = ClassCounts([1, 3], [4, 2], images=[2, 1], image_pixels=[7, 5], num_images=2)
    assert OF_MASKS + other == ClassCounts(
        [0, 1, 2, 3, 9], [11, 5, 5, 2, 1], images=[2, 3, 1, 1, 1], image_pixels=[12, 13, 6, 5, 6], num_images=5
    )
    assert sum([OF_MASKS, other]) == other + OF_MASKS
    for unlike in (ClassCounts([0], [1]), ClassCounts([0], [1], images=[1], num_images=1)):
        with pytest.raises(
            ValueError, match="'other' must be single-label counts of int labels with images and their pixels"
        ):
            OF_MASKS + unlike


def test_the_count_of_nothing_changes_nothing() -> None:
    nothing = ClassCounts([], [])
    for counts in (OF_MASKS, ClassCounts("ab", [1, 2]), ClassCounts([0], [1], negatives=[3]), nothing):
        assert nothing + counts == counts + nothing == counts
    assert (nothing.total, nothing.num_classes, nothing.kind) == (0, 0, "counts of nothing")
    assert str(nothing).endswith("0 classes, 0 rows")
    assert nothing.counts.shape == (0,)
    with pytest.raises(
        ValueError, match="class_weights: 'counts' must be counts of at least one class; got the count of"
    ):
        class_weights(nothing)
    with pytest.raises(ValueError, match="at least one count"):
        ClassCounts([0], [])
    with pytest.raises(ValueError, match="at least one class"):
        ClassCounts([], [], negatives=[])


def test_the_table_names_images() -> None:
    assert str(OF_MASKS).split("\n")[:2] == [
        "class  count  images    share  largest/count",
        "0         11       2  61.11 %           1.00",
    ]
    assert "4 classes, 18 pixels in 3 images, 11 : 1" in str(OF_MASKS)
    assert "2 classes, 3 labels in 1 image, " in str(ClassCounts("ab", [2, 1], images=[1, 1], num_images=1))
    assert "<th>images</th>" in OF_MASKS._repr_html_()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": [1]}, ValueError, "'images' must be one number per class, 2 of them; got 1"),
        (
            {"images": [4, 1]},
            ValueError,
            "between 1 and the count of the class, .* got 4 for a count of 3 at position 0",
        ),
        ({"images": [0, 1]}, ValueError, "got 0 for a count of 3 at position 0"),
        ({"images": [1, 0.5]}, ValueError, "'images' must be whole numbers"),
        (
            {"image_pixels": [2, 1]},
            ValueError,
            "at least the pixels of the class; got 2 for a count of 3 at position 0",
        ),
        ({"image_pixels": [9]}, ValueError, "'image_pixels' must be one number per class"),
        ({"num_images": 1}, ValueError, "'num_images' must be at least 2, the images that contain a class; got int 1"),
        ({"num_images": None}, TypeError, "'num_images' must be a whole number where 'images' is given; got None"),
        ({"num_images": True}, TypeError, "'num_images' must be a whole number"),
    ],
)
def test_bad_images(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"images": [2, 1], "image_pixels": [9, 5], "num_images": 3}
    ClassCounts([0, 1], [3, 1], **good)
    with pytest.raises(error, match=rf"ClassCounts: .*{message}"):
        ClassCounts([0, 1], [3, 1], **(good | change))


# 2 Masks in memory


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("make", [lambda x: x, torch.from_numpy, list, lambda x: [torch.from_numpy(m) for m in x]])
def test_masks(make: Any, dtype: type) -> None:
    told: list[tuple[int, int | None]] = []
    assert count_classes(make(MASKS.astype(dtype)), progress=lambda *now: told.append(now)) == OF_MASKS
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_masks_of_different_sizes() -> None:
    counts = count_classes([np.zeros((2, 3), int), np.ones((1, 4), int)])
    assert counts == ClassCounts([0, 1], [6, 4], images=[1, 1], image_pixels=[6, 4], num_images=2)


def test_masks_of_yes_and_no() -> None:
    counts = count_classes(MASKS == 2)
    assert counts == ClassCounts([0, 1], [13, 5], images=[3, 1], image_pixels=[18, 6], num_images=3)


def test_ignored_pixels_are_no_pixels_of_their_image() -> None:
    counts = count_classes(MASKS, ignore_index=9)
    assert counts == ClassCounts([0, 1, 2], [11, 1, 5], images=[2, 1, 1], image_pixels=[12, 6, 5], num_images=3)
    assert count_classes(MASKS, num_classes=4, ignore_index=9).images.tolist() == [2, 1, 1, 0]
    everything = count_classes(np.array([[[9, 9]], [[0, 9]]]), ignore_index=9)
    assert everything == ClassCounts([0], [1], images=[1], image_pixels=[1], num_images=2)


@relaxed
@given(st.lists(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=3, max_size=3), min_size=1))
def test_masks_by_hand(masks: list[list[list[int]]]) -> None:
    counts = count_classes(np.array(masks), ignore_index=4) if {0, 1, 2, 3} & set(np.unique(masks)) else None
    flat = [[label for row in mask for label in row if label != 4] for mask in masks]
    pixels = Counter(label for mask in flat for label in mask)
    if counts is None:
        assert not pixels
        return
    assert counts.classes == tuple(sorted(pixels))
    assert counts.counts.tolist() == [pixels[c] for c in counts.classes]
    assert counts.images.tolist() == [sum(c in mask for mask in flat) for c in counts.classes]
    assert counts.image_pixels.tolist() == [sum(len(mask) for mask in flat if c in mask) for c in counts.classes]
    assert counts.num_images == len(masks)


def test_median_frequency_is_that_of_its_authors() -> None:
    """The f of a class is its pixels over those of the images that have it (Eigen and Fergus, §6.3.2)."""
    f = np.array([11 / 12, 1 / 6, 5 / 6, 1 / 6])
    assert class_weights(OF_MASKS, "median_frequency").tolist() == pytest.approx(np.median(f) / f)
    n = np.array([11, 1, 5, 1])
    assert class_weights(OF_MASKS.counts, "median_frequency").tolist() == pytest.approx(np.median(n) / n)
    with_zero = count_classes(MASKS, num_classes=10)
    weights = class_weights(with_zero, "median_frequency", missing="zero")
    assert weights[[0, 1, 2, 9]].tolist() == pytest.approx(np.median(f) / f)
    assert weights[3] == 0


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            torch.zeros(2, 1, 3, 3, dtype=torch.long),
            ValueError,
            r"got int64 of shape \(2, 1, 3, 3\). Leave out the channel",
        ),
        (torch.zeros(2, 3, 3), ValueError, r"masks \(N, H, W\) of integers; got float64 of shape \(2, 3, 3\)"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], TypeError, "got float64 of shape .2, 2. at image 0. Convert colours"),
        (np.zeros((0, 2, 2), int), ValueError, "at least one label; got none"),
    ],
)
def test_what_is_no_mask(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        count_classes(source)


def test_where_a_pixel_is_out_of_range() -> None:
    with pytest.raises(IndexError, match=r"labels in \[0, 3\); got 9 at image 2, pixel \(1, 2\). A label that stands"):
        count_classes(MASKS, num_classes=3)


# 3 Masks in files


def save(folder: Path, suffix: str, masks: Any = MASKS) -> Path:
    folder.mkdir(exist_ok=True)
    for number, mask in enumerate(masks):
        path = folder / f"{number}{suffix}"
        if suffix == ".npy":
            np.save(path, mask)
        elif suffix == ".p.png":
            image = Image.fromarray(mask.astype(np.uint8)).convert("P")
            image = Image.new("P", (mask.shape[1], mask.shape[0]))
            image.putpalette([255 - value for value in range(256) for _ in range(3)])  # the colours are not the indices
            image.putdata(mask.reshape(-1).tolist())
            image.save(path)
        else:
            Image.fromarray(mask.astype(np.uint16 if suffix == ".tif" else np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".p.png", ".npy", ".tif", ".bmp"])
def test_masks_in_files(tmp_path: Path, suffix: str) -> None:
    folder = save(tmp_path / "masks", suffix)
    for source in (folder, str(folder), folder / f"*{suffix}", tmp_path / "*" / f"[0-9]{suffix}"):
        told: list[tuple[int, int | None]] = []
        assert count_classes(source, progress=lambda *now, told=told: told.append(now)) == OF_MASKS
        assert told[-1] == (3, 3)
    assert count_classes(folder / f"0{suffix}").num_images == 1


def test_sixteen_bits(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        Image.fromarray(np.array([[0, 40000]], dtype=np.uint16)).save(tmp_path / f"a{suffix}")
        assert count_classes(tmp_path / f"a{suffix}").classes == (0, 40000)


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    Image.fromarray(np.array([[1, 3]], dtype=np.uint8)).save(tmp_path / "b.png")
    assert count_classes(tmp_path) == ClassCounts(
        [0, 1, 3], [1, 2, 1], images=[1, 2, 1], image_pixels=[2, 4, 2], num_images=2
    )


def test_many_masks_in_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "masks.npy", MASKS)
    assert count_classes(tmp_path / "masks.npy") == OF_MASKS
    with pytest.raises(IndexError, match=r"got 9 at '.*masks.npy', image 2, pixel \(1, 2\)"):
        count_classes(tmp_path / "masks.npy", num_classes=3)


def test_masks_that_cannot_be_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "masks", ".png")
    Image.fromarray(np.arange(40_000, dtype=np.uint16).reshape(200, 200)).save(folder / "1.png")
    whole = (folder / "1.png").read_bytes()
    cases = {
        whole[: len(whole) // 2]: r"a readable image; got '.*1.png': .*truncated",
        b"no image": r"a readable image; got '.*1.png': cannot identify image file it",
        b"": r"a readable image; got '.*1.png'",
    }
    for content, message in cases.items():
        (folder / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=message) as told:
            count_classes(folder)
        assert "\n" not in str(told.value)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "1.png")
    with pytest.raises(ValueError, match=r"one class index per pixel.*got colours \(RGB\) at '.*1.png'. Convert it"):
        count_classes(folder)
    frames = [Image.new("L", (2, 2)), Image.new("L", (2, 2), 1)]
    frames[0].save(folder / "1.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"got 2 frames at '.*1.tif'"):
        count_classes(folder / "1.tif")
    (folder / "1.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"a readable array; got '.*1.npy'"):
        count_classes(folder / "1.npy")
    np.save(folder / "1.npy", np.zeros(3, int))
    with pytest.raises(
        ValueError, match=r"got shape \(3,\) at '.*1.npy'. Labels that are no masks: count_classes\(numpy"
    ):
        count_classes(folder / "1.npy")
    np.save(folder / "1.npy", np.zeros((3, 2)))
    with pytest.raises(TypeError, match=r"got float64 of shape \(3, 2\) at '.*1.npy'"):
        count_classes(folder / "1.npy")


def test_masks_have_no_columns_and_are_no_jpeg(tmp_path: Path) -> None:
    folder = save(tmp_path / "masks", ".png")
    with pytest.raises(TypeError, match="'target' must be None for masks, which have no columns; got 'y'"):
        count_classes(folder / "*.png", "y")
    Image.new("L", (2, 2)).save(folder / "3.jpg")
    with pytest.raises(ValueError, match="JPEG changes class indices"):
        count_classes(folder / "3.jpg")
    with pytest.raises(
        ValueError, match=r"'.*3.jpg' directly in it. Images need a folder for each class; masks must not"
    ):
        count_classes(folder)


def test_without_pillow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = save(tmp_path / "masks", ".png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        ImportError, match=r"reading masks needs Pillow. Install it with: pip install 'steelyard\[data\]'"
    ):
        count_classes(folder)


# 4 Image folders


def image_folder(root: Path) -> Path:
    for name, count in {"dog": 3, "cat": 1, "eel": 0}.items():
        (root / name / "deep").mkdir(parents=True)
        for number in range(count):
            (root / name / ("deep" if number else "") / f"{number}.{'JPEG' if number else 'png'}").touch()
    (root / "dog" / "notes.txt").touch()
    (root / "README.md").touch()
    return root


def test_an_image_folder_is_counted_without_opening_an_image(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    counts = count_classes(image_folder(tmp_path), progress=lambda *now: told.append(now))
    assert counts == ClassCounts(["cat", "dog", "eel"], [1, 3, 0])
    assert counts.classes == ("cat", "dog", "eel")  # the order of ImageFolder's class indices
    assert told[-1] == (4, 4)
    (tmp_path / "_noise").mkdir()
    assert count_classes(tmp_path).classes == ("_noise", "cat", "dog", "eel")


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a folder of class folders with images, of masks or of tables; got .* none of"
    ):
        count_classes(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="none of these"):
        count_classes(tmp_path)
    (tmp_path / "a" / "part.parquet").touch()
    with pytest.raises(ValueError, match=r"'target' must be the column of the tables in '.*' that holds the labels"):
        count_classes(tmp_path)
    root = image_folder(tmp_path / "images")
    (root / "mask.png").touch()
    with pytest.raises(
        ValueError, match=r"got '.*', which has both 'mask.png' and images in 'dog'. For the masks alone"
    ):
        count_classes(root)
    (root / "mask.png").unlink()
    (root / ".ipynb_checkpoints").mkdir()
    assert count_classes(root).num_classes == 3
    (root / ".ipynb_checkpoints" / "a.png").touch()
    with pytest.raises(ValueError, match=r"images in the hidden '.*.ipynb_checkpoints'. ImageFolder would take it"):
        count_classes(root)
    with pytest.raises(ValueError, match="a folder with tables where a target is given"):
        count_classes(root, "y")


# 5 COCO

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 9, "name": "eel"}]
COCO = {
    "info": {"year": 2024, "note": 'a "]" }'},
    "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (10, 11, 12, 13)],
    "annotations": [
        {"id": number, "image_id": image, "category_id": category, "bbox": [0.5, 1, 2, 3], "iscrowd": number % 2}
        for number, (image, category) in enumerate([(10, 7), (10, 7), (11, 7), (11, 2), (13, 2)])
    ],
    "licenses": [],
    "categories": CATEGORIES,
}
OF_COCO = ClassCounts(["cat", "dog", "eel"], [2, 3, 0], images=[2, 2, 0], num_images=4)


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    for options in ({}, {"indent": 2}, {"separators": (",", ":")}, {"sort_keys": True}):
        path.write_text(json.dumps(COCO, **options), encoding="utf-8")
        told: list[tuple[int, int | None]] = []
        counts = count_classes(path, progress=lambda *now, told=told: told.append(now))
        assert counts == OF_COCO
        assert counts.classes == ("cat", "dog", "eel")  # by id, not as they are listed
        assert told[-1] == (5, 5)
    (tmp_path / "more.json").write_text(json.dumps(COCO), encoding="utf-8")
    assert count_classes(tmp_path / "*.json") == OF_COCO + OF_COCO


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 50, 10_000])
def test_coco_in_pieces(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_module, "_PIECE", piece)
    path = tmp_path / "instances.json"
    path.write_text("\n " + json.dumps({"version": 12.5, **COCO, "end": 123}, indent=1) + "\n", encoding="utf-8-sig")
    assert count_classes(path) == OF_COCO


def test_many_annotations_of_few_images(tmp_path: Path) -> None:
    """Images of a class are kept as numbers that are made distinct now and then."""
    order = random.Random(0)
    pairs = [(order.randrange(300), order.randrange(3)) for _ in range(30_000)]
    data = {
        "annotations": [{"image_id": f"i{image}", "category_id": category} for image, category in pairs],
        "images": [{"id": f"i{image}"} for image in range(301)],
        "categories": [{"id": c, "name": name} for c, name in enumerate("abc")],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    counts = count_classes(path)
    assert counts.counts.tolist() == [sum(category == c for _, category in pairs) for c in range(3)]
    assert counts.images.tolist() == [len({image for image, category in pairs if category == c}) for c in range(3)]
    assert counts.num_images == 301


def changed(**changes: Any) -> str:
    return json.dumps({key: value for key, value in (COCO | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(categories=None), "no 'categories'. Without them the classes are not known."),
        (changed(categories=[]), "no 'categories'"),
        (changed(images=None), "no 'images'"),
        (changed(annotations=None), "no 'annotations'"),
        (changed(annotations=[]), "no annotation at all"),
        (
            changed(categories=[*CATEGORIES, {"id": 1, "name": "cat"}]),
            "category 3, 'cat' with id 1, whose name or id comes",
        ),
        (
            changed(categories=[*CATEGORIES, {"id": 2, "name": "cow"}]),
            "category 3, 'cow' with id 2, whose name or id comes",
        ),
        (changed(images=[*COCO["images"], {"id": 10}]), "image 4 with id 10, which comes twice"),
        (changed(categories=CATEGORIES[:1]), "category_id 2 in annotation 3, which is not listed"),
        (changed(images=COCO["images"][:3]), "image_id 13 in annotation 4, which is not listed"),
        (changed(annotations=[{"image_id": 10}]), "annotation 0 with no 'category_id'"),
        (changed(annotations=[{"image_id": 10, "category_id": None}]), "annotation 0 with None 'category_id'"),
        (changed(annotations=[[1]]), r"list \[1\] for annotation 0"),
        ("[]", "expecting '{' at character 0"),
        ("", "expecting '{' at character 0"),
        ('{"info": [1 2]}', "expecting ',' at character 12"),
        ('{"images": [{"id": 1},]}', "expecting value at character 22"),
        ('{"images"}', "expecting ':' at character 9"),
        ("{1: 2}", "expecting a name in quotes"),
        ('{"info": 1} x', "extra data at character 12"),
        (changed()[:-200], r"at character \d+"),
        (json.dumps(COCO).replace("file_name", "file\n_name"), "invalid control character at at character"),
    ],
)
def test_what_is_no_coco(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"'source' must be COCO annotations; got '.*a.json': .*{message}") as told:
        count_classes(path)
    assert "\n" not in str(told.value)


def test_coco_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(COCO).encode().replace(b"dog", b"d\xffg"))
    with pytest.raises(ValueError, match="byte 0xff is not UTF-8"):
        count_classes(path)
    with pytest.raises(TypeError, match="'target' must be None for COCO annotations"):
        count_classes(path, "y")
