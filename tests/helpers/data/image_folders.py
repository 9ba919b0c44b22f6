"""Folders of numbered images, and small copies of the UCF101 and HMDB51 folder layouts."""

from pathlib import Path

import cv2

from tests.helpers.data.videos import numbered_frame, write_numbered


def write_images(folder: Path, count: int, *, suffix: str = "jpg", first: int = 1, name: str = "frame_{}") -> Path:
    """Write `count` images. Image i shows the numbered frame i, even if its file name starts at another number."""
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{name.format(first + i)}.{suffix}"), numbered_frame(i))
    return folder


def write_ucf101(root: Path, *, groups: int = 2) -> Path:
    """Write `videos/` with two classes named as in UCF101, and `lists/` with two splits and CRLF line ends."""
    names = []
    for folder, word in (("Basketball", "Basketball"), ("HandstandPushups", "HandStandPushups")):
        (root / "videos" / folder).mkdir(parents=True)
        for group in range(1, groups + 1):
            names.append(f"{folder}/v_{word}_g{group:02d}_c01.avi")
            write_numbered(root / "videos" / names[-1], 6, codec="mpeg4")
    lists = root / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 Basketball\r\n2 HandstandPushups\r\n")
    for split, tested in ((1, "_g01_"), (2, "_g02_")):
        train = [f"{name} {1 if name[0] == 'B' else 2}\r\n" for name in names if tested not in name]
        (lists / f"trainlist{split:02d}.txt").write_text("".join(train), newline="")
        (lists / f"testlist{split:02d}.txt").write_text("".join(f"{n}\r\n" for n in names if tested in n), newline="")
    return root


def write_hmdb51(root: Path) -> Path:
    """Write `frames/` with two classes, each clip a folder of images, and `lists/` with one split."""
    (root / "lists").mkdir(parents=True)
    for label, suffix in (("dribble", "png"), ("throw", "jpg")):
        names = [f"#20_Rhythm_{label}_u_nm_np1_fr_goo_{i}" for i in range(3)]
        for name in names:
            write_images(root / "frames" / label / name, 11, suffix=suffix)
        lines = [f"{name}.avi {kind} \n" for name, kind in zip(names, (1, 2, 0), strict=True)]
        (root / "lists" / f"{label}_test_split1.txt").write_text("".join(lines))
    return root
