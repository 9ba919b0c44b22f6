"""Drawn people: poses, actions that move them, and drawing from joints to pixels.

Lengths and places on the ground are in statures (1 = the height of a person), angles in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hazard.synthetic.scenes import FloatArray, Image, Scene


class Pose(NamedTuple):
    """Pose of a body seen from its side; angles are in degrees, and 0 means standing upright with the arms down."""

    x: float = 0.0  # statures, hips in front of the place that the body stands on
    lift: float = 0.0  # statures, height of the lowest point above the ground
    tilt: float = 0.0  # of the whole body, forward
    lean: float = 0.0  # of the upper body against the legs, forward
    thighs: tuple[float, float] = (0.0, 0.0)  # forward; near side, far side
    knees: tuple[float, float] = (4.0, 4.0)  # flexion
    arms: tuple[float, float] = (6.0, -6.0)  # forward, against the torso
    elbows: tuple[float, float] = (12.0, 12.0)  # flexion
    distance: float = 0.0  # statures, walked forward so far


@dataclass(frozen=True)
class Actor:
    """A person: place, appearance and the parameters of the pose functions."""

    pose_function: Callable[[float, Actor], Pose]
    place: float  # statures right of the middle of the picture
    nearness: float  # 0 at the back of the ground, 1 at the front
    yaw: float  # 0 faces right, 180 left, 90 away from the camera
    turn_distance: float  # statures from the middle at which the person turns round
    tempo: float  # 1 is normal
    amplitude: float  # size of the movements, 1 is normal
    phase: float  # in cycles
    onset_seconds: float  # time at which a fall begins
    variant: int  # picks one of several ways
    colors: Mapping[str, FloatArray]


def interpolate_poses(a: Pose, b: Pose, weight: float) -> Pose:
    """Interpolate joint by joint from `a` (weight 0) to `b` (weight 1)."""

    def interpolate(p: float, q: float) -> float:
        return p + (q - p) * weight

    scalars = [interpolate(p, q) for p, q in zip(a[:4], b[:4], strict=True)]
    pairs = [(interpolate(p[0], q[0]), interpolate(p[1], q[1])) for p, q in zip(a[4:8], b[4:8], strict=True)]
    return Pose(*scalars, *pairs, distance=interpolate(a.distance, b.distance))  # type: ignore[arg-type, misc]


def _smooth_step(value: float, start: float, length: float) -> float:
    """Return 0 before `start`, 1 after `start + length`, and a smooth transition between them."""
    w = min(max((value - start) / length, 0.0), 1.0)
    return w * w * (3 - 2 * w)


def _smooth_bump(cycle: float, start: float, length: float) -> float:
    """Return a smooth bump from 0 to 1 and back within each cycle; `start` and `length` are in cycles."""
    w = ((cycle - start) % 1.0) / length
    return math.sin(math.pi * w) ** 2 if w < 1 else 0.0


# ---- actions ------------------------------------------------------------------------------------------------------

STANDING = Pose()
GUARD = Pose(0, 0, 4, 8, (20, -24), (24, 20), (48, 66), (112, 100))
BUCKLED = Pose(0.08, 0, 6, 24, (62, 30), (105, 95), (40, 62), (35, 25))
CROUCHED = Pose(0, 0, 4, 32, (95, 70), (128, 118), (48, 30), (60, 40))
STOOPED = Pose(0, 0, 0, 62, (8, -6), (14, 10), (58, 70), (14, 10))
RECOILED = Pose(-0.13, 0, -9, -18, (26, -14), (30, 22), (70, 84), (84, 70))
LYING = (
    Pose(0.42, 0, 88, 0, (4, -6), (14, 6), (-8, 172), (8, 6)),  # face down
    Pose(-0.40, 0, -87, -2, (42, 4), (78, 6), (12, -2), (6, 2)),  # on the back
    Pose(0.16, 0, 60, 62, (38, 30), (75, 70), (34, 30), (4, 10)),  # folded up on the knees
)
BLOWS = (
    Pose(0.15, 0, 8, 16, (32, -34), (34, 12), (78, 50), (4, 110)),  # near fist
    Pose(0.16, 0, 8, 18, (34, -36), (36, 10), (42, 80), (108, 4)),  # far fist
    Pose(0.05, 0, -10, -8, (98, -10), (16, 14), (30, 44), (90, 96)),  # kick
    Pose(0.14, 0, 10, 22, (30, -36), (30, 14), (128, 40), (46, 104)),  # from above
)
STILL_POSES = (STANDING, STANDING, GUARD, BUCKLED, CROUCHED, STOOPED, RECOILED, *LYING, *LYING, *BLOWS)


def _make_stride(time: float, actor: Actor, swing: float, knee: float, rate: float) -> Pose:
    """Return a pose with legs and arms in antiphase.

    The walked distance follows from the swing of the legs, so that feet hardly slide.
    """
    rate, swing = rate * actor.tempo, swing * actor.amplitude
    turns = 2 * math.pi * (rate * time + actor.phase)
    distance = 4 * 0.49 * math.sin(math.radians(swing)) * rate * time
    s, c = math.sin(turns), math.cos(turns - 0.35)
    knees = (6 + knee * max(c, 0) ** 1.3, 6 + knee * max(-c, 0) ** 1.3)
    return Pose(distance=distance, thighs=(swing * s + 3, 3 - swing * s), knees=knees, arms=(-swing * s, swing * s))


def walk(time: float, actor: Actor) -> Pose:
    """Walk at an easy pace, with at least one foot on the ground."""
    return _make_stride(time, actor, 24, 48, 0.9)._replace(lean=3, elbows=(16, 16))


def run(time: float, actor: Actor) -> Pose:
    """Run with bent elbows and a moment in the air at each stride."""
    stride = _make_stride(time, actor, 40, 92, 1.35)
    flight = 0.05 * abs(math.sin(2 * math.pi * (1.35 * actor.tempo * time + actor.phase)))
    return stride._replace(lift=flight, tilt=6, lean=10, elbows=(88, 88))


def fall(time: float, actor: Actor) -> Pose:
    """Walk, run or stand, lose balance at the onset, fall down and writhe."""
    gait = (walk, hold, run)[actor.variant % 3]
    before = gait(min(time, actor.onset_seconds), replace(actor, variant=0))
    down = min(max((time - actor.onset_seconds) * actor.tempo / 0.62, 0.0), 1.0)
    lying = _writhe(LYING[actor.variant // 3 % len(LYING)], time, actor, _smooth_step(down, 0.7, 0.3))
    buckled, lying = (pose._replace(distance=before.distance) for pose in (BUCKLED, lying))
    return interpolate_poses(interpolate_poses(before, buckled, _smooth_step(down, 0, 0.6)), lying, down**1.8)


def _writhe(pose: Pose, time: float, actor: Actor, strength: float) -> Pose:
    turns = 2 * math.pi * (1.6 * actor.tempo * time + actor.phase)
    near, far = (36 * actor.amplitude * strength * (1 + math.sin(turns + shift)) for shift in (0, 2))
    return pose._replace(
        lean=pose.lean - near / 2,
        thighs=(pose.thighs[0] + near, pose.thighs[1] + far),
        knees=(pose.knees[0] + 1.3 * near, pose.knees[1] + 1.3 * far),
        arms=(pose.arms[0] + far, pose.arms[1] + near),
    )


def fight(time: float, actor: Actor) -> Pose:
    """Hit and be hit in turn; the opponent does the same half a cycle later."""
    cycle = 2.0 * actor.tempo * time + actor.phase
    blow = BLOWS[(actor.variant + int(cycle)) % len(BLOWS)]
    shift = 0.05 * math.sin(2 * math.pi * (0.6 * time + actor.phase))
    guard = GUARD._replace(x=shift, thighs=(20 + 90 * shift, -24 + 60 * shift))
    return interpolate_poses(
        interpolate_poses(guard, blow, _smooth_bump(cycle, 0, 0.48)), RECOILED, 0.85 * _smooth_bump(cycle, 0.62, 0.36)
    )


def hold(time: float, actor: Actor) -> Pose:
    """Hold a pose that the other actions pass through, breathing and swaying a little, as a bystander."""
    sway = math.sin(2 * math.pi * (0.3 * time + actor.phase))
    pose = STILL_POSES[actor.variant % len(STILL_POSES)]
    return pose._replace(x=0.0, lean=pose.lean + 1.2 * sway, arms=(pose.arms[0] + 2 * sway, pose.arms[1] - sway))


ACTIONS: dict[str, Callable[[float, Actor], Pose]] = {"walk": walk, "run": run, "fall": fall, "fight": fight}
HAZARDOUS_ACTIONS = {"fight", "fall"}
TWO_PERSON_ACTIONS = {"fight"}  # two people face one another


def _make_person(
    rng: np.random.Generator, pose_function: Callable[[float, Actor], Pose], *, turn_distance: float, seconds: float
) -> Actor:
    skin = np.array([[236, 196, 168], [198, 148, 112], [128, 86, 62]])[rng.integers(3)] * rng.uniform(0.9, 1.05)
    clothes = {part: rng.uniform(25, 215, 3) for part in ("shirt", "trousers")}
    dark = {"shoe": rng.uniform(15, 70, 3), "hair": np.array([60, 42, 30]) * rng.uniform(0.4, 2.2)}
    return Actor(
        pose_function=pose_function,
        place=rng.uniform(-0.75, 0.75) * turn_distance,
        nearness=rng.uniform(),
        turn_distance=turn_distance,
        yaw=180.0 * rng.integers(2) + rng.uniform(-22, 22),
        tempo=rng.uniform(0.88, 1.15),
        amplitude=rng.uniform(0.9, 1.1),
        phase=rng.uniform(),
        onset_seconds=seconds * rng.uniform(0.2, 0.42),
        variant=int(rng.integers(1 << 16)),
        colors={"skin": skin, **clothes, **dark},
    )


def _face_each_other(rng: np.random.Generator, one: Actor, other: Actor) -> list[Actor]:
    gap, bound = rng.uniform(0.27, 0.34), max(one.turn_distance - 0.4, 0.0)
    middle, yaw = float(np.clip(one.place, -bound, bound)), rng.uniform(-20, 20)
    opposite = replace(other, nearness=one.nearness, tempo=one.tempo, phase=one.phase + 0.5)
    return [replace(one, place=middle - gap, yaw=yaw), replace(opposite, place=middle + gap, yaw=180 + yaw)]


def cast_people(rng: np.random.Generator, action: str, *, turn_distance: float, seconds: float) -> list[Actor]:
    """Return the people of one clip, from back to front; their number has the same distribution for all actions."""
    count = int(rng.choice((1, 2, 3), p=(0.3, 0.5, 0.2)))
    lead_count = 2 if action in TWO_PERSON_ACTIONS else 1
    companions = [hold, hold, hold if action in HAZARDOUS_ACTIONS else ACTIONS[action]]
    extras = [companions[rng.integers(len(companions))] for _ in range(count - lead_count)]
    people = [
        _make_person(rng, p, turn_distance=turn_distance, seconds=seconds)
        for p in [ACTIONS[action]] * lead_count + extras
    ]
    if action in TWO_PERSON_ACTIONS:
        people[:2] = _face_each_other(rng, people[0], people[1])
    elif len(people) > 1 and rng.uniform() < 0.6:  # people also stand close to each other without fighting
        people[-2:] = _face_each_other(rng, people[-2], people[-1])
    return sorted(people, key=lambda actor: actor.nearness)


# ---- from joints to pixels ----------------------------------------------------------------------------------------

HIP, NECK, FACE, HAIR = range(4)
# each side: hip joint, knee, ankle, toe, shoulder, elbow, hand; near side from 4, far side from 11
BODY_PARTS = [  # (joint, joint, radius, radius, material)
    (NECK, HIP, 0.068, 0.070, "shirt"),
    (NECK, FACE, 0.034, 0.034, "skin"),
    (HAIR, HAIR, 0.070, 0.070, "hair"),
    (FACE, FACE, 0.060, 0.060, "skin"),
    *chain.from_iterable(
        [
            (side + 4, side, 0.052, 0.056, "shirt"),
            (side, side + 1, 0.062, 0.044, "trousers"),
            (side + 1, side + 2, 0.044, 0.030, "trousers"),
            (side + 2, side + 3, 0.030, 0.022, "shoe"),
            (side + 4, side + 5, 0.042, 0.033, "shirt"),
            (side + 5, side + 6, 0.032, 0.026, "skin"),
        ]
        for side in (4, 11)
    ),
]
PART_JOINTS = np.array([part[:2] for part in BODY_PARTS])  # (P, 2)
PART_RADII = np.array([part[2:4] for part in BODY_PARTS])  # (P, 2)
PART_MATERIALS = [part[4] for part in BODY_PARTS]
CAP_ANGLES = np.linspace(-math.pi / 2, math.pi / 2, 7)


def _find_bone_end(origin: Sequence[float], length: float, angle: float, side: float) -> tuple[float, float, float]:
    """Return the end of a bone from `origin`; the angle is from straight down, positive forward."""
    radians = math.radians(angle)
    return origin[0] + length * math.sin(radians), origin[1] - length * math.cos(radians), side


def compute_joints(pose: Pose) -> FloatArray:
    """Return the joints (18, 3) of a pose as forward, up and towards the near side; the lowest is on the ground."""
    up = 180 - pose.tilt - pose.lean
    hip = (0.0, 0.0, 0.0)
    neck = _find_bone_end(hip, 0.30, up, 0)
    head = _find_bone_end(neck, 0.105, up - 4, 0)
    joints = [hip, neck, _find_bone_end(head, 0.018, up - 90, 0), _find_bone_end(head, 0.016, up + 60, 0)]
    for limb, sign in enumerate((1.0, -1.0)):
        thigh = pose.thighs[limb] - pose.tilt
        shin = thigh - pose.knees[limb]
        knee = _find_bone_end(hip, 0.245, thigh, 0.055 * sign)
        ankle = _find_bone_end(knee, 0.245, shin, 0.055 * sign)
        pointed = 75 * _smooth_step(pose.tilt, 30, 50)  # feet are stretched when lying face down
        arm = pose.arms[limb] - pose.tilt - pose.lean
        elbow = _find_bone_end(neck, 0.17, arm, 0.115 * sign)
        hand = _find_bone_end(elbow, 0.17, arm + pose.elbows[limb], 0.10 * sign)
        toe = _find_bone_end(ankle, 0.095, shin + 86 - pointed, 0.06 * sign)
        joints += [
            (0, 0, 0.045 * sign),
            knee,
            ankle,
            toe,
            _find_bone_end(neck, 0.02, up + 180, 0.085 * sign),
            elbow,
            hand,
        ]
    points = np.array(joints)
    points[:, 0] += pose.x
    points[:, 1] += pose.lift + 0.03 - points[:, 1].min()
    return points


def _find_place_and_yaw(actor: Actor, distance: float) -> tuple[float, float]:
    """Return place and yaw of a person who has walked `distance`; people turn round at the edges of the picture."""
    direction = math.cos(math.radians(actor.yaw))
    quarter = (actor.place + distance * direction) / actor.turn_distance * (math.pi / 2)
    place = actor.turn_distance * 2 / math.pi * math.asin(math.sin(quarter))
    turned = min(max(0.5 - 3 * math.cos(quarter), 0.0), 1.0)
    return place, actor.yaw + 180 * turned


class DrawnBody(NamedTuple):
    """An actor at one instant, in pixels of the picture before camera shake."""

    joints: FloatArray  # (J, 2)
    camera_nearness: FloatArray  # (J,) towards the camera, statures
    ground: float  # y of the feet in the picture
    scale: float  # pixels per stature
    colors: Mapping[str, FloatArray]


def place_body(actor: Actor, time: float, scene: Scene) -> DrawnBody:
    """Return where an actor's joints are in the picture at `time` in seconds."""
    pose = actor.pose_function(time, actor)
    place, yaw = _find_place_and_yaw(actor, pose.distance)
    points = compute_joints(pose)
    sin, cos = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
    across, nearer = points[:, 0] * cos + points[:, 2] * sin, points[:, 2] * cos - points[:, 0] * sin
    width, height = scene.size
    scale = scene.stature_pixels * (0.85 + 0.15 * actor.nearness)
    ground = height * (scene.ground + (0.94 - scene.ground) * actor.nearness)
    screen = np.stack([width / 2 + scale * (across + place), ground - scale * (points[:, 1] - 0.22 * nearer)], axis=1)
    return DrawnBody(screen, nearer, ground, scale, actor.colors)


