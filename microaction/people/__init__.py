"""People in video: who is seen where and when, and which part of the frame shows each of them. Knows no torch, no Ray.

looks (a detector on a frame every two seconds) → shots, tracks and people → one crop per person and shot
"""

from microaction.people.crops import Body, PersonCrop, crop_around
from microaction.people.detector import Detection, Detector, DetectorError, MoveNet
from microaction.people.following import Person, Tracklet, VideoPeople, find_people
from microaction.people.looks import Look, SeenPerson, look_at, take_looks
from microaction.people.scale import ClipLook, load_clip_look, look_at_clip, measure_scale

__all__ = [
    "Body",
    "ClipLook",
    "Detection",
    "Detector",
    "DetectorError",
    "Look",
    "MoveNet",
    "Person",
    "PersonCrop",
    "SeenPerson",
    "Tracklet",
    "VideoPeople",
    "crop_around",
    "find_people",
    "load_clip_look",
    "look_at",
    "look_at_clip",
    "measure_scale",
    "take_looks",
]
