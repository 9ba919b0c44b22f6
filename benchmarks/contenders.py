"""The compared programs: the usual ways to decode a clip and extract its features, and this project's way."""

import contextlib
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from measure import Work
from torchvision.transforms import v2

from features.backbones.loading import load_backbone
from features.backbones.weights import weights_digest
from features.encoders.openvino_convert import convert_network
from features.extraction.jobs import DecodeJob, ExtractJob
from features.spec import FeatureSpec, Preprocessing, Sampling
from features.types import Clip
from features.video.sampling import select_rows, window_starts

FRAMES = 12


def main_spec(precision: str, weights: Path | None) -> FeatureSpec:
    return FeatureSpec(
        sampling=Sampling(frames=FRAMES),
        preprocessing=Preprocessing(),
        backbone="mobilenet_v2",
        weights="pretrained" if weights else "random",
        weights_digest=weights_digest("mobilenet_v2", weights),
        pooling="avg",
        precision=precision,
    )


def opencv_frames(file: Path, count: int) -> list[np.ndarray]:
    """Read frames with the usual OpenCV loop, which seeks to each frame."""
    capture = cv2.VideoCapture(str(file))
    total, images = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), []
    for i in range(count):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int((i + 0.5) * total / count))
        found, image = capture.read()
        if found:
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return images


def opencv_windows(file: Path, sampling: Sampling) -> None:
    """Read sliding windows with the usual OpenCV loop, which seeks to each frame of each window."""
    capture = cv2.VideoCapture(str(file))
    rate = capture.get(cv2.CAP_PROP_FPS)
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / rate
    for start in window_starts(0, seconds, sampling):
        for i in range(FRAMES):
            instant = start + (i + 0.5) * (sampling.window_seconds or 1) / FRAMES
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(instant * rate))
            found, image = capture.read()
            if found:
                cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (224, 224))


def opencv_all(clip: Clip) -> None:
    capture = cv2.VideoCapture(str(clip.file))
    while capture.read()[0]:
        pass


def opencv_grab(clip: Clip) -> None:
    capture = cv2.VideoCapture(str(clip.file))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = {int((i + 0.5) * total / FRAMES) for i in range(FRAMES)}
    for i in range(total):
        capture.grab()
        if i in wanted:
            capture.retrieve()


def decode_only(clip: Clip) -> None:
    """Decode on one thread only what every decoder must decode, without conversion: a lower bound."""
    with av.open(str(clip.file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        packets = [packet for packet in container.demux(stream) if packet.size]
        ticks = np.array(sorted(packet.pts for packet in packets))
        rows = select_rows(ticks.astype(float), float(ticks[0]), float(ticks[-1] + 1), Sampling(frames=FRAMES))
        wanted = set(ticks[rows[:, 0]].tolist())
        last = max(wanted)
        for packet in packets:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            if any(frame.pts >= last for frame in stream.decode(packet)):
                return
        stream.decode(None)


def make_naive(weights: Path | None) -> Work:
    """Return the usual extraction: OpenCV seeking, torchvision transforms, one frame at a time through the network."""
    network = load_backbone("mobilenet_v2", weights)
    prepare = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(256, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    @torch.inference_mode()
    def work(clip: Clip) -> list[np.ndarray]:
        return [network(prepare(image)[None]).mean((2, 3)).numpy() for image in opencv_frames(clip.file, FRAMES)]

    return work


def make_video_features(checkout: Path, folder: Path) -> Work:
    """Return the timm extractor of github.com/v-iashin/video_features with its defaults.

    It re-encodes the file and runs one frame at a time through the network.
    """
    sys.path.insert(0, str(checkout))
    import timm
    from models.timm.extract_timm import ExtractTIMM
    from omegaconf import OmegaConf

    create = timm.create_model
    timm.create_model = lambda name, pretrained: create(name, pretrained=False)  # its weights need a download
    settings = {
        "feature_type": "timm",
        "model_name": "mobilenetv2_100",
        "batch_size": 1,
        "extraction_fps": None,
        "extraction_total": FRAMES,
        "device": "cpu",
        "on_extraction": "save_numpy",
        "output_path": str(folder / "vf"),
        "tmp_path": str(folder / "vf_tmp"),
        "keep_tmp_files": False,
        "show_pred": False,
    }
    with contextlib.redirect_stdout(None):
        extractor = ExtractTIMM(OmegaConf.create(settings))

    def work(clip: Clip) -> None:
        with contextlib.redirect_stdout(None):
            extractor.extract(str(clip.file))

    return work


def make_whole_job(precision: str, weights: Path | None, runtime: str, folder: Path) -> Work:
    spec = main_spec(precision, weights)
    (folder / precision).mkdir(exist_ok=True)
    converted = convert_network(spec, weights, folder / precision) if runtime == "openvino" else None
    work = ExtractJob(DecodeJob(spec), weights, converted).start()
    return lambda clip: work(clip, lambda: None)


def make_encode_only(precision: str, weights: Path | None, runtime: str, folder: Path) -> Work:
    spec = main_spec(precision, weights)
    (folder / precision).mkdir(exist_ok=True)
    converted = convert_network(spec, weights, folder / precision) if runtime == "openvino" else None
    encoder = ExtractJob(DecodeJob(spec), weights, converted).make_encoder()
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, 224, 224, 3), dtype=np.uint8)
    return lambda clip: encoder.encode(frames)
