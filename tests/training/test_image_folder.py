"""The source `folder`: trees, tars of them, and every way in which either can be broken."""

import io
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from training.data import PrepareParams, prepare_dataset
from training.errors import DataError
from training.image_folder import read_image_folder


def pack(tree, archive, mode="w", top=""):
    with tarfile.open(archive, mode) as tar:
        tar.add(tree, arcname=top or ".", recursive=True)
    return archive


def pack_names(archive, content, names, mode="w"):
    """A tar with exactly these member names, in this order."""
    with tarfile.open(archive, mode) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def names_below(tree):
    return sorted(file.relative_to(tree).as_posix() for file in tree.rglob("*") if file.is_file())


def prepared(path):
    return prepare_dataset(PrepareParams("folder", str(path), 0.5, 0))


def rejected(path, classes):
    with pytest.raises(DataError) as caught:
        read_image_folder(path, classes)
    return str(caught.value)


def test_a_image_keeps_its_pixels_and_gets_the_label_of_its_folder(tree, classes):
    parts = read_image_folder(tree, classes)
    images, labels = parts["train"]
    assert images.shape == (20, 32, 32, 3)
    assert (images.dtype.name, labels.dtype.name) == ("uint8", "int64")
    assert labels.tolist() == [index for index in range(10) for _ in range(2)]
    assert parts["test"][1].tolist() == list(range(10))
    with Image.open(tree / "train" / "cat" / "0001.png") as picture:
        assert np.array_equal(images[2 * classes.index("cat") + 1], np.asarray(picture))


def test_a_grey_image_becomes_rgb(tree, classes):
    Image.new("L", (32, 32), 77).save(tree / "test" / "ship" / "0000.png")
    images, _ = read_image_folder(tree, classes)["test"]
    assert (images[classes.index("ship")] == 77).all()


@pytest.mark.parametrize("top", ["", "./", "cifar", "./some/where"])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_gives_the_same_digest_as_its_tree(tree, tmp_path, mode, top):
    from_tree = prepared(tree)
    from_tar = prepared(pack(tree, tmp_path / "pictures.tar", mode, top))
    assert np.array_equal(from_tree.train_images, from_tar.train_images)
    assert from_tree.digest == from_tar.digest


def test_the_order_of_an_archive_does_not_matter(tree, tmp_path, classes):
    names = names_below(tree)
    archive = tmp_path / "pictures.tar"
    with tarfile.open(archive, "w") as tar:
        for name in np.random.default_rng(1).permutation(names):
            tar.add(tree / name, arcname=name)
    assert prepared(archive).digest == prepared(tree).digest


def test_hidden_files_and_files_beside_the_parts_are_passed_over_in_both_forms(tree, tmp_path):
    before = prepared(tree).digest
    for name in ("train/.DS_Store", "train/cat/._0000.png", "labels.txt"):
        (tree / name).write_text("no picture")
    assert prepared(tree).digest == before
    assert prepared(pack(tree, tmp_path / "pictures.tar", top="cifar10")).digest == before


@pytest.mark.parametrize("form", ["tree", "tar"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(lambda root: shutil.rmtree(root / "test"), "test", id="no test part"),
        pytest.param(lambda root: shutil.rmtree(root / "train" / "frog"), "frog", id="a class less"),
        pytest.param(lambda root: (root / "train/frog").rename(root / "train/toad"), "toad", id="an unknown class"),
        pytest.param(lambda root: (root / "train/x.png").write_bytes(b"x"), "x.png", id="a picture without a class"),
        pytest.param(
            lambda root: (root / "test/dog/0000.png").write_bytes(b"x"), "test/dog/0000.png", id="no picture at all"
        ),
        pytest.param(
            lambda root: (root / "test/dog/0000.png").write_bytes(b""), "test/dog/0000.png", id="an empty picture"
        ),
    ],
)
def test_a_broken_tree_is_rejected_by_name_as_tree_and_as_tar(tree, tmp_path, classes, form, harm, message):
    harm(tree)
    source = tree if form == "tree" else pack(tree, tmp_path / "pictures.tar")
    text = rejected(source, classes)
    assert message in text
    assert str(source) in text


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_rejected_by_name(tree, classes, png, kind):
    whole = png(5, kind=kind)
    for cut in (len(whole) // 4, len(whole) // 2, len(whole) - 200):
        (tree / "train" / "bird" / "0001.png").write_bytes(whole[:cut])
        assert "train/bird/0001.png" in rejected(tree, classes)


def test_a_missing_source_is_rejected_by_name(tmp_path, classes):
    assert "nowhere.tar" in rejected(tmp_path / "nowhere.tar", classes)


@pytest.mark.parametrize(
    "content", [b"", b"hello", bytes(10_240), b"\x1f\x8b" + bytes(50), b"\xfd7zXZ\x00" + bytes(50)]
)
def test_a_file_that_is_no_tar_is_rejected_by_name(tmp_path, classes, content):
    source = tmp_path / "pictures.tar"
    source.write_bytes(content)
    assert "pictures.tar" in rejected(source, classes)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_truncated_compressed_archive_is_rejected_wherever_it_is_cut(tree, tmp_path, classes, mode):
    whole = pack(tree, tmp_path / "whole.tar", mode).read_bytes()
    for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[: int(share * len(whole))])
        assert "cut.tar" in rejected(cut, classes), share


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_damaged_compressed_archive_is_rejected(tree, tmp_path, classes, mode):
    whole = pack(tree, tmp_path / "whole.tar", mode).read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        damaged = bytearray(whole)
        start = int(share * len(whole))
        damaged[start : start + 50] = bytes(50)
        (tmp_path / "damaged.tar").write_bytes(damaged)
        assert "damaged.tar" in rejected(tmp_path / "damaged.tar", classes), share