def _outline_parts(joints: FloatArray, scale: float) -> NDArray[np.int32]:
    """Return the outlines (P, 14, 2) of the body parts in sixteenths of a pixel."""
    a, b = joints[PART_JOINTS[:, 0]], joints[PART_JOINTS[:, 1]]  # (P, 2)
    along = np.arctan2(b[:, 1] - a[:, 1], b[:, 0] - a[:, 0])[:, None]  # (P, 1)
    arcs = np.concatenate([along + math.pi + CAP_ANGLES, along + CAP_ANGLES], axis=1)  # (P, 14)
    radii = np.repeat(PART_RADII * scale, len(CAP_ANGLES), axis=1)
    centres = np.repeat(np.stack([a, b], axis=1), len(CAP_ANGLES), axis=1)  # (P, 14, 2)
    outline = centres + radii[..., None] * np.stack([np.cos(arcs), np.sin(arcs)], axis=-1)
    return np.asarray(np.round(outline * 16), np.int32)


def draw_shadow(mask: Image, body: DrawnBody) -> None:
    """Draw the shadow of a body, an ellipse under the feet."""
    left, right = body.joints[:, 0].min(), body.joints[:, 0].max()
    axes = (int(8 * (right - left + 0.12 * body.scale)), int(16 * 0.055 * body.scale))
    cv2.ellipse(mask, (int(8 * (left + right)), int(16 * body.ground)), axes, 0, 0, 360, (64,) * 3, -1, cv2.LINE_AA, 4)


def draw_body(image: Image, body: DrawnBody) -> None:
    """Draw a body, its parts from the farthest to the nearest."""
    depth = body.camera_nearness[PART_JOINTS].mean(axis=1)
    shades = 0.86 + 0.14 * np.clip(depth / 0.09, -1, 1)
    outlines = _outline_parts(body.joints, body.scale)
    for part in np.argsort(depth, kind="stable"):
        color = np.minimum(body.colors[PART_MATERIALS[part]] * shades[part], 255).tolist()
        cv2.fillConvexPoly(image, outlines[part], color, cv2.LINE_AA, 4)