def test_a_plain_archive_is_rejected_wherever_it_is_cut_even_between_two_members(tmp_path, png, classes):
    # Every class is complete early on, so that only the end of the archive tells that more had been there.
    names = [f"{part}/{name}/{index}.png" for index in range(3) for part in ("train", "test") for name in classes]
    whole_file = pack_names(tmp_path / "whole.tar", png(0), names)
    whole = whole_file.read_bytes()
    with tarfile.open(whole_file) as tar:
        starts = [member.offset for member in tar]
        content_end = tar.offset
    assert len(read_image_folder(whole_file, classes)["train"][0]) == 30
    for start in (starts[25], starts[40], starts[59], content_end):
        for cut_at in (start - 600, start - 1, start, start + 1, start + 300, start + 511):
            cut = tmp_path / "cut.tar"
            cut.write_bytes(whole[:cut_at])
            assert "cut.tar" in rejected(cut, classes), cut_at


def test_a_damaged_header_in_the_middle_is_rejected(tmp_path, png, classes):
    names = [f"{part}/{name}/{index}.png" for index in range(2) for part in ("train", "test") for name in classes]
    archive = pack_names(tmp_path / "pictures.tar", png(0), names)
    with tarfile.open(archive) as tar:
        start = tar.getmembers()[35].offset
    damaged = bytearray(archive.read_bytes())
    damaged[start + 150] ^= 0xFF  # the header's checksum field
    archive.write_bytes(damaged)
    assert "pictures.tar" in rejected(archive, classes)


@pytest.mark.parametrize(
    "name", ["../train/cat/1.png", "train/../../cat/1.png", "/train/cat/1.png", "/etc/passwd", "train/cat/../../../x"]
)
def test_a_path_that_climbs_out_of_the_archive_is_rejected(tmp_path, png, classes, name):
    names = [f"{part}/{label}/0.png" for part in ("train", "test") for label in classes]
    text = rejected(pack_names(tmp_path / "pictures.tar", png(0), [*names, name]), classes)
    assert name in text
    assert "climbs out" in text


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_in_an_archive_is_rejected(tree, tmp_path, classes, kind):
    archive = pack(tree, tmp_path / "pictures.tar")
    with tarfile.open(archive, "a") as tar:
        member = tarfile.TarInfo("train/cat/9999.png")
        member.type, member.linkname = kind, "train/cat/0000.png"
        tar.addfile(member)
    text = rejected(archive, classes)
    assert "train/cat/9999.png" in text
    assert "link or a device" in text


@pytest.mark.parametrize("form", ["tree", "tar"])
def test_a_file_too_large_for_an_image_is_rejected_before_it_is_read(tree, tmp_path, classes, form):
    size = 600_000_001
    if form == "tree":
        source = tree
        with (tree / "train/cat/9999.png").open("wb") as file:
            file.truncate(size)
    else:
        source = pack(tree, tmp_path / "pictures.tar")
        with tarfile.open(source, "a") as tar:
            member = tarfile.TarInfo("train/cat/9999.png")
            tar.addfile(member)
            start = tar.getmembers()[-1].offset
        with source.open("r+b") as file:  # sparse: the header claims the bytes, the file has none of them
            member.size = size
            file.seek(start)
            file.write(member.tobuf())
            file.truncate(file.tell() + size + 10_240)
    text = rejected(source, classes)
    assert "train/cat/9999.png" in text
    assert "has 600,000,001 bytes, expected at most 600,000,000" in text


def test_the_same_image_from_two_top_folders_is_rejected(tree, tmp_path, classes):
    archive = pack(tree, tmp_path / "pictures.tar", top="first")
    with tarfile.open(archive, "a") as tar:
        tar.add(tree, arcname="second")
    assert "there twice" in rejected(archive, classes)


def test_the_command_writes_the_data_file_from_a_folder(tree, tmp_path, stage):
    done = stage("data", "prepare.source=folder", f"prepare.path={tree}", "prepare.validation_fraction=0.5")
    assert done.returncode == 0, done.stderr
    assert "automobile" in done.stdout
    with np.load(tmp_path / "data" / "cifar10.npz") as file:
        assert str(file["digest"]) == prepared(tree).digest


@pytest.mark.parametrize("harm", ["missing class", "truncated archive"])
def test_the_command_rejects_a_broken_source_and_leaves_the_old_file_alone(tree, tmp_path, stage, harm):
    old = tmp_path / "data" / "cifar10.npz"
    if harm == "missing class":
        shutil.rmtree(tree / "train" / "horse")
        source = tree
    else:
        source = pack(tree, tmp_path / "pictures.tar.xz", "w:xz")
        source.write_bytes(source.read_bytes()[:-3000])
        old.parent.mkdir()
        old.write_bytes(b"of an earlier run")
    done = stage("data", "prepare.source=folder", f"prepare.path={source}", "prepare.validation_fraction=0.5")
    assert done.returncode == 1
    assert "DataError" in done.stderr
    assert str(source) in done.stderr  # on one line, however long
    assert "Traceback" not in done.stderr + done.stdout
    if harm == "missing class":
        assert "horse" in done.stderr
        assert not old.exists()
    else:
        assert old.read_bytes() == b"of an earlier run"
        assert [file.name for file in old.parent.iterdir()] == ["cifar10.npz"]
